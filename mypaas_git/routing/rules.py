"""From a service's urls to Traefik's dynamic configuration. Pure.

Format: Traefik v3, file provider, "HTTP routers / services / middlewares". Names of what
belongs to a service are ``<service>``, ``<service>.<n>`` and so on: a service's name has no
dot, so two services never share a name. What all of them share begins with ``_``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
DIAL = "3s"
"""How long the proxy tries to connect to a replica, and to learn its address.

One on the same host answers at once, even when it does not listen. Only one that vanished in
between is silent, and Traefik's own patience of 30 s would be its visitors'.
"""
ATTEMPTS = 3
"""How many replicas a request is offered to. Only one that no replica has seen a byte of is
offered again, so that nothing is done twice."""

USER_HEADER = "X-Forwarded-User"
"""In which an app reads who was let in."""

# What all routes share.
TO_HTTPS, FORGED, LIMIT, COMPRESS, RETRY = "_https", "_forged", "_limit", "_compress", "_retry"
TRANSPORT = "_transport"

EXACT, WILDCARD = 2000, 500
"""What a router's priority is above the length of its path, which is at most 1000."""


class Secured(NamedTuple):
    """Who certifies a host, None for nobody, and for how many seconds browsers are to insist
    on https there."""

    host: str
    resolver: str | None = None
    hsts: int = 0


@dataclass(frozen=True)
class Entry:
    """Where visitors come in: by which ports, and what is known of hosts with https."""

    web_port: int = 80
    secure_port: int = 443
    secured: tuple[Secured, ...] = ()
    compress: bool = False
    max_requests: int = 0
    behind_proxies: bool = False

    def secured_as(self, host: str) -> Secured:
        return next((each for each in self.secured if each.host == host), Secured(host))


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
    if _is_checked(spec):
        # Should Traefik's own checks find no replica well, visitors get the page, too.
        services[_any(spec.service)] = {"failover": {"service": name, "fallback": pages.NOBODY}}
    return {
        "http": {
            "routers": _routers(spec, page, entry),
            "services": services,
            "middlewares": _middlewares(spec, entry),
        }
    }


def shared(entry: Entry) -> Config:
    """Return the configuration that all routes refer to; of each service its own would take
    Traefik longer at every change."""
    to_https = {"scheme": "https", "permanent": True}
    if entry.secure_port != 443:
        to_https["port"] = str(entry.secure_port)
    # Traefik neither writes nor checks what RFC 7239 has in place of X-Forwarded-*, nor who
    # it is: only basic authentication and a proxy in front of this server may tell.
    dropped = {"Forwarded": ""} | ({} if entry.behind_proxies else {USER_HEADER: ""})
    middlewares: Config = {
        TO_HTTPS: {"redirectScheme": to_https},
        FORGED: {"headers": {"customRequestHeaders": dropped}},
        RETRY: {"retry": {"attempts": ATTEMPTS, "initialInterval": "20ms"}},
        # Events would wait for one another.
        COMPRESS: {"compress": {"excludedContentTypes": ["text/event-stream"]}},
    }
    if entry.max_requests:
        # Of what proxies have added, the last one's word is who came to it. Without proxies it
        # is the peer; Traefik takes no strategy that says nothing.
        client = {"ipStrategy": {"depth": int(entry.behind_proxies)}}
        limit = {"amount": entry.max_requests, "sourceCriterion": client}
        middlewares[LIMIT] = {"inFlightReq": limit}
    config = pages.shared()
    config["middlewares"] |= middlewares
    config["serversTransports"] = {
        TRANSPORT: {"forwardingTimeouts": {"dialTimeout": DIAL, "idleConnTimeout": IDLE}}
    }
    return {"http": config}


def server_urls(spec: ServiceSpec, replicas: Sequence[str]) -> list[str]:
    """Where Traefik will send requests."""
    return [f"{spec.protocol}://{replica}:{spec.port}" for replica in replicas]


def _routers(spec: ServiceSpec, page: Page | None, entry: Entry) -> Config:
    routers: Config = {}
    plain = {(url.host, url.path) for url in spec.addresses if url.scheme == "http"}
    for number, url in enumerate(spec.urls, 1):
        name = f"{spec.service}.{number}"
        if url.scheme == "https" and (url.host, url.path) not in plain:
            routers[f"{name}.redirect"] = _router(url, pages.NOWHERE, [TO_HTTPS])
        routers[name] = _router(url, *_destination(spec, url, page, entry))
        if url.scheme == "https":
            routers[name] = _secured(routers[name], spec, url, entry)
    for number, redirect in enumerate(spec.redirects, 1):
        source, name = redirect.source, f"{spec.service}.from.{number}"
        answer = _router(source, pages.NOWHERE, [name])
        if source.scheme == "https":
            if (source.host, source.path) not in plain:
                routers[f"{name}.plain"] = answer
            answer = _secured(answer, spec, source, entry)
        routers[name] = answer
    return routers


