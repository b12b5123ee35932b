"""What must pass through Traefik as it comes, and through a switch to a new release."""

from __future__ import annotations

import http.client
import itertools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
from support import engine, grpcapp, passageapp
from support.apps import commit, make_app, unique
from support.net import wait_until
from support.paas import Paas

GIGABYTE = 1 << 30
HELD = 64 << 20
"""Bytes that are kept back until the new release is live: more than buffers on the way hold."""
MOST_MEMORY = 256 << 20
"""Bytes that Traefik may grow by: a proxy that buffers a gigabyte takes four times as much."""
PASSAGE = """\
# mypaas.url=http://{name}.test
# mypaas.scale=1
FROM python:3-slim
COPY server.py version /
CMD ["python3", "/server.py"]
STOPSIGNAL SIGKILL
"""
GRPC = """\
# mypaas.url=http://{name}.test
# mypaas.scale=1
# mypaas.port=50051
# mypaas.protocol=h2c
FROM python:3-slim
RUN pip install --no-cache-dir grpcio
COPY server.py version /
CMD ["python3", "/server.py"]
"""


def version(name: str, number: int, dockerfile: str, source: str) -> dict[str, str | bytes]:
    """The files of a service that tells its version."""
    return {
        "Dockerfile": dockerfile.format(name=name),
        "server.py": Path(source).read_bytes(),
        "version": f"v{number}\n",
    }


@contextmanager
def asked(
    paas: Paas, name: str, path: str, headers: dict[str, str] | None = None, body: Any = None
) -> Iterator[http.client.HTTPResponse]:
    """The answer to a GET, or to a POST of ``body``, before it is read."""
    connection = http.client.HTTPConnection("127.0.0.1", paas.web, timeout=60)
    headers = {"Host": f"{name}.test", **(headers or {})}
    with closing(connection):
        connection.request("POST" if body else "GET", path, body, headers)
        with closing(connection.getresponse()) as reply:
            yield reply


class Switch:
    """Tells transfers when the new release is live."""

    def __init__(self) -> None:
        self.begun = threading.Barrier(4)
        self.over = threading.Event()

    def wait(self) -> None:
        assert self.over.wait(120), "there was no new release"


def upload(paas: Paas, name: str, switch: Switch) -> str:
    """Send a gigabyte, the last of it after the switch; returns what the app says."""

    def body() -> Iterator[bytes]:
        yield passageapp.CHUNK
        switch.begun.wait(60)
        for sent in range(len(passageapp.CHUNK), GIGABYTE, len(passageapp.CHUNK)):
            if sent == GIGABYTE - HELD:
                switch.wait()
            yield passageapp.CHUNK

    length = {"Content-Length": str(GIGABYTE)}
    with asked(paas, name, "/big", length, body()) as reply:
        return reply.read().decode()


def download(paas: Paas, name: str, switch: Switch) -> int:
    """Read a gigabyte, the last of it after the switch; returns how much came."""
    with asked(paas, name, f"/big?{GIGABYTE}") as reply:
        received = len(reply.read(len(passageapp.CHUNK)))
        switch.begun.wait(60)
        while chunk := reply.read(len(passageapp.CHUNK)):
            received += len(chunk)
            if GIGABYTE - received <= HELD:
                switch.wait()
    return received


def listen(paas: Paas, name: str, switch: Switch) -> list[str]:
    """Server-sent events until after the switch, each when it was sent."""
    with asked(paas, name, "/events") as reply:
        events = [_event(reply)]
        switch.begun.wait(60)
        while not switch.over.is_set():
            events.append(_event(reply))
        return [*events, _event(reply)]


def _event(reply: http.client.HTTPResponse) -> str:
    line = reply.readline().decode()
    assert reply.readline() == b"\n"
    return line.strip()


def memory(paas: Paas) -> int:
    """The most that Traefik has ever had in memory, in bytes."""
    pid = engine.inspect(f"{paas.namespace}-traefik")["State"]["Pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


def test_a_gigabyte_and_events_pass_while_a_release_takes_over(
    paas: Paas, tmp_path: Path
) -> None:
    """1 GB up, 1 GB down and events end with the release that they began with, unbuffered."""
    name = unique()
    app = make_app(tmp_path, None, version(name, 1, PASSAGE, passageapp.__file__))
    paas.deploy(app, name)
    commit(app, version(name, 2, PASSAGE, passageapp.__file__))
    before, switch = memory(paas), Switch()
    with ThreadPoolExecutor(3) as pool:
        sent = pool.submit(upload, paas, name, switch)
        received = pool.submit(download, paas, name, switch)
        heard = pool.submit(listen, paas, name, switch)
        try:
            switch.begun.wait(60)
            paas.deploy(app, name)
            assert paas.get(f"http://{name}.test/").text == "v2"
        finally:
            switch.over.set()
    assert sent.result() == f"v1 {GIGABYTE}"
    assert received.result() == GIGABYTE
    assert heard.result() == [f"data: v1 {number}" for number in range(len(heard.result()))]
    assert memory(paas) - before < MOST_MEMORY


def test_a_websocket_speaks_on_while_a_release_takes_over(paas: Paas, tmp_path: Path) -> None:
    """Its messages are the old release's to the end."""
    name = unique()
    app = make_app(tmp_path, None, version(name, 1, PASSAGE, passageapp.__file__))
    paas.deploy(app, name)
    with passageapp.websocket(paas.web, f"{name}.test") as say:
        assert say("before") == "v1 before"
        commit(app, version(name, 2, PASSAGE, passageapp.__file__))
        paas.deploy(app, name)
        assert paas.get(f"http://{name}.test/").text == "v2"
        assert say("after") == "v1 after"


class Conversation:
    """A gRPC stream in both directions, one message at a time."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._questions: list[bytes] = []
        self._asked = threading.Semaphore(0)
        self._answers = channel.stream_stream(grpcapp.STREAM)(self._feed(), timeout=120)

    def say(self, message: bytes) -> bytes:
        self._questions.append(message)
        self._asked.release()
        answer: bytes = next(self._answers)
        return answer

    def end(self) -> Sequence[bytes]:
        self._questions.append(b"")
        self._asked.release()
        return list(self._answers)

    def _feed(self) -> Iterator[bytes]:
        for place in itertools.count():
            self._asked.acquire()
            if not self._questions[place]:
                return
            yield self._questions[place]


def test_grpc_passes_over_h2c(paas: Paas, tmp_path: Path) -> None:
    """Calls and a stream reach a server that speaks HTTP/2 alone, through a switch."""
    name = unique()
    app = make_app(tmp_path, None, version(name, 1, GRPC, grpcapp.__file__))
    paas.deploy(app, name)
    options = [("grpc.default_authority", f"{name}.test")]
    with grpc.insecure_channel(f"127.0.0.1:{paas.web}", options) as channel:
        once = channel.unary_unary(grpcapp.ONCE)
        assert once(b"hello", timeout=30) == b"v1 hello"
        talk = Conversation(channel)
        assert talk.say(b"before") == b"v1 before"
        commit(app, version(name, 2, GRPC, grpcapp.__file__))
        paas.deploy(app, name)
        assert once(b"hello", timeout=30) == b"v2 hello"
        assert talk.say(b"after") == b"v1 after"
        assert talk.end() == []
    old = f"{paas.namespace}.{name}.v1.1"
    wait_until(
        lambda: old not in engine.containers(paas.namespace), "the old one goes", seconds=60
    )
