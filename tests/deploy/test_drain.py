"""What is in flight when traffic is switched ends as it would have, or when its time is up."""

from __future__ import annotations

import itertools
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import engine
from support.apps import commit, make_app, unique
from support.net import wait_until
from support.paas import MYPAAS, Paas

SERVER = """\
import http.server, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.headers.get("Upgrade"):
            return self.echo()
        if self.path == "/slow":
            time.sleep(3)
        self.answer(VERSION)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(f"{VERSION} {len(body)}")

    def answer(self, text):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def echo(self):
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.end_headers()
        self.close_connection = True
        while line := self.rfile.readline():
            self.wfile.write((VERSION + " ").encode() + line)

http.server.ThreadingHTTPServer(("", 80), Handler).serve_forever()
"""
# Dies of SIGTERM at once, whatever it is doing.
DOCKERFILE = """\
{directives}
FROM python:3-slim
STOPSIGNAL SIGKILL
COPY server.py /
CMD ["python3", "/server.py"]
"""


def version(name: str, number: int, scale: str = "1") -> dict[str, str | bytes]:
    """The files of a service that tells its version."""
    directives = f"# mypaas.url=http://{name}.test\n# mypaas.scale={scale}"
    return {
        "Dockerfile": DOCKERFILE.format(directives=directives),
        "server.py": f"VERSION = 'v{number}'\n{SERVER}",
    }


def first(paas: Paas, directory: Path, scale: str = "1") -> tuple[Path, str]:
    """A service whose first version is live."""
    name = unique()
    app = make_app(directory, None, version(name, 1, scale))
    paas.deploy(app, name)
    return app, name


def second(paas: Paas, app: Path, name: str, scale: str = "1") -> None:
    commit(app, version(name, 2, scale))
    paas.deploy(app, name)


@contextmanager
def talking(paas: Paas, name: str, request: str) -> Iterator[socket.socket]:
    """A connection to Traefik over which ``request`` was sent."""
    with socket.create_connection(("127.0.0.1", paas.web), timeout=15) as connection:
        connection.sendall(request.replace("\n", "\r\n").format(host=f"{name}.test").encode())
        yield connection


GET_SLOW = "GET /slow HTTP/1.1\nHost: {host}\n\n"
UPLOAD = "POST /up HTTP/1.1\nHost: {host}\nContent-Length: 3000\n\n"
WEBSOCKET = (
    "GET /ws HTTP/1.1\nHost: {host}\nConnection: Upgrade\nUpgrade: websocket\n"
    "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n"
)


def containers(paas: Paas, name: str) -> list[str]:
    return engine.containers(paas.namespace, f"label=mypaas.service={name}")


def is_gone(paas: Paas, name: str) -> bool:
    return f"{paas.namespace}.{name}.v1.1" not in containers(paas, name)


def read_until(connection: socket.socket, end: bytes) -> bytes:
    """What comes, up to and with ``end``."""
    found = b""
    while not found.endswith(end):
        chunk = connection.recv(4096)
        assert chunk, f"cut off after {found!r}"
        found += chunk
    return found


def test_a_slow_answer_an_upload_and_a_websocket_outlast_the_switch(
    paas: Paas, tmp_path: Path
) -> None:
    """All three began with the old release and end with it; then it goes."""
    app, name = first(paas, tmp_path)
    with (
        talking(paas, name, GET_SLOW) as slow,
        talking(paas, name, UPLOAD) as upload,
        talking(paas, name, WEBSOCKET) as websocket,
    ):
        upload.sendall(b"x" * 1000)
        read_until(websocket, b"\r\n\r\n")
        second(paas, app, name)
        assert paas.get(f"http://{name}.test/").text == "v2"
        assert read_until(slow, b"v1").startswith(b"HTTP/1.1 200")
        upload.sendall(b"x" * 1000)
        time.sleep(1)
        upload.sendall(b"x" * 1000)
        assert read_until(upload, b"v1 3000").startswith(b"HTTP/1.1 200")
        for number in range(3):
            websocket.sendall(b"%d\n" % number)
            assert read_until(websocket, b"\n") == b"v1 %d\n" % number
            time.sleep(1)
        assert not is_gone(paas, name)
    wait_until(lambda: is_gone(paas, name), "the old container is gone")


def test_what_never_ends_is_ended(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """After drain_timeout even a connection in use is cut."""
    paas = new_paas()
    config = paas.home / "config.toml"
    config.write_text(
        config.read_text().replace('# drain_timeout = "30s"', 'drain_timeout = "2s"')
    )
    paas.start()
    app, name = first(paas, tmp_path)
    with talking(paas, name, WEBSOCKET) as websocket:
        read_until(websocket, b"\r\n\r\n")
        second(paas, app, name)
        wait_until(lambda: is_gone(paas, name), "the old container is gone", seconds=10)
        assert websocket.recv(100) == b""


def test_safe_mode_never_mixes(paas: Paas, tmp_path: Path) -> None:
    """No old answer comes after a new one, a slow one included; the gap is told."""
    app, name = first(paas, tmp_path, "1 safe")
    answers: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.01):
            answer = paas.get(f"http://{name}.test/")
            answers.append(answer.text if answer.status == 200 else str(answer.status))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        with talking(paas, name, GET_SLOW) as slow:
            pushing = threading.Thread(target=second, args=(paas, app, name, "1 safe"))
            pushing.start()
            assert read_until(slow, b"v1").startswith(b"HTTP/1.1 200")
            assert "v2" not in answers, "a new answer before the last old one"
            pushing.join()
    finally:
        stop.set()
        asking.join()
    assert paas.get(f"http://{name}.test/").text == "v2"
    order = [answer for answer, _ in itertools.groupby(answers)]
    assert order in (["v1", "503", "v2"], ["v1", "503"]), order
    shown = paas.ssh("releases", "output", name).stdout
    down = re.search(r"live in [0-9.]+ s, ([0-9.]+) s down", shown)
    assert down, shown
    assert float(down[1]) > 0


def test_a_shell_deploy_leaves_the_drain_to_another_process(paas: Paas, tmp_path: Path) -> None:
    """`server deploy` returns when it is live; what is in flight still ends well."""
    app, name = first(paas, tmp_path)
    directives = version(name, 2)["Dockerfile"]
    assert isinstance(directives, str)
    commit(app, {**version(name, 2), "Dockerfile": f"# mypaas.service={name}\n{directives}"})
    with talking(paas, name, GET_SLOW) as slow:
        done = subprocess.run(
            [MYPAAS, "server", "deploy", str(app)],
            env=paas.env(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert read_until(slow, b"v1").startswith(b"HTTP/1.1 200")
    assert paas.get(f"http://{name}.test/").text == "v2"
    wait_until(lambda: is_gone(paas, name), "the old container is gone")


@pytest.mark.parametrize("scale", ["0", "1"])
def test_the_end_of_a_push_says_what_visitors_saw(
    paas: Paas, tmp_path: Path, scale: str
) -> None:
    """Measured through Traefik: none of the probes failed, or how long it was down."""
    app, name = first(paas, tmp_path, scale)
    commit(app, version(name, 2, scale))
    said = paas.deploy(app, name)
    found = re.search(
        r"live in [0-9.]+ s, ([0-9.]+) s down \(([0-9]+) of ([0-9]+) probes failed\)", said
    )
    assert found, said
    assert int(found[3]) > 1
    assert (float(found[1]) > 0, int(found[2]) > 0) == (scale == "0", scale == "0")
