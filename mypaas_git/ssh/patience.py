"""A connection's socket: patient with friends, and not with strangers."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

LOGIN_SECONDS = 20.0
"""From the TCP connection to the end of authentication."""
LOGIN_BYTES = 64 * 1024
"""What a stranger may send: enough for a key exchange and dozens of keys."""
WAKE_SECONDS = 5.0
"""How often an idle connection looks round; whoever closes it wakes it anyway."""
READ_BYTES = 256 * 1024
QUICK_ACK_BYTES = 64 * 1024
STALL_SECONDS = 10.0
"""How long a client may leave no room for what we send before it counts as gone."""
VANISHED_SECONDS = 120
"""How long a peer may leave what we sent without an acknowledgement."""


class PatientSocket(socket.socket):
    """A connection's socket that reads ahead, waits long, and keeps a stranger's limits.

    ``close`` only shuts the connection down, which wakes whoever waits for it; the
    descriptor goes with ``release``, by its last user, so it is never reused under
    somebody's feet.
    """

    def __init__(self, fileno: int, login_seconds: float) -> None:
        super().__init__(fileno=fileno)
        self._deadline: float | None = time.monotonic() + login_seconds
        self._received = 0
        self._stalled_since: float | None = None
        self._ahead = b""
        self._at = 0
        with contextlib.suppress(OSError):  # lost already; reading will tell
            self._set_options()
        super().settimeout(WAKE_SECONDS)

    def _set_options(self) -> None:
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, VANISHED_SECONDS // 2)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, VANISHED_SECONDS // 8)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, VANISHED_SECONDS * 1000)

    @property
    def overdue(self) -> bool:
        """Whether a stranger's time or budget is used up."""
        if self._deadline is None:
            return False
        return time.monotonic() >= self._deadline or self._received > LOGIN_BYTES

    def trust(self) -> None:
        """Lift the limits: the peer has logged in."""
        self._deadline = None
        super().settimeout(WAKE_SECONDS)

    def settimeout(self, value: float | None) -> None:
        """Ignored: paramiko asks for a tenth of a second, only to look round."""

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        if self._at == len(self._ahead):
            self._ahead, self._at = self._read(flags), 0
        chunk = self._ahead[self._at : self._at + bufsize]
        self._at += len(chunk)
        return chunk

    def _read(self, flags: int) -> bytes:
        if self.overdue:
            return b""
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            super().settimeout(min(WAKE_SECONDS, max(left, 0.001)))
        data = super().recv(LOGIN_BYTES if self._deadline else READ_BYTES, flags)
        self._received += len(data)
        if self._received < QUICK_ACK_BYTES:
            with contextlib.suppress(OSError):
                self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return data

    def send(self, data: Any, flags: int = 0) -> int:
        if self.overdue:
            raise BrokenPipeError
        try:
            sent = super().send(data, flags)
        except TimeoutError:
            if self._stalled_since is None:
                self._stalled_since = time.monotonic() - WAKE_SECONDS
            if time.monotonic() - self._stalled_since < STALL_SECONDS:
                raise
            # Half a packet may be out: nothing that makes sense could follow it.
            self.close()
            raise BrokenPipeError from None
        self._stalled_since = None
        return sent

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Close the descriptor."""
        super().close()
