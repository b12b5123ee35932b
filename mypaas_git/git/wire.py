"""The connection to a git client: pkt-lines over a stream, on dulwich's ``Protocol``.

Format: git's ``gitprotocol-common(5)``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from dulwich.errors import GitProtocolError
from dulwich.protocol import ReceivableProtocol

import mypaas_git
from mypaas_git.progress import clean

AGENT = b"agent=mypaas-git/" + mypaas_git.__version__.encode("ascii")
BUFFER = 1 << 16
"""Bytes that are asked of the stream at once while a pack comes in."""

MIN_DRAIN = 64 << 20


class Stream(Protocol):
    """What a git client is connected to."""

    def read(self, n: int, /) -> bytes:
        """Wait for bytes and return at most ``n`` of them; ``b""`` at the end."""

    def write(self, data: bytes, /) -> None:
        """Send all of ``data``; OSError when nobody is there any more."""


class Wire(ReceivableProtocol):
    """dulwich's protocol over a :class:`Stream`.

    ``recv(n)`` returns up to ``n`` bytes, ``b""`` at the end and also when the
    connection broke; ``read(n)`` waits for all ``n``.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        super().__init__(self._receive, stream.write, rbufsize=BUFFER)

    def read(self, size: int) -> bytes:
        # The pkt-line 0004 is legal and empty, which dulwich's read() is not prepared for.
        return super().read(size) if size else b""

    def drain(self, limit: int) -> None:
        """Read what the client still sends, up to ``limit`` bytes and at least MIN_DRAIN.

        git prints the server's report only when it could send all that it had.
        """
        limit = max(limit, MIN_DRAIN)
        while limit > 0 and (data := self.recv(BUFFER)):
            limit -= len(data)

    def _receive(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except OSError:
            return b""


def refuse(stream: Stream, message: str) -> None:
    """End a conversation that has not begun, so that git prints ``fatal: remote error: …``."""
    line = clean(message).encode("utf-8", "replace")[:1000]
    with suppress(GitProtocolError, OSError):
        Wire(stream).write_pkt_line(b"ERR " + line + b"\n")
