"""paramiko's transport, hardened for strangers.

What is changed, and why:

- Only algorithms that are considered sound today are offered.
- Until somebody has logged in, a connection has a deadline and a budget of bytes,
  both kept by its :class:`PatientSocket`: no banner, key exchange or flood outlasts them.
- A packet's length is checked before anything is read for it, and a field that is
  shorter than it says ends the connection.
- Authentication (RFC 4252) is public key only, and lives in :class:`PublicKeyLogin`:
  a key that cannot be used is passed over instead of ending the connection, and the
  only key that counts is the one whose signature was verified.
- Reads are few and large, and idle connections do not wake up ten times a second.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import paramiko
from paramiko.auth_handler import AuthHandler
from paramiko.common import (
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_REQUEST,
    MSG_EXT_INFO,
    MSG_SERVICE_REQUEST,
    MSG_USERAUTH_REQUEST,
    cMSG_USERAUTH_FAILURE,
    cMSG_USERAUTH_PK_OK,
    cMSG_USERAUTH_REQUEST,
    cMSG_USERAUTH_SUCCESS,
)
from paramiko.message import Message
from paramiko.packet import Packetizer

from mypaas_git.ssh.patience import PatientSocket

MAX_OFFERS = 50
"""Keys and methods that may be refused before the connection ends."""
MAX_BAD_SIGNATURES = 6
WINDOW = 2 * 1024 * 1024
"""Bytes that a client may send on a channel before we have read any of them."""
STRANGERS_PACKET = 35_000
"""The longest packet before authentication: what RFC 4253, 6.1 asks for."""
FRIENDS_PACKET = 256 * 1024
"""The longest packet afterwards: OpenSSH's own limit."""

GCM = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
"""The fastest ciphers: with others, a fifth of a large push is spent on their HMAC."""

# paramiko reports hostile peers as errors with tracebacks. Here they are daily
# business: what matters is logged by the listener, the rest is for debugging.
_wire_log = logging.getLogger("mypaas_git.ssh.wire")


def _demote(record: logging.LogRecord) -> bool:
    record.levelno, record.levelname = logging.DEBUG, "DEBUG"
    return _wire_log.isEnabledFor(logging.DEBUG)


_wire_log.addFilter(_demote)


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


class Host(Protocol):
    """Who a connection asks and tells; called in the connection's own thread."""

    def knows(self, blob: bytes) -> bool:
        """Whether this public key, in its wire format, may come in."""

    def logged_in(self, blob: bytes) -> None:
        """The owner of this key is at the other end."""

    def ended(self) -> None:
        """The connection is closed, its descriptor too. Called once."""


if TYPE_CHECKING:
    # The parts of paramiko's inside that are relied upon; its stubs leave them out.
    class _Transport(paramiko.Transport):
        _kex_info: ClassVar[Mapping[str, Any]]
        _channel_handler_table: Mapping[int, Callable[[Any, Message], None]]
        _handler_table: dict[int, Callable[[Message], None]]
        initial_kex_done: bool
        local_kex_init: bytes | None
        remote_version: str

        def _auth_trigger(self) -> None: ...
        def _negotiate_keys(self, m: Message) -> None: ...
        def _really_parse_kex_init(self, m: Message) -> dict[str, list[str]]: ...
        def _send_kex_init(self) -> None: ...
        def _parse_newkeys(self, m: Message) -> None: ...
        def _send_message(self, data: Message) -> None: ...
        def _unlink_channel(self, chanid: int) -> None: ...

    class _AuthHandler(AuthHandler):
        transport: _Transport

        def _disconnect_no_more_auth(self) -> None: ...
        def _disconnect_service_not_available(self) -> None: ...
        def _parse_service_request(self, m: Message) -> None: ...
else:
    _Transport, _AuthHandler = paramiko.Transport, AuthHandler


