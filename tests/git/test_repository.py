"""The bare repositories: opening, reading, and moving refs by compare-and-swap."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from gitserver import commit
from support.stockgit import git

from mypaas_git.errors import GitRefused, RefRefused, RepositoryMissing, TreeRefused
from mypaas_git.git.reflocks import STALE, clear_stale
from mypaas_git.git.repository import Repositories, Repository
from mypaas_git.names import ServiceName

HELLO = ServiceName("hello")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A working copy that has one of everything."""
    work = tmp_path / "work"
    commit(work, {"Dockerfile": "FROM scratch\n", "d/sub/deep.txt": "deep\n"})
    (work / "link").symlink_to("Dockerfile")
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{'7' * 40},module")
    git(work, "add", "link")
    git(work, "commit", "-q", "-m", "\n  Subject é\x1b[31m\n\nbody")
    git(work, "tag", "-a", "v1", "-m", "one")
    git(work, "tag", "-a", "v2", "v1", "-m", "a tag of a tag")
    return work


def rev(work: Path, name: str) -> str:
    return git(work, "rev-parse", name).stdout.strip()


def test_names(tmp_path: Path) -> None:
    """Only what bears a service's name counts as a repository."""
    repositories = Repositories(tmp_path / "repos")
    assert repositories.names() == []
    assert not repositories.exists(HELLO)
    with pytest.raises(RepositoryMissing, match="first push"):
        repositories.open(HELLO)
    for name in ("hello", "abc"):
        repositories.open_or_create(ServiceName(name)).close()
    (tmp_path / "repos/Bad_Name.git").mkdir()
    assert repositories.names() == ["abc", "hello"]


def test_created_whole(tmp_path: Path) -> None:
    """A new repository is bare, has HEAD at main, and leaves nothing else behind."""
    repositories = Repositories(tmp_path)
    repositories.open_or_create(HELLO).close()
    assert git(tmp_path / "hello.git", "symbolic-ref", "HEAD").stdout == "refs/heads/main\n"
    assert git(tmp_path / "hello.git", "rev-parse", "--is-bare-repository").stdout == "true\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "hello.git"]
    with repositories.open_or_create(HELLO) as again:
        assert again.refs() == {}


