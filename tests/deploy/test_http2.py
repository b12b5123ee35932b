"""Who speaks HTTP/2 without TLS, and who does not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest

from mypaas_git.deploy import http2


@contextmanager
def answering(answer: bytes) -> Iterator[tuple[str, int]]:
    """A server that answers the first bytes of each connection with ``answer``."""

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            self.connection.recv(1024)
            self.connection.sendall(answer)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield ("127.0.0.1", server.server_address[1])
        server.shutdown()


def test_a_grpc_server_greets() -> None:
    """What a real one says is understood."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        http2.greet(("127.0.0.1", port), 10)
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not HTTP/2"),
        (b"\0\0\0\x04\0\0\0\0\x01", "not HTTP/2"),
        (b"\0\0\x05\x04\0\0\0\0\0", "not HTTP/2"),
        (b"\0\0\x06\x04", "closed without an answer"),
        (b"", "closed without an answer"),
    ],
    ids=["http/1.1", "of a stream", "odd length", "cut off", "silence"],
)
def test_others_do_not(answer: bytes, why: str) -> None:
    """An old server, one that is out of step, and one that hangs up."""
    with answering(answer) as address, pytest.raises(ValueError, match=why):
        http2.greet(address, 10)


def test_who_says_nothing_is_not_waited_for() -> None:
    """The time is for all of it."""
    with socket.create_server(("127.0.0.1", 0)) as mute, pytest.raises(TimeoutError):
        http2.greet(mute.getsockname(), 0.2)
