"""A client's terminal (ssh -t): what it is, and what a plain command makes of it.

A client with a terminal sends every key as it is and shows every byte as it comes; what
the kernel does between a program and its terminal is ours to do. A command in a container
has a terminal of the engine's for that; our own commands get a :class:`Keyboard` and
:func:`with_returns`.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections import deque
from collections.abc import Callable

from mypaas_git.errors import Cancelled

Window = tuple[int, int]
"""Columns and rows."""

MAX_EVENTS = 32
"""Sizes and signals that wait for somebody to look; of more, the oldest are forgotten."""
MAX_SIZE = 10_000
MAX_TYPED = 1 << 20
INTERRUPT, END, RETURN = b"\x03", b"\x04", b"\r"
SIGNALS = frozenset({"HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "ALRM", "KILL", "CONT"})


class Events:
    """What a client says of its terminal, and the signals that it sends."""

    def __init__(self) -> None:
        self.window: Window | None = None
        self.term = ""
        self._waiting: deque[Window | str] = deque(maxlen=MAX_EVENTS)

    def opened(self, term: bytes, columns: int, rows: int) -> None:
        """The client has a terminal."""
        self.window = _size(columns, rows)
        if re.fullmatch(rb"[A-Za-z0-9._+-]{1,64}", term):
            self.term = term.decode()

    def resized(self, columns: int, rows: int) -> None:
        self._waiting.append(_size(columns, rows))

    def signalled(self, name: str) -> None:
        if name in SIGNALS:
            self._waiting.append(name)

    def take(self) -> list[Window | str]:
        """What has happened since the last call."""
        found: list[Window | str] = []
        with contextlib.suppress(IndexError):
            while True:
                found.append(self._waiting.popleft())
        return found


class Keyboard:
    """What is typed at a client's terminal, as ``read`` gets it; nothing of it is echoed.

    It is heard from the first question on, in a thread that ends with the channel.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read_raw = read
        self._typed = bytearray()
        self._ended = False
        self._interrupted = False
        self._changed = threading.Condition()
        self._listener: threading.Thread | None = None

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C was typed."""
        self._listen()
        return self._interrupted

    @property
    def was_interrupted(self) -> bool:
        """The same, for when nobody has asked before: it was not then."""
        return self._interrupted

    def read(self, n: int) -> bytes:
        """Up to ``n`` bytes as soon as there are some; b"" after Ctrl-D. Raises Cancelled."""
        self._listen()
        with self._changed:
            self._changed.wait_for(lambda: self._typed or self._ended or self._interrupted)
            if self._interrupted:
                raise Cancelled("interrupted")
            chunk = bytes(self._typed[:n])
            del self._typed[:n]
            return chunk

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = threading.Thread(target=self._hear, name="keyboard", daemon=True)
            self._listener.start()

    def _hear(self) -> None:
        while data := self._read_raw(4096):
            with self._changed:
                self._take(data)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _take(self, data: bytes) -> None:
        for key in (data[n : n + 1] for n in range(len(data))):
            if key == INTERRUPT:
                self._interrupted = True
            elif key == END:
                self._ended = True
            elif not self._ended and len(self._typed) < MAX_TYPED:
                self._typed += b"\n" if key == RETURN else key


def with_returns(data: bytes) -> bytes:
    """``data`` with its lines ended as a terminal wants it."""
    return re.sub(rb"(?<!\r)\n", b"\r\n", data)


def _size(columns: int, rows: int) -> Window:
    return min(columns, MAX_SIZE), min(rows, MAX_SIZE)
