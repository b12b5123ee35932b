"""``mypaas run``: one-off commands, by the real ssh client and in the server's shell."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import engine
from support.apps import BASE, make_app, unique
from support.dialogue import CTRL_C, CTRL_D, Dialogue
from support.keys import ssh_key
from support.net import wait_until
from support.paas import MYPAAS, Paas
from support.stockgit import clean_env, ssh_options

from mypaas_git.ssh import patience

PATIENCE = 60.0


@pytest.fixture(scope="module")
def service(paas: Paas, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A service with a variable, a volume, a published port and two replicas' worth of url."""
    name = unique("run")
    text = (
        f"FROM {BASE}\n# mypaas.url=http://{name}.test\n# mypaas.env=COLOUR=blue\n"
        f"# mypaas.volume={name}:/data\n# mypaas.publish=127.0.0.1::80\n"
        "RUN mkdir /www && echo hello > /www/index.html\n"
        'CMD ["httpd", "-f", "-p", "80", "-h", "/www"]\n'
    )
    paas.deploy(make_app(tmp_path_factory.mktemp("run"), text), name)
    assert paas.ssh("config", "set", name, "TOKEN=s3cret-of-run").returncode == 0
    return name


@pytest.fixture(autouse=True)
def nothing_left(paas: Paas, service: str) -> Iterator[None]:
    """However a command ended, neither its container stays nor its lock."""
    yield
    wait_until(lambda: not one_offs(paas), "the containers are gone", seconds=PATIENCE)
    locks = paas.home / "locks"
    wait_until(lambda: not list(locks.glob("*.run.*")), "the locks are gone", seconds=PATIENCE)


def one_offs(paas: Paas) -> list[str]:
    return engine.containers(paas.namespace, "label=mypaas.role=run")


def ssh_argv(paas: Paas, *words: str, options: tuple[str, ...] = ()) -> list[str]:
    where = ["-p", str(paas.ssh_port), "mypaas@127.0.0.1"]
    return ["ssh", *options, *ssh_options(paas.admin, paas.known_hosts), *where, *words]


@pytest.fixture(params=["shell", "ssh"])
def talk(request: pytest.FixtureRequest, paas: Paas) -> Callable[..., Dialogue]:
    """A terminal with ``mypaas …`` on it, at either entrance."""

    def begin(*words: str, size: tuple[int, int] = (80, 24)) -> Dialogue:
        if request.param == "shell":
            return Dialogue([MYPAAS, *words], {**paas.env(), "TERM": "vt220"}, size)
        argv = ssh_argv(paas, shlex.join(words), options=("-tt",))
        return Dialogue(argv, {**clean_env(), "TERM": "vt220"}, size)

    return begin


def test_what_it_gets_and_returns(paas: Paas, service: str) -> None:
    """Variables, volume, exit code, both outputs; none of the ports, no route, no log."""
    script = 'echo "$COLOUR $TOKEN $MYPAAS_SERVICE"; echo kept > /data/x; echo bad >&2; exit 7'
    for done in (
        paas.ssh("run", service, "--", "sh", "-c", f"'{script}'"),
        paas.cli("run", service, "--", "sh", "-c", script),
    ):
        assert done.stdout == f"blue s3cret-of-run {service}\n"
        assert (done.returncode, done.stderr) == (7, "bad\n")
    assert paas.ssh("run", service, "cat", "/data/x").stdout == "kept\n"
    assert "s3cret-of-run" not in paas.log()
    killed = paas.ssh("run", service, "--", "sh", "-c", "'kill -9 $$'")
    assert killed.returncode == 137


def test_arguments_are_what_was_quoted(paas: Paas, service: str) -> None:
    """One level of quotes is ssh's; nothing is expanded on the server, options are passed."""
    done = paas.ssh(
        f"""run {service} -- sh -c 'echo "a  b" "$1" $0' '$(id)' ";x *" -l --help"""
    )
    assert (done.stdout, done.returncode) == ("a  b ;x * $(id)\n", 0)
    done = paas.ssh("run", service, "ls", "-d", "/www", "/data")
    assert done.stdout == "/data\n/www\n"


