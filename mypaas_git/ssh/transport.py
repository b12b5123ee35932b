"""paramiko's transport, hardened for strangers.

What is changed, and why:

- Only algorithms that are considered sound today are offered.
- Until somebody has logged in, a connection has a deadline and a budget of bytes,
  both kept by its :class:`PatientSocket`: no banner, key exchange or flood outlasts them.
- Nobody exchanges keys a second time before having logged in: it costs us more than them.
- A packet's length is checked before anything is read for it, and a field that is
  shorter than it says ends the connection.
- Authentication (RFC 4252) is public key only, and lives in :class:`PublicKeyLogin`:
  a key that cannot be used is passed over instead of ending the connection, and the
  only key that counts is the one whose signature was verified.
- A client gets no more unread data to us than the window says.
- While keys are exchanged anew, our own thread does not wait for itself, and what it
  has to say waits for the new keys (RFC 4253, 7.1).
- Reads are few and large, and idle connections do not wake up ten times a second.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import paramiko
from paramiko.common import (
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_REQUEST,
    MSG_EXT_INFO,
    MSG_NAMES,
    cMSG_UNIMPLEMENTED,
)
from paramiko.message import Message

from mypaas_git.ssh.inside import InnerTransport
from mypaas_git.ssh.login import Host, PublicKeyLogin
from mypaas_git.ssh.packets import FRIENDS_PACKET, BoundedPacketizer
from mypaas_git.ssh.patience import PatientSocket

WINDOW = 2 * 1024 * 1024
"""Bytes that a client may send on a channel before we have read any of them."""
GCM = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
HASTY = "SSH-2.0-OpenSSH_"
"""How clients introduce themselves who do not wait for what we offer before they do."""
MAX_HELD = 1000
"""Answers that may wait for the end of a key exchange."""
MAX_SEEN = 1000
"""Channels whose numbers are kept when they are closed."""
USER_MESSAGES = 50
"""From this number on, messages are none of a key exchange's (RFC 4250, 4.1.1)."""

# paramiko reports hostile peers as errors with tracebacks. Here they are daily
# business: what matters is logged by the listener, the rest is for debugging.
_wire_log = logging.getLogger("mypaas_git.ssh.wire")


def _demote(record: logging.LogRecord) -> bool:
    record.levelno, record.levelname = logging.DEBUG, "DEBUG"
    return _wire_log.isEnabledFor(logging.DEBUG)


_wire_log.addFilter(_demote)


