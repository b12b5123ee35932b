"""BuildKit's plain progress, read line by line as if the classic builder had printed it.

BuildKit numbers what it does; each line begins with the number of what it tells of::

    #5 [builder 2/4] RUN make        a step, again whenever the story goes back to it
    #5 0.212 cc -o app app.c         what its command printed, after 0.212 s
    #5 CACHED                        and how it ended, or DONE 0.3s, or ERROR: why

Builds that run at the same time share what they have in common, and it bears the name that
the first of them gave it: a base image's stage and number may be those of another service's
Dockerfile.

Source: util/progress/progressui of github.com/moby/buildkit.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from mypaas_git.runtime.transcript import (
    USING_CACHE,
    Transcript,
    dockerfile_fault,
    step_failed,
    step_refused,
)

HOLD = 0.15
"""Seconds that a step waits to be shown: cached ones are told of in no order at all."""

HOLD_BASE = 3.0
"""Seconds that a base image waits for a step of ours, which tells what its number is."""

_STEP = re.compile(r"\[(?:\S+/\S+ )?(?:([^\]/ ]+) )?([0-9]{1,4})/([0-9]{1,4})\] (.+)")
_FROM = re.compile(r"(?:\[internal\] load metadata for|FROM) (?:docker-image://)?(\S+)")
_SYNTAX = re.compile(r"resolve image config for (?:docker-image://)?(\S+)")
_EXIT = re.compile(r"exit code: ([0-9]+)$")
# What every part of BuildKit that an error passes puts in front of it.
_PREFIX = re.compile(
    r"ERROR: |failed to (solve|build)( with frontend [\w.]+)?: "
    r"|failed to (create LLB definition|compute cache key|load cache key): "
    r"|failed to calculate checksum of ref [^ ]+: |rpc error: code = \w+ desc = "
)


@dataclass
class _Vertex:
    """What BuildKit does as ``number``. ``what`` says it, ``last`` is what it printed last.

    Only a step has an ``order``: its place among the ``total`` of its ``stage``.
    """

    number: str
    what: str
    stage: str = ""
    order: int = 0
    total: int = 0
    cached: bool = False
    last: str = ""

    @property
    def line(self) -> str:
        """What is done, as it is shown; a step without a ``total`` has no number."""
        if not self.total:
            return self.what
        where = f" [{self.stage}]" if self.stage else ""
        return f"Step {self.order}/{self.total} : {self.what}{where}"


class Vertices:
    """Takes BuildKit's lines and shows those that people want to read."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self._known: dict[str, _Vertex] = {}
        self._waiting: list[_Vertex] = []
        self._since = 0.0
        self._current: _Vertex | None = None
        self._failed: _Vertex | None = None
        self._error = ""
        self._said = ""

    def take(self, line: str) -> None:
        match = re.match(r"#([0-9]{1,6}) (.*)", line, re.DOTALL)
        if match is None:
            self._conclude(line)
        elif match[1] in self._known:
            self._about(self._known[match[1]], match[2])
        else:
            self._begin(_vertex(match[1], match[2]))

    def tick(self) -> None:
        """Show what has waited long enough; to be called several times a second."""
        hold = HOLD if any(each.order > 1 for each in self._waiting) else HOLD_BASE
        if self._waiting and time.monotonic() - self._since > hold:
            self.flush()

    def flush(self, until: _Vertex | None = None) -> None:
        """Show what waits, in the Dockerfile's order, ``until`` last.

        A base image comes first: stages that share one have it under the name of any of them.
        """
        waiting, self._waiting = self._waiting, []
        waiting.sort(key=lambda v: (v is until, v.order > 1, v.stage, v.order))
        for vertex in waiting:
            if vertex.order == 1:
                self._place(vertex)
            self._current = vertex
            self._transcript.begin(vertex.line)
            if vertex.cached:
                self._transcript.show(USING_CACHE)

    def fault(self) -> str:
        """What a pusher should know of a build that failed."""
        tell = self._transcript.tell
        if self._failed is None:
            return dockerfile_fault(tell(_plain(self._said)))
        step, code = tell(self._failed.line), _EXIT.search(self._error)
        if code:
            return step_failed(step, code[1], self._failed.last)
        return step_refused(step, tell(_missing(step, _plain(self._error))))

    def _begin(self, vertex: _Vertex) -> None:
        self._known[vertex.number] = vertex
        if vertex.order:
            if not any(each.order > 1 for each in self._waiting):
                self._since = time.monotonic()
            self._waiting.append(vertex)

    def _place(self, base: _Vertex) -> None:
        """Leave a base image the number that a step of ours bears out, or give it that."""
        steps = [each for each in self._known.values() if each.order > 1]
        stages = {(each.stage, each.total) for each in steps}
        if len(stages) == 1 and steps[0].stage == "":
            base.stage, base.total = "", steps[0].total
        elif (base.stage, base.total) not in stages:
            base.stage, base.total = "", 0

    def _about(self, vertex: _Vertex, said: str) -> None:
        printed = re.match(r"[0-9]+\.[0-9]+ (.*)", said, re.DOTALL)
        if printed:
            # BuildKit gives a line that the command did not end no end either.
            line = re.sub(rf"#{vertex.number} DONE [0-9.]+s$", "", printed[1])
            self._printed(vertex, line)
        elif said.startswith("ERROR: ") and "context canceled" not in said:
            self._fail(vertex, said)
        # The classic builder does not say so of a base image either.
        elif said == "CACHED" and vertex.order > 1:
            vertex.cached = True
            if vertex not in self._waiting:
                self._printed(vertex, USING_CACHE)

    def _printed(self, vertex: _Vertex, line: str) -> None:
        """Stages are built side by side: tell whose line it is where that is not plain."""
        if not vertex.order:
            return
        self.flush(vertex)
        stage = f"[{vertex.stage}] " if vertex is not self._current else ""
        shown = self._transcript.show(stage + line if line.strip() else line)
        if shown.strip():
            vertex.last = shown.removeprefix(stage)

    def _fail(self, vertex: _Vertex, said: str) -> None:
        self.flush(vertex)
        if vertex.line and self._failed is None:
            self._failed, self._error = vertex, said

    def _conclude(self, line: str) -> None:
        """After the last step all is told at length; what went wrong is the last line."""
        if _PREFIX.match(line) or (line.strip() and not _PREFIX.match(self._said)):
            self._said = line


