"""Who is at the other end: the owner of the one key whose signature was verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

import paramiko
from paramiko.common import (
    MSG_SERVICE_REQUEST,
    MSG_USERAUTH_REQUEST,
    cMSG_USERAUTH_FAILURE,
    cMSG_USERAUTH_PK_OK,
    cMSG_USERAUTH_REQUEST,
    cMSG_USERAUTH_SUCCESS,
)
from paramiko.message import Message

from mypaas_git.access import securitykey
from mypaas_git.access.fields import strings
from mypaas_git.access.securitykey import SecurityKey
from mypaas_git.ssh.inside import InnerAuthHandler, InnerTransport
from mypaas_git.ssh.packets import ExactMessage

MAX_OFFERS = 50
"""Keys and methods that may be refused before the connection ends."""
MAX_BAD_SIGNATURES = 6


class Host(Protocol):
    """Who a connection asks and tells; called in the connection's own thread."""

    def knows(self, blob: bytes) -> bool:
        """Whether this public key, in its wire format, may come in."""

    def accepts(self, blob: bytes, flags: int) -> bool:
        """Whether a signature with such flags will do for this key on a token."""

    def logged_in(self, blob: bytes) -> None:
        """The owner of this key is at the other end."""

    def signalled(self, channel: paramiko.Channel, name: str) -> None:
        """The client sends a signal, by its name, to the command on ``channel``."""

    def ended(self) -> None:
        """The connection is closed, its descriptor too. Called once."""


class PublicKeyLogin(InnerAuthHandler):
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
        **{name: name for name in securitykey.ALGORITHMS},
    }

    def __init__(self, transport: InnerTransport, host: Host) -> None:
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
            if kind in securitykey.ALGORITHMS:
                flags = SecurityKey.parse(blob).flags_of(signature, said.asbytes())
                return flags is not None and self._host.accepts(blob, flags)
            _check_signature(kind, signature)
            key = paramiko.PKey.from_type_string(kind, blob)
            return key.verify_ssh_sig(said.asbytes(), ExactMessage(signature))
        except (ValueError, TypeError, OverflowError, paramiko.SSHException):
            return False  # a signature of another length or shape

    def _accept(self, blob: bytes) -> None:
        self.proven = blob
        self.authenticated = True
        self.transport._auth_trigger()
        self._host.logged_in(blob)
        self._answer(cMSG_USERAUTH_SUCCESS)

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


def _check_signature(kind: str, signature: bytes) -> None:
    """Raise ValueError for a signature with a field that ends early.

    paramiko takes the two numbers of an ECDSA signature (RFC 5656, 3.1.2) out of a
    message of its own.
    """
    _, value = strings(signature)
    if kind.startswith("ecdsa-"):
        _, _ = strings(value)


def _string(data: bytes) -> bytes:
    """``data`` as RFC 4251, section 5 writes a string."""
    return len(data).to_bytes(4, "big") + data
