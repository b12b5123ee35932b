"""What no longer serves goes away, in the background."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from mypaas_git.errors import MypaasError
from mypaas_git.ledger.model import State
from mypaas_git.ledger.store import Ledger
from mypaas_git.names import ServiceName
from mypaas_git.runtime.base import Runtime

log = structlog.get_logger()


HandOver = Callable[[ServiceName, Sequence[str]], None]


class Retirer:
    """Stops and removes old replicas, then images beyond ``keep`` releases.

    ``grace`` is how many seconds a replica gets between SIGTERM and SIGKILL. A process
    that does not live as long gives the work to ``hand_over``. What a crash interrupts
    is found again when the server next starts.
    """

    def __init__(
        self,
        runtime: Runtime,
        ledger: Ledger,
        *,
        grace: float,
        keep: int,
        hand_over: HandOver | None = None,
    ) -> None:
        self._hand_over = hand_over
        self._runtime = runtime
        self._ledger = ledger
        self._grace = grace
        self._keep = keep
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="retire")

    def retire(self, service: ServiceName, names: Sequence[str]) -> None:
        """Begin to take ``names`` away and return at once."""
        if self._hand_over is not None:
            self._hand_over(service, names)
        else:
            self._pool.submit(self.retire_now, service, names)

    def close(self) -> None:
        """Return once everything begun has ended."""
        self._pool.shutdown(wait=True)

    def retire_now(self, service: ServiceName, names: Sequence[str]) -> None:
        """Take ``names`` away and return when they are gone; faults are logged."""
        try:
            with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
                list(pool.map(self._take_away, names))
            self.prune(service)
        except MypaasError as error:
            log.warning("retire-failed", service=service, replicas=names, error=str(error))
        except Exception:  # in a thread of its own: nobody else would hear of it
            log.exception("retire-failed", service=service, replicas=names)

    def _take_away(self, name: str) -> None:
        self._runtime.stop(name, self._grace)
        self._runtime.remove(name)

    def prune(self, service: ServiceName) -> None:
        """Remove images of releases that neither serve nor are kept for a rollback."""
        images = self._runtime.images(service)
        releases = self._ledger.releases(service)
        served = [each.number for each in releases if each.live_at is not None]
        kept = set(served[: self._keep]) | {
            each.number for each in releases if each.state.underway or each.state is State.LIVE
        }
        for number in images:
            if number not in kept:
                self._runtime.remove_image(service, number)
