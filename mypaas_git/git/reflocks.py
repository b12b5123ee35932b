"""Lock files that git's programs hold while they write, and those that a crash has left.

Source: git's ``lockfile.h``: whoever makes ``X.lock`` may replace ``X``. A file says
nothing of its holder, but nobody holds one for long.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

STALE = 60.0
"""Seconds after which a lock file is one that a crash has left."""

log = structlog.get_logger()


def clear_stale(lock: Path, repository: Path) -> bool:
    """Remove a lock file that nobody holds any more; return whether the way is free."""
    with _alone(repository):
        try:
            age = time.time() - lock.stat().st_mtime
        except OSError:
            return True
        if age < STALE:
            return False
        log.warning("stale-lock-removed", path=str(lock), age=round(age))
        lock.unlink(missing_ok=True)
        return True


@contextlib.contextmanager
def _alone(repository: Path) -> Iterator[None]:
    """Of two who find one stale, the second must not remove the lock of the first."""
    descriptor = os.open(repository, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
