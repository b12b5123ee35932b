"""Keys that live on a hardware token: ``sk-…``, as OpenSSH's PROTOCOL.u2f has them.

A token signs the hash of a message, and with it what the key is for, whether somebody
touched the token, and a count of its signatures.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from mypaas_git.access.fields import positive, strings

ED25519 = "sk-ssh-ed25519@openssh.com"
P256 = "sk-ecdsa-sha2-nistp256@openssh.com"
ALGORITHMS = (ED25519, P256)

TOUCHED, VERIFIED = 0x01, 0x04
"""Flags of a signature: somebody was there, and the token knew them by PIN or finger."""

_TAIL = 5
"""Bytes of flags and count behind the strings of a signature."""
_MAX_NUMBER = 33
"""Bytes of a number of 256 bits, with the zero before a high one."""


@dataclass(frozen=True)
class SecurityKey:
    """The public half; ``application`` is what the key was made for, ``ssh:`` mostly."""

    algorithm: str
    public: Ed25519PublicKey | EllipticCurvePublicKey
    application: bytes

    @classmethod
    def parse(cls, blob: bytes) -> SecurityKey:
        """The key whose wire format is ``blob``. Raises ValueError."""
        algorithm, *rest = strings(blob)
        if algorithm == ED25519.encode():
            raw, application = rest
            return cls(ED25519, Ed25519PublicKey.from_public_bytes(raw), application)
        curve, point, application = rest
        if (algorithm, curve) != (P256.encode(), b"nistp256"):
            raise ValueError("not a key on a token")
        public = EllipticCurvePublicKey.from_encoded_point(SECP256R1(), point)
        return cls(P256, public, application)

    def flags_of(self, signature: bytes, message: bytes) -> int | None:
        """The flags of a sound ``signature`` of ``message``; None for any other."""
        try:
            algorithm, inner = strings(signature[:-_TAIL])
            if algorithm == self.algorithm.encode():
                self._verify(inner, signature[-_TAIL:], message)
                return signature[-_TAIL]
        except (ValueError, InvalidSignature):
            pass
        return None

    def _verify(self, inner: bytes, tail: bytes, message: bytes) -> None:
        said = sha256(self.application).digest() + tail + sha256(message).digest()
        if isinstance(self.public, Ed25519PublicKey):
            self.public.verify(inner, said)
            return
        r, s = strings(inner)
        if max(len(r), len(s)) > _MAX_NUMBER:
            raise ValueError("a number of more than 256 bits")
        self.public.verify(
            encode_dss_signature(positive(r), positive(s)), said, ECDSA(SHA256())
        )
