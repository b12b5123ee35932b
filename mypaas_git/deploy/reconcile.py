"""Repairs: the live release of a service is what runs and is routed, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from mypaas_git.deploy.outage import answers
from mypaas_git.deploy.plan import replica_names, replica_plans
from mypaas_git.deploy.retire import Retirer
from mypaas_git.failpoints import reach
from mypaas_git.ledger.model import Release, Standing, Wanted
from mypaas_git.ledger.store import Ledger
from mypaas_git.names import ServiceName
from mypaas_git.routing.pages import Page
from mypaas_git.routing.traefik import Traefik
from mypaas_git.runtime.base import Replica, Runtime

log = structlog.get_logger()


class Reconciler:
    """Repairs one service at a time; doing it twice does nothing more.

    ``expand`` turns ``~`` into a path, ``erase`` removes what lies outside of the ledger
    and the engine: a service's repository and logs.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        runtime: Runtime,
        router: Traefik,
        retirer: Retirer,
        expand: Callable[[str], str],
        erase: Callable[[ServiceName], None],
    ) -> None:
        self._ledger = ledger
        self._runtime = runtime
        self._router = router
        self._retirer = retirer
        self._expand = expand
        self._erase = erase

    def services(self) -> list[ServiceName]:
        """The services that the ledger knows.

        What else carries our label is left alone: with the ledger lost, it is all there is.
        """
        known = list(self._ledger.all_services())
        for replica in self._runtime.replicas():
            if replica.service not in known:
                log.warning("unknown-replica", replica=replica.name)
        return known

    def reconcile(self, service: ServiceName) -> None:
        """Make what runs and is routed what the ledger says; the lock is held."""
        for release in self._ledger.underway(service):
            self._ledger.failed(
                release, reason="interrupted", message="the server was interrupted", down=0
            )
            log.warning("interrupted-deploy", service=service, release=release.label)
        wanted = self._ledger.wanted(service)
        live = self._ledger.live_release(service)
        if wanted.gone:
            self._remove(service, wanted)
        elif live is None:
            self._router.drop(service)
            self._remove_strays(service, [])
        elif wanted is Wanted.STOPPED:
            self._keep_stopped(live)
        else:
            self._keep_running(live)

    def is_already(self, wanted: Wanted, service: ServiceName) -> bool:
        """Whether a service is wanted so, and is, down to its containers."""
        standing = self._ledger.standing(service)
        return standing.wanted is wanted and not self.is_broken(
            standing, self._runtime.replicas(service)
        )

    def is_broken(self, standing: Standing, replicas: Sequence[Replica]) -> bool:
        """Whether there is anything to repair; ``replicas`` are those that the engine has."""
        live, wanted = standing.live, standing.wanted
        own = [each for each in replicas if each.service == standing.service]
        if standing.underway or self.is_misrouted(standing, own):
            return True
        names = replica_names(live.spec, live.number) if live else []
        strays = self._unwanted(standing.service, own, names)
        if not all(self._retirer.is_at(name) for name in strays):
            return True
        if live is None:
            return self._router.has(standing.service) or wanted is Wanted.ERASED
        up = {each.name for each in own if each.up}
        if wanted is Wanted.STOPPED:
            return not up.isdisjoint(names)
        return not up.issuperset(names)

    def is_misrouted(self, standing: Standing, replicas: Sequence[Replica]) -> bool:
        """Whether the file of the route is not what it should be."""
        live = standing.live
        if live is None:
            return False
        return self._router.differs(live.spec, *self._led_to(standing, live, replicas))

    def is_silent(self, standing: Standing, replicas: Sequence[Replica]) -> bool:
        """Whether all that is wrong is that nobody answers, of which visitors are not told.

        That may pass by itself: the engine starts again what has died.
        """
        live = standing.live
        if live is None or standing.underway:
            return False
        names, page = self._led_to(standing, live, replicas)
        return (
            page is Page.DOWN
            and {each.name for each in replicas if each.up}.issuperset(names)
            and not self._router.differs(live.spec, names)
        )

    def write_route(self, standing: Standing, replicas: Sequence[Replica]) -> None:
        """Write the route of what is live, without waiting for it."""
        live = standing.live
        if live is not None:
            self._router.write(live.spec, *self._led_to(standing, live, replicas))

    def restore_route(self, standing: Standing) -> None:
        """Lead visitors to what is live, or nowhere; wait for the proxy if it answers."""
        live = standing.live
        if live is None:
            self._router.drop(standing.service)
        else:
            replicas = self._runtime.replicas(live.service)
            self._router.restore(live.spec, *self._led_to(standing, live, replicas))

    def close(self, standing: Standing) -> None:
        """Have visitors get a page until the next route."""
        live = standing.live
        if live is not None:
            self._router.restore(live.spec, [], page_of(standing))

    def bring_up(self, live: Release) -> None:
        """Make and start whatever containers of ``live`` are missing or do not run."""
        wanted = replica_names(live.spec, live.number)
        found = {each.name: each for each in self._runtime.replicas(live.service)}
        missing = [name for name in wanted if name not in found]
        if missing:
            log.warning("replicas-missing", replicas=missing)
            plans = replica_plans(live.spec, live.number, live.image, live.env, self._expand)
            for plan in plans:
                if plan.name in missing:
                    self._runtime.create(plan)
        for name in wanted:
            if name in missing or not found[name].up:
                self._runtime.start(name)
            # The engine is keeping up what it is about to start again.
            if name in missing or found[name].state != "restarting":
                self._runtime.keep_up(name)

    def _keep_running(self, live: Release) -> None:
        wanted = replica_names(live.spec, live.number)
        if live.spec.scale == 0 and not self._is_up(live):
            # What the interrupted deploy that stopped it has started may hold its port.
            self._remove_strays(live.service, wanted)
        self.bring_up(live)
        self.restore_route(self._ledger.standing(live.service))
        # Only now: Traefik may have been led to them by whoever was interrupted.
        self._retire_strays(live.service, wanted)

    def _keep_stopped(self, live: Release) -> None:
        wanted = replica_names(live.spec, live.number)
        self.restore_route(self._ledger.standing(live.service))
        self._retire_strays(live.service, wanted)
        if self._retirer.drain(wanted):
            with ThreadPoolExecutor(max_workers=len(wanted)) as pool:
                list(pool.map(self._retirer.stop, wanted))

    def _remove(self, service: ServiceName, wanted: Wanted) -> None:
        self._router.drop(service)
        self._retirer.take_away(self._strays(service, []))
        reach("remove.removed")
        if self._strays(service, []):
            return  # this process is about to end: the next one goes on
        for name in self._runtime.one_offs(service):
            self._runtime.remove(name)
        for number in self._runtime.images(service):
            self._runtime.remove_image(service, number)
        if wanted is Wanted.ERASED:
            self._erase(service)
            self._ledger.forget(service)

    def _led_to(
        self, standing: Standing, live: Release, replicas: Sequence[Replica]
    ) -> tuple[list[str], Page | None]:
        """The replicas that visitors are to be led to, and what page they get instead.

        Once visitors have the page of a service that is down, they have it until somebody
        accepts connections again.
        """
        page = page_of(standing)
        if standing.wanted is not Wanted.RUNNING:
            return [], page
        names = replica_names(live.spec, live.number)
        if page is None and live.spec.urls:
            own = [each for each in replicas if each.name in names]
            is_up = self._router.differs(live.spec, names, Page.DOWN)
            if not answers(own, live.spec.port, sure=is_up):
                page = Page.DOWN
        return names, page

    def _retire_strays(self, service: ServiceName, wanted: Sequence[str]) -> None:
        strays = self._strays(service, wanted)
        if strays:
            log.info("strays-retired", replicas=strays)
            self._retirer.retire(service, strays)

    def _remove_strays(self, service: ServiceName, wanted: Sequence[str]) -> None:
        for name in self._strays(service, wanted):
            log.info("stray-removed", replica=name)
            self._runtime.remove(name)

    def _strays(self, service: ServiceName, wanted: Sequence[str]) -> list[str]:
        return self._unwanted(service, self._runtime.replicas(service), wanted)

    def _unwanted(
        self, service: ServiceName, replicas: Sequence[Replica], wanted: Sequence[str]
    ) -> list[str]:
        """Containers of releases that we know and that are not the live one."""
        others = [each for each in replicas if each.name not in wanted]
        if not others:
            return []
        known = {release.number for release in self._ledger.releases(service)}
        return [each.name for each in others if each.release in known]

    def _is_up(self, live: Release) -> bool:
        up = {each.name for each in self._runtime.replicas(live.service) if each.up}
        return up.issuperset(replica_names(live.spec, live.number))


def page_of(standing: Standing) -> Page | None:
    """The page that visitors are to get, whatever runs."""
    if standing.maintenance:
        return Page.MAINTENANCE
    return None if standing.wanted is Wanted.RUNNING else Page.STOPPED