class ServerTransport(InnerTransport):
    """One client's connection, from the first byte to the last."""

    # RFC 8731 gave the libssh exchange its standard name.
    _kex_info: ClassVar[Mapping[str, Any]] = {
        **InnerTransport._kex_info,
        "curve25519-sha256": InnerTransport._kex_info["curve25519-sha256@libssh.org"],
    }
    _preferred_kex: ClassVar[tuple[str, ...]] = (
        # A cryptography package on an OpenSSL before 3.5 has no ML-KEM.
        *(name for name in ("mlkem768x25519-sha256",) if name in InnerTransport._kex_info),
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384",
        "ecdh-sha2-nistp521",
        # None of the older Diffie-Hellman groups: one exchange of 4096 bits costs 0.3 s
        # of cpu, in which no other thread runs, and anybody may ask for it.
    )
    _preferred_ciphers: tuple[str, ...] = (
        *GCM,
        "aes128-ctr",
        "aes192-ctr",
        "aes256-ctr",
    )
    _preferred_macs: ClassVar[tuple[str, ...]] = (
        "hmac-sha2-256-etm@openssh.com",
        "hmac-sha2-512-etm@openssh.com",
    )
    _preferred_keys: ClassVar[tuple[str, ...]] = (
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "rsa-sha2-512",
        "rsa-sha2-256",
    )
    _preferred_pubkeys: ClassVar[tuple[str, ...]] = tuple(PublicKeyLogin.ALGORITHMS)
    _preferred_compression: ClassVar[tuple[str, ...]] = ("none",)

    def __init__(
        self,
        sock: PatientSocket,
        host_keys: Sequence[paramiko.PKey],
        host: Host,
    ) -> None:
        super().__init__(sock, default_window_size=WINDOW, packetizer_class=BoundedPacketizer)
        self._patient = sock
        self._host = host
        self._after_reply: Callable[[], None] | None = None
        self._open: dict[int, paramiko.Channel] = {}
        self._gone: dict[int, threading.Event] = {}
        self._held: list[Message] = []
        self._heard = False
        self.local_version = "SSH-2.0-mypaas"
        self.banner_timeout = float("inf")  # the socket keeps the time
        self.set_log_channel(_wire_log.name)
        for key in host_keys:
            self.add_server_key(key)
        # A client's extensions are of no use here, and paramiko counts as far as it is told.
        self._handler_table[MSG_EXT_INFO] = lambda _: None
        # RFC 4253, 11.4; paramiko stumbles over a number for which it has no name.
        for number in set(range(256)) - set(MSG_NAMES):
            self._handler_table[number] = self._answer_unknown
        self._channel_handler_table = {
            **InnerTransport._channel_handler_table,
            MSG_CHANNEL_REQUEST: self._parse_channel_request,
            MSG_CHANNEL_DATA: _feed,
            MSG_CHANNEL_EXTENDED_DATA: lambda _channel, _message: None,
        }

    @property
    def proven_key(self) -> bytes | None:
        """The public key whose owner is at the other end; None before that is known."""
        login = self.auth_handler
        return login.proven if isinstance(login, PublicKeyLogin) else None

    @property
    def refused_keys(self) -> list[bytes]:
        """The public keys, in wire format, that were offered in vain."""
        login = self.auth_handler
        return login.refused if isinstance(login, PublicKeyLogin) else []

    @property
    def open_channels(self) -> int:
        return len(self._open)

    def start_after_reply(self, start: Callable[[], None]) -> None:
        """Call ``start`` once the request being handled has been answered.

        A command that is quicker than the answer would otherwise close its channel
        before the client knows that it was opened.
        """
        self._after_reply = start

    def gone(self, channel: paramiko.Channel) -> threading.Event:
        """An event that is set when the client has closed ``channel``, or is lost."""
        return self._gone[channel.get_id()]

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._patient.release()
            for gone in self._gone.values():
                gone.set()
            self._open.clear()
            self._host.ended()

    def _send_kex_init(self) -> None:
        if self._heard or not self.remote_version.startswith(HASTY):
            super()._send_kex_init()

    def _negotiate_keys(self, m: Message) -> None:
        if self.initial_kex_done and self.proven_key is None:
            raise paramiko.SSHException("new keys before a login")
        self._heard = True
        if self.local_kex_init is None:
            self._suit(m)
        super()._negotiate_keys(m)

    def _suit(self, m: Message) -> None:
        """Offer only AES-GCM to a client, whose KEXINIT ``m`` is, that can do it.

        Of the ciphers of both it is the client's favourite that is taken (RFC 4253, 7.1).
        OpenSSH's is CTR, with a MAC over which we sit longer than over all the rest.
        """
        begin = m.packet.tell()
        m.get_bytes(16)
        _kex, _keys, to_us, from_us = (m.get_list() for _ in range(4))
        m.packet.seek(begin)
        shared = tuple(each for each in GCM if each in to_us and each in from_us)
        self._preferred_ciphers = shared or type(self)._preferred_ciphers

    def _parse_newkeys(self, m: Message) -> None:
        if self.auth_handler is None:
            self.auth_handler = PublicKeyLogin(self, self._host)
        held, self._held = self._held, []
        for message in held:  # ours are in use already; other threads come after this
            super()._send_message(message)
        super()._parse_newkeys(m)

    def _send_message(self, data: Message) -> None:
        if self.clear_to_send.is_set() or data.asbytes()[0] < USER_MESSAGES:
            super()._send_message(data)
        elif len(self._held) < MAX_HELD:
            self._held.append(data)
        else:
            raise paramiko.SSHException("too many requests during a key exchange")

    def _send_user_message(self, data: Message) -> None:
        if threading.current_thread() is self:
            self._send_message(data)
        else:
            super()._send_user_message(data)

    def _answer_unknown(self, m: Message) -> None:
        answer = Message()
        answer.add_byte(cMSG_UNIMPLEMENTED)
        answer.add_int(m.seqno)
        self._send_message(answer)

    def _auth_trigger(self) -> None:
        super()._auth_trigger()
        self._patient.trust()
        if isinstance(self.packetizer, BoundedPacketizer):
            self.packetizer.limit = FRIENDS_PACKET

    def _queue_incoming_channel(self, channel: paramiko.Channel) -> None:
        # Instead of waiting for accept(): a channel begins with its exec request.
        self._gone[channel.get_id()] = threading.Event()
        self._open[channel.get_id()] = channel
        if len(self.channels_seen) > MAX_SEEN:
            del self.channels_seen[next(iter(self.channels_seen))]

    def _unlink_channel(self, chanid: int) -> None:
        super()._unlink_channel(chanid)
        self._open.pop(chanid, None)
        gone = self._gone.pop(chanid, None)
        if gone is not None:
            gone.set()

    def _parse_channel_request(self, channel: Any, m: Message) -> None:
        begin = m.packet.tell()
        if m.get_text() == "signal":  # RFC 4254, 6.9, which paramiko does not know
            m.get_boolean()
            self._host.signalled(channel, m.get_text())
            return
        m.packet.seek(begin)
        channel._handle_request(m)
        start, self._after_reply = self._after_reply, None
        if start is not None:
            start()


def _feed(channel: Any, m: Message) -> None:
    """Take data, of which there may be no more than the window that the client was given.

    What was read and not yet given back to it counts as well; what somebody is reading
    at this moment may be missing from the sum, and is never in it twice.
    """
    data = m.get_binary()
    if len(channel.in_buffer) + channel.in_window_sofar + len(data) > WINDOW:
        raise paramiko.SSHException("the client ignores the window")
    channel._feed(data)
