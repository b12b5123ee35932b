"""Pushes by stock git to our own receive-pack."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gitserver import SECONDS, GitServer, commit, just_move, just_tell, run_git_server
from support.stockgit import clean_env, git

from mypaas_git.errors import AccessDenied, BuildFailed
from mypaas_git.git.commands import Command, Request, Rules
from mypaas_git.git.receive import RefUpdate, receive_pack
from mypaas_git.git.repository import Repository
from mypaas_git.names import ServiceName
from mypaas_git.progress import Progress

MAIN = "refs/heads/main"
Move = Callable[[], None]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    """A git server with no repository yet."""
    with run_git_server(tmp_path) as running:
        yield running


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Where a test's working copy goes."""
    return tmp_path / "work"


def failing(repository: Repository, update: RefUpdate, progress: Progress, move: Move) -> None:
    progress.warning("RUN failed")
    raise BuildFailed("step 3 failed\x1b[31m; v12 still live", details=["boom"])


def test_first_push_and_update(server: GitServer, work: Path) -> None:
    """The first push creates the repository, the next one moves the branch on."""
    first = commit(work, {"Dockerfile": "FROM scratch\n"})
    done = server.git(work, "push", "mypaas", "main")
    assert "remote: =====> refs/heads/main is live" in done.stderr
    assert "[new branch]      main -> main" in done.stderr
    assert server.refs() == {MAIN: first}
    second = commit(work, {"a/b.txt": "b\n"})
    assert (
        f"{first[:7]}..{second[:7]}  main -> main"
        in server.git(work, "push", "mypaas", "main").stderr
    )
    assert server.refs() == {MAIN: second}
    assert "Everything up-to-date" in server.git(work, "push", "mypaas", "main").stderr
    server.fsck()


def test_deploy_sees_the_commit(server: GitServer, work: Path) -> None:
    """When a deploy is asked for, what was pushed can be read, and the branch waits."""
    seen: list[object] = []

    def look(repository: Repository, update: RefUpdate, progress: Progress, move: Move) -> None:
        assert update.new
        seen.append(repository.read_file(update.new, "Dockerfile", 100))
        seen.append(sum(map(len, repository.context(update.new))))
        seen.append(repository.ref(MAIN))
        move()
        seen.append(repository.ref(MAIN))

    new = commit(work, {"Dockerfile": "FROM scratch\n"})
    server.deploy = look
    server.git(work, "push", "mypaas", "main")
    assert seen == [b"FROM scratch\n", 2048, None, new]


def test_repository_only_for_good_commands(server: GitServer, work: Path) -> None:
    """A push that is refused altogether leaves no repository behind (T24)."""
    commit(work, {"a": "a"})
    server.git(work, "push", "mypaas", "main:feature", check=False)
    assert not server.path().exists()


def test_wrong_branch(server: GitServer, work: Path) -> None:
    """Another branch is refused with the command that would have deployed it (T24)."""
    commit(work, {"a": "a" * 300_000})
    git(work, "switch", "-qc", "feature")
    done = server.git(work, "push", "mypaas", "feature", check=False)
    assert done.returncode == 1
    assert (
        "remote:  !     only main and master deploy: git push mypaas feature:main"
        in done.stderr
    )
    assert "! [remote rejected] feature -> feature (ref-refused: only main and" in done.stderr
    server.git(work, "push", "mypaas", "feature:main")


@pytest.mark.parametrize(
    ("mine", "said"),
    [
        ("master", "only main and master deploy: git push mypaas release/eu:master, with"),
        ("x", "only main and master deploy, and your key may not push there; ask an admin"),
    ],
)
def test_wrong_branch_of_a_key_for_some(mine: str, said: str) -> None:
    """Nobody is told to push to a branch that their key is not for."""

    def allow(ref: str) -> None:
        if ref not in ("refs/heads/release/eu", f"refs/heads/{mine}"):
            raise AccessDenied("not yours")

    update = RefUpdate("refs/heads/release/eu", None, "a" * 40)
    request = Request([Command(b"", update)])
    Rules(["main", "master"], allow).judge(request, {})
    assert said in (request.commands[0].reason or "")


