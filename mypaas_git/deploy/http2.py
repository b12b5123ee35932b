"""Does somebody speak HTTP/2 without TLS, with prior knowledge (RFC 9113, 3.3)?"""

from __future__ import annotations

import socket
import time

EMPTY_SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
"""A SETTINGS frame that changes nothing (RFC 9113, 6.5)."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + EMPTY_SETTINGS
"""What a client begins with (RFC 9113, 3.4)."""
HEADER = 9
SETTINGS = 4


def greet(address: tuple[str, int], timeout: float) -> None:
    """Return if whoever listens at ``address`` greets back, within ``timeout`` seconds.

    Raises OSError, or ValueError for what is not HTTP/2: a server's first frame is SETTINGS
    of no stream.
    """
    deadline = time.monotonic() + timeout
    with socket.create_connection(address, timeout=timeout) as connection:
        connection.sendall(PREFACE)
        frame = b""
        while len(frame) < HEADER:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = connection.recv(HEADER - len(frame))
            if not chunk:
                raise ValueError("the connection was closed without an answer")
            frame += chunk
    if frame[3] != SETTINGS or any(frame[5:]) or int.from_bytes(frame[:3], "big") % 6:
        raise ValueError("the answer is not HTTP/2")
