"""Why a build has to end before it is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from mypaas_git.errors import BuildFailed, Cancelled

PULSE = 0.2
"""Seconds between two looks at whether a build is still wanted."""


class Watch:
    """Knows when nobody wants a build any more, and when it has taken too long.

    ``timeout`` is in seconds, from now on.
    """

    def __init__(self, cancelled: Callable[[], bool], timeout: float) -> None:
        self._cancelled = cancelled
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout

    def over(self) -> bool:
        return time.monotonic() >= self._deadline or self._cancelled()

    def check(self, step: str) -> None:
        """Raise Cancelled or, after the time-out, BuildFailed; ``step`` was being done."""
        if self._cancelled():
            raise Cancelled(f"the build was cancelled: {step or 'before its first step'}")
        if time.monotonic() >= self._deadline:
            where = f" in {step}" if step else " before its first step"
            taken = f"the build took longer than {_duration(self._timeout)} (build_timeout)"
            raise BuildFailed(taken + where)


class Watcher:
    """Calls ``end`` from a thread of its own once the watch is over, if that comes first."""

    def __init__(self, watch: Watch, end: Callable[[], None]) -> None:
        self._watch = watch
        self._end = end
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="build-watcher", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(PULSE):
            if self._watch.over():
                self._end()
                return


def _duration(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"
