"""What a client may ask for once it has logged in, asked by stock ssh."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from paramiko.common import cMSG_CHANNEL_REQUEST
from served import Served, serving
from support.hardware import Token, agent
from support.net import free_port, listening, wait_until
from support.stockgit import clean_env

from mypaas_git.access.keyline import Rights
from mypaas_git.errors import GitRefused, UsageError
from mypaas_git.ssh.session import MAX_COMMAND, GitRequest, parse_command


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as running:
        yield running


@pytest.fixture
def alice(served: Served) -> Path:
    """The private key of somebody who may deploy."""
    return served.new_key("alice")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"services --json", ["services", "--json"]),
        (b"mypaas services", ["services"]),
        (b"keys:add alice -", ["keys", "add", "alice", "-"]),
        (b"mypaas keys:list", ["keys", "list"]),
        (b"config set web 'A=b c'", ["config", "set", "web", "A=b c"]),
        (b"config set web A:b", ["config", "set", "web", "A:b"]),
        (b"echo $(id) ;id `id` *", ["echo", "$(id)", ";id", "`id`", "*"]),
        (b"mypaas", []),
        (b"", []),
    ],
)
def test_commands(line: bytes, words: list[str]) -> None:
    """A line is split as a shell would quote it, and nothing in it is expanded."""
    assert parse_command(line) == words


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        (b"git-receive-pack '/web'", GitRequest("git-receive-pack", "/web")),
        (b"git receive-pack 'web.git'", GitRequest("git-receive-pack", "web.git")),
        (b"git-upload-pack '../x'", GitRequest("git-upload-pack", "../x")),
        (b"git-upload-pack 'it'\\''s;id'", GitRequest("git-upload-pack", "it's;id")),
    ],
)
def test_git_requests(line: bytes, request_: GitRequest) -> None:
    """Git's two services are told apart, and the path stays as it was written."""
    assert parse_command(line) == request_


@pytest.mark.parametrize(
    "line",
    [
        b"git-receive-pack",
        b"git-receive-pack a b",
        b"config set 'web",
        b"services \xff",
        b"services\0",
        b"x" * (MAX_COMMAND + 1),
    ],
)
def test_lines_that_are_no_commands(line: bytes) -> None:
    """T15: NUL, endless, undecodable and ill-quoted lines are refused."""
    with pytest.raises(UsageError):
        parse_command(line)


def test_other_git_services() -> None:
    """git-upload-archive is refused, and named."""
    with pytest.raises(GitRefused, match="git-upload-archive"):
        parse_command(b"git-upload-archive 'web'")


def test_command_and_exit_code(served: Served, alice: Path) -> None:
    """A command gets its words and its caller; its exit code and stderr come back."""
    done = served.ssh("hello", "'a b'", key=alice)
    assert json.loads(done.stdout) == ["alice", False, ["hello", "a b"]]
    assert done.returncode == 0
    done = served.ssh("exit 7", key=alice)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"", b"to stderr\n")


def test_large_output(served: Served, alice: Path) -> None:
    """Megabytes arrive in full before the exit status ends the session."""
    done = served.ssh("big 3000000", key=alice)
    assert done.returncode == 3
    assert (len(done.stdout), len(done.stderr)) == (3000000, 3000000)


def test_large_input(served: Served, alice: Path) -> None:
    """Megabytes go in and come back unchanged."""
    data = os.urandom(5_000_000)
    assert served.ssh("cat", key=alice, stdin=data).stdout == data


def test_input_that_never_ends(served: Served, alice: Path) -> None:
    """A command may end before the client has closed its input, as git's do."""
    with served.popen("head", key=alice) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hello and more")
        process.stdin.flush()
        assert process.stdout.read() == b"hello"
        assert process.wait(10) == 0


def test_git_reaches_the_backend(served: Served, alice: Path) -> None:
    """T15: whatever path git sends arrives as it is, to be judged there."""
    done = served.ssh("git-receive-pack '../x'", key=alice)
    assert json.loads(done.stdout) == ["alice", "git-receive-pack", "../x"]