def test_input_and_output_are_bytes(paas: Paas, service: str) -> None:
    """Without a terminal megabytes of any bytes go through, to the end of the input."""
    data = os.urandom(3_000_000)
    for argv in (ssh_argv(paas, "run", service, "cat"), [MYPAAS, "run", service, "cat"]):
        done = subprocess.run(
            argv, env=paas.env(), input=data, capture_output=True, timeout=120, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == data


def test_what_is_refused(paas: Paas, service: str, tmp_path: Path) -> None:
    """No command, no program, no service, no right: one line each, and its exit code."""
    other = ssh_key(tmp_path, "carl")
    public = other.with_suffix(".pub").read_text()
    added = paas.ssh("keys", "add", "carl", "-", "--service", "another", stdin=public)
    assert added.returncode == 0, added.stderr
    try:
        for key, argv, code, words in (
            (paas.admin, (service,), 2, "Missing argument"),
            (paas.admin, (service, "--"), 2, "a command is missing"),
            (paas.admin, (service, "no-such-program"), 127, "exec no-such-program failed"),
            (paas.admin, ("no-such-service", "ls"), 1, "there is no service"),
            (other, (service, "ls"), 1, "has no right to the service"),
        ):
            done = paas.ssh("run", *argv, key=key)
            assert (done.returncode, done.stdout) == (code, "")
            assert words in done.stderr
    finally:
        paas.ssh("keys", "remove", "carl")
    assert "COMMAND" in paas.ssh("run", "--help").stdout


def test_a_terminal(talk: Callable[..., Dialogue], service: str) -> None:
    """Its size, changes of it, its name, echo, Ctrl-C to what runs there, Ctrl-D, exit code."""
    with talk("run", service, "--", "sh", size=(101, 33)) as shell:
        shell.type(b"stty size; echo $TERM; test -t 0 && echo is-a-tty\r")
        # The size comes once the container runs, as with Docker's own client.
        shell.expect(rb"vt220\r\n")
        shell.expect(rb"is-a-tty\r\n")
        shell.type(b"until stty size | grep '33 101'; do sleep 0.1; done\r")
        shell.expect(rb"\r\n33 101\r\n")
        shell.resize(77, 22)
        shell.type(b"until stty size | grep '22 77'; do sleep 0.1; done\r")
        shell.expect(rb"\r\n22 77\r\n")
        shell.type(b"echo be''fore; sleep 1000\r")
        shell.expect(rb"before\r\n")
        shell.type(CTRL_C)
        shell.type(b"echo still-he''re $?\r")
        shell.expect(rb"still-here 130\r\n")
        # Once the first line is out, the terminal is cat's and no more the shell's own.
        shell.type(b"echo cat''s-turn; cat; exit 9\r")
        shell.expect(rb"cats-turn\r\n")
        shell.type(b"paw\r")
        shell.expect(rb"paw\r\npaw\r\n")
        shell.type(CTRL_D)
        assert shell.wait() == 9


def test_ctrl_c_ends_what_does_not_care(talk: Callable[..., Dialogue], service: str) -> None:
    """The first process of a container too, which the kernel would spare."""
    with talk("run", service, "--", "sh", "-c", "echo begun; exec sleep 1000") as it:
        it.expect(rb"begun\r\n")
        it.type(CTRL_C)
        assert it.wait() == 130


@contextlib.contextmanager
def begun(
    paas: Paas, service: str, *, terminal: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """A command over ssh that would run for ever and has begun; its client is killed."""
    words = ("run", service, "--", "sh", "-c", "'echo begun; sleep 1000'")
    if terminal:
        with Dialogue(ssh_argv(paas, *words, options=("-tt",)), clean_env()) as dialogue:
            dialogue.expect(rb"begun")
            yield dialogue.process
        return
    argv, pipe = ssh_argv(paas, *words), subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGINT])
