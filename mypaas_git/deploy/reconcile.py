"""Repairs: the live release of a service is what runs and is routed, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import structlog

from mypaas_git.deploy.plan import replica_names, replica_plans
from mypaas_git.directives.model import ServiceSpec
from mypaas_git.ledger.model import Release
from mypaas_git.ledger.store import Ledger
from mypaas_git.names import ServiceName
from mypaas_git.routing.traefik import Traefik
from mypaas_git.runtime.base import Runtime

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
        """The services that the ledger knows.

        What else carries our label is left alone: with the ledger lost, it is all there is.
        """
        known = self._ledger.services()
        for replica in self._runtime.replicas():
            if replica.service not in known:
                log.warning("unknown-replica", replica=replica.name)
        return known

    def reconcile(self, service: ServiceName) -> None:
        """Make the live release what runs and what is routed; the lock is held."""
        for release in self._ledger.underway(service):
            self._ledger.failed(
                release, reason="interrupted", message="the server was interrupted", down=0
            )
            log.warning("interrupted-deploy", service=service, release=release.label)
        live = self._ledger.live_release(service)
        wanted = replica_names(live.spec, live.number) if live else []
        if live:
            if live.spec.scale == 0:
                # What an interrupted deploy started may hold its port or volume.
                self._remove_strays(service, wanted)
            self._bring_up(live, wanted)
            self._router.write(live.spec, wanted)
        else:
            self._router.drop(service)
        self._remove_strays(service, wanted)

    def reconcile_broken(self, service: ServiceName) -> None:
        """Reconcile if a deploy was interrupted or a live replica does not run."""
        live = self._ledger.live_release(service)
        wanted = set(replica_names(live.spec, live.number)) if live else set()
        running = {each.name for each in self._runtime.replicas(service) if each.running}
        if self._ledger.underway(service) or not wanted <= running:
            self.reconcile(service)

    def _bring_up(self, live: Release, wanted: Sequence[str]) -> None:
        found = {each.name: each for each in self._runtime.replicas(live.service)}
        missing = [name for name in wanted if name not in found]
        if missing:
            log.warning("replicas-missing", replicas=missing)
            env = self._env_of(live.spec)
            for plan in replica_plans(live.spec, live.number, live.image, env, self._expand):
                if plan.name in missing:
                    self._runtime.create(plan)
        for name in wanted:
            if name in missing or not found[name].running:
                self._runtime.start(name)
            self._runtime.keep_up(name)

    def _remove_strays(self, service: ServiceName, wanted: Sequence[str]) -> None:
        known = {release.number for release in self._ledger.releases(service)}
        for replica in self._runtime.replicas(service):
            if replica.name not in wanted and replica.release in known:
                log.info("stray-removed", replica=replica.name)
                self._runtime.remove(replica.name)
