"""What apps learn of their visitors, and what config.toml has done with all requests."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from support import passageapp
from support.apps import make_app, unique
from support.net import wait_until
from support.paas import Paas

from mypaas_git.routing.accesslog import MAX_BYTES

FORGED = {
    "X-Forwarded-For": "192.0.2.7",
    "X-Real-Ip": "192.0.2.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "forged.example",
    "X-Forwarded-Port": "4711",
    "X-Forwarded-Prefix": "/forged",
    "X-Forwarded-User": "root",
}
NOBODYS = {
    "Forwarded": "for=192.0.2.7",
    "X_Forwarded_For": "192.0.2.7",
    "X.Forwarded_User": "root",
}
"""What no proxy is believed, either."""
PASSAGE = """\
# mypaas.url=http://{name}.test
FROM python:3-slim
COPY server.py version /
CMD ["python3", "/server.py"]
STOPSIGNAL SIGKILL
"""


def deployed(paas: Paas, tmp_path: Path) -> str:
    """A service that tells what reached it; returns its name."""
    name = unique()
    files: dict[str, str | bytes] = {
        "Dockerfile": PASSAGE.format(name=name),
        "server.py": Path(passageapp.__file__).read_bytes(),
        "version": "v1\n",
    }
    paas.deploy(make_app(tmp_path, None, files), name)
    return name


def seen(paas: Paas, name: str) -> dict[str, str]:
    """The headers that the app gets when a visitor forges some."""
    told = paas.get(f"http://{name}.test/seen", headers=FORGED | NOBODYS).text
    headers: list[tuple[str, str]] = json.loads(told)["headers"]
    return {key.title(): value for key, value in headers}


@contextmanager
def asked(
    paas: Paas, name: str, path: str, headers: dict[str, str] | None = None
) -> Iterator[http.client.HTTPResponse]:
    """The answer to a GET before it is read."""
    with closing(http.client.HTTPConnection("127.0.0.1", paas.web, timeout=60)) as connection:
        connection.request("GET", path, headers={"Host": f"{name}.test", **(headers or {})})
        with closing(connection.getresponse()) as reply:
            yield reply


def test_nobody_forges_who_he_is(paas: Paas, tmp_path: Path) -> None:
    """What a visitor says of himself does not reach the app; what the proxy saw does."""
    name = deployed(paas, tmp_path)
    headers = seen(paas, name)
    assert all(headers.get(key) != value for key, value in FORGED.items())
    assert not NOBODYS.keys() & headers.keys()
    assert headers["X-Forwarded-Proto"] == "http"
    assert headers["X-Forwarded-Host"] == f"{name}.test"
    assert headers["X-Forwarded-For"] == headers["X-Real-Ip"]


def test_what_an_admin_has_done_with_requests(
    new_paas: Callable[[], Paas], tmp_path: Path
) -> None:
    """Trusted proxies are believed, answers compressed, requests bounded in time and number."""
    paas = new_paas()
    paas.configure("trusted_proxies", '["0.0.0.0/0"]')
    paas.configure("access_log", "true")
    paas.configure("compress", "true")
    paas.configure("max_requests", "1")
    paas.configure("read_timeout", '"2s"')
    paas.start()
    name = deployed(paas, tmp_path)

    headers = seen(paas, name)
    first, _ = headers["X-Forwarded-For"].split(", ")
    assert headers | {"X-Forwarded-For": first} == headers | FORGED
    assert not NOBODYS.keys() & headers.keys()

    packed = {"Accept-Encoding": "gzip"}
    with asked(paas, name, "/big?5000", packed) as reply:
        assert reply.headers["Content-Encoding"] == "gzip"
        assert len(reply.read()) < 5000
    # One that does not end: its events come at once, and nobody else of that address gets in.
    with asked(paas, name, "/events", packed | FORGED) as reply:
        assert reply.headers["Content-Encoding"] is None
        assert reply.readline() == b"data: v1 0\n"
        # Ten a second: they go on beyond the time that a request has to arrive.
        assert [reply.readline() for _ in range(61)][-1] == b"\n"
        with asked(paas, name, "/", FORGED) as other:
            assert other.status == 429
        with asked(paas, name, "/", {"X-Forwarded-For": "192.0.2.8"}) as other:
            assert other.read() == b"v1"

    with passageapp.websocket(paas.web, f"{name}.test") as say:
        assert say("packed or not") == "v1 packed or not"

    with socket.create_connection(("127.0.0.1", paas.web), timeout=60) as connection:
        head = f"POST /big HTTP/1.1\r\nHost: {name}.test\r\nContent-Length: 9\r\n\r\n"
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
        assert not answer.startswith(b"HTTP/1.1 2")  # what never came in was not waited for

    logged = paas.home / "logs" / "traefik" / "access.log"
    secret = {"Authorization": "s3cret"}
    assert paas.get(f"http://{name}.test/it?token=s3cret", headers=secret).text == "v1"
    wait_until(lambda: '"RequestPath":"/it"' in logged.read_text(), "the request is logged")
    assert f'"ServiceName":"{name}@file"' in logged.read_text()
    assert "s3cret" not in logged.read_text()
    full = logged.with_name("access.log.1")
    os.truncate(logged, MAX_BYTES + 1)
    wait_until(lambda: full.exists() and logged.exists(), "a new file is begun")
    paas.get(f"http://{name}.test/more")
    wait_until(lambda: "/more" in logged.read_text(), "it is written to")
    logged.replace(full)  # as by a server that is killed before it tells Traefik
    wait_until(logged.exists, "another file is begun")
    paas.get(f"http://{name}.test/most")
    wait_until(lambda: "/most" in logged.read_text(), "it is written to")
