"""How Traefik is to be run: its image, arguments, ports and mounts. Pure.

Source of the arguments: Traefik v3, "Static configuration: CLI".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from mypaas_git.routing import accesslog, dashboard, pages
from mypaas_git.routing import acme as certificates
from mypaas_git.routing.acme import Acme

API_PORT = 8080
"""Where the API listens inside the container; the host publishes it on loopback only."""

ROUTES = "/routes"


@dataclass(frozen=True)
class ProxyPlan:
    """Traefik's container. ``ports``: (port inside, address outside, port outside).

    ``files``: (path below the container's ``/``, text). The ports of ``datagrams`` are for
    UDP. ``salt`` keeps the digest, which is public, from telling what is in ``environment``.
    """

    name: str
    image: str
    arguments: tuple[str, ...]
    ports: tuple[tuple[int, str, int], ...]
    mounts: tuple[tuple[str, str, bool], ...]
    files: tuple[tuple[str, str], ...] = ()
    datagrams: tuple[tuple[int, str, int], ...] = ()
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    salt: str = field(default="", repr=False)

    @property
    def digest(self) -> str:
        """Tells whether a running container is what this plan asks for."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()


def plan(
    *,
    name: str,
    image: str,
    web: tuple[str, int],
    web_secure: tuple[str, int],
    routes: str,
    acme: Acme | None,
    storage: str,
    http3: bool,
    read_timeout: float = 3600.0,
    trusted_proxies: Sequence[str] = (),
    access_log: str = "",
    with_dashboard: bool = False,
    salt: str,
) -> ProxyPlan:
    """Return the plan of a Traefik that reads ``routes`` and keeps certificates in ``storage``.

    Requests are logged in the directory ``access_log``, if any.
    Without ``acme`` none are asked for, and https answers with a self-signed one
    wherever there is no other.
    """
    arguments = [
        *_entry_point("web", 80, read_timeout, trusted_proxies),
        *_entry_point("websecure", 443, read_timeout, trusted_proxies),
        f"--entryPoints.api.address=:{API_PORT}",
        f"--providers.file.directory={ROUTES}",
        "--providers.file.watch=true",
        "--providers.providersThrottleDuration=50ms",
        "--api=true",
        *dashboard.arguments(with_dashboard),
        "--log.level=WARN",
        "--log.format=json",
        "--global.checkNewVersion=false",
        "--global.sendAnonymousUsage=false",
        *pages.arguments(),
    ]
    mounts = [(routes, ROUTES, True), (storage, certificates.STORAGE, False)]
    if acme:
        arguments += acme.arguments()
        if acme.ca:
            mounts.append((acme.ca, certificates.CA, True))
    if access_log:
        arguments += accesslog.arguments()
        mounts.append((access_log, accesslog.INSIDE, False))
    if http3:
        arguments += [
            "--entryPoints.websecure.http3=true",
            f"--entryPoints.websecure.http3.advertisedPort={web_secure[1]}",
        ]
    return ProxyPlan(
        name=name,
        image=image,
        arguments=tuple(arguments),
        ports=((80, *web), (443, *web_secure), (API_PORT, "127.0.0.1", 0)),
        datagrams=((443, *web_secure),) if http3 else (),
        mounts=tuple(mounts),
        files=tuple(pages.files().items()),
        environment=tuple(sorted(acme.environment.items())) if acme else (),
        salt=salt,
    )


def _entry_point(
    name: str, port: int, read_timeout: float, trusted_proxies: Sequence[str]
) -> list[str]:
    """Where visitors come in. Traefik's own patience would cut an upload after a minute.

    What anybody but ``trusted_proxies`` says of who the visitor is is dropped; ``X_Real_Ip``
    as well, which many apps read as ``X-Real-Ip`` (CVE-2026-88879, Traefik 3.7.12).
    """
    prefix = f"--entryPoints.{name}"
    arguments = [
        f"{prefix}.address=:{port}",
        f"{prefix}.transport.respondingTimeouts.readTimeout={read_timeout:g}s",
        f"{prefix}.http.aliasHeadersStrategy=delete",
    ]
    if trusted_proxies:
        arguments.append(f"{prefix}.forwardedHeaders.trustedIPs={','.join(trusted_proxies)}")
    return arguments
