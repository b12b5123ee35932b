"""Clones and fetches by stock git, and by dulwich as our own client does it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from gitserver import GitServer, commit, run_git_server
from support.stockgit import git

from mypaas_git.names import ServiceName

NOISE = os.urandom(4000).hex()
URL = "ssh://host/hello"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    """A git server with no repository yet."""
    with run_git_server(tmp_path) as running:
        yield running


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Where a test's working copy goes."""
    return tmp_path / "work"


@pytest.fixture
def tip(server: GitServer, work: Path) -> str:
    """The tip of a repository of ten commits and two tags."""
    for number in range(10):
        tip = commit(work, {"a": NOISE + str(number), f"d{number}/b": "b"}, str(number))
    git(work, "tag", "light")
    git(work, "tag", "-a", "v1", "-m", "one", "HEAD~3")
    server.git(work, "push", "mypaas", "main", "light", "v1")
    return tip


def head(copy: Path) -> str:
    git(copy, "fsck", "--strict")
    return git(copy, "rev-parse", "HEAD").stdout.strip()


def test_clone_and_fetch(server: GitServer, work: Path, tmp_path: Path, tip: str) -> None:
    """A clone has the branch and the tags; a fetch brings what came since."""
    server.git(tmp_path, "clone", URL, "copy")
    copy = tmp_path / "copy"
    assert head(copy) == tip
    assert git(copy, "tag").stdout.split() == ["light", "v1"]
    assert git(copy, "branch", "--show-current").stdout == "main\n"
    new = commit(work, {"a": "new"})
    git(work, "tag", "-a", "v2", "-m", "two")
    server.git(work, "push", "mypaas", "main", "v2")
    server.git(copy, "pull", "-q")
    assert head(copy) == new
    assert git(copy, "tag").stdout.split() == ["light", "v1", "v2"]
    assert server.git(copy, "fetch").stderr == ""


def test_diverged_fetch(server: GitServer, work: Path, tmp_path: Path, tip: str) -> None:
    """Client and server find what they have in common when both have more."""
    server.git(tmp_path, "clone", "-q", URL, "copy")
    copy = tmp_path / "copy"
    for number in range(40):
        commit(copy, {"mine": str(number)})
    new = commit(work, {"theirs": "x"})
    server.git(work, "push", "mypaas", "main")
    server.git(copy, "fetch", "-q")
    assert git(copy, "rev-parse", "origin/main").stdout.strip() == new
    git(copy, "fsck", "--strict")


def test_empty_clone(server: GitServer, tmp_path: Path) -> None:
    """An empty repository can be cloned, filled and pushed."""
    server.repositories.open_or_create(ServiceName("hello")).close()
    done = server.git(tmp_path, "clone", URL, "copy")
    assert "You appear to have cloned an empty repository" in done.stderr


def test_missing_repository(server: GitServer, tmp_path: Path) -> None:
    """Where there is no repository, git says why in one line."""
    done = server.git(tmp_path, "clone", URL, "copy", check=False)
    assert done.returncode == 128
    assert "fatal: remote error: there is no repository 'hello' yet" in done.stderr


def test_shallow_clone(server: GitServer, work: Path, tmp_path: Path, tip: str) -> None:
    """A shallow clone can pull, deepen and become whole (T26)."""
    server.git(tmp_path, "clone", "-q", "--depth", "2", URL, "copy")
    copy = tmp_path / "copy"
    assert head(copy) == tip
    assert git(copy, "rev-list", "--count", "HEAD").stdout == "2\n"
    # What only the missing history has comes back: it must be sent.
    git(work, "checkout", "HEAD~6", "--", "a")
    new = commit(work, {})
    server.git(work, "push", "mypaas", "main")
    server.git(copy, "pull", "-q")
    assert head(copy) == new
    assert git(copy, "rev-list", "--count", "HEAD").stdout == "3\n"
    server.git(copy, "fetch", "-q", "--depth", "5")
    assert git(copy, "rev-list", "--count", "HEAD").stdout == "5\n"
    server.git(copy, "fetch", "-q", "--unshallow")
    assert git(copy, "rev-list", "--count", "HEAD").stdout == "11\n"
    git(copy, "fsck", "--strict")


def test_partial_clone(server: GitServer, tmp_path: Path, tip: str) -> None:
    """A clone without blobs fetches those that it needs when it needs them."""
    for number, depth in enumerate(([], ["--depth", "1"])):
        server.git(tmp_path, "clone", "-q", "--filter=blob:none", *depth, URL, f"copy{number}")
        copy = tmp_path / f"copy{number}"
        assert (copy / "d3/b").read_text() == "b"
        assert git(copy, "status", "--porcelain").stdout == ""
    missing = server.git(
        tmp_path / "copy0", "rev-list", "--objects", "--all", "--missing=print"
    ).stdout.count("?")
    assert missing > 5


@pytest.mark.parametrize("filtered", [False, True])
def test_by_hand(server: GitServer, tip: str, filtered: bool) -> None:
    """Our own client's request, ``deepen 1``, ``filter`` and few capabilities, is served."""
    want = f"want {tip} filter no-progress ofs-delta shallow side-band-64k agent=x".encode()
    lines = [want, b"deepen 1", *([b"filter blob:none"] if filtered else [])]
    request = b"".join(_pkt(line) for line in lines) + b"0000" + _pkt(b"done\n")
    with server.connect("git-upload-pack '/hello'") as client:
        client.sendall(request)
        received = b""
        while data := client.recv(65536):
            received += data
    assert _pkt(b"shallow " + tip.encode()) + b"00000008NAK\n" in received
    assert (len(received) < 4000) is filtered
    assert received.endswith(b"0000")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"0000", b"00", b"0032want " + b"1" * 40 + b"\n", b"0009xyzzy", b"ffff",
        b"0032want " + b"g" * 40 + b"\n0000", b"0009want 0000", b"000bdeepen 0000",
    ],
)  # fmt: skip
def test_hang_ups_and_nonsense(server: GitServer, tip: str, data: bytes) -> None:
    """A client that stops anywhere, or talks nonsense, ends its own connection only (T27)."""
    with server.connect("git-upload-pack '/hello'") as client:
        client.sendall(data)
        client.shutdown(1)
        while client.recv(65536):
            pass
    server.wait_idle()


def test_hang_up_while_the_pack_is_sent(server: GitServer, work: Path) -> None:
    """Nobody is there any more to take the pack: the connection just ends (T27)."""
    tip = commit(work, {"big": os.urandom(2_000_000).hex()})
    server.git(work, "push", "ssh://host/hello", "main")
    with server.connect("git-upload-pack '/hello'") as client:
        client.sendall(_pkt(f"want {tip} side-band-64k ofs-delta".encode()) + b"0000")
        client.sendall(_pkt(b"done\n"))
        client.recv(10)
    server.wait_idle()


def test_wanting_what_is_not_there(server: GitServer, tip: str) -> None:
    """An object that does not exist is refused with a line of its own."""
    with server.connect("git-upload-pack '/hello'") as client:
        client.sendall(_pkt(b"want " + b"1" * 40 + b" side-band-64k ofs-delta") + b"0000")
        received = b""
        while data := client.recv(65536):
            received += data
    assert b"ERR the request cannot be served: Client wants invalid object" in received


def _pkt(line: bytes) -> bytes:
    return f"{len(line) + 4:04x}".encode() + line
