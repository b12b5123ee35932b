"""Routes in effect: what is written for Traefik, and its own word that it serves them."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import hashlib
import http.client
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mypaas_git.directives.model import ServiceSpec
from mypaas_git.errors import MypaasError, RouterDown, RouteRefused
from mypaas_git.failpoints import reach
from mypaas_git.names import ServiceName
from mypaas_git.routing import rules
from mypaas_git.routing.pages import Page
from mypaas_git.routing.routes import Routes, put

CONFIRM_TIMEOUT = 10.0
"""Seconds that Traefik may take to serve a new route; it is usually 0.1."""

MAX_WHY = 400
"""Characters of Traefik's own words that are shown."""

POLL = 0.02
USER = "mypaas"


class Traefik:
    """Writes routes and asks Traefik's API whether they are in effect.

    ``api`` tells where that API listens on this host (host, port), or raises
    RouterDown; ``password`` is what guards it. ``tls`` tells how https is spoken, and
    ``dashboard`` how that is reached by the user of a line of htpasswd, if at all.
    """

    def __init__(
        self,
        directory: Path,
        *,
        api: Callable[[], tuple[str, int]],
        password: str,
        entry: rules.Entry = rules.USUAL,
        secured: Callable[[ServiceSpec], tuple[rules.Secured, ...]] = lambda _: (),
        tls: Callable[[], rules.Config] = dict,
        dashboard: Callable[[str], rules.Config | None] = lambda _: None,
        log: Callable[[float], list[str]] = lambda _: [],
    ) -> None:
        self._directory = directory
        self._api = api
        self._password = password
        self._entry = entry
        self._secured = secured
        self._tls = tls
        self._dashboard = dashboard
        self._log = log
        self._routes = Routes(directory)
        self._own: dict[str, rules.Config] = {}

    def check(self) -> None:
        """Raise RouterDown unless Traefik answers."""
        if self._get("/api/version") is None:
            raise RouterDown("Traefik answers without its API: its own route is lost")

    def set(self, spec: ServiceSpec, replicas: Sequence[str], page: Page | None = None) -> None:
        """Lead the urls of ``spec`` to ``replicas``, or to a page; return once Traefik does.

        Raises RouteRefused when it does not within CONFIRM_TIMEOUT; the former
        route is in effect again then.
        """
        before, began = self._routes.read(spec.service), time.time()
        self.write(spec, replicas, page)
        reach("route.written")
        try:
            self._confirm(spec, replicas, page, began)
        except BaseException:
            self._routes.replace(spec.service, before)
            raise

    def restore(
        self, spec: ServiceSpec, replicas: Sequence[str], page: Page | None = None
    ) -> None:
        """Write a route that was in effect before; wait for Traefik only if it answers."""
        began = time.time()
        self.write(spec, replicas, page)
        with contextlib.suppress(MypaasError):
            self._confirm(spec, replicas, page, began)

    def write(
        self, spec: ServiceSpec, replicas: Sequence[str], page: Page | None = None
    ) -> None:
        """Write the route without waiting for Traefik."""
        self._routes.replace(spec.service, self._route(spec, replicas, page))

    def drop(self, service: ServiceName) -> None:
        """Take the route of ``service`` away."""
        self._routes.replace(service, None)

    def has(self, service: ServiceName) -> bool:
        """Whether there is a route of ``service``."""
        return not self._routes.holds(service, None)

    def differs(
        self, spec: ServiceSpec, replicas: Sequence[str], page: Page | None = None
    ) -> bool:
        """Whether the route is another than :meth:`write` would write."""
        return not self._routes.holds(spec.service, self._route(spec, replicas, page))

    def unhealthy(self, spec: ServiceSpec, replicas: Sequence[str]) -> list[str]:
        """Those of ``replicas`` that Traefik leaves out since they fail its health check.

        Raises RouterDown.
        """
        found = self._get(f"/api/http/services/{spec.service}@file") or {}
        status = found.get("serverStatus") or {}
        urls = zip(replicas, rules.server_urls(spec, replicas), strict=True)
        return [replica for replica, url in urls if status.get(url, "UP") != "UP"]

    def guard_api(self, sources: Sequence[str] = ()) -> None:
        """Write the route of the API itself, behind the password, and what all routes share.

        With ``sources``, addresses, it answers nobody else: services are on its network,
        this host comes by the network's gateway.
        """
        middlewares: dict[str, Any] = {"_api": {"basicAuth": {"users": [self._user]}}}
        if sources:
            allowed = {"sourceRange": list(sources)}
            middlewares = {"_api.from": {"ipAllowList": allowed}, **middlewares}
        config = {
            "http": {
                "routers": {
                    "_api": {
                        "rule": "PathPrefix(`/`)",
                        "entryPoints": ["api"],
                        "service": "api@internal",
                        "middlewares": list(middlewares),
                    }
                },
                "middlewares": middlewares,
            }
        }
        self._own = {"_api": config, "_shared": rules.shared(self._entry)}
        self.keep()

    def keep(self) -> None:
        """Write again what is lost of all files, and how https is spoken if that changed.

        The latter is also with which certificates of our own.
        """
        found = {"_tls": self._tls(), "_dashboard": self._dashboard(self._user) or {}}
        for name, config in (self._own | found).items():
            put(self._directory, name, json.dumps(config, indent=1).encode())
        self._routes.keep()

    @property
    def _user(self) -> str:
        """Who may use the API, as a line of htpasswd."""
        digest = hashlib.sha1(self._password.encode(), usedforsecurity=False).digest()
        # SHA-1 is one of the forms that Traefik knows; 256 random bits need no slow hash.
        return f"{USER}:{{SHA}}{base64.b64encode(digest).decode()}"

    def _confirm(
        self, spec: ServiceSpec, replicas: Sequence[str], page: Page | None, began: float
    ) -> None:
        """``began`` is from before the file was written: Traefik may refuse it at once."""
        service = spec.service
        config = self._route(spec, replicas, page)
        servers = rules.server_urls(spec, replicas) if config else None
        deadline = time.monotonic() + CONFIRM_TIMEOUT
        while self._servers(service) != servers or not self._leads(service, config):
            if time.monotonic() > deadline:
                raise RouteRefused(
                    f"Traefik did not take the new route of {service} within "
                    f"{CONFIRM_TIMEOUT:g} s; {self._why(began)}"
                )
            time.sleep(POLL)
        self._refuse_faulty_routers(service)

    def _why(self, since: float) -> str:
        """What Traefik itself said last of the files of routes."""
        for line in reversed(self._log(since)):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                told = json.loads(line)
                if told["level"] == "error" and told.get("providerName") == "file":
                    return f"it says: {' '.join(str(told['error']).split())[:MAX_WHY]}"
        return "its log says why (docker logs)"

    def _servers(self, service: ServiceName) -> list[str] | None:
        found = self._get(f"/api/http/services/{service}@file")
        if found is None:
            return None
        return [each["url"] for each in found["loadBalancer"].get("servers") or []]

    def _leads(self, service: ServiceName, config: rules.Config | None) -> bool:
        """Whether the first url leads where it should: to the service, or to a page.

        Replicas can stay the same when a page takes their place.
        """
        if config is None:
            return True
        wanted = config["http"]["routers"][f"{service}.1"]
        found = self._get(f"/api/http/routers/{service}.1@file") or {}
        return (found.get("rule"), found.get("service")) == (wanted["rule"], wanted["service"])

    def _refuse_faulty_routers(self, service: ServiceName) -> None:
        for router in self._get(f"/api/http/routers?search={service}.&per_page=1000") or []:
            own = router["name"].startswith(f"{service}.") and router.get("provider") == "file"
            if own and router.get("status") != "enabled":
                errors = "; ".join(router.get("error", ["no reason given"]))
                raise RouteRefused(f"Traefik refused the rule {router['rule']}: {errors}")

    def _get(self, path: str) -> Any:
        """The API's answer as JSON, None when it has no such thing. Raises RouterDown."""
        connection = http.client.HTTPConnection(*self._api(), timeout=5)
        token = base64.b64encode(f"{USER}:{self._password}".encode()).decode()
        try:
            connection.request("GET", path, headers={"Authorization": f"Basic {token}"})
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise RouterDown(f"Traefik does not answer ({error})") from error
        finally:
            connection.close()
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise RouterDown(f"Traefik's API answered {answer.status} to {path}")
        return json.loads(body)

    def _route(
        self, spec: ServiceSpec, replicas: Sequence[str], page: Page | None
    ) -> rules.Config | None:
        entry = dataclasses.replace(self._entry, secured=self._secured(spec))
        return _route(spec, tuple(replicas), page, entry)


@functools.lru_cache(maxsize=8192)
def _route(
    spec: ServiceSpec, replicas: Sequence[str], page: Page | None, entry: rules.Entry
) -> rules.Config | None:
    """The route of a service: whether it is the right one is looked at all the time."""
    return rules.route(spec, replicas, page=page, entry=entry)
