"""What services have, and others may not take: urls, ports, directories, volumes.

**Why no directory may lie in another that a container can write.** Docker follows symbolic
links each time it starts a container, long after anybody has looked at them. A service with
``~/data`` could make ``~/data/x`` a link to ``/etc``, and with ``~/data/x`` as a volume, its
own or another service's, would have ``/etc`` from the next start on. Looking again just
before, or just after, leaves a moment, and Docker's own restarts ask nobody. So what a
container could make a link of is no volume: then nobody in a container can change where a
volume leads, whenever it is started.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mypaas_git.deploy.request import Request
from mypaas_git.directives.model import Publish, Redirect, ServiceSpec, Url, Volume
from mypaas_git.errors import HostRefused, PortInUse, RouteRefused
from mypaas_git.ledger.store import Ledger
from mypaas_git.names import ServiceName
from mypaas_git.runtime.base import Replica

EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared, not listened on


@dataclass(frozen=True)
class Directory:
    """A directory or file of the host, by its path without links, as a service mounts it."""

    service: ServiceName
    path: str
    read_only: bool


class Claims:
    """Refuses what a service may not have beside the others, by the word of the ledger.

    ``resolve`` turns the source of a volume into a path without links, raising HostRefused;
    ``shared`` names volumes and paths that are for everybody.
    """

    def __init__(
        self, ledger: Ledger, resolve: Callable[[str], str], shared: Iterable[str]
    ) -> None:
        self._ledger = ledger
        self._resolve = resolve
        self._shared = frozenset(shared)

    def check(self, request: Request) -> None:
        """Raise RouteRefused, PortInUse or HostRefused for what another service has."""
        self.check_urls(request)
        others = self._others(request.spec)
        for publish in request.spec.publish:
            fault = port_fault(publish, others)
            if fault:
                raise PortInUse(request.where(publish) + fault)
        for volume in request.spec.volumes:
            if volume.named:
                self._check_named(volume, self._ledger.volume_owner(volume.source), request)
        self.check_directories(request, list)

    def check_urls(self, request: Request) -> None:
        """Raise RouteRefused for an address that another service has."""
        live = self._ledger.live_release(request.spec.service)
        kept = live.spec.addresses if live else ()
        others = self._others(request.spec)
        wishes: tuple[Url | Redirect, ...] = (*request.spec.urls, *request.spec.redirects)
        for wish in wishes:
            url = wish.source if isinstance(wish, Redirect) else wish
            fault = url_fault(url, others, kept, request.may_share)
            if fault:
                raise RouteRefused(request.where(wish) + fault)

    def check_directories(
        self, request: Request, replicas: Callable[[], list[Replica]]
    ) -> None:
        """Raise HostRefused for directories beside those that others have.

        These are what live releases ask for, and what ``replicas`` have mounted.
        """
        spec = request.spec
        wanted = [each for each in spec.volumes if not each.named]
        if not wanted:
            return
        found = [
            Directory(replica.service, path, read_only)
            for replica in replicas()
            for path, read_only in replica.directories
        ]
        for live in self._ledger.live_releases():
            with contextlib.suppress(HostRefused):  # by a config.toml that was changed since
                found += self._directories(live.spec)
        for volume, wish in zip(wanted, self._directories(spec), strict=True):

            def may_share(other: ServiceName, path: str = wish.path) -> bool:
                return path in self._shared or request.may_share(other)

            fault = directory_fault(wish, [*found, *self._directories(spec)], may_share)
            if fault:
                raise HostRefused(request.where(volume) + fault)

    def take_volumes(self, request: Request, replicas: Callable[[], list[Replica]]) -> None:
        """Have the named volumes belong to the service; the lock of volumes is held.

        Raises HostRefused as :meth:`check` does.
        """
        self.check_directories(request, replicas)
        for volume in request.spec.volumes:
            if volume.named and volume.source not in self._shared:
                owner = self._ledger.claim_volume(volume.source, request.spec.service)
                self._check_named(volume, owner, request)

    def _check_named(self, volume: Volume, owner: ServiceName | None, request: Request) -> None:
        if owner in (None, request.spec.service) or volume.source in self._shared:
            return
        raise HostRefused(
            f"{request.where(volume)}the volume {volume.source} belongs to the service "
            f"'{owner}', which used it first; choose another name, or an admin can add it to "
            f"shared_volumes under [host] in config.toml"
        )

    def _directories(self, spec: ServiceSpec) -> list[Directory]:
        return [
            Directory(spec.service, self._resolve(each.source), each.read_only)
            for each in spec.volumes
            if not each.named
        ]

    def _others(self, spec: ServiceSpec) -> list[ServiceSpec]:
        live = self._ledger.live_releases()
        return [each.spec for each in live if each.service != spec.service]


def url_fault(
    url: Url,
    others: Iterable[ServiceSpec],
    kept: Iterable[Url],
    may_share: Callable[[ServiceName], bool],
) -> str | None:
    """Why ``url`` cannot be had beside what ``others`` have.

    A host belongs to the services that are on it. A further one may join it, on a path of
    its own, if ``may_share`` says so of all of them; what it has already, it keeps. A
    wildcard belongs to one service, and whatever is below it is joined by others likewise.
    """
    on_host = [(spec.service, each) for spec in others for each in spec.addresses]
    on_host = [(service, each) for service, each in on_host if each.meets(url)]
    for service, each in on_host:
        if each.host == url.host and (url.wildcard or each.path == url.path):
            return f"{url} belongs to the service '{service}'; choose another url"
    if any((each.host, each.path) == (url.host, url.path) for each in kept):
        return None
    for service, each in on_host:
        if not may_share(service):
            return (
                f"{url} cannot be used: {each.host} belongs to the service '{service}', to "
                f"which this key has no right; choose another host, or push with a key for both"
            )
    return None


def port_fault(publish: Publish, others: Iterable[ServiceSpec]) -> str | None:
    """Why a port of the host cannot be had beside what ``others`` have."""
    if not publish.host_port or publish.host_port_end:
        return None  # Docker looks for a free one
    for spec in others:
        for each in spec.publish:
            if not each.host_port_end and _same_socket(each, publish):
                return (
                    f"the host port {publish.host_port}/{publish.protocol} belongs to the "
                    f"service '{spec.service}'; choose another"
                )
    return None


def directory_fault(
    wish: Directory,
    found: Sequence[Directory],
    may_share: Callable[[ServiceName], bool],
) -> str | None:
    """Why a directory cannot be had beside those in ``found``, the service's own among them.

    Another service's is shared if ``may_share`` says so.
    """
    for each in found:
        nested = _is_below(wish.path, each.path) or _is_below(each.path, wish.path)
        if not nested and wish.path != each.path:
            continue
        if each.service != wish.service and not may_share(each.service):
            return (
                f"{wish.path!a} cannot be mounted: the service '{each.service}' has "
                f"{each.path!a}, and this key has no right to it; choose another directory, or "
                f"an admin can add it to shared_volumes under [host] in config.toml"
            )
        outer = each if _is_below(wish.path, each.path) else wish
        if nested and not outer.read_only:
            whose = "it" if each.service == wish.service else f"the service '{each.service}'"
            return (
                f"{wish.path!a} cannot be mounted beside {each.path!a}, which {whose} has: a "
                f"container that can write the outer one could make the inner one lead "
                f"elsewhere; mount the outer one read-only (:ro), or directories beside each "
                f"other"
            )
    return None


def _same_socket(one: Publish, other: Publish) -> bool:
    same_port = (one.host_port, one.protocol) == (other.host_port, other.protocol)
    everywhere = one.host_ip in EVERYWHERE or other.host_ip in EVERYWHERE
    return same_port and (everywhere or one.host_ip == other.host_ip)


def _is_below(inner: str, outer: str) -> bool:
    return inner != outer and inner.startswith(outer.rstrip("/") + "/")
