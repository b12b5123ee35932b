"""The process's own input and output, as a command in the server's shell has them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections import deque
from collections.abc import Iterator
from types import FrameType

from mypaas_git.runtime.base import Window

FORWARDED = {
    signal.SIGINT: "INT",
    signal.SIGTERM: "TERM",
    signal.SIGQUIT: "QUIT",
    signal.SIGUSR1: "USR1",
    signal.SIGUSR2: "USR2",
}
LOOK = 0.2
"""Seconds between two looks at whether input is still wanted."""


class Shell:
    """Standard input and output."""

    gone = False
    left = False

    def read(self, n: int) -> bytes:
        return sys.stdin.buffer.read(n)

    def write(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def write_error(self, data: bytes) -> None:
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()

    def be_patient(self) -> None:
        """A pipe waits for its reader anyway."""

    @contextlib.contextmanager
    def operator(self) -> Iterator[ShellOperator]:
        """Whoever is at this process's terminal, or at the other ends of its pipes."""
        has_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        made = ShellOperator(self, has_terminal=has_terminal)
        with made.hearing(), _raw() if has_terminal else contextlib.nullcontext():
            yield made


class ShellOperator:
    """With a terminal each key goes to the command, Ctrl-C too; else signals are passed on."""

    def __init__(self, shell: Shell, *, has_terminal: bool) -> None:
        self.window = _size() if has_terminal else None
        self.term = os.environ.get("TERM", "")
        self.gone = False
        self._closed = False
        self._events: deque[Window | str] = deque()
        self.write = shell.write
        self.write_error = shell.write_error

    def read(self, n: int) -> bytes:
        # Not by the buffered reader: at the end somebody may still be waiting in it.
        while not self._closed:
            if select.select([0], [], [], LOOK)[0]:
                return os.read(0, n)
        return b""

    def events(self) -> list[Window | str]:
        return [self._events.popleft() for _ in range(len(self._events))]

    @contextlib.contextmanager
    def hearing(self) -> Iterator[None]:
        """Within, signals are the command's, and the hang-up of the terminal is a leave."""
        numbers = [*FORWARDED, signal.SIGHUP, signal.SIGWINCH]
        before = {number: signal.signal(number, self._hear) for number in numbers}
        try:
            yield
        finally:
            self._closed = True
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.gone = True
        elif number == signal.SIGWINCH:
            if self.window is not None:
                self._events.append(_size())
        else:
            self._events.append(FORWARDED[signal.Signals(number)])


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """Have the terminal pass every key on, and show every byte as it is."""
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)  # and what was typed already is kept
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # hung up
            termios.tcsetattr(0, termios.TCSADRAIN, before)


def _size() -> Window:
    size = os.get_terminal_size(1)
    return size.columns, size.lines
