"""A connection's socket: patient with friends, and not with strangers."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import Any

LOGIN_SECONDS = 19.0
"""From our accepting a connection to the end of authentication.

The kernel may have held it in its queue for a moment: to the peer it is 20 seconds.
"""
LOGIN_BYTES = 64 * 1024
"""What a stranger may send: enough for a key exchange and dozens of keys."""
IDLE_SECONDS = 600.0
"""How long somebody who has logged in may stay without a command."""
LOOK_SECONDS = 30.0
"""How often an idle connection looks round; whoever closes it wakes it anyway."""
WAKE_SECONDS = 5.0
"""How often somebody who waits to send looks round."""
READ_BYTES = 256 * 1024
QUICK_ACK_BYTES = 64 * 1024
STALL_SECONDS = 10.0
"""How long a client may leave no room for what we send before it counts as gone."""
VANISHED_SECONDS = 60
"""How long a peer may acknowledge nothing: neither what was sent nor the kernel's probes.

It is the kernel's keepalive and not ssh's, since a client that somebody has stopped for
a while, or that is busy, still acknowledges; and it costs us nothing.
"""


class PatientSocket(socket.socket):
    """A connection's socket that reads ahead, waits long, and keeps a stranger's limits.

    Who has not logged in after ``login_seconds``, or has been without a command for
    ``idle_seconds``, is at the end of the connection: that is what reading says then.

    ``close`` only shuts the connection down, which wakes whoever waits for it; the
    descriptor goes with ``release``, by its last user, so it is never reused under
    somebody's feet.
    """

    def __init__(
        self, fileno: int, login_seconds: float, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        super().__init__(fileno=fileno)
        self._stranger = True
        self._deadline: float | None = time.monotonic() + login_seconds
        self._idle_seconds = idle_seconds
        self._received = 0
        self._stalled_since: float | None = None
        self._ahead = b""
        self._at = 0
        self._readable = select.poll()
        self._readable.register(self, select.POLLIN)
        with contextlib.suppress(OSError):  # lost already; reading will tell
            self._set_options()
        super().settimeout(WAKE_SECONDS)

    def _set_options(self) -> None:
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, VANISHED_SECONDS // 2)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, VANISHED_SECONDS // 6)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, VANISHED_SECONDS * 1000)

    @property
    def overdue(self) -> bool:
        """Whether a stranger's time or budget is used up."""
        return self._stranger and (self._late or self._received > LOGIN_BYTES)

    @property
    def idle(self) -> bool:
        """Whether a friend has been without a command for too long."""
        return not self._stranger and self._late

    @property
    def _late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def trust(self) -> None:
        """Lift a stranger's limits: the peer has logged in."""
        self._stranger = False
        self.rest()

    def occupy(self) -> None:
        """A command runs: it may take its time."""
        self._deadline = None

    def rest(self) -> None:
        """No command runs any more."""
        self._deadline = time.monotonic() + self._idle_seconds

    def settimeout(self, value: float | None) -> None:
        """Ignored: paramiko asks for a tenth of a second, only to look round."""

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        if self._at == len(self._ahead):
            self._ahead, self._at = self._read(flags), 0
        chunk = self._ahead[self._at : self._at + bufsize]
        self._at += len(chunk)
        if self._at == len(self._ahead):
            self._ahead, self._at = b"", 0  # an idle connection holds on to nothing
        return chunk

    def _read(self, flags: int) -> bytes:
        if self.overdue or self.idle:
            return b""
        # Not the socket's own time-out: others may be sending by that.
        if not self._readable.poll(self._patience() * 1000):
            raise TimeoutError
        data = super().recv(LOGIN_BYTES if self._stranger else READ_BYTES, flags)
        self._received += len(data)
        if self._received < QUICK_ACK_BYTES:
            with contextlib.suppress(OSError):
                self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return data

    def _patience(self) -> float:
        """Seconds until something may have to be done about somebody who says nothing."""
        deadline = self._deadline
        if deadline is None:
            return LOOK_SECONDS
        return min(LOOK_SECONDS, max(deadline - time.monotonic(), 0.001))

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
