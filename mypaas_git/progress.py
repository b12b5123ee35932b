"""What the pusher sees while something long happens.

Lines look as users of Heroku know them::

    -----> a step
           a detail of it
     !     a warning, or the failure
    =====> the good end
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

MAX_LINE = 2000
"""Characters of one line that are shown; an app can print without a newline for ever."""

# CSI and OSC sequences, other escapes, then whatever control characters are left.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b.?", re.DOTALL
)
_COLOUR = re.compile(r"(\x1b\[[0-9;:]*m)")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Progress(Protocol):
    """A sink for what the pusher should see; every method takes one line of text."""

    def step(self, text: str) -> None: ...

    def detail(self, text: str) -> None: ...

    def warning(self, text: str) -> None: ...

    def done(self, text: str) -> None: ...


class LineProgress:
    """Writes progress as lines, each clean and ended by one newline."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def step(self, text: str) -> None:
        self._line("-----> ", text)

    def detail(self, text: str) -> None:
        self._line("       ", text)

    def warning(self, text: str) -> None:
        self._line(" !     ", text)

    def done(self, text: str) -> None:
        self._line("=====> ", text)

    def _line(self, prefix: str, text: str) -> None:
        for line in clean_lines(text):
            self._write(f"{prefix}{line}\n")


class Tee:
    """Progress that goes to several sinks, such as the pusher and the release's log."""

    def __init__(self, *sinks: Progress) -> None:
        self._sinks = sinks

    def step(self, text: str) -> None:
        for sink in self._sinks:
            sink.step(text)

    def detail(self, text: str) -> None:
        for sink in self._sinks:
            sink.detail(text)

    def warning(self, text: str) -> None:
        for sink in self._sinks:
            sink.warning(text)

    def done(self, text: str) -> None:
        for sink in self._sinks:
            sink.done(text)


def clean(text: str) -> str:
    """One line without control characters, so that no output can pose as ours."""
    return " ".join(clean_lines(text))


def clean_lines(text: str) -> list[str]:
    """The lines of ``text`` without control characters, each at most MAX_LINE long.

    Of a line that redraws itself with carriage returns only the last state is kept.
    """
    lines = []
    for raw in text.rstrip("\r\n").split("\n"):
        last = _ESCAPES.sub("", raw).rstrip("\r").rsplit("\r", 1)[-1]
        line = _CONTROLS.sub("", last).rstrip()
        lines.append(line if len(line) <= MAX_LINE else line[: MAX_LINE - 1] + "…")
    return lines


def coloured(line: str) -> str:
    """A line of an app's output with its colours, and without all else that steers.

    It cannot move the cursor, rename the window, or leave its colour to the next line.
    """
    last = line.rstrip("\r").rsplit("\r", 1)[-1]
    pieces = _COLOUR.split(last)
    cleaned = [
        piece if n % 2 else _CONTROLS.sub("", _ESCAPES.sub("", piece))
        for n, piece in enumerate(pieces)
    ]
    return "".join([*cleaned, "\x1b[0m" if len(pieces) > 1 else ""])