def test_a_client_that_leaves(
    paas: Paas, service: str, terminal: bool, sig: signal.Signals
) -> None:
    """Killed or interrupted, with a terminal and without: the command ends with it."""
    with begun(paas, service, terminal=terminal) as process:
        assert len(one_offs(paas)) == 1
        process.send_signal(sig)
        process.wait(PATIENCE)
        wait_until(lambda: not one_offs(paas), "the container is gone", seconds=PATIENCE)


def test_clients_that_leave_do_not_add_up(paas: Paas, service: str) -> None:
    """No thread and no descriptor of the server stays, nor a connection to the engine."""

    def leave(times: int) -> tuple[int, int]:
        for n in range(times):
            with begun(paas, service, terminal=n % 2 == 0):
                pass
        wait_until(lambda: not one_offs(paas), "the containers are gone", seconds=PATIENCE)
        return paas.usage()

    leave(2)
    threads, descriptors = leave(2)
    # Pools come and go; one of each client's would be more.
    wait_until(lambda: paas.usage()[0] <= threads, "threads", seconds=PATIENCE)
    leave(8)
    wait_until(lambda: paas.usage()[0] < threads + 6, "threads are gone", seconds=PATIENCE)
    wait_until(lambda: paas.usage()[1] < descriptors + 6, "descriptors", seconds=PATIENCE)


def test_a_client_that_reads_slowly(paas: Paas, service: str) -> None:
    """More than the window holds waits for its reader, however long that takes."""
    argv = ssh_argv(paas, "run", service, "--", "head", "-c", "8000000", "/dev/zero")
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        wait_until(lambda: one_offs(paas), "it runs", seconds=PATIENCE)
        # Longer than a client may leave no room elsewhere.
        time.sleep(patience.STALL_SECONDS + 2)
        assert len(client.stdout.read()) == 8_000_000
        assert client.wait(PATIENCE) == 0


def test_a_signal_in_the_shell(paas: Paas, service: str) -> None:
    """Without a terminal signals are passed on, as by docker run."""
    script = "trap 'echo caught; exit 3' TERM; echo begun; while :; do sleep 0.1; done"
    with subprocess.Popen(
        [MYPAAS, "run", service, "--", "sh", "-c", script],
        env=paas.env(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.terminate()
        assert process.stdout.read() == b"caught\n"
        assert process.wait(PATIENCE) == 3


def test_a_killed_shell_is_cleared_up_after(paas: Paas, service: str) -> None:
    """The server notices that the process is gone which the container was for."""
    with subprocess.Popen(
        [MYPAAS, "run", service, "--", "sleep", "1000"],
        env=paas.env(),
        stdin=subprocess.DEVNULL,
    ) as process:
        wait_until(lambda: one_offs(paas), "it runs", seconds=PATIENCE)
        process.kill()
        process.wait(PATIENCE)
    wait_until(lambda: not one_offs(paas), "the container is gone", seconds=PATIENCE)


def test_a_killed_server_and_a_removed_service(
    new_paas: Callable[[], Paas], tmp_path: Path
) -> None:
    """The next start clears up; removing a service ends its commands."""
    other, name = new_paas(), unique("gone")
    other.start()
    text = f'FROM {BASE}\nCMD ["sleep", "1000"]\n'
    other.deploy(make_app(tmp_path, text), name)
    with begun(other, name):
        assert other.process is not None
        other.process.kill()
        other.wait_killed()
    assert len(one_offs(other)) == 1
    other.start()
    assert one_offs(other) == []
    assert list((other.home / "locks").glob("*.run.*")) == []
    with begun(other, name) as client:
        done = other.ssh("remove", name, "--yes")
        assert done.returncode == 0, done.stderr
        assert client.wait(PATIENCE) == 137
    assert engine.docker("images", "-q", f"{other.namespace}/{name}") == ""
