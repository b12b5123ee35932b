"""What no longer serves goes away, in the background: it is drained, stopped and removed.

The ledger is the journal: whatever of a service's containers does not belong to its live
release is to be retired, and is found again by whoever reconciles after a crash.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from mypaas_git.deploy.lock import ServiceLocks
from mypaas_git.deploy.plan import ports_of
from mypaas_git.errors import MypaasError
from mypaas_git.failpoints import reach
from mypaas_git.ledger.model import Release
from mypaas_git.ledger.store import Ledger
from mypaas_git.names import ServiceName
from mypaas_git.runtime.base import Runtime

log = structlog.get_logger()

POLL = 0.1
QUIET = 0.8
"""Seconds without a connection after which a replica is drained. A request that the proxy
had taken just before it was switched has arrived by then."""

HandOver = Callable[[ServiceName, Sequence[str]], None]


class Retirer:
    """Drains, stops and removes old replicas, then images beyond ``keep`` releases.

    ``drain`` is how many seconds requests in flight get to end, ``grace`` how many a
    replica gets between SIGTERM and SIGKILL after that. A process that does not live as
    long gives the work to ``hand_over``.
    """

    def __init__(
        self,
        runtime: Runtime,
        ledger: Ledger,
        locks: ServiceLocks,
        *,
        drain: float,
        grace: float,
        keep: int,
        hand_over: HandOver | None = None,
    ) -> None:
        self._hand_over = hand_over
        self._runtime = runtime
        self._ledger = ledger
        self._locks = locks
        self._drain = drain
        self._grace = grace
        self._keep = keep
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="retire")

    def retire(self, service: ServiceName, names: Sequence[str]) -> None:
        """Begin to take ``names`` away and return at once; what is going already is left."""
        with self._lock:
            new = [name for name in names if name not in self._busy]
            self._busy.update(new)
        if names and not new:
            return
        if self._hand_over is not None:
            self._hand_over(service, new)
        elif not self._closing.is_set():
            self._pool.submit(self.retire_now, service, new)

    def is_at(self, name: str) -> bool:
        """Whether ``name`` is being taken away already."""
        with self._lock:
            return name in self._busy

    def end_soon(self) -> None:
        """What still has requests in flight is left to whoever starts next."""
        self._closing.set()

    def close(self) -> None:
        """Return once nothing is being taken away any more, which is soon."""
        self.end_soon()
        self._pool.shutdown(wait=True)

    def retire_now(self, service: ServiceName, names: Sequence[str]) -> None:
        """Take ``names`` away and return when they are gone; faults are logged."""
        try:
            reach("retire.begun")
            self.take_away(names)
            self.prune(service)
            reach("retire.pruned")
        except MypaasError as error:
            log.warning("retire-failed", service=service, replicas=names, error=str(error))
        except Exception:  # in a thread of its own: nobody else would hear of it
            log.exception("retire-failed", service=service, replicas=names)
        finally:
            with self._lock:
                self._busy.difference_update(names)

    def take_away(self, names: Sequence[str]) -> None:
        """Drain, stop and remove ``names``, all at the same time. Raises EngineDown."""
        with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
            list(pool.map(self._take_away, names))

    def _take_away(self, name: str) -> None:
        if not self.drain([name]):
            return
        reach("retire.drained")
        self.stop(name)
        reach("retire.stopped")
        self._runtime.remove(name)
        reach("retire.removed")

    def drain(self, names: Iterable[str], quiet: float = QUIET) -> bool:
        """Wait until nobody is being served by ``names``, at most for the drain time.

        That is when there was no connection for ``quiet`` seconds. Returns False when this
        process is about to end, and they had better be left alone.
        """
        ports = {name: self._ports(name) for name in names}
        deadline = time.monotonic() + self._drain
        last = time.monotonic()
        while time.monotonic() < deadline and time.monotonic() - last < quiet:
            if any(self._runtime.connections(name, ports[name]) != 0 for name in ports):
                last = time.monotonic()
            if self._closing.wait(POLL):
                return False
        return True

    def stop(self, name: str) -> None:
        """SIGTERM and, after the grace period, SIGKILL; whoever it serves is cut off."""
        self._runtime.stop(name, self._grace)

    def _ports(self, name: str) -> frozenset[int]:
        replica = self._runtime.inspect(name)
        if replica is None:
            return frozenset()
        return ports_of(self._ledger.release(replica.service, replica.release).spec)

    def prune(self, service: ServiceName) -> None:
        """Remove images that neither serve nor are kept for a rollback, and spare layers."""
        # The ledger last: the image of a deploy that begins just now must find its row there.
        found = self._runtime.images(service)
        kept = kept_images(self._ledger.releases(service), self._keep)
        for number in found:
            if number not in kept:
                self._runtime.remove_image(service, number)
        with self._locks.hold_layers() as unused:
            if unused:
                self._runtime.remove_layers(self._ledger.layers(service))
                self._ledger.forget_layers(service)


def kept_images(releases: Sequence[Release], keep: int) -> set[int]:
    """By which releases the images were built that stay; ``releases`` are newest first.

    Those are the ``keep`` that served last, since a restart or a rollback adds none, and
    whatever an attempt is about to use.
    """
    kept: set[int] = set()
    for release in releases:
        if release.state.underway:
            kept.add(release.built_by)
    served = dict.fromkeys(each.built_by for each in releases if each.served)
    return kept | set(list(served)[:keep])
