"""Packets and messages of strangers: no longer than they may be, no shorter than they say."""

from __future__ import annotations

import paramiko
from paramiko.message import Message
from paramiko.packet import Packetizer

STRANGERS_PACKET = 35_000
"""The longest packet before authentication: what RFC 4253, 6.1 asks for."""
FRIENDS_PACKET = 256 * 1024
"""The longest packet afterwards: OpenSSH's own limit."""


class ExactMessage(Message):
    """A message whose fields are as long as they say.

    paramiko fills a field that ends early with zeros, up to a megabyte. Made into a
    number, as in a key exchange, nine bytes from a stranger take a minute of cpu.
    """

    def get_bytes(self, n: int) -> bytes:
        data = self.packet.read(n)
        if len(data) != n:
            raise paramiko.SSHException("a message ends early")
        return data


class BoundedPacketizer(Packetizer):
    """Reads no more for a packet than a packet may be long."""

    limit = STRANGERS_PACKET

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if not 0 <= n <= self.limit:
            raise paramiko.SSHException(f"a packet of {n} bytes")
        return super().read_all(n, check_rekey)

    def readline(self, timeout: float) -> str:
        line = super().readline(timeout)
        if not line.startswith("SSH-"):  # only a server may say more (RFC 4253, 4.2)
            raise paramiko.SSHException("not an ssh client")
        return line

    def read_message(self) -> tuple[int, Message]:
        kind, message = super().read_message()
        exact = ExactMessage(message.asbytes())
        exact.seqno = message.seqno
        return kind, exact

    def start_handshake(self, timeout: float) -> None:
        """Nothing: the socket keeps the time, and needs no thread for it."""
