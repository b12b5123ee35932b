"""A machine of a test's own leaves nothing behind, however its engine or its test ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import machine
from support.apps import BASE
from support.machine import Machine
from support.net import wait_until

RUN = (
    "run",
    "-d",
    "--restart=always",
    "-p",
    "80:80",
    BASE,
    "httpd",
    "-f",
    "-p",
    "80",
    "-h",
    "/",
)


def is_gone(name: str) -> bool:
    """Whether neither processes nor mounts, files or the network of a machine remain."""
    mounts = Path("/proc/self/mounts").read_text()
    places = (machine.ROOTS / name, Path("/run/netns", name))
    return (
        not any(place.exists() for place in places)
        and not list(machine.processes(name))
        and f"/{name}/" not in mounts
    )


def stop(running: Machine) -> None:
    running.stop_engine()


def kill(running: Machine) -> None:
    running.stop_engine(signal.SIGKILL)


def kill_and_start(running: Machine) -> None:
    running.stop_engine(signal.SIGKILL)
    running.start_engine()


@pytest.mark.parametrize("end", [None, stop, kill, kill_and_start])
def test_nothing_is_left(engine: None, end: Callable[[Machine], None] | None) -> None:
    """Its containers end with it, whether the engine runs, was stopped or was killed."""
    with Machine([BASE]) as running:
        running.docker(*RUN)
        assert not is_gone(running.name)
        if end is not None:
            end(running)
    assert is_gone(running.name)


LEFT = f"""\
import os, signal
from support.machine import Machine
machine = Machine([{BASE!r}]).__enter__()
machine.docker(*{RUN!r})
print(machine.name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_is_swept(engine: None) -> None:
    """The next run ends the engine and the containers of one that was killed."""
    done = subprocess.run(
        [sys.executable, "-c", LEFT],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    name = done.stdout.strip()
    assert name, done.stderr
    assert not is_gone(name)
    machine.sweep_dead()
    wait_until(lambda: is_gone(name), f"{name} is gone")
