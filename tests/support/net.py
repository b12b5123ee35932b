"""Loopback ports, answers over HTTP, and waiting for things to come true."""

from __future__ import annotations

import http.client
import os
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_given: set[int] = set()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, a different one each time.

    It lies below the range that the kernel hands out by itself, so that no
    outgoing connection takes it before its user does, and in the part of that which
    belongs to this worker of pytest, so that no other one does.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = 20000 + worker % 8 * 1500 + secrets.randbelow(1500)
        if port not in _given and not listening(port) and _can_bind(port):
            _given.add(port)
            return port


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def listening(port: int) -> bool:
    """Whether somebody accepts connections on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(
    true: Callable[[], object], what: str, *, seconds: float = 30, every: float = 0.02
) -> None:
    """Return once ``true()`` is; fail, naming ``what``, after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(every)


@dataclass(frozen=True)
class Answer:
    """What came back for one request; ``headers`` has lower-case keys."""

    status: int
    headers: dict[str, str]
    text: str


def fetch(
    url: str,
    *,
    web: int,
    web_secure: int = 0,
    host: str | None = None,
    headers: dict[str, str] | None = None,
    seconds: float = 10,
    address: str = "127.0.0.1",
) -> Answer:
    """GET ``url`` from the proxy at ``address``, as if its host's name led there.

    ``host`` overrides the Host header (and SNI). The certificate is not checked:
    without a public name there is none that could be.
    """
    parts = urlsplit(url)
    name = host or parts.netloc
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "https":
        connection: http.client.HTTPConnection = _Secure(address, web_secure, name, seconds)
    else:
        connection = http.client.HTTPConnection(address, web, timeout=seconds)
    try:
        connection.request("GET", path, headers={**(headers or {}), "Host": name})
        reply = connection.getresponse()
        body = reply.read().decode("utf-8", "replace")
        fields = {key.lower(): value for key, value in reply.getheaders()}
        return Answer(reply.status, fields, body)
    finally:
        connection.close()


class _Secure(http.client.HTTPConnection):
    """HTTPS to ``address`` that asks for the certificate of another name."""

    def __init__(self, address: str, port: int, name: str, seconds: float) -> None:
        super().__init__(address, port, timeout=seconds)
        self._name = name

    def connect(self) -> None:
        super().connect()
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        plain = self.sock
        self.sock = context.wrap_socket(plain, server_hostname=self._name.split(":")[0])


@contextmanager
def being_answered(web: int, name: str, path: str) -> Iterator[socket.socket]:
    """A request to the proxy for ``http://<name>.test<path>`` whose answer has begun."""
    request = f"GET {path} HTTP/1.1\r\nHost: {name}.test\r\n\r\n"
    with socket.create_connection(("127.0.0.1", web), timeout=10) as connection:
        connection.sendall(request.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        yield connection


def with_hosts(root: Path, **files: str) -> list[str]:
    """Words in front of a command for which /etc/hosts, and what else is named, reads so.

    ``files`` are named as in ``nsswitch_conf``. Nobody else sees them.
    """
    steps = []
    for name, text in files.items():
        path = root / name
        path.write_text(text)
        path.chmod(0o644)
        steps.append(f"mount --bind '{path}' /etc/{name.replace('_', '.')}")
    return ["unshare", "-m", "sh", "-ec", "; ".join([*steps, 'exec "$@"']), "sh"]
