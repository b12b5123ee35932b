"""The Terrapin attack (CVE-2023-48795), and strict key exchange, which ends it.

Whoever sits between client and server adds a message before the encryption begins,
which shifts the count of all that follow, and then takes as many encrypted ones away
at its beginning: what negotiates the protections of the session is gone, unnoticed.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Served, serving
from support.net import wait_until

KEXINIT, NEWKEYS = 20, 21
IGNORE = b"\x02\0\0\0\0"


class Middle:
    """Passes on what one client and the server say, and adds a message to the client's.

    It stands before the message ``before``; None adds nothing.
    """

    def __init__(self, port: int, before: int | None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._before = before
        self._server = socket.create_connection(("127.0.0.1", port))
        self._client: socket.socket | None = None
        self._threads = [threading.Thread(target=self._forward)]
        self._threads[0].start()

    def close(self) -> None:
        for each in (self._server, self._client, self._listener):
            if each is not None:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for each in (self._server, self._client, self._listener):
            if each is not None:
                each.close()

    def _forward(self) -> None:
        try:
            self._client, _ = self._listener.accept()
        except OSError:
            return
        back = threading.Thread(target=_copy, args=[self._server, self._client])
        self._threads.append(back)
        back.start()
        with contextlib.suppress(OSError, EOFError), self._client.makefile("rb") as client:
            self._server.sendall(client.readline())
            kind = 0
            while kind != NEWKEYS:
                length = client.read(4)
                packet = client.read(int.from_bytes(length, "big"))
                if len(packet) < 2:
                    raise EOFError
                kind = packet[1]
                if kind == self._before:
                    self._server.sendall(_packet(IGNORE))
                self._server.sendall(length + packet)
            while data := client.read1(65536):
                self._server.sendall(data)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)


def _packet(payload: bytes) -> bytes:
    padding = 4 + -(len(payload) + 9) % 8
    return (
        (len(payload) + padding + 1).to_bytes(4, "big")
        + bytes([padding])
        + payload
        + bytes(padding)
    )


@contextlib.contextmanager
def middle(port: int, before: int | None) -> Iterator[Middle]:
    between = Middle(port, before)
    try:
        yield between
    finally:
        between.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as running:
        yield running


def test_nothing_added(served: Served) -> None:
    """Somebody in the middle who changes nothing is not noticed."""
    with middle(served.port, None) as between:
        assert _through(served, between) == 0


@pytest.mark.parametrize("before", [KEXINIT, NEWKEYS])
def test_a_message_added(served: Served, before: int) -> None:
    """One added message, wherever it stands, and the server hangs up before a login."""
    with middle(served.port, before) as between:
        assert _through(served, between) == 255
        wait_until(lambda: served.logged("refused"), "the server has hung up")
    assert not served.logged("authenticated")
    assert not served.logged("refused")[0]["overdue"]


@pytest.mark.parametrize("cipher", ["aes128-gcm@openssh.com", "aes128-ctr"])
def test_strict_mode_is_agreed_upon(served: Served, cipher: str) -> None:
    """Stock ssh is told that the server is strict, and is strict itself."""
    more = ("-vv", "-o", "LogLevel=DEBUG3", "-o", f"Ciphers={cipher}")
    done = served.ssh("show", key=served.new_key("alice"), more=more)
    assert done.returncode == 0
    assert b"kex-strict-s-v00@openssh.com" in done.stderr
    assert done.stderr.count(b"resetting send seqnr") == 1
    assert done.stderr.count(b"resetting read seqnr") == 1


def _through(served: Served, between: Middle) -> int:
    more = ("-o", f"Port={between.port}", "-o", f"HostKeyAlias=[127.0.0.1]:{served.port}")
    return served.ssh("show", key=served.new_key("alice"), more=more).returncode