def test_foreseen_error(served: Served, alice: Path) -> None:
    """A fault is one clean line, its details below it, exit 1; a misuse exits 2."""
    done = served.ssh("refuse", key=alice)
    assert done.returncode == 1
    assert done.stderr == b"mypaas: RUN make failed\n  line 1\n  line 2\n"
    done = served.ssh("misuse", key=alice)
    assert (done.returncode, done.stderr) == (2, b"mypaas: which service?\n")


def test_unforeseen_error(served: Served, alice: Path) -> None:
    """A bug is one line with the session's number, and keeps its secrets."""
    done = served.ssh("boom", key=alice)
    assert done.returncode == 1
    assert done.stderr.startswith(b"mypaas: internal error, session ")
    assert done.stderr.count(b"\n") == 1


def test_no_shell(served: Served, alice: Path) -> None:
    """A plain ``ssh host`` ends at once with one line and exit 1, terminal or not."""
    done = served.ssh(key=alice)
    line = b"mypaas: no shell here; try: ssh \xe2\x80\xa6 help, or git push"
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", line + b"\n")
    done = served.ssh(key=alice, more=("-tt",))
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", line + b"\r\n")


def test_no_shell_on_a_terminal(served: Served, alice: Path) -> None:
    """T9: the same when ssh runs on a real terminal."""
    mine, theirs = pty.openpty()
    try:
        done = subprocess.run(
            ["ssh", *served.options(alice), "127.0.0.1"],
            env=clean_env(),
            stdin=theirs,
            capture_output=True,
            timeout=20,
            check=False,
        )
    finally:
        os.close(mine)
        os.close(theirs)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1


def test_a_terminal(served: Served, alice: Path) -> None:
    """A command on a terminal ends its lines as that wants it; git has no use for one."""
    done = served.ssh("exit 7", key=alice, more=("-tt",))
    assert (done.returncode, done.stderr) == (7, b"to stderr\r\n")
    done = served.ssh("git-receive-pack web", key=alice, more=("-tt",))
    assert done.returncode == 1
    assert done.stderr == b"mypaas: git takes no terminal; run ssh without -t\r\n"


def test_what_is_typed(served: Served, alice: Path) -> None:
    """Return ends a line, Ctrl-D the input, Ctrl-C the command, with 130."""
    done = served.ssh("cat", key=alice, more=("-tt",), stdin=b"one\rtwo\r\x04more")
    assert (done.returncode, done.stdout) == (0, b"one\r\ntwo\r\n")
    done = served.ssh("wait", key=alice, more=("-tt",), stdin=b"\x03")
    assert done.returncode == 130
    done = served.ssh("cat", key=alice, more=("-tt",), stdin=b"\x03")
    assert (done.returncode, done.stderr) == (130, b"mypaas: interrupted\r\n")


def test_what_a_client_says_of_its_terminal(served: Served, alice: Path) -> None:
    """Name and size, new sizes and signals; what makes no sense is bounded or passed over."""
    transport: Any = paramiko.Transport(("127.0.0.1", served.port))
    try:
        transport.connect(
            username="x", pkey=paramiko.Ed25519Key.from_private_key_file(str(alice))
        )
        channel = transport.open_session()
        channel.get_pty("vt\n220", 4_000_000_000, 24)
        channel.exec_command("terminal")
        lines = channel.makefile("r")
        assert json.loads(lines.readline()) == [[10_000, 24], ""]
        channel.resize_pty(81, 25)
        assert json.loads(lines.readline()) == [81, 25]
        for name in ("INT", "no-such-signal", "TERM"):
            message = paramiko.Message()
            message.add_byte(cMSG_CHANNEL_REQUEST)
            message.add_int(channel.remote_chanid)
            message.add_string("signal")
            message.add_boolean(False)
            message.add_string(name)
            transport._send_user_message(message)
        assert [json.loads(lines.readline()) for _ in range(2)] == ["INT", "TERM"]
        assert channel.recv_exit_status() == 0
    finally:
        transport.close()


