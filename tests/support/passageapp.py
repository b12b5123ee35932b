"""An app of everything that a proxy must let through as it comes; runs in a container.

Beside it lies a file ``/version``, which the answers tell. ``/echo`` is a WebSocket,
``/events`` sends server-sent events, ``/big?SIZE`` that many bytes, and what is posted to it
is counted; ``/seen`` tells with which headers, and from where, a request arrived.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol

CHUNK = bytes(1 << 20)
MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What the answer to a handshake is made with (RFC 6455, 1.3)."""
TEXT = 0x81
"""The first byte of a message that is one frame of text (RFC 6455, 5.2)."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/echo":
            self.websocket()
        elif path == "/events":
            self.events()
        elif path == "/big":
            self.big(int(query))
        elif path == "/seen":
            seen = {"peer": self.client_address[0], "headers": self.headers.items()}
            self.answer(json.dumps(seen))
        else:
            self.answer(version())

    def do_POST(self) -> None:
        left = int(self.headers["Content-Length"])
        received = 0
        while chunk := self.rfile.read(min(len(CHUNK), left - received)):
            received += len(chunk)
        self.answer(f"{version()} {received}")

    def answer(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def big(self, size: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(size))
        self.end_headers()
        for start in range(0, size, len(CHUNK)):
            self.wfile.write(CHUNK[: size - start])

    def events(self) -> None:
        """The version and a number, ten times a second, until nobody listens."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        number = 0
        while True:
            self.wfile.write(f"data: {version()} {number}\n\n".encode())
            number += 1
            time.sleep(0.1)

    def websocket(self) -> None:
        """Each message comes back with the version before it."""
        key = self.headers["Sec-WebSocket-Key"] + MAGIC
        digest = hashlib.sha1(key.encode(), usedforsecurity=False).digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest).decode())
        self.end_headers()
        self.close_connection = True
        while (message := read_message(self.rfile)) is not None:
            self.wfile.write(frame(f"{version()} {message}"))

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class Source(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes: ...


def frame(message: str, mask: bytes = b"") -> bytes:
    """A message of less than 126 bytes; a client's carries a ``mask`` of four."""
    data = message.encode()
    if mask:
        data = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))
    return bytes([TEXT, len(data) | (0x80 if mask else 0)]) + mask + data


def read_message(stream: Source) -> str | None:
    """The next message, None at the end."""
    header = stream.read(2)
    if len(header) < 2 or header[0] != TEXT:
        return None
    mask = stream.read(4) if header[1] & 0x80 else bytes(4)
    data = stream.read(header[1] & 0x7F)
    return bytes(byte ^ mask[place % 4] for place, byte in enumerate(data)).decode()


@contextmanager
def websocket(port: int, host: str) -> Iterator[Callable[[str], str | None]]:
    """A client's side of ``/echo``: call what it yields with a message to get the answer."""
    headers = {
        "Host": host,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Accept-Encoding": "gzip",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    request = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as connection,
        connection.makefile("rb") as stream,
    ):

        def say(message: str) -> str | None:
            connection.sendall(frame(message, os.urandom(4)))
            return read_message(stream)

        connection.sendall(f"GET /echo HTTP/1.1\r\n{request}\r\n".encode())
        # The example of RFC 6455, 1.3.
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in b"".join(iter(stream.readline, b"\r\n"))
        yield say


def version() -> str:
    return Path("/version").read_text().strip()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("", 80), Handler)
    server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server.serve_forever()