def _router(url: Url, service: str, middlewares: Sequence[str]) -> Config:
    # A host wins over a wildcard, and then the longest path, however long the hosts are.
    return {
        "rule": rule(url),
        "priority": (WILDCARD if url.wildcard else EXACT) + len(url.path),
        "service": service,
        "entryPoints": ["web"],
        "middlewares": list(middlewares),
    }


def _secured(router: Config, spec: ServiceSpec, url: Url, entry: Entry) -> Config:
    """The router of ``url``, over https."""
    first = [_hsts(spec.service)] if _age(spec, url, entry) else []
    return {
        **router,
        "entryPoints": ["websecure"],
        "middlewares": [*first, *router["middlewares"]],
        "tls": _tls(url, entry.secured_as(url.host).resolver),
    }


def _tls(url: Url, resolver: str | None) -> Config:
    if resolver is None:
        return {}
    if url.wildcard:
        # Of a pattern Traefik does not know for which host it is to ask.
        return {"certResolver": resolver, "domains": [{"main": url.host}]}
    return {"certResolver": resolver}


def _age(spec: ServiceSpec, url: Url, entry: Entry) -> int:
    """For how many seconds browsers are to insist on https for the host of ``url``.

    They would not come by http any more, where a service wants them to.
    """
    plain = any(each.host == url.host for each in spec.addresses if each.scheme == "http")
    return 0 if plain else entry.secured_as(url.host).hsts


def _destination(
    spec: ServiceSpec, url: Url, page: Page | None, entry: Entry
) -> tuple[str, list[str]]:
    """The service that a url's visitors get to, and the middlewares on their way there."""
    if page is not None:
        return pages.NOWHERE, [page.middleware]
    way = [FORGED]
    if entry.max_requests:
        way.append(LIMIT)
    if spec.auth:
        way.append(_auth(spec.service))
    if spec.stripprefix and url.path != "/":
        way.append(_strip(spec, url))
    if entry.compress:
        way.append(COMPRESS)
    service = _any(spec.service) if _is_checked(spec) else str(spec.service)
    return service, [*way, RETRY]


def _middlewares(spec: ServiceSpec, entry: Entry) -> Config:
    """What the service's directives ask to be done with requests on their way."""
    name, middlewares = spec.service, Config()
    for age in filter(None, (_age(spec, url, entry) for url in spec.addresses)):
        middlewares[_hsts(name)] = {"headers": {"stsSeconds": age}}
    if spec.auth:  # without users it lets nobody in
        middlewares[_auth(name)] = {
            "basicAuth": {
                "users": list(spec.users),
                "realm": "Restricted",
                # The app learns who it is, and not the password.
                "removeHeader": True,
                "headerField": USER_HEADER,
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
    if url.wildcard:
        host = f"HostRegexp(`^[^.]+{re.escape(url.host[1:])}$`)"
    if url.path == "/":
        return host
    return f"{host} && (Path(`{url.path}`) || PathPrefix(`{url.path}/`))"


def _balancer(spec: ServiceSpec, replicas: Sequence[str]) -> Config:
    balancer: Config = {
        "servers": [{"url": url} for url in server_urls(spec, replicas)],
        "serversTransport": TRANSPORT,
    }
    if spec.sticky:
        secure = all(url.scheme == "https" for url in spec.urls)
        balancer["sticky"] = {"cookie": {"secure": secure, "httpOnly": True, "sameSite": "lax"}}
    if _is_checked(spec):
        check = spec.healthcheck or Healthcheck()
        # As the deploy's own gate asks: for a host that the app knows, and it is not led on.
        balancer["healthCheck"] = {
            "path": check.path,
            "hostname": spec.urls[0].sample,
            "followRedirects": False,
            "interval": f"{check.interval:g}s",
            "timeout": f"{check.timeout:g}s",
        }
    return balancer


def _is_checked(spec: ServiceSpec) -> bool:
    """Whether Traefik asks replicas how they are. Of gRPC there is no path to ask for."""
    return spec.scale >= 1 and spec.protocol == "http"


def _any(service: ServiceName) -> str:
    return f"{service}.any"


def _auth(service: ServiceName) -> str:
    return f"{service}.auth"


def _strip(spec: ServiceSpec, url: Url) -> str:
    paths = sorted({each.path for each in spec.urls})
    return f"{spec.service}.strip.{paths.index(url.path) + 1}"


def _hsts(service: ServiceName) -> str:
    return f"{service}.hsts"
