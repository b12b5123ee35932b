"""One deploy of a service at a time, and few builds, by the kernel's word."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mypaas_git.errors import Cancelled, ServiceBusy, Superseded
from mypaas_git.files import write_atomically
from mypaas_git.names import ServiceName
from mypaas_git.progress import Progress

POLL = 0.05
REMIND = 15.0
"""Seconds after which who waits is told again."""


def never() -> bool:
    """For work that nobody can call off."""
    return False


class ServiceLocks:
    """One file a service below ``directory``; the flock on it dies with its holder.

    ``builds`` is how many builds may run at once, whatever process they belong to.
    """

    def __init__(self, directory: Path, builds: int = 2) -> None:
        self._directory = directory
        self._builds = builds
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def hold(
        self,
        service: ServiceName,
        who: str,
        progress: Progress,
        cancelled: Callable[[], bool] = never,
    ) -> Iterator[None]:
        """Hold the service's lock, waiting for whoever has it and saying so.

        Raises Cancelled when ``cancelled`` turns true before.
        """
        with self._open(service) as descriptor:
            self._wait(descriptor, service, progress, cancelled)
            _sign(descriptor, who)
            yield

    @contextlib.contextmanager
    def hold_for_push(
        self,
        service: ServiceName,
        who: str,
        progress: Progress,
        cancelled: Callable[[], bool] = never,
    ) -> Iterator[None]:
        """Like :meth:`hold`, for a push: of several that wait only the newest goes on.

        Raises Superseded in the others.
        """
        ticket = _Ticket(self._directory / f"{service}.newest", who)

        def given_up() -> bool:
            ticket.check()
            return cancelled()

        with self._open(service) as descriptor:
            self._wait(descriptor, service, progress, given_up)
            ticket.check()
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
    def hold_build(
        self, progress: Progress, cancelled: Callable[[], bool] = never
    ) -> Iterator[None]:
        """Be one of the builds that may run at once. Raises Cancelled as :meth:`hold` does."""
        with contextlib.ExitStack() as stack:
            places = [
                stack.enter_context(self._open(f".build.{n}")) for n in range(self._builds)
            ]
            said = False
            while not any(map(_try, places)):
                if cancelled():
                    raise Cancelled("cancelled while it waited to be built")
                if not said:
                    said = True
                    progress.step(f"Waiting to build: {self._builds} builds run already")
                time.sleep(POLL)
            fcntl.flock(stack.enter_context(self._open(".layers")), fcntl.LOCK_SH)
            yield

    @contextlib.contextmanager
    def hold_layers(self) -> Iterator[bool]:
        """Keep builds from beginning; yields False when one runs that may need any layer."""
        with self._open(".layers") as descriptor:
            yield _try(descriptor)

    @contextlib.contextmanager
    def hold_routes(self) -> Iterator[None]:
        """Hold what services share, their urls, for the moment of a switch."""
        with self._open(".routes") as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def hold_volumes(self) -> Iterator[None]:
        """Hold what services share of the host's directories, while containers are made."""
        with self._open(".volumes") as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def hold_variables(self) -> Iterator[None]:
        """Hold what is set for services, for the moment of a change."""
        with self._open(".variables") as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield

    def _wait(
        self,
        descriptor: int,
        service: ServiceName,
        progress: Progress,
        cancelled: Callable[[], bool],
    ) -> None:
        said = float("-inf")
        while not _try(descriptor):
            if cancelled():
                raise Cancelled(f"cancelled while it waited for {_holder(descriptor)}")
            if time.monotonic() - said >= REMIND:
                said = time.monotonic()
                progress.step(f"Waiting for {_holder(descriptor)} to finish with {service}")
            time.sleep(POLL)

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[int]:
        path = self._directory / f"{name}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


class _Ticket:
    """A push's claim to be the newest: the file, which stays, names whoever came last."""

    def __init__(self, path: Path, who: str) -> None:
        self._path = path
        self._id = secrets.token_hex(8)
        write_atomically(path, json.dumps({"id": self._id, "who": who}).encode())

    def check(self) -> None:
        """Raise Superseded when somebody came later, whether or not they wait still."""
        try:
            note = json.loads(self._path.read_bytes())
            newest, who = note["id"], note["who"]
        except (OSError, ValueError, KeyError, TypeError):
            return  # somebody has cleared the directory: the lock itself still counts
        if newest != self._id:
            raise Superseded(f"a newer push by {who} came while this one waited")


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
        since = time.strftime("%H:%M:%S", time.gmtime(note["since"]))
        seconds = max(0, time.time() - note["since"])
        return f"{note['who']} (since {since} UTC, {seconds:.0f} s so far)"
    except (ValueError, KeyError, TypeError):
        return "another deploy"
