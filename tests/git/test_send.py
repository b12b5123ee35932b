from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.stockgit import clean_env, git

from mypaas_git.errors import GitRefused, TreeRefused
from mypaas_git.git.send import Outcome, send
from mypaas_git.git.snapshot import Pack, snapshot

GREETING = (
    "#!/bin/sh\ncat > /dev/null\nprintf '%b' '-----> one\\n       two \\033[31mred\\n' >&2\n"
)


class Pipe:
    """A command of stock git on this machine."""

    def __init__(self, command: str) -> None:
        self._process = subprocess.Popen(
            shlex.split(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_env(),
        )
        assert self._process.stdin
        assert self._process.stdout
        assert self._process.stderr
        self._in, self._out, self._err = (
            self._process.stdin,
            self._process.stdout,
            self._process.stderr,
        )

    def read(self, size: int, /) -> bytes:
        return self._out.read(size)

    def write(self, data: bytes, /) -> None:
        self._in.write(data)
        self._in.flush()

    def complaint(self) -> str:
        return self._err.read().decode()

    def close(self) -> None:
        with suppress(BrokenPipeError):
            self._in.close()
        self._out.close()
        self._err.close()
        self._process.wait(10)


class Server:
    """A bare repository; what ``push`` did is in ``lines`` and ``packs``."""

    def __init__(self, root: Path) -> None:
        self.repo = root / "bare"
        self.app = root / "app"
        self.lines: list[str] = []
        self.commands: list[str] = []
        self.packs: list[Pack] = []
        git(root, "init", "-q", "--bare", "-b", "main", str(self.repo))
        (self.app / "src").mkdir(parents=True)
        (self.app / "Dockerfile").write_text("FROM scratch\n")
        (self.app / "src" / "server").write_text("1\n")

    def run(self, command: str) -> Pipe:
        self.commands.append(command.split(maxsplit=1)[0])
        return Pipe(command)

    def push(self, run: Callable[[str], Pipe] | None = None) -> Outcome:
        return send(
            snapshot(self.app),
            str(self.repo),
            run or self.run,
            show=self.lines.append,
            watch=self._watch,
        )

    def _watch(self, pack: Pack) -> Iterator[bytes]:
        self.packs.append(pack)
        return iter(pack)

    def hook(self, name: str, text: str) -> None:
        path = self.repo / "hooks" / name
        path.write_text(text)
        path.chmod(0o755)

    def git(self, *args: str) -> str:
        return git(self.repo, *args).stdout.strip()


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def test_a_first_push_makes_the_branch(server: Server) -> None:
    """An empty repository gets main, with a sound commit that says whose it is."""
    outcome = server.push()
    assert (outcome.branch, outcome.refused, outcome.unchanged) == ("main", None, False)
    assert server.git("rev-parse", "main") == outcome.commit
    assert server.git("rev-parse", "main^{tree}") == snapshot(server.app).tree_id
    host = subprocess.run(
        ["hostname"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert server.git("log", "--format=%s|%ae") == f"mypaas push from {host}|root@{host}"
    assert git(server.repo, "fsck", "--strict").stderr == ""
    assert server.commands == ["git-receive-pack"]


@pytest.mark.parametrize("filtering", ["true", "false"])
def test_only_what_the_server_lacks_is_sent(server: Server, filtering: str) -> None:
    """A changed file costs a commit, its directories and itself, and blobs are not fetched."""
    git(server.repo, "config", "uploadpack.allowFilter", filtering)
    first = server.push()
    (server.app / "src" / "server").write_text("2\n")
    second = server.push()
    assert [len(pack) for pack in server.packs] == [5, 4]
    assert server.git("rev-list", "main").split() == [second.commit, first.commit]
    assert server.git("show", "main:src/server") == "2"
    assert git(server.repo, "fsck", "--strict").stderr == ""


def test_files_that_only_move_are_not_sent_again(server: Server) -> None:
    """What the tip has anywhere is not sent again, though packs and deltas hide it."""
    for number in range(50):
        (server.app / f"file{number}").write_text(f"{number}\n" * 1000)
    server.push()
    git(server.repo, "repack", "-adq")
    (server.app / "src").rename(server.app / "moved")
    server.push()
    assert len(server.packs[1]) == 2


def test_an_unchanged_directory_sends_nothing(server: Server) -> None:
    """The tip's tree says that there is nothing to do."""
    first = server.push()
    (server.app / "src" / "server").touch()
    outcome = server.push()
    assert outcome == Outcome("main", first.commit, unchanged=True)
    assert len(server.packs) == 1
    assert server.git("rev-list", "--count", "main") == "1"


def test_master_is_kept_where_it_is_the_only_one(server: Server) -> None:
    """A repository with master alone goes on with it; with both, main is meant."""
    first = server.push()
    server.git("branch", "-m", "main", "master")
    (server.app / "new").write_text("x")
    assert server.push().branch == "master"
    server.git("branch", "main", first.commit)
    (server.app / "newer").write_text("x")
    assert server.push().branch == "main"
    assert server.git("rev-parse", "main^") == first.commit


def test_the_servers_lines_come_clean_and_whole(server: Server) -> None:
    """Lines arrive one by one, without control sequences, on success and on failure."""
    server.hook("post-receive", GREETING)
    assert server.push().refused is None
    assert server.lines == ["-----> one", "       two red"]
    server.lines.clear()
    server.hook("pre-receive", "#!/bin/sh\nprintf 'no end of line' >&2; exit 1\n")
    (server.app / "new").write_text("x")
    assert server.push().refused == "pre-receive hook declined"
    assert server.lines == ["no end of line"]


def test_a_refused_push_leaves_the_branch(server: Server) -> None:
    """The reason is the server's, and the same directory can be pushed again."""
    server.push()
    before = server.git("rev-parse", "main")
    server.hook("update", "#!/bin/sh\nexit 1\n")
    (server.app / "new").write_text("x")
    assert server.push().refused == "hook declined"
    assert server.git("rev-parse", "main") == before
    (server.repo / "hooks" / "update").unlink()
    assert server.push().refused is None


def test_a_pack_that_is_refused_early_says_why(server: Server) -> None:
    """A server that stops reading in mid-pack is heard all the same."""
    git(server.repo, "config", "receive.maxInputSize", "1000")
    (server.app / "large").write_bytes(bytes(range(256)) * 40000)
    refused = server.push().refused
    assert refused is not None
    assert "unpack" in refused or "maximum" in refused


def test_a_missing_repository_is_one_line(server: Server) -> None:
    """The server's standard error is the reason."""
    shutil.rmtree(server.repo)
    with pytest.raises(GitRefused, match=r"^fatal: '.*bare' does not appear to be a git repo"):
        server.push()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("true", "hung up without a word"),
        ("echo Welcome to this host", "cannot be understood"),
        ("printf '0018ERR access denied!!!'", "^access denied!!!$"),
        ("printf 0006a", "cannot be understood"),
        ("sh -c 'echo not you >&2; exit 1'", "^not you$"),
    ],
)
def test_who_is_no_git_server_is_told_so(server: Server, command: str, message: str) -> None:
    """Silence, banners, refusals and garbage each end in one line."""
    with pytest.raises(GitRefused, match=message):
        server.push(lambda _: Pipe(command))


def test_our_servers_refusals_keep_their_code(server: Server) -> None:
    """What scripts look for is the server's reason, not that there was one."""
    refusal = "0021ERR access-denied: not you\n"
    line = f"{len(refusal):04x}{refusal[4:]}"
    with pytest.raises(GitRefused) as caught:
        server.push(lambda _: Pipe(f"printf {shlex.quote(line)}"))
    assert (caught.value.code, caught.value.message) == ("access-denied", "not you")


def test_a_server_that_dies_before_its_report(server: Server) -> None:
    """No report is no success."""
    server.hook("pre-receive", "#!/bin/sh\nkill -9 $PPID\n")
    with pytest.raises(GitRefused, match="hung up"):
        server.push()
    assert git(server.repo, "rev-parse", "-q", "--verify", "main", check=False).returncode


def test_a_file_that_changes_in_between_ends_the_push(server: Server) -> None:
    """The branch stays, and the file is named."""
    before = snapshot(server.app)
    (server.app / "src" / "server").write_text("other\n")
    with pytest.raises(TreeRefused, match=r"^src/server changed"):
        send(before, str(server.repo), server.run, show=server.lines.append)
    assert server.git("for-each-ref") == ""
