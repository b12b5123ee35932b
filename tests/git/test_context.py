"""The build context: the same files as git's own archive, and a real builder takes it."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tracemalloc
import uuid
from collections.abc import Iterator
from pathlib import Path

import packs
import pytest
from gitserver import commit
from packs import BLOB, COMMIT, TREE, entry, object_id, pack
from support.stockgit import git

from mypaas_git.errors import GitRefused, TreeRefused
from mypaas_git.git.ingest import ingest
from mypaas_git.git.repository import Repositories, Repository
from mypaas_git.names import ServiceName

Entry = tuple[bytes, int, str, bytes]


def entries(archive: bytes) -> dict[str, Entry]:
    """Name → type, mode, link and contents, read by Python's tarfile."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive), encoding="utf-8") as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            data = file.read() if file else b""
            assert member.name not in found
            found[member.name] = (member.type, member.mode & 0o755, member.linkname, data)
    return found


def archive(work: Path, rev: str = "HEAD") -> bytes:
    """The context of a commit of ``work``."""
    with Repository.at(work / ".git") as repository:
        return b"".join(repository.context(git(work, "rev-parse", rev).stdout.strip()))


def test_like_git_archive(tmp_path: Path) -> None:
    """Files, modes, symlinks and odd names come out as of ``git archive`` (T34)."""
    work = tmp_path / "work"
    names = [
        "a",
        "d/e/f",
        "é/ü",
        "x" * 200,
        "y" * 90 + "/" + "z" * 120,
        "a b:c",
        "n\new",
        "-rf",
    ]
    commit(work, {name: name * 3 for name in names} | {"empty": "", "block": "b" * 512})
    (work / "run").write_text("#!/bin/sh\n")
    (work / "run").chmod(0o755)
    (work / "link").symlink_to("d/e/f")
    (work / "out").symlink_to("/etc/passwd")
    (work / ("l" * 150)).symlink_to("t" * 150)
    Path(work / b"raw\xff\xfe".decode("utf-8", "surrogateescape")).write_text("raw")
    commit(work, {})
    theirs = subprocess.run(
        ["git", "archive", "HEAD"], cwd=work, capture_output=True, check=True
    ).stdout
    wanted = {
        name: (kind, 0o755 if kind == tarfile.SYMTYPE else mode, link, data)
        for name, (kind, mode, link, data) in entries(theirs).items()
    }
    assert entries(archive(work)) == wanted


def test_modes_and_times(tmp_path: Path) -> None:
    """Modes do not depend on anybody's umask, and times are the commit's."""
    work = tmp_path / "work"
    commit(work, {"d/a": "a"})
    when = int(git(work, "show", "-s", "--format=%ct").stdout)
    with tarfile.open(fileobj=io.BytesIO(archive(work))) as tar:
        members = {m.name: (m.mode, m.mtime, m.uid, m.gid) for m in tar}
    assert members == {"d": (0o755, when, 0, 0), "d/a": (0o644, when, 0, 0)}


def test_empty_commit(tmp_path: Path) -> None:
    """A commit without files is an archive without entries."""
    work = tmp_path / "work"
    commit(work, {})
    assert entries(archive(work)) == {}


def test_dockerignore(tmp_path: Path) -> None:
    """What the commit's .dockerignore excludes is left out, save what the builder reads."""
    work = tmp_path / "work"
    files = [
        "Dockerfile",
        "a",
        "logs/x",
        "deep/er/keep",
        "deep/er/x",
        "deep/z",
        "sub/.dockerignore",
    ]
    commit(work, dict.fromkeys(files, "x"))
    commit(work, {".dockerignore": "*\n!deep/er/keep\n!logs\nlogs/*\n"})
    names = set(entries(archive(work)))
    assert names == {
        ".dockerignore", "Dockerfile", "deep", "deep/er", "deep/er/keep", "logs",
    }  # fmt: skip