def test_no_files(served: Served, alice: Path) -> None:
    """T9: sftp is refused and does not hang."""
    done = subprocess.run(
        ["sftp", "-b", "-", *served.options(alice)[:-2], "-P", str(served.port), "127.0.0.1"],
        env=clean_env(),
        input=b"ls\n",
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert done.returncode != 0
    assert b"subsystem request failed" in done.stderr


def test_no_forwarding(served: Served, alice: Path) -> None:
    """T9: neither direction of port forwarding is served."""
    port = free_port()
    done = served.ssh(
        "show",
        key=alice,
        more=("-o", "ExitOnForwardFailure=yes", "-R", f"{port}:127.0.0.1:1"),
    )
    assert done.returncode == 255
    assert not listening(port)
    done = served.ssh("show", key=alice, more=("-W", "127.0.0.1:22"))
    assert done.returncode == 255
    assert done.stderr == b"stdio forwarding failed\r\n"


def test_environment_agent_and_x11(served: Served, alice: Path) -> None:
    """T9: what else ssh may send along is ignored, and the command runs."""
    more = ("-A", "-X", "-o", "SetEnv=GIT_PROTOCOL=version=2", "-o", "LogLevel=FATAL")
    assert served.ssh("show", key=alice, more=more).returncode == 0


def test_several_commands_on_one_connection(served: Served, alice: Path) -> None:
    """ControlMaster: each command has a channel of its own."""
    control = ("-S", str(served.root / "ctl"))
    master = subprocess.Popen(
        ["ssh", "-M", "-N", *control, *served.options(alice), "127.0.0.1"], env=clean_env()
    )
    try:
        wait_until((served.root / "ctl").exists, "the master is connected")
        with served.popen("wait", key=alice):
            for code in range(12):
                done = served.ssh(f"exit {code}", key=alice, more=control)
                assert done.returncode == code
            served.backend.may_end.set()
    finally:
        master.terminate()
        master.wait(10)


def test_a_client_that_leaves(served: Served, alice: Path) -> None:
    """A command that follows something notices that nobody reads it any more."""
    with served.popen("follow", key=alice) as process:
        assert served.backend.running.wait(10)
        process.terminate()
    assert served.backend.saw_gone.wait(5)


def test_right_taken_from_an_open_connection(served: Served, alice: Path) -> None:
    """T16: a key that was removed starts no further command on its connection."""
    served.new_key("admin", admin=True)
    control = ("-S", str(served.root / "ctl"))
    master = subprocess.Popen(
        ["ssh", "-M", "-N", *control, *served.options(alice), "127.0.0.1"], env=clean_env()
    )
    try:
        wait_until((served.root / "ctl").exists, "the master is connected")
        assert served.ssh("show", key=alice, more=control).returncode == 0
        served.keys.remove("alice")
        done = served.ssh("show", key=alice, more=control)
        assert done.returncode == 1
        assert done.stderr == b"mypaas: your key has expired or was removed\n"
    finally:
        master.terminate()
        master.wait(10)


@pytest.mark.parametrize("kind", ["ed25519-sk", "ecdsa-sk"])
def test_token(served: Served, kind: str) -> None:
    """A key on a token lets its owner in who touches it, and who need not."""
    token = Token(served.root, "token", kind)
    served.keys.add("carol", token.public, Rights())
    with agent(served.root / "agent", token) as where:
        more = ("-o", f"IdentityAgent={where}")
        done = served.ssh("hello", key=token.path, more=more)
        assert json.loads(done.stdout) == ["carol", False, ["hello"]]
        token.flags = 0
        done = served.ssh("hello", key=token.path, more=more)
        assert b"Permission denied (publickey)" in done.stderr
        served.keys.path.write_text(f"no-touch-required {token.public}")
        assert served.ssh("hello", key=token.path, more=more).returncode == 0


def test_connection_of_a_removed_key_ends(served: Served, alice: Path) -> None:
    """T16: what asks for more on it is told so, and the connection is closed."""
    served.new_key("admin", admin=True)
    control = ("-S", str(served.root / "ctl"))
    master = subprocess.Popen(
        ["ssh", "-M", "-N", *control, *served.options(alice), "127.0.0.1"], env=clean_env()
    )
    try:
        wait_until((served.root / "ctl").exists, "the master is connected")
        served.keys.remove("alice")
        assert b"removed" in served.ssh("show", key=alice, more=control).stderr
        assert master.wait(10) == 255
    finally:
        master.kill()
        master.wait(10)
