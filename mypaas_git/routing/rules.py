"""From a service's urls to Traefik's dynamic configuration. Pure.

Format: Traefik v3, file provider, "HTTP routers / services / middlewares". One
file holds one service, and its names are ``<service>``, ``<service>.<n>`` and so
on: a service's name has no dot, so two services never share a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mypaas_git.directives.model import Healthcheck, Redirect, ServiceSpec, Url
from mypaas_git.names import ServiceName
from mypaas_git.routing import pages
from mypaas_git.routing.pages import Page

Config = dict[str, Any]

IDLE = "500ms"
"""How long the proxy keeps a connection to a replica that nobody uses.

Short, so that the connections that an old replica still has are those in use: it is
stopped when there are none. A busy service's connections are never idle as long.
"""
ATTEMPTS = 3
"""How many replicas a request is offered to. Only one that no replica has seen a byte of is
offered again, so that nothing is done twice."""


@dataclass(frozen=True)
class Entry:
    """Where visitors come in: the ports that they use, and who issues certificates."""

    web_port: int = 80
    secure_port: int = 443
    cert_resolver: str | None = None


USUAL = Entry()


def route(
    spec: ServiceSpec,
    replicas: Sequence[str],
    *,
    page: Page | None = None,
    entry: Entry = USUAL,
) -> Config | None:
    """Return the configuration that leads the urls of ``spec`` to ``replicas``.

    None when the service has no url. ``replicas`` are host names on the services'
    network. With a ``page``, or without replicas, visitors get that.
    """
    if not spec.urls:
        return None
    name = str(spec.service)
    page = page or (None if replicas else Page.DOWN)
    services: Config = {name: {"loadBalancer": _balancer(spec, replicas)}}
    config: Config = {
        "routers": _routers(spec, page, entry),
        "services": services,
        "serversTransports": {name: {"forwardingTimeouts": {"idleConnTimeout": IDLE}}},
        "middlewares": _middlewares(spec, page, entry),
    }
    if spec.scale >= 1:
        # Should Traefik's own checks find no replica well, visitors get the page, too.
        services[_any(spec.service)] = {
            "failover": {"service": name, "fallback": _none(spec.service)}
        }
        services[_none(spec.service)] = {
            "loadBalancer": {"servers": []},
            "middlewares": [_page(spec.service)],
        }
    return {"http": config}


def server_urls(spec: ServiceSpec, replicas: Sequence[str]) -> list[str]:
    """Where Traefik will send requests."""
    return [f"http://{replica}:{spec.port}" for replica in replicas]


def _routers(spec: ServiceSpec, page: Page | None, entry: Entry) -> Config:
    routers: Config = {}
    plain = {(url.host, url.path) for url in spec.addresses if url.scheme == "http"}
    for number, url in enumerate(spec.urls, 1):
        name = f"{spec.service}.{number}"
        if url.scheme == "https" and (url.host, url.path) not in plain:
            to_https = [_redirect(spec.service)]
            routers[f"{name}.redirect"] = _router(url, pages.NOWHERE, to_https)
        routers[name] = _router(url, *_destination(spec, url, page))
        if url.scheme == "https":
            routers[name] |= _secured(entry)
    for number, redirect in enumerate(spec.redirects, 1):
        source, name = redirect.source, f"{spec.service}.from.{number}"
        answer = _router(source, pages.NOWHERE, [name])
        if source.scheme == "https":
            if (source.host, source.path) not in plain:
                routers[f"{name}.plain"] = answer
            answer = answer | _secured(entry)
        routers[name] = answer
    return routers


def _router(url: Url, service: str, middlewares: Sequence[str]) -> Config:
    # The longest path wins, whatever the length of the host's name.
    return {
        "rule": rule(url),
        "priority": 1000 + len(url.path),
        "service": service,
        "entryPoints": ["web"],
        "middlewares": list(middlewares),
    }


def _secured(entry: Entry) -> Config:
    resolver = entry.cert_resolver
    return {"entryPoints": ["websecure"], "tls": {"certResolver": resolver} if resolver else {}}


def _destination(spec: ServiceSpec, url: Url, page: Page | None) -> tuple[str, list[str]]:
    """The service that a url's visitors get to, and the middlewares on their way there."""
    if page is not None:
        return pages.NOWHERE, [_page(spec.service)]
    way = [_auth(spec.service)] if spec.auth else []
    if spec.stripprefix and url.path != "/":
        way.append(_strip(spec, url))
    service = _any(spec.service) if spec.scale >= 1 else str(spec.service)
    return service, [*way, _retry(spec.service)]


def _middlewares(spec: ServiceSpec, page: Page | None, entry: Entry) -> Config:
    name = spec.service
    middlewares: Config = {
        _retry(name): {"retry": {"attempts": ATTEMPTS, "initialInterval": "20ms"}},
    }
    if page or spec.scale >= 1:
        middlewares[_page(name)] = (page or Page.DOWN).middleware
    if any(url.scheme == "https" for url in spec.urls):
        redirect = {"scheme": "https", "permanent": True}
        if entry.secure_port != 443:
            redirect["port"] = str(entry.secure_port)
        middlewares[_redirect(name)] = {"redirectScheme": redirect}
    if spec.auth:  # without users it lets nobody in
        middlewares[_auth(name)] = {
            "basicAuth": {
                "users": list(spec.users),
                "realm": "Restricted",
                # The app learns who it is, and not the password.
                "removeHeader": True,
                "headerField": "X-Forwarded-User",
            }
        }
    for url in spec.urls:
        if spec.stripprefix and url.path != "/":
            middlewares[_strip(spec, url)] = {"stripPrefix": {"prefixes": [url.path]}}
    for number, each in enumerate(spec.redirects, 1):
        middlewares[f"{name}.from.{number}"] = {"redirectRegex": _moved(each, entry)}
    return middlewares


def _moved(redirect: Redirect, entry: Entry) -> Config:
    """What puts the target in front of the rest of the path, and of the query.

    Of the path that the rule has matched only the number of its parts counts here: a
    visitor may spell it with percent-escapes. The rest is nothing, or begins with ``/`` or
    ``?``, so that it cannot be read as a part of the target's host.
    """
    source, target = redirect.source, redirect.target
    parts = source.path.count("/") if source.path != "/" else 0
    usual, port = (443, entry.secure_port)
    if target.scheme == "http":
        usual, port = (80, entry.web_port)
    host = target.host if port == usual else f"{target.host}:{port}"
    path = "" if target.path == "/" else target.path
    return {
        "regex": rf"^[a-z]+://[^/?]+(?:/[^/?]*){{{parts}}}((?:[/?].*)?)$",
        "replacement": f"{target.scheme}://{host}{path}${{1}}",
        "permanent": True,
    }


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
    if spec.sticky:
        secure = all(url.scheme == "https" for url in spec.urls)
        balancer["sticky"] = {"cookie": {"secure": secure, "httpOnly": True, "sameSite": "lax"}}
    if spec.scale >= 1:
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


def _page(service: ServiceName) -> str:
    return f"{service}.page"


def _any(service: ServiceName) -> str:
    return f"{service}.any"


def _none(service: ServiceName) -> str:
    return f"{service}.none"


def _auth(service: ServiceName) -> str:
    return f"{service}.auth"


def _strip(spec: ServiceSpec, url: Url) -> str:
    paths = sorted({each.path for each in spec.urls})
    return f"{spec.service}.strip.{paths.index(url.path) + 1}"