def test_bad_dockerignore(tmp_path: Path) -> None:
    """A .dockerignore that cannot be read is refused before anything is sent."""
    work = tmp_path / "work"
    commit(work, {".dockerignore": "a\n[\n"})
    with Repository.at(work / ".git") as repository:
        head = git(work, "rev-parse", "HEAD").stdout.strip()
        with pytest.raises(TreeRefused, match=r"^\.dockerignore:2: "):
            repository.context(head)
        with pytest.raises(GitRefused):
            repository.context("1" * 40)


def test_submodule(tmp_path: Path) -> None:
    """A submodule is refused in clear words, unless it is ignored (T35)."""
    work = tmp_path / "work"
    commit(work, {"a": "a"})
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{'7' * 40},lib/module")
    git(work, "commit", "-q", "-m", "submodule")
    with pytest.raises(TreeRefused, match="lib/module is a submodule"):
        archive(work)
    (work / ".dockerignore").write_text("lib\n")
    git(work, "add", ".dockerignore")
    git(work, "commit", "-q", "-m", "ignored")
    assert "lib/module" not in entries(archive(work))


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repositories(tmp_path).open_or_create(ServiceName("hello")) as made:
        yield made


def unchecked(path: Path, *items: tuple[bytes, bytes, bytes]) -> str:
    """Write a commit of one tree as any other git server might let it in; its id."""
    tree = packs.tree(*items)
    ids: list[str] = []
    for kind, data in (("tree", tree), ("commit", packs.commit(object_id(TREE, tree)))):
        done = subprocess.run(
            ["git", "hash-object", "-w", "--literally", "-t", kind, "--stdin"],
            cwd=path, input=data, capture_output=True, check=True,
        )  # fmt: skip
        ids.append(done.stdout.decode().strip())
    return ids[-1]


POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 12345\n"
)


def test_lfs_pointer(tmp_path: Path) -> None:
    """A file that Git LFS keeps is refused in clear words, unless it is ignored (T35)."""
    work = tmp_path / "work"
    commit(work, {"models/a.bin": POINTER, "notes": f"a pointer:\n{POINTER}"})
    with pytest.raises(TreeRefused) as refused:
        archive(work)
    assert str(refused.value) == (
        "models/a.bin is a pointer of Git LFS, whose files cannot be pushed here yet: commit "
        "the file itself (git lfs untrack, then git add --renormalize), or name it in "
        ".dockerignore"
    )
    commit(work, {".dockerignore": "models\n"})
    assert set(entries(archive(work))) == {".dockerignore", "notes"}


def test_large_files(tmp_path: Path) -> None:
    """A large file, whole or as a delta, passes through without being in memory."""
    work = tmp_path / "work"
    commit(work, {"x": "x"})
    noise = os.urandom(24 << 20)
    versions = {}
    for text in (noise, b"changed" + noise[1 << 20 :]):
        (work / "big").write_bytes(text)
        versions[commit(work, {})] = text
    git(work, "repack", "-adq")
    stored = next((work / ".git/objects/pack").glob("*.pack")).stat().st_size
    assert stored < 30 << 20, "git made no delta"
    for tip, text in versions.items():
        assert entries(archive(work, tip))["big"][3] == text
        with Repository.at(work / ".git") as repository:
            tracemalloc.start()
            for piece in repository.context(tip):
                assert len(piece) < 1 << 20
            assert tracemalloc.get_traced_memory()[1] < 6 << 20
            tracemalloc.stop()


@pytest.mark.parametrize("name", [b"..", b".", b"a/../../b", b".git", b""])
def test_names_are_checked_again(tmp_path: Path, name: bytes) -> None:
    """A repository that stock git fills may hold anything: no name leads out (T30)."""
    work = tmp_path / "work"
    commit(work, {"a": "a"})
    blob = bytes.fromhex(git(work, "rev-parse", "HEAD:a").stdout.strip())
    tip = unchecked(work, (b"100644", name, blob))
    with (
        Repository.at(work / ".git") as repository,
        pytest.raises(TreeRefused, match="has a name that"),
    ):
        b"".join(repository.context(tip))