def _vertex(number: str, name: str) -> _Vertex:
    step = _STEP.fullmatch(name)
    if step:
        what, stage = _as_written(step[4]), step[1] or ""
        return _Vertex(number, what, stage, int(step[2]), int(step[3]))
    if image := _FROM.match(name):
        return _Vertex(number, _as_written(f"FROM {image[1]}"))
    if image := _SYNTAX.match(name):
        return _Vertex(number, f"# syntax={image[1]}")
    return _Vertex(number, "")


def _as_written(command: str) -> str:
    """A base image without what BuildKit adds to its name."""
    image = re.fullmatch(r"FROM (\S+?)(?::latest)?(?:@sha256:[0-9a-f]{64})?", command)
    if image is None:
        return command
    return "FROM " + re.sub(r"^docker\.io/(library/)?", "", image[1])


def _plain(error: str) -> str:
    """An error without the names of those that it came through."""
    error = error.strip()
    while match := _PREFIX.match(error):
        error = error[match.end() :]
    return error


def _missing(step: str, error: str) -> str:
    """A file that is not there, in words."""
    match = re.fullmatch(r'"([^"]+)"(: not found|\s+not found: not found)', error)
    if match is None:
        return error
    if "--from=" in step:
        return f"{match[1]} is not in what --from names"
    return f"{match[1]} is not in the commit, or .dockerignore leaves it out"