def test_deploy_branch_cannot_be_deleted(server: GitServer, work: Path) -> None:
    """The branch that names what is live stays (T23)."""
    live = commit(work, {"a": "a"})
    server.git(work, "push", "mypaas", "main")
    done = server.git(work, "push", "mypaas", ":main", check=False)
    assert done.returncode == 1
    assert "'main' names what is live and cannot be deleted" in done.stderr
    assert server.refs() == {MAIN: live}


def test_force_push(server: GitServer, work: Path) -> None:
    """A branch may be rewound: git asks for --force, the server does as told (T23)."""
    commit(work, {"a": "a"})
    server.git(work, "push", "mypaas", "main")
    git(work, "commit", "-q", "--amend", "-m", "other")
    assert server.git(work, "push", "mypaas", "main", check=False).returncode == 1
    server.git(work, "push", "--force", "mypaas", "main")
    assert server.refs()[MAIN] == git(work, "rev-parse", "HEAD").stdout.strip()
    server.fsck()


def test_failed_deploy(server: GitServer, work: Path) -> None:
    """git exits 1 with the reason, the branch stays, the commit can be pushed again."""
    old = commit(work, {"a": "a"})
    server.git(work, "push", "mypaas", "main")
    new = commit(work, {"a": "b"})
    server.deploy = failing
    for _ in range(2):
        done = server.git(work, "push", "mypaas", "main", check=False)
        assert done.returncode == 1
        assert "remote:  !     RUN failed" in done.stderr
        assert "main -> main (build-failed: step 3 failed; v12 still live)" in done.stderr
        assert server.refs() == {MAIN: old}
    server.deploy = just_move
    server.git(work, "push", "mypaas", "main")
    assert server.refs() == {MAIN: new}
    server.fsck()


def test_failed_first_deploy(server: GitServer, work: Path) -> None:
    """A first push that fails leaves no branch behind, and the next one may succeed."""
    new = commit(work, {"a": "a"})
    server.deploy = failing
    assert server.git(work, "push", "mypaas", "main", check=False).returncode == 1
    assert server.refs() == {}
    server.deploy = just_move
    server.git(work, "push", "mypaas", "main")
    assert server.refs() == {MAIN: new}
    server.fsck()


