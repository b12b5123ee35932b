"""While the server runs: what should run and be routed is, whatever happens to it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import structlog

from mypaas_git.deploy.certificates import Certificates
from mypaas_git.deploy.lock import ServiceLocks
from mypaas_git.deploy.reconcile import Reconciler
from mypaas_git.errors import MypaasError, RouterDown, ServiceBusy
from mypaas_git.ledger.model import Standing
from mypaas_git.ledger.store import Ledger
from mypaas_git.names import ServiceName
from mypaas_git.routing.traefik import Traefik
from mypaas_git.runtime.base import Replica, Runtime

log = structlog.get_logger()

INTERVAL = 1.0
"""Seconds between two looks."""
LAST_LOOK = 10.0
"""Seconds that a look may go on once it is the last."""
TIDY = 60.0
"""Seconds between two searches for images that nobody needs. Those of old releases go at once;
what is found here was made by a build whose server died."""
PATIENCE = 60.0
"""Seconds until a service that could not be repaired is tried again, after some tries."""
TRIES = 5


class Keeper:
    """Looks at the engine, the proxy and the services all the time, and repairs them.

    ``revive`` brings the proxy back; ``repair`` mends one service, and ``tidy`` removes its
    images that nobody needs, while its lock is held. ``clear`` removes what commands have
    left whose process was killed, and is told whether to look thoroughly.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        runtime: Runtime,
        router: Traefik,
        reconciler: Reconciler,
        locks: ServiceLocks,
        revive: Callable[[], None],
        repair: Callable[[ServiceName], None],
        tidy: Callable[[ServiceName], None],
        clear: Callable[[bool], None],
        certificates: Certificates,
    ) -> None:
        self._ledger = ledger
        self._runtime = runtime
        self._router = router
        self._reconciler = reconciler
        self._locks = locks
        self._revive = revive
        self._repair = repair
        self._tidy = tidy
        self._clear = clear
        self._certificates = certificates
        self._tidied = time.monotonic()
        self._away = ""
        self._failures: dict[ServiceName, int] = {}
        self._silent: set[ServiceName] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Return once the look that is being taken has ended, or waits for a silent engine."""
        self._stopping.set()
        self._thread.join(LAST_LOOK)

    def look(self) -> None:
        """Repair whatever is wrong. Raises EngineDown when that cannot be seen."""
        replicas = self._runtime.replicas()
        # Of an emptied directory Traefik keeps what it had, so that its answer says nothing.
        self._router.keep()
        tidy = time.monotonic() - self._tidied > TIDY
        self._clear(tidy)
        try:
            self._router.check()
        except RouterDown as error:
            log.warning("traefik-revived", why=error.message)
            self._revive()
        by_service = defaultdict(list)
        for replica in replicas:
            by_service[replica.service].append(replica)
        if tidy:
            self._tidied = time.monotonic()
        standings = self._ledger.standings()
        for standing in standings:
            if self._stopping.is_set():
                return
            self._look_at(standing, by_service[standing.service])
            if tidy:
                self._tidy_up(standing.service)
        self._certificates.look(each.live for each in standings if each.live)

    def _run(self) -> None:
        while not self._stopping.wait(INTERVAL):
            try:
                self.look()
                self._say("")
            except MypaasError as error:
                self._say(error.message)
            except Exception:  # nobody else would hear of it, and the next look may be better
                log.exception("keeper-failed")

    def _say(self, why: str) -> None:
        """Log what keeps us from looking once, not every second."""
        if why != self._away:
            log.warning("keeper", away=why or "no more")
        self._away = why

    def _tidy_up(self, service: ServiceName) -> None:
        with contextlib.suppress(ServiceBusy), self._locks.hold_now(service, "the server"):
            self._tidy(service)

    def _look_at(self, standing: Standing, replicas: Sequence[Replica]) -> None:
        service = standing.service
        if not self._reconciler.is_broken(standing, replicas):
            self._failures.pop(service, None)
            self._silent.discard(service)
            return
        if service not in self._silent and self._reconciler.is_silent(standing, replicas):
            # A second look tells whether the engine was quick to start it again: visitors
            # who have been told that it is down are not told sooner that it is back.
            self._silent.add(service)
            return
        failures = self._failures.get(service, 0)
        if failures > TRIES and failures % (PATIENCE / INTERVAL):
            self._failures[service] = failures + 1
            return
        try:
            with self._locks.hold_now(service, "the server"):
                now = self._ledger.standing(service)
                if self._reconciler.is_broken(now, self._runtime.replicas(service)):
                    log.warning("repairing", service=service)
                    self._repair(service)
        except ServiceBusy:
            return
        except MypaasError as error:
            self._failures[service] = failures + 1
            log.warning("not-repaired", service=service, why=error.message)
