"""From a service's urls to Traefik's dynamic configuration. Pure.

Format: Traefik v3, file provider, "HTTP routers / services / middlewares". One
file holds one service, and its names are ``<service>``, ``<service>.<n>`` and so
on: a service's name has no dot, so two services never share a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mypaas_git.directives.model import Healthcheck, ServiceSpec, Url
from mypaas_git.names import ServiceName

Config = dict[str, Any]

IDLE = "500ms"
"""How long the proxy keeps a connection to a replica that nobody uses.

Short, so that the connections that an old replica still has are those in use: it is
stopped when there are none. A busy service's connections are never idle as long.
"""
ATTEMPTS = 3
"""How many replicas a request is offered to. Only one that no replica has seen a byte of is
offered again, so that nothing is done twice."""


def route(
    spec: ServiceSpec,
    replicas: Sequence[str],
    *,
    cert_resolver: str | None = None,
    secure_port: int = 443,
) -> Config | None:
    """Return the configuration that leads the urls of ``spec`` to ``replicas``.

    None when the service has no url. ``replicas`` are host names on the services'
    network; without any, visitors get a 503. ``secure_port`` is where clients reach https.
    """
    if not spec.urls:
        return None
    name = str(spec.service)
    middlewares: Config = {
        _retry(spec.service): {"retry": {"attempts": ATTEMPTS, "initialInterval": "20ms"}}
    }
    if any(url.scheme == "https" for url in spec.urls):
        redirect = {"scheme": "https", "permanent": True}
        if secure_port != 443:
            redirect["port"] = str(secure_port)
        middlewares[_redirect(spec.service)] = {"redirectScheme": redirect}
    config: Config = {
        "routers": _routers(spec, cert_resolver),
        "services": {name: {"loadBalancer": _balancer(spec, replicas)}},
        "serversTransports": {name: {"forwardingTimeouts": {"idleConnTimeout": IDLE}}},
        "middlewares": middlewares,
    }
    return {"http": config}


def server_urls(spec: ServiceSpec, replicas: Sequence[str]) -> list[str]:
    """Where Traefik will send requests."""
    return [f"{spec.protocol}://{replica}:{spec.port}" for replica in replicas]


def _routers(spec: ServiceSpec, cert_resolver: str | None) -> Config:
    routers: Config = {}
    plain = {(url.host, url.path) for url in spec.urls if url.scheme == "http"}
    for number, url in enumerate(spec.urls, 1):
        # The longest path wins, whatever the length of the host's name.
        router: Config = {
            "rule": rule(url),
            "priority": 1000 + len(url.path),
            "service": str(spec.service),
            "entryPoints": ["web"],
            "middlewares": [_retry(spec.service)],
        }
        if url.scheme == "https":
            if (url.host, url.path) not in plain:
                routers[f"{spec.service}.{number}.redirect"] = {
                    **router,
                    "middlewares": [_redirect(spec.service)],
                }
            router["entryPoints"] = ["websecure"]
            router["tls"] = {"certResolver": cert_resolver} if cert_resolver else {}
        routers[f"{spec.service}.{number}"] = router
    return routers


def rule(url: Url) -> str:
    """The rule that matches the host and everything at or below the path, no more."""
    host = f"Host(`{url.host}`)"
    if url.path == "/":
        return host
    return f"{host} && (Path(`{url.path}`) || PathPrefix(`{url.path}/`))"


def _balancer(spec: ServiceSpec, replicas: Sequence[str]) -> Config:
    balancer: Config = {
        "servers": [{"url": url} for url in server_urls(spec, replicas)],
        "serversTransport": str(spec.service),
    }
    # What speaks gRPC has no path that could be asked for.
    if spec.scale >= 1 and spec.protocol == "http":
        check = spec.healthcheck or Healthcheck()
        # As the deploy's own gate asks: for a host that the app knows, and it is not led on.
        balancer["healthCheck"] = {
            "path": check.path,
            "hostname": spec.urls[0].host,
            "followRedirects": False,
            "interval": f"{check.interval:g}s",
            "timeout": f"{check.timeout:g}s",
        }
    return balancer


def _retry(service: ServiceName) -> str:
    return f"{service}.retry"


def _redirect(service: ServiceName) -> str:
    return f"{service}.https"
