"""Follows what the containers of a service print, whichever come and go."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mypaas_git.errors import EngineDown
from mypaas_git.names import ServiceName
from mypaas_git.runtime.base import LogStream, Runtime

LOOK = 0.5
"""Seconds between two looks at which containers there are."""
WAITING = 100
"""Pieces of output that wait for a slow reader; whoever prints more waits as well."""


class Printer(Protocol):
    def joined(self, name: str) -> None: ...

    def take(self, name: str, chunk: bytes) -> None: ...

    def ended(self, name: str) -> None: ...


@dataclass
class _Source:
    """One container; times are in seconds since the epoch."""

    joined_at: float
    ended_at: float = 0.0
    stream: LogStream | None = None
    thread: threading.Thread | None = field(default=None, repr=False)


class Follower:
    """Copies to ``printer`` until ``over``, from this thread; each container has one more."""

    def __init__(
        self,
        runtime: Runtime,
        service: ServiceName,
        printer: Printer,
        over: Callable[[], bool],
    ) -> None:
        self._runtime = runtime
        self._service = service
        self._printer = printer
        self._over = over
        self._closing = threading.Event()
        self._chunks: queue.Queue[tuple[str, bytes | None]] = queue.Queue(WAITING)
        self._sources: dict[str, _Source] = {}

    def run(self, names: Sequence[str], lines: int) -> None:
        """Begin with the last ``lines`` of the containers ``names``. Leaves nothing behind."""
        try:
            for name in names:
                self._join(name, tail=lines)
            looked = time.monotonic()
            while not self._over():
                self._show_next()
                if time.monotonic() - looked >= LOOK:
                    self._look()
                    looked = time.monotonic()
            self._show_rest()
        finally:
            self._close()

    def _look(self) -> None:
        """Join containers that are new, and those that were started again."""
        try:
            for replica in self._runtime.replicas(self._service):
                source = self._sources.get(replica.name)
                if replica.running and source is None:
                    self._join(replica.name)
                elif replica.running and source is not None and source.stream is None:
                    self._join(replica.name, since=self._end_of(replica.name, source))
        except EngineDown:
            return  # it may come back

    def _end_of(self, name: str, source: _Source) -> float:
        """Since when nothing of a container was shown: its last end, if we were there."""
        now = self._runtime.inspect(name)
        ended = now.ended_at if now else None
        return ended if ended and ended >= source.joined_at else source.ended_at

    def _join(self, name: str, *, tail: int | None = None, since: float | None = None) -> None:
        source = _Source(time.time())
        source.stream = self._runtime.logs(name, tail=tail, follow=True, since=since)
        source.thread = threading.Thread(
            target=self._copy, args=(name, source.stream), name=f"logs-{name}", daemon=True
        )
        self._sources[name] = source
        self._printer.joined(name)
        source.thread.start()

    def _copy(self, name: str, stream: LogStream) -> None:
        try:
            for chunk in stream:
                self._put(name, chunk)
        except EngineDown:
            pass
        finally:
            self._put(name, None)

    def _put(self, name: str, chunk: bytes | None) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(queue.Full):
                self._chunks.put((name, chunk), timeout=LOOK)
                return

    def _show_next(self) -> None:
        try:
            name, chunk = self._chunks.get(timeout=LOOK)
        except queue.Empty:
            return
        self._show(name, chunk)

    def _show_rest(self) -> None:
        """What has come already; its reader may be there still."""
        while not self._chunks.empty():
            self._show(*self._chunks.get())

    def _show(self, name: str, chunk: bytes | None) -> None:
        if chunk is not None:
            self._printer.take(name, chunk)
            return
        self._printer.ended(name)
        source = self._sources[name]
        source.stream, source.ended_at = None, time.time()

    def _close(self) -> None:
        self._closing.set()
        for source in self._sources.values():
            if source.stream is not None:
                source.stream.close()
        for source in self._sources.values():
            if source.thread is not None:
                source.thread.join(LOOK * 10)
