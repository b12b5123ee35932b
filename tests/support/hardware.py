"""Hardware tokens made of software, by OpenSSH's PROTOCOL.u2f and PROTOCOL.key."""

from __future__ import annotations

import base64
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

TOUCHED, VERIFIED = 1, 4


class Token:
    """An ``ed25519-sk`` or ``ecdsa-sk`` key pair; ``flags`` is what its signatures say.

    ``path`` is the private key's file, which names a token that ssh does not find: without
    an :func:`agent` it can be offered and cannot sign.
    """

    def __init__(self, directory: Path, name: str, kind: str, flags: int = TOUCHED) -> None:
        self.flags = flags
        self._count = 0
        self._private: Ed25519PrivateKey | EllipticCurvePrivateKey
        if kind == "ed25519-sk":
            self.algorithm = "sk-ssh-ed25519@openssh.com"
            self._private = Ed25519PrivateKey.generate()
            public = string(self._private.public_key().public_bytes_raw())
        else:
            self.algorithm = "sk-ecdsa-sha2-nistp256@openssh.com"
            self._private = generate_private_key(SECP256R1())
            point = self._private.public_key().public_bytes(
                Encoding.X962, PublicFormat.UncompressedPoint
            )
            public = string(b"nistp256") + string(point)
        self.blob = string(self.algorithm.encode()) + public + string(b"ssh:")
        self.path = directory / name
        self.path.touch(0o600)
        self.path.write_text(self._private_file())
        self.public = f"{self.algorithm} {base64.b64encode(self.blob).decode()} {name}\n"
        self.path.with_name(name + ".pub").write_text(self.public)

    def sign(self, message: bytes, *, application: bytes = b"ssh:") -> bytes:
        """A signature in its wire format."""
        self._count += 1
        tail = struct.pack(">BI", self.flags, self._count)
        said = sha256(application).digest() + tail + sha256(message).digest()
        if isinstance(self._private, Ed25519PrivateKey):
            inner = self._private.sign(said)
        else:
            pair = decode_dss_signature(self._private.sign(said, ECDSA(SHA256())))
            inner = b"".join(string(_number(each)) for each in pair)
        return string(self.algorithm.encode()) + string(inner) + tail

    def _private_file(self) -> str:
        # Two equal numbers, the key, flags, the token's handle, nothing, a comment.
        secret = bytes(8) + self.blob + b"\1" + string(b"handle") + string(b"") + string(b"")
        secret += bytes(range(1, 1 + -len(secret) % 8))
        parts = (string(b"none"), string(b"none"), string(b""), bytes((0, 0, 0, 1)))
        whole = b"openssh-key-v1\0" + b"".join(parts) + string(self.blob) + string(secret)
        return (
            "-----BEGIN OPENSSH PRIVATE KEY-----\n"
            + base64.encodebytes(whole).decode()
            + "-----END OPENSSH PRIVATE KEY-----\n"
        )


def hardware_key(directory: Path, name: str, kind: str) -> Path:
    """The private key's file of a token that nobody has plugged in."""
    return Token(directory, name, kind).path


@contextlib.contextmanager
def agent(where: Path, *tokens: Token) -> Iterator[Path]:
    """An ssh-agent at the socket ``where`` that has ``tokens`` plugged in.

    The protocol is that of draft-miller-ssh-agent, of which ssh needs two requests.
    """
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(where))
        listening.listen()
        thread = threading.Thread(target=_serve, args=[listening, tokens], daemon=True)
        thread.start()
        try:
            yield where
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            where.unlink()


def _serve(listening: socket.socket, tokens: tuple[Token, ...]) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection, connection.makefile("rwb") as stream, contextlib.suppress(OSError):
            while header := stream.read(4):
                request = stream.read(int.from_bytes(header, "big"))
                stream.write(string(_answer(request, tokens)))
                stream.flush()


def _answer(request: bytes, tokens: tuple[Token, ...]) -> bytes:
    if request[0] == 11:  # request-identities
        listed = b"".join(string(each.blob) + string(b"a token") for each in tokens)
        return b"\x0c" + len(tokens).to_bytes(4, "big") + listed
    if request[0] == 13:  # sign-request: key, data, flags
        size = int.from_bytes(request[1:5], "big")
        blob, rest = request[5 : 5 + size], request[5 + size :]
        message = rest[4 : 4 + int.from_bytes(rest[:4], "big")]
        for token in tokens:
            if token.blob == blob:
                return b"\x0e" + string(token.sign(message))
    return b"\x05"  # failure


def _number(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big")


def string(data: bytes) -> bytes:
    """``data`` as RFC 4251, section 5 writes a string."""
    return len(data).to_bytes(4, "big") + data
