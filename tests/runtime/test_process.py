"""A program that is fed, listened to and ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from mypaas_git.errors import BuildFailed, Cancelled
from mypaas_git.runtime.process import converse

ENV = {"PATH": os.environ["PATH"]}


def nothing() -> None:
    """Nothing to check."""


def test_a_program_is_fed_while_it_answers() -> None:
    """More than both pipes hold goes through, and the exit code comes back."""
    heard: list[str] = []
    chunks = (b"x" * 65_000 for _ in range(100))
    script = "cat; echo to stderr >&2; exit 3"
    code = converse(["sh", "-c", script], ENV, chunks, heard.append, nothing)
    assert code == 3
    assert "".join(heard) == "x" * 6_500_000 + "to stderr\n"


def test_a_character_may_come_in_two_parts() -> None:
    """Text is decoded across reads; what is no text is replaced."""
    heard: list[str] = []
    script = "printf '\\303'; sleep 0.3; printf '\\244 \\377'"
    assert converse(["sh", "-c", script], ENV, iter([]), heard.append, nothing) == 0
    assert "".join(heard) == "ä \ufffd"


def test_a_program_need_not_read() -> None:
    """One that closes its input, or ends, is not fed any more."""
    endless: Iterator[bytes] = iter(lambda: b"x" * 65_536, b"")
    assert converse(["true"], ENV, endless, lambda _: None, nothing) == 0


def test_it_ends_with_whatever_it_started() -> None:
    """A check that raises is the end of it, even if it ignores SIGTERM."""
    began = time.monotonic()
    heard: list[str] = []

    def check() -> None:
        if "".join(heard).count("\n") == 2:
            raise Cancelled("enough")

    script = "trap '' TERM; sleep 300 & echo $!; echo $$; wait; wait"
    with pytest.raises(Cancelled):
        converse(["sh", "-c", script], ENV, iter([]), heard.append, check)
    assert time.monotonic() - began < 30
    for pid in map(int, "".join(heard).split()):
        with pytest.raises(ProcessLookupError):
            alive(pid)


def test_it_does_not_outlive_us() -> None:
    """Whoever is killed while it listens takes the program along."""
    script = (
        "from mypaas_git.runtime.process import converse\n"
        "argv = ['sh', '-c', 'echo $$; exec sleep 300']\n"
        "converse(argv, {'PATH': '/usr/bin:/bin'}, iter([]), print, lambda: None)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-u", "-c", script], stdout=subprocess.PIPE, text=True
    ) as listening:
        assert listening.stdout is not None
        pid = int(listening.stdout.readline())
        listening.kill()
    with pytest.raises(ProcessLookupError):
        alive(pid)


def alive(pid: int) -> None:
    """Raise ProcessLookupError unless the process exists, and is more than an entry."""
    for _ in range(50):
        try:
            with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - the kernel's, not a path of ours
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    raise ProcessLookupError(pid)
        except FileNotFoundError:
            raise ProcessLookupError(pid) from None
        time.sleep(0.05)


def test_a_program_that_is_not_there() -> None:
    """It is named."""
    with pytest.raises(BuildFailed, match=r"^/no/such/program cannot be run: No such file"):
        converse(["/no/such/program"], ENV, iter([]), lambda _: None, nothing)