def test_a_tree_that_lies(tmp_path: Path) -> None:
    """An entry whose object is of another kind than its mode says is refused (T33)."""
    work = tmp_path / "work"
    commit(work, {"d/a": "a"})
    tree = bytes.fromhex(git(work, "rev-parse", "HEAD:d").stdout.strip())
    blob = bytes.fromhex(git(work, "rev-parse", "HEAD:d/a").stdout.strip())
    for mode, id_ in ((b"100644", tree), (b"40000", blob), (b"100644", b"\1" * 20)):
        tip = unchecked(work, (mode, b"x", id_))
        with Repository.at(work / ".git") as repository, pytest.raises(GitRefused):
            b"".join(repository.context(tip))


def test_deep_tree(repository: Repository) -> None:
    """A tree that is deeper than git itself goes is refused, and not by recursion (T36)."""
    top = packs.tree((b"100644", b"a", object_id(BLOB, b"a")))
    parts = [entry(BLOB, b"a"), entry(TREE, top)]
    for _ in range(2100):
        top = packs.tree((b"40000", b"d", object_id(TREE, top)))
        parts.append(entry(TREE, top))
    tip = packs.commit(object_id(TREE, top))
    ingest(io.BytesIO(pack(*parts, entry(COMMIT, tip))).read, repository.objects, 1 << 30)
    with pytest.raises(TreeRefused, match="over 2048 directories deep"):
        b"".join(repository.context(object_id(COMMIT, tip).hex()))


@pytest.mark.parametrize("target", [b"", b"x" * 5000, b"a\0b"])
def test_impossible_symlinks(repository: Repository, target: bytes) -> None:
    """A symlink that could not exist is refused and named (T31)."""
    link = (b"120000", b"link", object_id(BLOB, target))
    top = packs.tree(link)
    tip = packs.commit(object_id(TREE, top))
    data = packs.whole(link, blobs=(target,))
    ingest(io.BytesIO(data).read, repository.objects, 1 << 30)
    with pytest.raises(TreeRefused, match="link is a symlink with an impossible target"):
        b"".join(repository.context(object_id(COMMIT, tip).hex()))


def test_a_builder_takes_it(engine: None, tmp_path: Path) -> None:
    """Docker's builder reads the stream: symlinks stay inside, odd names arrive (T31, T34)."""
    work = tmp_path / "work"
    commit(
        work,
        {"Dockerfile": "FROM scratch\nCOPY . /app/\n", "é": "1", "x" * 200: "2", "n\nl": "3"},
    )
    (work / "out").symlink_to("/etc/passwd")
    Path(work / b"raw\xff".decode("utf-8", "surrogateescape")).write_text("4")
    commit(work, {"d/run": "5", ".dockerignore": "d\n"})
    tag = f"mypaas-test/context-{uuid.uuid4().hex[:12]}"
    env = {**os.environ, "DOCKER_BUILDKIT": "0"}

    def docker(*args: str, data: bytes = b"") -> bytes:
        return subprocess.run(
            ["docker", *args], input=data, env=env, check=True, capture_output=True, timeout=120
        ).stdout

    docker("build", "-q", "-t", tag, "-", data=archive(work))
    try:
        container = docker("create", tag, "none").decode().strip()
        try:
            image = entries(docker("export", container))
        finally:
            docker("rm", container)
    finally:
        docker("rmi", "-f", tag)
    found = {
        name.removeprefix("app/"): e for name, e in image.items() if name.startswith("app/")
    }
    assert found["out"][:3:2] == (tarfile.SYMTYPE, "/etc/passwd")
    assert found["é"][3] + found["x" * 200][3] + found["n\nl"][3] == b"123"
    assert found["raw\udcff"][3] == b"4"
    assert "d/run" not in found