def test_created_once(tmp_path: Path) -> None:
    """Several first pushes at once make one repository (T60)."""
    repositories = Repositories(tmp_path)
    threads = [
        threading.Thread(target=lambda: repositories.open_or_create(HELLO).close())
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(tmp_path.iterdir()) == [tmp_path / "hello.git"]


def test_at(work: Path, tmp_path: Path) -> None:
    """Any bare repository of stock git's can be opened, packed refs and all."""
    git(tmp_path, "clone", "-q", "--bare", str(work), "bare.git")
    git(tmp_path / "bare.git", "pack-refs", "--all")
    with Repository.at(tmp_path / "bare.git") as bare:
        assert bare.ref("refs/heads/main") == rev(work, "main")
        assert set(bare.refs()) == {"refs/heads/main", "refs/tags/v1", "refs/tags/v2"}
    with pytest.raises(RepositoryMissing):
        Repository.at(tmp_path)


def test_a_config_that_cannot_be_read(tmp_path: Path) -> None:
    """Whoever set a size as git alone takes it learns in which file, and what to write."""
    git(tmp_path, "init", "-q", "--bare")
    git(tmp_path, "config", "core.bigFileThreshold", "100m")
    with pytest.raises(GitRefused, match=r"/config cannot be read .*'100m'.*104857600"):
        Repository.at(tmp_path)


def test_move_ref(tmp_path: Path) -> None:
    """A ref moves only from where it was said to be (T22)."""
    one, two, main = "1" * 40, "2" * 40, "refs/heads/main"
    with Repositories(tmp_path).open_or_create(HELLO) as repository:
        for old, new in ((one, two), (one, None), (two, one)):
            with pytest.raises(RefRefused, match="moved meanwhile"):
                repository.move_ref(main, old, new)
        repository.move_ref(main, None, one)
        with pytest.raises(RefRefused, match="moved meanwhile"):
            repository.move_ref(main, None, two)
        assert repository.ref(main) == one
        repository.move_ref(main, one, two)
        git(tmp_path / "hello.git", "pack-refs", "--all", check=False)
        repository.move_ref(main, two, one)
        repository.move_ref(main, one, None)
        assert repository.ref(main) is None
        assert repository.refs() == {}


def test_move_ref_in_the_way(tmp_path: Path) -> None:
    """Names that cannot be and names that are in each other's way are refused (T25)."""
    with Repositories(tmp_path).open_or_create(HELLO) as repository:
        repository.move_ref("refs/tags/a", None, "1" * 40)
        repository.move_ref("refs/tags/b/c", None, "1" * 40)
        for name in ("refs/tags/a/b", "refs/tags/b"):
            with pytest.raises(RefRefused, match="in its way"):
                repository.move_ref(name, None, "1" * 40)
        for name in ("refs/../x", "x", "refs/heads/" + "x" * 300):
            with pytest.raises(RefRefused):
                repository.move_ref(name, None, "1" * 40)
        assert sorted(repository.refs()) == ["refs/tags/a", "refs/tags/b/c"]
        assert not list(tmp_path.rglob("*.lock"))


@pytest.mark.parametrize("held", ["refs/heads/main.lock", "packed-refs.lock"])
def test_locked(tmp_path: Path, held: str) -> None:
    """A lock file that somebody may hold is named and stays, a crash's is removed (T28)."""
    with Repositories(tmp_path).open_or_create(HELLO) as repository:
        main = "refs/heads/main"
        repository.move_ref(main, None, "1" * 40)
        git(repository.path, "pack-refs", "--all", check=False)
        (repository.path / "packed-refs").write_text(f"{'1' * 40} {main}\n")
        lock = repository.path / held
        lock.touch()
        for _ in range(2):
            with pytest.raises(RefRefused, match=f"locked.*{lock.name}.*again in a minute"):
                repository.move_ref(main, "1" * 40, None)
        assert lock.exists()
        then = time.time() - STALE - 1
        os.utime(lock, (then, then))
        repository.move_ref(main, "1" * 40, None)
        assert repository.refs() == {}
        assert not list(repository.path.rglob("*.lock"))


def test_a_lock_is_stale_for_one_only(tmp_path: Path) -> None:
    """Of many who find a crash's lock at once none removes the lock of another (T28, T60)."""
    lock = tmp_path / "x.lock"
    lock.touch()
    os.utime(lock, (1, 1))
    made: list[bool] = []

    def take() -> None:
        while True:
            try:
                lock.touch(exist_ok=False)
            except FileExistsError:
                if not clear_stale(lock, tmp_path):
                    return
            else:
                made.append(True)
                return

    threads = [threading.Thread(target=take) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [True]


def test_what_is_acknowledged_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository, a ref and a tag outlive a power cut: files and the names of them (T67)."""
    synced: list[str] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append(str(path.relative_to(tmp_path)))
        fsync(descriptor)

    def fresh() -> set[str]:
        seen = set(synced)
        synced.clear()
        return seen

    monkeypatch.setattr("os.fsync", watch)
    with Repositories(tmp_path).open_or_create(HELLO) as repository:
        assert "." in synced
        assert {Path(path).name for path in fresh()} >= {"HEAD", "config", "refs", "heads"}
        repository.move_ref("refs/heads/main", None, "1" * 40)
        assert fresh() == {"hello.git/refs/heads/main.lock", "hello.git/refs/heads"}
        repository.move_ref("refs/tags/a/b", None, "1" * 40)
        tags = {f"hello.git/refs{path}" for path in ("", "/tags", "/tags/a", "/tags/a/b.lock")}
        assert fresh() >= tags
        repository.move_ref("refs/tags/a/b", "1" * 40, None)
        assert fresh() >= {"hello.git/refs", "hello.git"}


def test_one_of_many_wins(tmp_path: Path) -> None:
    """Of many that move a branch from the same place at once, one succeeds (T60)."""
    repositories = Repositories(tmp_path)
    won: list[str] = []

    def race(new: str) -> None:
        with repositories.open_or_create(HELLO) as repository:
            try:
                repository.move_ref("refs/heads/main", None, new)
            except RefRefused:
                return
            won.append(new)

    threads = [threading.Thread(target=race, args=(f"{n:040x}",)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with repositories.open(HELLO) as repository:
        assert won == [repository.ref("refs/heads/main")]


def test_read_file(work: Path) -> None:
    """Files are read whole; nothing else is taken for a file (T31)."""
    with Repository.at(work / ".git") as repository:
        head = rev(work, "main")
        assert repository.read_file(head, "Dockerfile", 100) == b"FROM scratch\n"
        assert repository.read_file(head, "d/sub/deep.txt", 5) == b"deep\n"
        assert repository.read_file(rev(work, "v2"), "d/sub/deep.txt", 5) == b"deep\n"
        for missing in ("x", "d/x", "x/y", "Dockerfile/x", "link/x", "../x", "", "d//sub"):
            assert repository.read_file(head, missing, 100) is None
        for path, what in (("d", "directory"), ("link", "symlink"), ("module", "submodule")):
            with pytest.raises(TreeRefused, match=f"{path} is a {what}"):
                repository.read_file(head, path, 100)
        with pytest.raises(TreeRefused, match="13 bytes long: at most 12"):
            repository.read_file(head, "Dockerfile", 12)


def test_tree_of(work: Path) -> None:
    """Tags are peeled; what is no commit, or is not there, is refused (T21)."""
    with Repository.at(work / ".git") as repository:
        top = rev(work, "main^{tree}")
        assert repository.tree_of(rev(work, "main")) == top
        assert repository.tree_of(rev(work, "v2")) == top
        for wrong in (top, rev(work, "main:Dockerfile"), "1" * 40, "main", "", "../../x"):
            with pytest.raises(GitRefused):
                repository.tree_of(wrong)


def test_commit_subject(work: Path) -> None:
    """The subject is one clean line, or nothing where there is no message."""
    with Repository.at(work / ".git") as repository:
        assert repository.commit_subject(rev(work, "main")) == "Subject é"
    head = git(work, "cat-file", "commit", "main").stdout.partition("\n\n")[0] + "\n"
    bare = git(work, "hash-object", "-t", "commit", "-w", "--stdin", stdin=head).stdout.strip()
    with Repository.at(work / ".git") as repository:
        assert repository.commit_subject(bare) == ""


def test_damaged_object(work: Path) -> None:
    """An object that rotted on the disk is named (T70)."""
    blob = rev(work, "main:Dockerfile")
    path = work / ".git/objects" / blob[:2] / blob[2:]
    other = rev(work, "main:d/sub/deep.txt")
    path.chmod(0o644)
    path.write_bytes((work / ".git/objects" / other[:2] / other[2:]).read_bytes())
    with Repository.at(work / ".git") as repository, pytest.raises(GitRefused, match="damaged"):
        repository.read_file(rev(work, "main"), "Dockerfile", 100)
