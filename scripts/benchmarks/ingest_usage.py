"""What a server and all that descends from it take: processor time and memory.

From proc(5): /proc/PID/stat, /proc/PID/status, /proc/PID/smaps_rollup.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

EVERY = 0.1
"""Seconds between two looks at the memory. A process waits while the kernel counts its pages:
with 0.03 a history took ours a quarter longer."""
TICK = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


@dataclass
class Usage:
    """``cpu`` is in seconds, ``peak`` in bytes."""

    cpu: float = 0.0
    peak: int = 0


@contextmanager
def usage(pid: int) -> Iterator[Usage]:
    """What is used while the block runs; filled in when it is left."""
    used = Usage()
    with suppress(OSError):
        (PROC / f"{pid}/clear_refs").write_text("5")  # the peak starts anew
    clock = _Clock(pid)
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=[pid, used, clock, stop])
    watcher.start()
    try:
        yield used
    finally:
        stop.set()
        watcher.join()
        used.peak = max(used.peak, _high_water(pid))
        used.cpu = clock.read()


class _Clock:
    """Processor time of ``pid`` and all below it from now on, by two ways of counting.

    Children that somebody waits for are exact in their parent's account. Those that the
    kernel clears away unasked are in nobody's: of them what was seen last counts, which
    is too little for all others. So the larger of the two is right.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seen: dict[int, int] = {}
        self.look()
        self._own, self._all = sum(self._seen.values()), self._ticks()

    def look(self) -> None:
        for each in (self._pid, *descendants(self._pid)):
            own, _ = _account(each)
            self._seen[each] = max(own, self._seen.get(each, 0))

    def read(self) -> float:
        """Seconds."""
        self.look()
        own, everything = sum(self._seen.values()) - self._own, self._ticks() - self._all
        return max(own, everything) / TICK

    def _ticks(self) -> int:
        return sum(sum(_account(each)) for each in (self._pid, *descendants(self._pid)))


def descendants(pid: int) -> set[int]:
    """The processes below ``pid`` at the moment."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        with suppress(OSError):  # a process or a thread may end meanwhile
            for children in PROC.glob(f"{waiting.pop()}/task/*/children"):
                new = {int(each) for each in children.read_text().split()} - found
                found |= new
                waiting += new
    return found


def _watch(pid: int, used: Usage, clock: _Clock, stop: threading.Event) -> None:
    """Note the peak of all together, and of any single one."""
    while not stop.wait(EVERY):
        clock.look()
        below = descendants(pid)
        together = sum(map(_resident, (pid, *below)))
        used.peak = max(used.peak, together, *map(_high_water, below), 0)


def _account(pid: int) -> tuple[int, int]:
    """Ticks of a process's own, and of those that it has waited for."""
    with suppress(OSError):
        fields = (PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
        user, system, waited_user, waited_system = map(int, fields[11:15])
        return user + system, waited_user + waited_system
    return 0, 0


def _resident(pid: int) -> int:
    """Bytes in memory, of shared pages the process's share."""
    return _kib(pid, "smaps_rollup", "Pss")


def _high_water(pid: int) -> int:
    return _kib(pid, "status", "VmHWM")


def _kib(pid: int, file: str, field: str) -> int:
    with suppress(OSError):
        text = (PROC / f"{pid}/{file}").read_text()
        match = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
        return int(match[1]) << 10 if match else 0
    return 0
