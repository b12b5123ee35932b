"""Other clients than everyday's: protocol versions, dulwich, and what is on the wire."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from dulwich import porcelain
from gitserver import GitServer, commit, run_git_server
from support.stockgit import git

from mypaas_git.git.workers import Workers

MAIN = "refs/heads/main"
URL = "ssh://host/hello"
VERSIONS = ["0", "1", "2"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    """A git server with no repository yet."""
    with run_git_server(tmp_path) as running:
        yield running


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Where a test's working copy goes."""
    return tmp_path / "work"


def traced(server: GitServer, cwd: Path, *args: str) -> list[str]:
    """The packets of a git command: ``push> …`` is what it sent, ``push< …`` what it got."""
    trace = cwd.parent / "trace"
    trace.unlink(missing_ok=True)
    env = {**server.env, "GIT_TRACE_PACKET": str(trace)}
    git(cwd, *args, env=env, seconds=20, check=False)
    return re.findall(r"packet: +(\S+ ?.*)", trace.read_text())


@pytest.mark.parametrize("variant", ["simple", "ssh"])
@pytest.mark.parametrize("version", VERSIONS)
def test_protocol_versions(
    server: GitServer, work: Path, tmp_path: Path, version: str, variant: str
) -> None:
    """Whatever version a client prefers, and says so over ssh, it can push, clone and fetch."""
    env = {**server.env, "GIT_SSH_VARIANT": variant}
    ask = ["-c", f"protocol.version={version}"]
    commit(work, {"a": "a"})
    git(work, "tag", "-a", "v1", "-m", "one")
    git(work, *ask, "push", "mypaas", "main", "v1", env=env)
    git(tmp_path, *ask, "clone", "-q", URL, "copy", env=env)
    git(tmp_path, *ask, "clone", "-q", "--depth=1", "--filter=blob:none", URL, "part", env=env)
    new = commit(work, {"a": "b", "d/c": "c"})
    git(work, *ask, "push", "mypaas", "main", env=env)
    for name in ("copy", "part"):
        git(tmp_path / name, *ask, "pull", "-q", env=env)
        assert git(tmp_path / name, "rev-parse", "HEAD").stdout.strip() == new
    again = commit(tmp_path / "copy", {"e": "e"})
    git(tmp_path / "copy", *ask, "push", "-q", "origin", "main", env=env)
    assert server.refs()[MAIN] == again
    server.fsck()


def test_a_clean_conversation(server: GitServer, work: Path) -> None:
    """On the wire is what gitprotocol-pack says, in its order, and nothing else."""
    old = commit(work, {"a": "a"})
    first = traced(server, work, "push", "mypaas", "main")
    assert re.fullmatch(r"push< 0{40} capabilities\^\{\}\\0 report-status .*", first[0])
    assert first[1] == "push< 0000"
    new = commit(work, {"a": "b"})
    packets = traced(server, work, "push", "-o", "plan", "mypaas", "main:refs/tags/t", "main")
    offered = set(packets[0].split("\\0")[1].split())
    assert offered >= {
        "report-status", "report-status-v2", "side-band-64k", "ofs-delta", "atomic",
        "delete-refs", "quiet", "push-options", "object-format=sha1",
    }  # fmt: skip
    assert packets[0].startswith(f"push< {old} {MAIN}\\0")
    sent = [packet.removeprefix("push> ") for packet in packets if packet.startswith("push> ")]
    chosen = set(sent[0].split("\\0")[1].split())
    assert chosen >= {"report-status-v2", "side-band-64k", "push-options", "object-format=sha1"}
    assert sorted([sent[0].split("\\0")[0], sent[1]]) == [
        f"{'0' * 40} {new} refs/tags/t",
        f"{old} {new} {MAIN}",
    ]
    assert sent[2:] == ["0000", "plan", "0000"]
    report = [packet for packet in packets if re.match(r"push< (unpack|ok|ng) ", packet)]
    assert report == [
        "push< unpack ok",
        f"push< ng {MAIN} plan-only: nothing was changed",
        "push< ng refs/tags/t plan-only: nothing was changed",
    ]
    assert packets[-1].endswith("< 0000")
    assert not [packet for packet in packets if "ERR" in packet]


def test_a_clean_fetch(server: GitServer, work: Path, tmp_path: Path) -> None:
    """A clone is a conversation of version 0, whatever the client would rather speak."""
    tip = commit(work, {"a": "a"})
    server.git(work, "push", "mypaas", "main")
    packets = traced(server, tmp_path / "work", "ls-remote", "mypaas")
    assert re.fullmatch(rf"ls-remote< {tip} HEAD\\0.*symref=HEAD:{MAIN}.*", packets[0])
    assert packets[1:] == [f"ls-remote< {tip} {MAIN}", "ls-remote< 0000", "ls-remote> 0000"]


def test_dulwich(
    server: GitServer, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dulwich's own client clones and pushes, and learns why it was refused."""
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    commit(work, {"a": "a"})
    server.git(work, "push", "mypaas", "main")
    copy = tmp_path / "copy"
    porcelain.clone(URL, str(copy)).close()
    (copy / "b").write_text("b\n")
    porcelain.add(str(copy), [str(copy / "b")])
    new = porcelain.commit(str(copy), b"b", author=b"A <a@b>", committer=b"A <a@b>").decode()
    porcelain.push(str(copy), URL, "main")
    assert server.refs() == {MAIN: new}
    said = io.BytesIO()
    porcelain.push(str(copy), URL, "main:refs/heads/other", errstream=said)
    assert (
        b"refs/heads/other failed: ref-refused: only main and master deploy" in said.getvalue()
    )
    assert server.refs() == {MAIN: new}
    server.fsck()


def test_large_and_small_by_workers(server: GitServer, work: Path, tmp_path: Path) -> None:
    """With a helper process at work a client notices nothing of it."""
    workers = Workers()
    server.take = workers.take
    try:
        for size in (10, 3_000_000, 20):
            tip = commit(work, {"noise": os.urandom(size).hex()})
            server.git(work, "push", "mypaas", "main")
            assert server.refs() == {MAIN: tip}
    finally:
        workers.close()
    server.fsck()
