"""One deploy of a service at a time, by the kernel's word."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from mypaas_git.errors import ServiceBusy
from mypaas_git.names import ServiceName
from mypaas_git.progress import Progress

POLL = 0.05
REMIND = 15.0
"""Seconds after which who waits is told again."""


class ServiceLocks:
    """One file a service below ``directory``; the flock on it dies with its holder."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def hold(self, service: ServiceName, who: str, progress: Progress) -> Iterator[None]:
        """Hold the service's lock, waiting for whoever has it and saying so."""
        with self._open(service) as descriptor:
            said = 0.0
            while not _try(descriptor):
                if time.monotonic() - said >= REMIND:
                    said = time.monotonic()
                    progress.step(f"Waiting for {_holder(descriptor)} to finish with {service}")
                time.sleep(POLL)
            _sign(descriptor, who)
            yield

    @contextlib.contextmanager
    def hold_now(self, service: ServiceName, who: str) -> Iterator[None]:
        """Hold the service's lock, or raise ServiceBusy at once."""
        with self._open(service) as descriptor:
            if not _try(descriptor):
                raise ServiceBusy(f"{service} is being deployed by {_holder(descriptor)}")
            _sign(descriptor, who)
            yield

    @contextlib.contextmanager
    def hold_routes(self) -> Iterator[None]:
        """Hold what services share, their urls, for the moment of a switch."""
        with self._open(".routes") as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[int]:
        path = self._directory / f"{name}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(descriptor: int, who: str) -> None:
    """Leave a note for those who will wait."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps({"who": who, "since": time.time()}).encode(), 0)


def _holder(descriptor: int) -> str:
    try:
        note = json.loads(os.pread(descriptor, 4096, 0))
        return f"{note['who']} ({max(0, time.time() - note['since']):.0f} s so far)"
    except (ValueError, KeyError, TypeError):
        return "another deploy"
