"""Pushes that go on while a test does something else, as at other people's terminals."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.net import wait_until
from support.paas import Paas
from support.stockgit import clean_env


class Pushing:
    """One ``git push`` in a process group of its own; ``said`` is what it printed so far."""

    def __init__(self, argv: list[str], env: dict[str, str], cwd: Path) -> None:
        self.said = ""
        self.process = subprocess.Popen(
            # A CI may ignore Ctrl-C itself, which would make what it starts deaf to it.
            ["env", "--default-signal=INT", *argv],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def sees(self, text: str, *, seconds: float = 30) -> None:
        """Return once ``text`` was printed."""
        wait_until(
            lambda: text in self.said or not self._reader.is_alive(), text, seconds=seconds
        )
        assert text in self.said, f"it ended without {text!r}:\n{self.said}"

    def interrupt(self, sig: signal.Signals = signal.SIGINT) -> None:
        """What Ctrl-C does: git and its ssh get the signal, both."""
        os.killpg(self.process.pid, sig)

    def end(self, *, seconds: float = 90) -> int:
        """Wait for the end and return git's exit code."""
        code = self.process.wait(seconds)
        self._reader.join(10)
        return code

    @property
    def lines(self) -> list[str]:
        return self.said.splitlines()

    @property
    def refused(self) -> str:
        """The one line in which git says that the ref was not taken."""
        (line,) = [each for each in self.lines if each.startswith(" ! [")]
        return line

    def close(self) -> None:
        if self.process.poll() is None:
            self.interrupt(signal.SIGKILL)
        self.process.wait()
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line


@contextmanager
def pushing(
    paas: Paas,
    app: Path,
    service: str,
    *options: str,
    branch: str = "main",
    key: Path | None = None,
) -> Iterator[Pushing]:
    """``git push options REMOTE branch``, begun; it ends, at the latest, with the block."""
    argv = ["git", "push", *options, paas.url(service), branch]
    going = Pushing(argv, clean_env(paas.git_env(key)), app)
    try:
        yield going
    finally:
        going.close()