def test_unexpected_error(
    server: GitServer, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bug is one line with the push id for the pusher, and a traceback in the log."""

    def broken(
        repository: Repository, update: RefUpdate, progress: Progress, move: Move
    ) -> None:
        raise ZeroDivisionError("secret")

    commit(work, {"a": "a"})
    server.deploy = broken
    done = server.git(work, "push", "mypaas", "main", check=False)
    assert done.returncode == 1
    assert "main -> main (internal error, push id p123)" in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_stale_before(server: GitServer, work: Path, tmp_path: Path) -> None:
    """A push that starts from an old branch is refused before its pack is taken in (T22)."""
    base = commit(work, {"a": "a"})
    server.git(work, "push", "mypaas", "main")
    live = commit(work, {"a": "b"})
    server.git(work, "push", "mypaas", "main")
    git(work, "reset", "-q", "--hard", base)
    mine = commit(work, {"a": "c"})
    pack = _pack(work, mine, base)
    report = _push_raw(server, f"{base} {mine} {MAIN}", pack)
    assert b"ng refs/heads/main ref-refused: the ref moved meanwhile" in report
    assert server.refs() == {MAIN: live}
    assert git(server.path(), "cat-file", "-e", mine, check=False).returncode != 0


def test_lost_race(server: GitServer, work: Path) -> None:
    """Who loses the race for a branch during the deploy is told so (T22, T60)."""
    old = commit(work, {"a": "a"})
    server.git(work, "push", "mypaas", "main")
    commit(work, {"a": "b"})
    other = commit(work, {"a": "c"})
    git(work, "push", "-q", str(server.path()), f"{other}:refs/tags/other")

    def overtaken(
        repository: Repository, update: RefUpdate, progress: Progress, move: Move
    ) -> None:
        repository.move_ref(MAIN, old, other)
        move()

    server.deploy = overtaken
    done = server.git(work, "push", "mypaas", "main~1:main", check=False)
    assert done.returncode == 1
    assert "ref-refused: refs/heads/main moved meanwhile" in done.stderr
    assert server.refs()[MAIN] == other


def test_stale_lock(server: GitServer, work: Path) -> None:
    """A lock file that somebody may hold is respected, one that a crash left is not (T28)."""
    commit(work, {"a": "a"})
    server.git(work, "push", "mypaas", "main")
    commit(work, {"a": "b"})
    lock = server.path() / "refs/heads/main.lock"
    lock.touch()
    done = server.git(work, "push", "mypaas", "main", check=False)
    assert done.returncode == 1
    assert "holds hello.git/refs/heads/main.lock; try again in a minute" in done.stderr
    os.utime(lock, (1, 1))
    server.git(work, "push", "mypaas", "main")


def test_tags(server: GitServer, work: Path) -> None:
    """Tags come and go without a deploy; release tags are the server's (T24)."""
    first = commit(work, {"a": "a"})
    git(work, "tag", "light")
    git(work, "tag", "-a", "v1", "-m", "one")
    annotated = git(work, "rev-parse", "v1").stdout.strip()
    server.deploy = failing
    server.git(work, "push", "mypaas", "light", "v1")
    assert server.refs() == {"refs/tags/light": first, "refs/tags/v1": annotated}
    second = commit(work, {"a": "b"})
    server.git(work, "push", "-f", "mypaas", "main:refs/tags/light")
    server.git(work, "push", "mypaas", ":v1")
    assert server.refs() == {"refs/tags/light": second}
    done = server.git(work, "push", "mypaas", "main:refs/tags/release/v9", check=False)
    assert "refs/tags/release/* is the server's own" in done.stderr
    done = server.git(work, "push", "mypaas", "main:refs/notes/x", check=False)
    assert "only branches and tags are taken" in done.stderr
    done = server.git(work, "push", "mypaas", "main:refs/tags/light/below", check=False)
    assert "ref-refused: refs/tags/light/below cannot be there" in done.stderr
    assert server.refs() == {"refs/tags/light": second}
    server.fsck()


def test_several_refs(server: GitServer, work: Path) -> None:
    """A branch and tags go together; one refused ref does not hold up the others (T24)."""
    new = commit(work, {"a": "a"})
    git(work, "tag", "t1")
    git(work, "branch", "feature")
    done = server.git(work, "push", "mypaas", "main", "t1", "feature", check=False)
    assert done.returncode == 1
    assert server.refs() == {MAIN: new, "refs/tags/t1": new}


def test_two_deploy_branches(server: GitServer, work: Path) -> None:
    """One push deploys one branch; of two, none."""
    commit(work, {"a": "a"})
    done = server.git(work, "push", "mypaas", "main", "main:master", check=False)
    assert (
        done.stderr.count("(ref-refused: one push deploys one branch: push them one by one)")
        == 2
    )
    assert not server.path().exists()


@pytest.mark.parametrize("bad", ["refs/heads/feature", "refs/tags/release/v1"])
def test_atomic_refused(server: GitServer, work: Path, bad: str) -> None:
    """Of an atomic push with a refused ref nothing moves and nothing is deployed (T24)."""
    commit(work, {"a": "a"})
    git(work, "tag", "t1")
    done = server.git(
        work, "push", "--atomic", "mypaas", "main", "t1", f"main:{bad}", check=False
    )
    assert done.returncode == 1
    assert "another ref of this atomic push was refused" in done.stderr
    assert not server.path().exists()


def test_atomic_failed_deploy(server: GitServer, work: Path) -> None:
    """When the deploy of an atomic push fails, its tags are put back too (T24)."""
    old = commit(work, {"a": "a"})
    git(work, "tag", "t1")
    server.git(work, "push", "--atomic", "mypaas", "main", "t1")
    commit(work, {"a": "b"})
    git(work, "tag", "-f", "t1")
    git(work, "tag", "t2")
    server.deploy = failing
    refs = ["main", "+t1", "t2"]
    assert server.git(work, "push", "--atomic", "mypaas", *refs, check=False).returncode == 1
    assert server.refs() == {MAIN: old, "refs/tags/t1": old}
    server.deploy = just_move
    server.git(work, "push", "--atomic", "mypaas", *refs)
    assert len(set(server.refs().values())) == 1
    server.fsck()


def test_live_progress(server: GitServer, work: Path) -> None:
    """A line reaches the pusher while the deploy is still running."""
    seen = threading.Event()

    def slow(repository: Repository, update: RefUpdate, progress: Progress, move: Move) -> None:
        progress.step("Building")
        assert seen.wait(SECONDS), "the pusher did not see the line"
        move()

    commit(work, {"a": "a"})
    server.deploy = slow
    with subprocess.Popen(
        ["git", "push", "mypaas", "main"],
        cwd=work,
        env=clean_env(server.env),
        stderr=subprocess.PIPE,
        text=True,
    ) as push:
        assert push.stderr
        for line in push.stderr:
            if line.startswith("remote: -----> Building"):
                seen.set()
    assert push.returncode == 0


def test_keepalives(server: GitServer, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing is said, the side band has an empty packet now and then, and only then."""
    monkeypatch.setattr("mypaas_git.git.pusher.SILENCE", 0.8)
    ended = threading.Event()

    def slow(repository: Repository, update: RefUpdate, progress: Progress, move: Move) -> None:
        for _ in range(8):
            time.sleep(0.05)
            progress.step("busy")
        progress.step("silent")
        assert ended.wait(SECONDS)
        move()

    new = commit(work, {"a": "a"})
    server.deploy = slow
    head = _pkt(f"{'0' * 40} {new} {MAIN}\0 report-status side-band-64k".encode()) + b"0000"
    with server.connect("git-receive-pack '/hello'") as client:
        client.sendall(head + _pack(work, new))
        received = b""
        while b"silent" not in received:
            received += client.recv(65536)
        assert b"0005\x01" not in received
        while received.count(b"0005\x01") < 3:
            received += client.recv(65536)
        ended.set()
        rest = _read_all(client)
    assert rest.endswith(b"0000")
    assert b"unpack ok" in rest
    server.deploy = just_move
    ended.clear()


def test_git_passes_over_keepalives(
    server: GitServer, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stock git does not mind them, not even while it sends its pack."""
    monkeypatch.setattr("mypaas_git.git.pusher.SILENCE", 0.001)
    commit(work, {"a": os.urandom(3_000_000).hex()})
    done = server.git(work, "push", "mypaas", "main")
    assert done.stderr.startswith("remote: =====> refs/heads/main is live")
    server.fsck()


def test_threads_end(server: GitServer, work: Path) -> None:
    """A push leaves no thread behind, whatever becomes of it."""
    commit(work, {"a": "a"})
    server.git(work, "push", "mypaas", "main")
    server.deploy = failing
    commit(work, {"a": "b"})
    server.git(work, "push", "mypaas", "main", check=False)
    server.wait_idle()
    assert [each.name for each in threading.enumerate() if each.name == "keepalive"] == []


@pytest.mark.parametrize("capability", ["report-status", "report-status-v2"])
def test_both_reports(server: GitServer, work: Path, capability: str) -> None:
    """A client may ask for either version of the report."""
    new = commit(work, {"a": "a"})
    head = _pkt(f"{'0' * 40} {new} {MAIN}\0 {capability}".encode()) + b"0000"
    report = _exchange(server, head + _pack(work, new))
    assert report.endswith(_pkt(b"unpack ok\n") + _pkt(b"ok refs/heads/main\n") + b"0000")


def test_plan(server: GitServer, work: Path) -> None:
    """``-o plan`` tells, and changes nothing: no ref, no object, not even a repository."""
    server.deploy = failing
    first = commit(work, {"a": "a"}, "First")
    git(work, "tag", "v1")
    push = ["push", "-o", "plan", "mypaas", "main", "v1"]
    done = server.git(work, *push, check=False)
    assert done.returncode == 1
    assert "remote: -----> First would be live" in done.stderr
    assert f"remote: -----> refs/tags/v1 would be set to {first[:7]}" in done.stderr
    assert "! [remote rejected] main -> main (plan-only: nothing was changed)" in done.stderr
    assert list(server.path().parent.iterdir()) == []
    server.deploy = just_move
    server.git(work, "push", "mypaas", "main", "v1")
    before = sorted(server.path().rglob("*"))
    server.deploy = failing
    commit(work, {"b": "b"}, "Second")
    done = server.git(work, "push", "-o", "plan", "mypaas", "main", ":v1", check=False)
    assert "remote: -----> Second would be live" in done.stderr
    assert "remote: -----> refs/tags/v1 would be deleted" in done.stderr
    assert sorted(server.path().rglob("*")) == before
    assert server.refs() == {MAIN: first, "refs/tags/v1": first}


def test_plan_of_what_is_refused(server: GitServer, work: Path) -> None:
    """A plan is refused where the push would be, for the same reason."""

    def refuse(_repository: Repository, _update: RefUpdate, _progress: Progress) -> None:
        raise BuildFailed("there is a fault in it")

    commit(work, {"a": "a"})
    server.plan = refuse
    done = server.git(work, "push", "-o", "plan", "mypaas", "main", check=False)
    assert "main -> main (build-failed: there is a fault in it)" in done.stderr
    done = server.git(work, "push", "-o", "plan", "mypaas", "main:other", check=False)
    assert "only main and master deploy" in done.stderr
    server.max_pack_size = 10
    done = server.git(work, "push", "-o", "plan", "mypaas", "main", check=False)
    assert "over the limit" in done.stderr
    assert list(server.path().parent.iterdir()) == []


def test_unknown_push_option(server: GitServer, work: Path) -> None:
    """An option that we do not know is refused with those that we do, and nothing happens."""
    commit(work, {"a": "a"})
    push = ["push", "-o", "plan", "-o", "ci.skip\x1b[31m", "mypaas", "main"]
    done = server.git(work, *push, check=False)
    assert done.returncode == 1
    assert (
        "(git-refused: the push option 'ci.skip' is not known; known are: plan)" in done.stderr
    )
    assert not server.path().exists()
    many = [part for _ in range(200) for part in ("-o", "plan")]
    done = server.git(work, "push", *many, "mypaas", "main", check=False)
    assert "too many push options" in done.stderr


def test_pusher_disappears(server: GitServer, work: Path) -> None:
    """The deploy goes on when the pusher's terminal is gone (T14, T27, T63)."""
    gone, ended = threading.Event(), threading.Event()

    def slow(repository: Repository, update: RefUpdate, progress: Progress, move: Move) -> None:
        progress.step("Building")
        assert gone.wait(SECONDS)
        for _ in range(100):
            progress.detail("x" * 1000)
        move()
        ended.set()

    new = commit(work, {"a": "a"})
    server.deploy = slow
    with subprocess.Popen(
        ["git", "push", "mypaas", "main"],
        cwd=work,
        env=clean_env(server.env),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as push:
        assert push.stderr
        while "Building" not in push.stderr.readline():
            pass
        push.kill()
    gone.set()
    assert ended.wait(SECONDS)
    server.wait_idle()
    assert server.refs() == {MAIN: new}
    server.fsck()


def test_hang_up_at_every_stage(server: GitServer, work: Path) -> None:
    """A client that stops anywhere ends its connection and nothing else (T17, T27)."""
    new = commit(work, {"a": "a", "b": "b" * 500})
    pack = _pack(work, new)
    head = _pkt(f"{'0' * 40} {new} {MAIN}\0 report-status side-band-64k".encode()) + b"0000"
    whole = head + pack
    for end in [0, 2, 4, 30, len(head) - 4, len(head) - 1, *range(len(head), len(whole), 7)]:
        with server.connect("git-receive-pack '/hello'") as client:
            client.sendall(whole[:end])
            client.shutdown(1)
            while client.recv(65536):
                pass
    assert not server.path().exists() or server.refs() == {}
    assert b"unpack ok" in _push_raw(server, f"{'0' * 40} {new} {MAIN}", pack)
    server.fsck()


def test_client_that_keeps_its_end_open(server: GitServer, work: Path) -> None:
    """The report does not wait for the end of the input, whether the pack was read or not."""
    new = commit(work, {"a": "a"})
    pack = _pack(work, new)
    for ref in ("refs/heads/other", MAIN):
        with server.connect("git-receive-pack '/hello'") as client:
            head = _pkt(f"{'0' * 40} {new} {ref}\0 report-status".encode()) + b"0000"
            client.sendall(head + pack)
            received = b""
            while b"unpack ok" not in received:
                received += client.recv(65536)
        server.wait_idle()
    assert server.refs() == {MAIN: new}


@pytest.mark.parametrize(
    "command",
    [
        b"nonsense",
        b"0" * 40 + b" " + b"G" * 40 + b" refs/heads/main",
        b"0" * 40 + b" " + b"1" * 40,
        b"push-cert\0 x",
        b"0" * 40 + b" " + b"1" * 40 + b" refs/heads/" + b"x" * 5000,
        b"0" * 40 + b" " + b"1" * 40 + b" refs/heads/main\0 object-format=sha256",
    ],
)
def test_nonsense(server: GitServer, command: bytes) -> None:
    """What is no command is answered with one line (T25, T26)."""
    answer = _exchange(server, _pkt(command) + b"0000")
    assert b"ERR git-refused: " in answer or b"\x03git-refused: " in answer
    assert not server.path().exists()


@pytest.mark.parametrize("length", [b"0004", b"0003", b"zzzz", b"-001", b"fff"])
def test_bad_pkt_lines(server: GitServer, length: bytes) -> None:
    """A broken frame ends the conversation (T25)."""
    _exchange(server, length)
    assert not server.path().exists()


@pytest.mark.parametrize(
    "ref",
    ["HEAD", "refs/heads/../x",
     "refs/tags/a..b", "refs/tags/a.lock", "refs/tags/",
     "refs/tags//x", "refs/tags/a\x1b[31m", "refs/tags/a\u202eb", "refs/heads/main/",
     "refs/tags/" + "x" * 600],
)  # fmt: skip
def test_hostile_ref_names(server: GitServer, work: Path, ref: str) -> None:
    """A name that no ref may have is refused, in a report without control characters (T25)."""
    new = commit(work, {"a": "a"})
    report = _push_raw(server, f"{'0' * 40} {new} {ref}", _pack(work, new))
    assert b"ng " + ref.encode() + b" ref-refused: not a name for a ref" in report
    assert not server.path().exists()


def test_too_many_commands(server: GitServer) -> None:
    """100,000 commands are cut short (T25)."""
    line = _pkt(b"0" * 40 + b" " + b"1" * 40 + b" refs/tags/x\0 report-status")
    assert b"more than 10000 refs in one push" in _exchange(server, line * 100_000)


@pytest.mark.parametrize("rev", ["HEAD^{tree}", "HEAD:a", "tag"])
def test_branch_to_non_commit(server: GitServer, work: Path, rev: str) -> None:
    """A branch is at a commit, not at a tree, a blob or a tag (T21)."""
    commit(work, {"a": "a"})
    git(work, "tag", "-a", "tag", "-m", "x")
    target = git(work, "rev-parse", rev).stdout.strip()
    report = _push_raw(server, f"{'0' * 40} {target} {MAIN}", _pack(work, target))
    assert b"ref-refused: a branch must be at a commit, not at a " in report
    assert server.refs() == {}


def test_missing_object(server: GitServer, work: Path) -> None:
    """A ref to an object that was not sent is refused (T21)."""
    new = commit(work, {"a": "a"})
    report = _push_raw(server, f"{'0' * 40} {'1' * 40} {MAIN}", _pack(work, new))
    assert b"ng refs/heads/main git-refused: the object 1111" in report
    assert server.refs() == {}


def test_same_ref_twice(server: GitServer, work: Path) -> None:
    """A ref that is named twice is refused the second time (T25)."""
    new = commit(work, {"a": "a"})
    line = f"{'0' * 40} {new} refs/tags/t"
    head = _pkt(f"{line}\0 report-status".encode()) + _pkt(line.encode()) + b"0000"
    report = _exchange(server, head + _pack(work, new))
    assert b"ok refs/tags/t" in report
    assert b"ng refs/tags/t ref-refused: the same ref twice" in report


def test_pack_over_the_limit(server: GitServer, work: Path) -> None:
    """The figure and the setting are named, and git shows it, not a broken pipe (T29)."""
    server.max_pack_size = 1000
    commit(work, {"big": os.urandom(100_000).hex()})
    done = server.git(work, "push", "mypaas", "main", check=False)
    assert done.returncode == 1
    assert "over the limit of 1000 bytes ([git] max_pack_size)" in done.stderr
    assert "pack-refused: " in done.stderr
    server.fsck()


def test_shallow_push(server: GitServer, work: Path, tmp_path: Path) -> None:
    """A shallow clone can push when the server has the rest, and is told if not (T26)."""
    commit(work, {"a": "a"})
    commit(work, {"a": "b"})
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{work}", "shallow")
    shallow = tmp_path / "shallow"
    new = commit(shallow, {"a": "c"})
    done = server.git(shallow, "push", "ssh://host/hello", "main", check=False)
    assert "git fetch --unshallow" in done.stderr
    server.git(work, "push", "mypaas", "main")
    server.git(shallow, "push", "ssh://host/hello", "main")
    assert server.refs() == {MAIN: new}
    server.fsck()


def test_without_side_band(server: GitServer, work: Path) -> None:
    """A client without a side band gets a plain report."""
    new = commit(work, {"a": "a"})
    head = _pkt(f"{'0' * 40} {new} {MAIN}\0 report-status".encode()) + b"0000"
    report = _exchange(server, head + _pack(work, new))
    assert report.endswith(_pkt(b"unpack ok\n") + _pkt(b"ok refs/heads/main\n") + b"0000")


@pytest.mark.parametrize("capabilities", ["report-status", "report-status side-band-64k", ""])
def test_nobody_to_report_to(server: GitServer, work: Path, capabilities: str) -> None:
    """A connection that breaks in mid-deploy costs neither the deploy nor an error (T14)."""
    new = commit(work, {"a": "a"})
    head = _pkt(f"{'0' * 40} {new} {MAIN}\0 {capabilities}".encode()) + b"0000"
    left = [head + _pack(work, new)]

    class Broken:
        def read(self, n: int) -> bytes:
            data, left[0] = left[0][:n], left[0][n:]
            return data

        def write(self, _data: bytes) -> None:
            if not left[0]:
                raise BrokenPipeError

    receive_pack(
        Broken(),
        server.repositories,
        ServiceName("hello"),
        branches=["main"],
        max_pack_size=1 << 30,
        deploy=just_move,
        plan=just_tell,
        push_id="p1",
    )
    assert server.refs() == {MAIN: new}


def test_push_to_master_makes_clones_work(
    server: GitServer, work: Path, tmp_path: Path
) -> None:
    """Where only master is pushed, HEAD follows it, so that a clone checks it out."""
    commit(work, {"a": "a"})
    server.git(work, "push", "mypaas", "main:master")
    server.git(tmp_path, "clone", "-q", "ssh://host/hello", "copy")
    assert (tmp_path / "copy/a").read_text() == "a"


def _pkt(line: bytes) -> bytes:
    return f"{len(line) + 4:04x}".encode() + line


def _pack(work: Path, *revs: str) -> bytes:
    """A pack of what the first of ``revs`` needs beyond the others."""
    wanted = "\n".join([revs[0], *(f"^{rev}" for rev in revs[1:])])
    return subprocess.run(
        ["git", "pack-objects", "--revs", "--stdout", "-q"],
        cwd=work, env=clean_env(), input=wanted.encode(), capture_output=True, check=True,
    ).stdout  # fmt: skip


def _push_raw(server: GitServer, command: str, pack: bytes) -> bytes:
    """Push ``pack`` with one command by hand; what the server answered after its refs."""
    head = _pkt(f"{command}\0 report-status side-band-64k".encode()) + b"0000"
    return _exchange(server, head + pack)


def _exchange(server: GitServer, data: bytes) -> bytes:
    with server.connect("git-receive-pack '/hello'") as client:
        client.sendall(data)
        client.shutdown(1)
        return _read_all(client)


def _read_all(client: socket.socket) -> bytes:
    received = b""
    while data := client.recv(65536):
        received += data
    return received
