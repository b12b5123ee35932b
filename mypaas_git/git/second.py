"""A second process, forked from one with a single thread, that takes a part of its work.

Nothing hangs on it: what it does not report, the first does as well. Together they take no
more memory than the first was granted, and the second at most half of the processor time
that was left to the first.
"""

from __future__ import annotations

import marshal
import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from mypaas_git.git.limits import MIB, size_now

ROOM = 176 * MIB
"""Bytes by which the first must still be able to grow."""
EACH = 3 / 8
"""The part of them that each of the two gets.

The rest is for what the first has by now: a page of it that one of them writes to is there
twice.
"""
MAX_SHARES = 256
EVERY = 0.25
"""Seconds after which the second looks again whether the first is still there."""

_Thing = TypeVar("_Thing")


def can_help() -> bool:
    """Whether there are a processor and memory for a second process."""
    if len(os.sched_getaffinity(0)) < 2:
        return False
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    return most == resource.RLIM_INFINITY or most - size_now() >= ROOM


class Shares(Generic[_Thing]):
    """Deals out things to this process and to one forked from it, each thing to one of them.

    The numbers of the shares wait in a pipe: whoever is quicker takes more of them.
    """

    def __init__(self, things: Sequence[_Thing]) -> None:
        self._things = things
        self._count = min(len(things), MAX_SHARES)
        self._numbers, end = os.pipe()
        os.write(end, bytes(range(self._count)))
        os.close(end)

    def __iter__(self) -> Iterator[_Thing]:
        while number := os.read(self._numbers, 1):
            begin, end = (
                len(self._things) * n // self._count for n in (*number, number[0] + 1)
            )
            yield from self._things[begin:end]

    def close(self) -> None:
        os.close(self._numbers)


class Second:
    """Has ``work`` done in a second process; a context manager, at whose end that is gone.

    What ``work`` returns must be such as marshal takes, and lies in ``scratch`` meanwhile.
    SIGCHLD must not be ignored.
    """

    def __init__(self, work: Callable[[], Any], scratch: Path) -> None:
        self._work = work
        self._file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - closed at the exit
        self._memory = resource.getrlimit(resource.RLIMIT_AS)
        self._pid = 0

    def __enter__(self) -> Second:
        self._share_memory()
        with suppress(OSError):  # then the first is on its own
            self._pid = self._fork()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        self._wait()
        self._file.close()

    def report(self) -> Any | None:
        """Wait for what ``work`` returns; None when nothing came of it."""
        if not self._wait():
            return None
        self._file.seek(0)
        return marshal.loads(self._file.read())  # noqa: S302 - this very code wrote it

    def _wait(self) -> bool:
        """Wait for the second to end, and say whether it has done its work."""
        done = self._pid > 0 and os.waitpid(self._pid, 0)[1] == 0
        self._pid = 0
        resource.setrlimit(resource.RLIMIT_AS, self._memory)
        return done

    def _share_memory(self) -> None:
        most, hard = self._memory
        if most != resource.RLIM_INFINITY:
            now = size_now()
            each = now + max(0, int((most - now) * EACH))
            resource.setrlimit(resource.RLIMIT_AS, (each, hard))

    def _fork(self) -> int:
        first, seconds = os.getpid(), _seconds_left()
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            _end_with(first)
            if seconds is not None:
                resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            self._file.write(marshal.dumps(self._work()))
            self._file.flush()
            status = 0
        finally:
            os._exit(status)


def _seconds_left() -> int | None:
    """Half of the processor time that is left, None if there is no end to it."""
    most = resource.getrlimit(resource.RLIMIT_CPU)[0]
    if most == resource.RLIM_INFINITY:
        return None
    return max(1, int(most - time.process_time()) // 2)


def _end_with(first: int) -> None:
    """Have this process end soon after its parent ``first``, who cannot end it if killed."""

    def look(*_: object) -> None:
        if os.getppid() != first:
            os._exit(1)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, EVERY, EVERY)