class PublicKeyLogin(_AuthHandler):
    """The server's half of public key authentication: RFC 4252, sections 5 to 7.

    ``proven`` is the key whose signature over this very session was verified, and is
    set together with ``authenticated``: a key that was only asked about, or offered
    and not known, ends up in ``refused`` or nowhere.
    """

    # The signature's algorithm, and the type of the key it takes (RFC 8332 for RSA).
    ALGORITHMS: ClassVar[Mapping[str, str]] = {
        "ssh-ed25519": "ssh-ed25519",
        "ecdsa-sha2-nistp256": "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384": "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521": "ecdsa-sha2-nistp521",
        "rsa-sha2-512": "ssh-rsa",
        "rsa-sha2-256": "ssh-rsa",
    }

    def __init__(self, transport: _Transport, host: Host) -> None:
        super().__init__(transport)
        self._host = host
        self._bad_signatures = 0
        self.proven: bytes | None = None
        self.refused: list[bytes] = []

    @property
    def _handler_table(self) -> dict[int, Callable[[Message], None]]:
        return {
            MSG_SERVICE_REQUEST: self._parse_service_request,
            MSG_USERAUTH_REQUEST: self._parse_userauth_request,
        }

    def _parse_userauth_request(self, m: Message) -> None:
        if self.authenticated:
            return  # RFC 4252, 5.3: silently ignored
        user, service, method = m.get_binary(), m.get_binary(), m.get_binary()
        if service != b"ssh-connection":
            self._disconnect_service_not_available()
        elif method != b"publickey":
            self._refuse()
        else:
            self._parse_publickey(user, m)

    def _parse_publickey(self, user: bytes, m: Message) -> None:
        signed, algorithm, blob = m.get_boolean(), m.get_binary(), m.get_binary()
        kind = self.ALGORITHMS.get(algorithm.decode("ascii", "replace"))
        fits = kind is not None and blob.startswith(_string(kind.encode()))
        # A key that is not known is not even parsed.
        if kind is None or not fits or not self._host.knows(blob):
            self.refused.append(blob)
            self._refuse()
        elif not signed:
            self._answer(cMSG_USERAUTH_PK_OK, algorithm, blob)
        elif self._verify(user, algorithm, kind, blob, m.get_binary()):
            self._accept(blob)
        else:
            self._bad_signatures += 1
            self.refused.append(blob)
            self._refuse()

    def _verify(
        self, user: bytes, algorithm: bytes, kind: str, blob: bytes, signature: bytes
    ) -> bool:
        """Whether ``signature`` is the key's, over this session and this request."""
        if not signature.startswith(_string(algorithm)):
            return False
        said = Message()
        said.add_string(self.transport.session_id or b"")
        said.add_byte(cMSG_USERAUTH_REQUEST)
        for part in (user, b"ssh-connection", b"publickey"):
            said.add_string(part)
        said.add_boolean(True)
        said.add_string(algorithm)
        said.add_string(blob)
        try:
            _check_signature(kind, signature)
            key = paramiko.PKey.from_type_string(kind, blob)
            return key.verify_ssh_sig(said.asbytes(), ExactMessage(signature))
        except (ValueError, TypeError, OverflowError, paramiko.SSHException):
            return False  # a signature of another length or shape

    def _accept(self, blob: bytes) -> None:
        self.proven = blob
        self.authenticated = True
        self._answer(cMSG_USERAUTH_SUCCESS)
        self.transport._auth_trigger()
        self._host.logged_in(blob)

    def _refuse(self) -> None:
        failure = Message()
        failure.add_byte(cMSG_USERAUTH_FAILURE)
        failure.add_list(["publickey"])
        failure.add_boolean(False)
        self.transport._send_message(failure)
        self.auth_fail_count += 1
        if self.auth_fail_count >= MAX_OFFERS or self._bad_signatures >= MAX_BAD_SIGNATURES:
            self._disconnect_no_more_auth()

    def _answer(self, kind: bytes, *strings: bytes) -> None:
        message = Message()
        message.add_byte(kind)
        for each in strings:
            message.add_string(each)
        self.transport._send_message(message)


