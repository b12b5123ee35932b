"""Hosts that are not asked a certificate for, for a while, since they got none.

Traefik asks again for whatever failed each time that any route changes, and never otherwise:
five deploys of other services use up Let's Encrypt's limit of five failures an hour for a
host that does not lead here yet. So a host that failed gets a route that asks for nothing,
and its own back when its time has come, which is the change that makes Traefik ask.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import structlog

from mypaas_git.files import write_atomically
from mypaas_git.routing.acme import Failure

log = structlog.get_logger()

PAUSES = (60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600)
"""Seconds from each failure of a row to the next try: four of them lie in the first hour."""

UNHEARD = 900
"""The longest such pause where no ACME server has answered, which so has counted nothing."""

RELENT = 720
"""Seconds in which Let's Encrypt forgives one failure of a host."""


@dataclass(frozen=True)
class Hold:
    """``failures`` in a row, the next try's time (seconds since the epoch), and why."""

    failures: int
    until: float
    why: str
    kind: str = ""

    @property
    def over(self) -> bool:
        """Whether it may be asked for again. A clock that was put back holds nobody long."""
        return not 0 < self.until - time.time() <= PAUSES[-1]

    @property
    def forgotten(self) -> bool:
        """Whether it is over for so long that the next failure is a first one."""
        return self.until < time.time() - PAUSES[-1]

    @property
    def pause(self) -> int:
        """How many seconds after the failure ``until`` is."""
        pause = PAUSES[min(self.failures, len(PAUSES)) - 1]
        return pause if self.kind else min(pause, UNHEARD)


class Holds:
    """What is held back, durably in ``path``, which other processes write, too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._read: tuple[object, dict[str, Hold]] = (None, {})

    def get(self, host: str) -> Hold | None:
        """The hold on a host, which may be over."""
        return self.all().get(host)

    def all(self) -> dict[str, Hold]:
        """Every hold, by its host."""
        with self._lock:
            return self._current()

    def add(self, host: str, failure: Failure) -> None:
        """Hold a host back as it failed.

        A failure from before the last hold was over is the one that led to it, seen again,
        or a try that began before Traefik knew of it.
        """
        with self._lock:
            known = self._current()
            before = known.get(host)
            if before and (failure.at < int(before.until) or not before.over):
                return
            failures = before.failures + 1 if before and not before.forgotten else 1
            hold = Hold(failures, time.time(), failure.answer, failure.kind)
            self._write({**known, host: replace(hold, until=hold.until + hold.pause)})
        log.warning("no-certificate", host=host, why=hold.why, tries=failures)

    def relent(self, host: str) -> None:
        """Let a host be asked for at once, since somebody may have mended what was wrong.

        Not sooner after the last try than what Let's Encrypt allows for all day.
        """
        with self._lock:
            known = self._current()
            hold, now = known.get(host), time.time()
            if hold and not hold.over and hold.until - hold.pause < now - RELENT:
                self._write({**known, host: replace(hold, until=now)})

    def clear(self, host: str) -> None:
        """Forget the failures of a host, as it has its certificate."""
        with self._lock:
            known = self._current()
            if host in known:
                self._write({each: hold for each, hold in known.items() if each != host})

    def _current(self) -> dict[str, Hold]:
        try:
            stat = self._path.stat()
            mark = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except FileNotFoundError:
            return {}
        if self._read[0] != mark:
            self._read = mark, self._load()
        return self._read[1]

    def _load(self) -> dict[str, Hold]:
        try:
            told = json.loads(self._path.read_bytes())
            return {host: _hold(**each) for host, each in told.items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            # All that is lost is patience.
            log.warning("holds-unreadable", path=str(self._path), error=str(error))
            return {}

    def _write(self, holds: dict[str, Hold]) -> None:
        kept = {host: hold for host, hold in holds.items() if not hold.forgotten}
        text = json.dumps({host: asdict(hold) for host, hold in kept.items()}, indent=1)
        try:
            write_atomically(self._path, text.encode())
        except OSError as error:
            log.warning("holds-not-written", path=str(self._path), error=str(error))


def _hold(failures: object, until: object, why: object, kind: object) -> Hold:
    """What somebody may have edited. Raises ValueError."""
    return Hold(int(str(failures)), float(str(until)), str(why), str(kind))
