"""Repairs: the live release of a service is what runs and is routed, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from mypaas_git.deploy.plan import replica_plans
from mypaas_git.directives.model import ServiceSpec
from mypaas_git.ledger.model import Release
from mypaas_git.ledger.store import Ledger
from mypaas_git.names import ServiceName
from mypaas_git.routing.traefik import Traefik
from mypaas_git.runtime.base import ReplicaPlan, Runtime

log = structlog.get_logger()


class Reconciler:
    """Repairs one service after a crash; doing it twice does nothing more.

    ``env_of`` gives the values of a spec's variables, ``expand`` turns ``~`` into a path.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        runtime: Runtime,
        router: Traefik,
        env_of: Callable[[ServiceSpec], Mapping[str, str]],
        expand: Callable[[str], str],
    ) -> None:
        self._ledger = ledger
        self._runtime = runtime
        self._router = router
        self._env_of = env_of
        self._expand = expand

    def services(self) -> list[ServiceName]:
        """Every service that the ledger, a container or a route speaks of."""
        return sorted(
            {
                *self._ledger.services(),
                *(replica.service for replica in self._runtime.replicas()),
                *self._router.services(),
            }
        )

    def reconcile(self, service: ServiceName) -> None:
        """Make the live release what runs and what is routed; the lock is held."""
        for release in self._ledger.underway(service):
            self._ledger.failed(
                release, reason="interrupted", message="the server was interrupted", down=0
            )
            log.warning("interrupted-deploy", service=service, release=release.label)
        live = self._ledger.live_release(service)
        plans = self._plans(live) if live else ()
        for plan in plans:
            self._bring_up(plan)
        if live:
            self._router.write(live.spec, [plan.name for plan in plans])
        else:
            self._router.drop(service)
        self._remove_strays(service, {plan.name for plan in plans})

    def _plans(self, live: Release) -> tuple[ReplicaPlan, ...]:
        env = self._env_of(live.spec)
        return replica_plans(live.spec, live.number, live.image, env, self._expand)

    def _bring_up(self, plan: ReplicaPlan) -> None:
        replica = self._runtime.inspect(plan.name)
        if replica is None:
            log.warning("replica-missing", replica=plan.name)
            self._runtime.create(plan)
        if replica is None or not replica.running:
            self._runtime.start(plan.name)
        self._runtime.keep_up(plan.name)

    def _remove_strays(self, service: ServiceName, wanted: set[str]) -> None:
        for replica in self._runtime.replicas(service):
            if replica.name not in wanted:
                log.info("stray-removed", replica=replica.name)
                self._runtime.remove(replica.name)
