"""When a new replica counts as ready, and what is said while it does not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import cast

import pytest

from mypaas_git.deploy import health
from mypaas_git.directives.model import Healthcheck
from mypaas_git.names import ServiceName
from mypaas_git.runtime.base import Replica, Runtime


class Loopback:
    """A runtime whose one replica is this host: an engine takes longer than these tests."""

    def start(self, _name: str) -> None: ...

    def inspect(self, name: str) -> Replica:
        return Replica(name, ServiceName("app"), 1, "running", address="127.0.0.1")


@contextlib.contextmanager
def answering_after(seconds: float) -> Iterator[int]:
    """The port at which an app answers, which it refuses for ``seconds`` before."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))

        def serve() -> None:
            time.sleep(seconds)
            sock.listen()
            with sock.accept()[0] as peer:
                peer.recv(4096)
                peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(sock.getsockname()[1])
        thread.join()


def test_whoever_waits_long_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who pushes an app that takes its time is not left without a word, or with many."""
    monkeypatch.setattr(health, "SILENCE", 0.1)
    said: list[str] = []
    with answering_after(0.6) as port:
        gate = health.Gate(Healthcheck(), port)
        runtime = cast(Runtime, Loopback())
        health.start_and_wait(runtime, ["app.v1.1"], gate, 10, said.append)
    assert said[0] == "app.v1.1 not ready after 0.1 s: connection refused"
    assert said[1] == "app.v1.1 not ready after 0.2 s: connection refused"
    assert said[-1].startswith("app.v1.1 healthy after ")
    assert len(said) == 4
