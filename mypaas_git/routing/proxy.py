"""How Traefik is to be run: its image, arguments, ports and mounts. Pure.

Source of the arguments: Traefik v3, "Static configuration: CLI".
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from mypaas_git.routing import pages

API_PORT = 8080
"""Where the API listens inside the container; the host publishes it on loopback only."""

RESOLVER = "acme"
ROUTES = "/routes"
ACME = "/acme"


@dataclass(frozen=True)
class ProxyPlan:
    """Traefik's container. ``ports``: (port inside, address outside, port outside).

    ``files``: (path below the container's ``/``, text).
    """

    name: str
    image: str
    arguments: tuple[str, ...]
    ports: tuple[tuple[int, str, int], ...]
    mounts: tuple[tuple[str, str, bool], ...]
    files: tuple[tuple[str, str], ...] = ()

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
    acme: str,
    email: str,
    acme_server: str,
    acme_ca: str,
) -> ProxyPlan:
    """Return the plan of a Traefik that reads ``routes`` and keeps certificates in ``acme``.

    Without an ``email`` no certificates are asked for, and https answers with
    Traefik's self-signed one.
    """
    arguments = [
        "--entryPoints.web.address=:80",
        "--entryPoints.websecure.address=:443",
        f"--entryPoints.api.address=:{API_PORT}",
        f"--providers.file.directory={ROUTES}",
        "--providers.file.watch=true",
        "--providers.providersThrottleDuration=50ms",
        "--api=true",
        "--api.dashboard=false",
        "--log.level=WARN",
        "--global.checkNewVersion=false",
        "--global.sendAnonymousUsage=false",
        *pages.arguments(),
    ]
    mounts = [(routes, ROUTES, True), (acme, ACME, False)]
    if email:
        prefix = f"--certificatesResolvers.{RESOLVER}.acme"
        arguments += [
            f"{prefix}.email={email}",
            f"{prefix}.caServer={acme_server}",
            f"{prefix}.storage={ACME}/acme.json",
            f"{prefix}.keyType=EC256",
            f"{prefix}.httpChallenge.entryPoint=web",
        ]
        if acme_ca:
            arguments.append(f"{prefix}.caCertificates=/acme-ca.pem")
            mounts.append((acme_ca, "/acme-ca.pem", True))
    return ProxyPlan(
        name=name,
        image=image,
        arguments=tuple(arguments),
        ports=((80, *web), (443, *web_secure), (API_PORT, "127.0.0.1", 0)),
        mounts=tuple(mounts),
        files=tuple(pages.files().items()),
    )
