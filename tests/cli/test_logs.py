"""``mypaas logs``: by the real ssh client, with and without a terminal."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import engine
from support.apps import BASE, commit, make_app, unique
from support.dialogue import CTRL_C, Dialogue
from support.net import wait_until
from support.paas import MYPAAS, Paas
from support.stockgit import clean_env, ssh_options

PATIENCE = 60.0


def dockerfile(name: str, version: str, *, scale: int = 1, more: str = "") -> str:
    return (
        f"FROM {BASE}\n# mypaas.url=http://{name}.test\n# mypaas.scale={scale}\n"
        "RUN mkdir /www && echo hello > /www/index.html\n"
        f"CMD echo version {version}; {more} exec httpd -f -p 80 -h /www\n"
    )


def argv(paas: Paas, *words: str, options: tuple[str, ...] = ()) -> list[str]:
    where = ["-p", str(paas.ssh_port), "mypaas@127.0.0.1"]
    return ["ssh", *options, *ssh_options(paas.admin, paas.known_hosts), *where, *words]


@contextlib.contextmanager
def following(paas: Paas, name: str) -> Iterator[subprocess.Popen[bytes]]:
    command = argv(paas, "logs", name, "-f")
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode()


@pytest.fixture(scope="module")
def talker(paas: Paas, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A service that prints what a terminal had better not get."""
    name = unique("talker")
    evil = (
        "printf '\\033[31mred\\033[2J\\033]0;title\\007 10%%\\r';"
        "printf '\\033[31mred\\302\\233 100%%\\n';"
    )
    app = make_app(tmp_path_factory.mktemp("talker"), dockerfile(name, "1", more=evil))
    paas.deploy(app, name)
    return name


def test_what_steers_a_terminal_is_left_out(paas: Paas, talker: str) -> None:
    """T56: colours stay, for their line only; --raw shows all there is."""
    shown = paas.ssh("logs", talker).stdout
    assert shown == "version 1\n\x1b[31mred 100%\x1b[0m\n"
    assert paas.cli("logs", talker).stdout == shown
    raw = subprocess.run(
        argv(paas, "logs", talker, "--raw"), capture_output=True, timeout=60, check=True
    ).stdout
    assert b"\x1b]0;title\x07" in raw
    assert b"\xc2\x9b" in raw


def test_followers_see_later_releases(paas: Paas, tmp_path: Path) -> None:
    """New replicas join with their names; a container that starts anew goes on; then an end."""
    name = unique("followed")
    app = make_app(tmp_path, dockerfile(name, "1"))
    paas.deploy(app, name)
    with following(paas, name) as process:
        assert line(process) == "version 1\n"
        engine.docker("kill", "--signal", "KILL", f"{paas.namespace}.{name}.v1.1")
        assert line(process) == "version 1\n", "the engine has started it again"
        commit(app, {"Dockerfile": dockerfile(name, "2", scale=2)})
        paas.deploy(app, name)
        found = sorted([line(process), line(process)])
        assert found == [f"{name}.v2.1 | version 2\n", f"{name}.v2.2 | version 2\n"]
        assert paas.ssh("restart", name).returncode == 0
        found = sorted([line(process), line(process)])
        assert found == [f"{name}.v3.1 | version 2\n", f"{name}.v3.2 | version 2\n"]
        assert paas.ssh("remove", name, "--yes").returncode == 0
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_ctrl_c(paas: Paas, talker: str) -> None:
    """With a terminal lines end as it wants them; Ctrl-C ends it with 130."""
    for command, env in (
        (argv(paas, "logs", talker, "-f", options=("-tt",)), clean_env()),
        ([MYPAAS, "logs", talker, "-f"], paas.env()),
    ):
        with Dialogue(command, env) as dialogue:
            dialogue.expect(rb"version 1\r\n")
            dialogue.expect(rb"100%\x1b\[0m\r\n")
            if command[0] == "ssh":
                dialogue.type(CTRL_C)
            else:  # it is no controlling terminal there, whose kernel would do this
                dialogue.process.send_signal(signal.SIGINT)
            assert dialogue.wait() == 130


def test_followers_that_leave_do_not_add_up(paas: Paas, talker: str) -> None:
    """No thread, no descriptor and no connection to the engine stays of who hung up."""

    def leave(times: int) -> None:
        for n in range(times):
            if n % 2:
                with following(paas, talker) as process:
                    assert line(process) == "version 1\n"
            else:
                tty = argv(paas, "logs", talker, "-f", options=("-tt",))
                with Dialogue(tty, clean_env()) as dialogue:
                    dialogue.expect(rb"version 1\r\n")

    leave(4)
    wait_until(lambda: not streams(paas), "the first have gone", seconds=PATIENCE)
    threads, descriptors = paas.usage()
    leave(8)
    wait_until(lambda: paas.usage()[0] < threads + 6, "threads are gone", seconds=PATIENCE)
    wait_until(lambda: paas.usage()[1] < descriptors + 6, "descriptors", seconds=PATIENCE)


def streams(paas: Paas) -> list[str]:
    """The server's ssh connections."""
    shown = subprocess.run(
        ["ss", "-Htn", "state", "established", f"( sport = :{paas.ssh_port} )"],
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout.splitlines()


def test_help_and_a_service_without_containers(paas: Paas, talker: str) -> None:
    """Each explains itself; what is missing is one line."""
    assert "--follow" in paas.ssh("logs", "--help").stdout
    assert paas.ssh("logs", talker, "-n", "-1").returncode == 2
    done = paas.ssh("logs", "no-such-service", "-f")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
