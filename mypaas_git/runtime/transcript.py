"""What a build says, as lines for people: clean, without secrets, and not without end."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mypaas_git.progress import MAX_LINE, clean
from mypaas_git.redact import Redactor

USING_CACHE = " ---> Using cache"
"""Stands below a step whose result was there already."""

LONGEST = 8 * MAX_LINE
"""Characters of a line that are kept until its end comes; the others are dropped."""


@dataclass(frozen=True)
class Flood:
    """How much of a build's output is shown: ``lines``, and ``size`` in characters."""

    lines: int = 100_000
    size: int = 20 << 20


class Transcript:
    """Shows the lines of one build to ``log``, until there are too many.

    The values of ``secrets`` appear as ``[KEY]``. They are the pusher's own, so that this
    guards against accidents and not against a Dockerfile that encodes them.
    """

    def __init__(
        self, log: Callable[[str], None], secrets: Mapping[str, str], flood: Flood
    ) -> None:
        self._log = log
        self.hide = Redactor(secrets)
        self._lines = flood.lines
        self._size = flood.size
        self.step = ""
        """The step line that was shown last, "" before the first."""

    def show(self, line: str) -> str:
        """Show ``line`` unless it is blank or too late; returns it as it is shown."""
        line = clean(self.hide(line))
        if not line.strip() or self._lines < 0:
            return line
        self._lines -= 1
        self._size -= len(line)
        if self._size < 0:
            self._lines = -1
        self._log(line if self._lines >= 0 else "… more output is not shown")
        return line

    def begin(self, step: str) -> None:
        """Show that ``step`` begins, ``Step 2/7 : RUN make``."""
        self.step = self.show(step)

    def tell(self, text: str, length: int = 400) -> str:
        """``text`` for an error's message: one line without secrets, ``length`` at most."""
        return short(clean(self.hide(" ".join(text.split()))), length)


class Lines:
    """Cuts a stream of text into lines for ``take``; one without end needs no memory."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._partial = ""

    def feed(self, text: str) -> None:
        first, *others = text.split("\n")
        self._append(first)
        for each in others:
            self.end()
            self._append(each)

    def end(self) -> None:
        """Take what has come of a line as the whole of it."""
        line, self._partial = self._partial, ""
        self._take(line)

    def _append(self, text: str) -> None:
        self._partial += text[: LONGEST - len(self._partial)]


def short(text: str, length: int) -> str:
    """``text`` on one line of at most ``length`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def step_failed(step: str, code: str, last: str) -> str:
    """A step's command ended with ``code``; ``last`` is the last line that it printed."""
    why = f" ({short(last, 200)})" if last.strip() else ""
    return f"{short(step, 100)} returned {code}{why}"


def step_refused(step: str, said: str) -> str:
    """A step failed without a command; before the first it is the Dockerfile's fault."""
    return f"{short(step, 100)}: {said}" if step else said


def dockerfile_fault(said: str) -> str:
    """What is wrong with the Dockerfile itself, its line number in front."""
    match = re.search(r"parse error (?:on )?line ([0-9]+): (.*)", said, re.IGNORECASE)
    return f"Dockerfile line {match[1]}: {match[2]}" if match else said