class ServerTransport(_Transport):
    """One client's connection, from the first byte to the last."""

    # RFC 8731 gave the libssh exchange its standard name.
    _kex_info: ClassVar[Mapping[str, Any]] = {
        **_Transport._kex_info,
        "curve25519-sha256": _Transport._kex_info["curve25519-sha256@libssh.org"],
    }
    _preferred_kex: ClassVar[tuple[str, ...]] = (
        # An older cryptography package has no ML-KEM.
        *(name for name in ("mlkem768x25519-sha256",) if name in _Transport._kex_info),
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384",
        "ecdh-sha2-nistp521",
        "diffie-hellman-group16-sha512",
        "diffie-hellman-group14-sha256",
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
        "hmac-sha2-256",
        "hmac-sha2-512",
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
        self._is_first = True
        self._after_reply: Callable[[], None] | None = None
        self._open: dict[int, paramiko.Channel] = {}
        self._gone: dict[int, threading.Event] = {}
        self.local_version = "SSH-2.0-mypaas"
        self.banner_timeout = float("inf")  # the socket keeps the time
        self.set_log_channel(_wire_log.name)
        for key in host_keys:
            self.add_server_key(key)
        # A client's extensions are of no use here, and paramiko counts as far as it is told.
        self._handler_table[MSG_EXT_INFO] = lambda _: None
        self._channel_handler_table = {
            **_Transport._channel_handler_table,
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
    def overdue(self) -> bool:
        """Whether the connection ended because nobody logged in in time."""
        return self._patient.overdue

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
        # The client's order of ciphers decides (RFC 4253, 7.1), and OpenSSH puts CTR before
        # GCM. It sends its lists without waiting for ours, so that these can depend on them.
        first, self._is_first = self._is_first, False
        if not (first and self.remote_version.startswith("SSH-2.0-OpenSSH_")):
            super()._send_kex_init()

    def _negotiate_keys(self, m: Message) -> None:
        if self.local_kex_init is None and not self.initial_kex_done:
            message = ExactMessage(m.asbytes())
            theirs = self._really_parse_kex_init(message)["client_encrypt_algo_list"]
            fast = tuple(each for each in GCM if each in theirs)
            # Whoever has put another cipher of ours first has meant it.
            if fast and theirs[0] not in self._preferred_ciphers:
                self._preferred_ciphers = fast
        super()._negotiate_keys(m)

    def _parse_newkeys(self, m: Message) -> None:
        if self.auth_handler is None:
            self.auth_handler = PublicKeyLogin(self, self._host)
        super()._parse_newkeys(m)

    def _auth_trigger(self) -> None:
        super()._auth_trigger()
        self._patient.trust()
        if isinstance(self.packetizer, BoundedPacketizer):
            self.packetizer.limit = FRIENDS_PACKET

    def _queue_incoming_channel(self, channel: paramiko.Channel) -> None:
        # Instead of waiting for accept(): a channel begins with its exec request.
        self._gone[channel.get_id()] = threading.Event()
        self._open[channel.get_id()] = channel

    def _unlink_channel(self, chanid: int) -> None:
        super()._unlink_channel(chanid)
        self._open.pop(chanid, None)
        gone = self._gone.pop(chanid, None)
        if gone is not None:
            gone.set()

    def _parse_channel_request(self, channel: Any, m: Message) -> None:
        channel._handle_request(m)
        start, self._after_reply = self._after_reply, None
        if start is not None:
            start()


def _feed(channel: Any, m: Message) -> None:
    if len(channel.in_buffer) > 2 * WINDOW:
        raise paramiko.SSHException("the client ignores the window")
    channel._feed(m)


def _check_signature(kind: str, signature: bytes) -> None:
    """Raise SSHException for a signature with a field that ends early.

    paramiko takes the two numbers of an ECDSA signature (RFC 5656, 3.1.2) out of a
    message of its own.
    """
    outer = ExactMessage(signature)
    outer.get_binary()
    value = outer.get_binary()
    if kind.startswith("ecdsa-"):
        numbers = ExactMessage(value)
        numbers.get_binary()
        numbers.get_binary()


def _string(data: bytes) -> bytes:
    """``data`` as RFC 4251, section 5 writes a string."""
    return len(data).to_bytes(4, "big") + data
