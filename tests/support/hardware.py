"""Key pairs that claim to live on a hardware token, made without one.

They can be offered, which is what ssh and an agent do first, and cannot sign.
"""

from __future__ import annotations

import base64
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def hardware_key(directory: Path, name: str, kind: str) -> Path:
    """The private key's file of a new ``ed25519-sk`` or ``ecdsa-sk`` pair.

    It is laid out as OpenSSH's PROTOCOL.key and PROTOCOL.u2f say.
    """
    if kind == "ed25519-sk":
        algorithm = "sk-ssh-ed25519@openssh.com"
        public = _string(Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    else:
        algorithm = "sk-ecdsa-sha2-nistp256@openssh.com"
        point = generate_private_key(SECP256R1()).public_key()
        encoded = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        public = _string(b"nistp256") + _string(encoded)
    blob = _string(algorithm.encode()) + public + _string(b"ssh:")
    # Two equal numbers, the key, flags, the token's handle, nothing, a comment.
    secret = bytes(8) + blob + b"\1" + _string(b"handle") + _string(b"") + _string(b"")
    secret += bytes(range(1, 1 + -len(secret) % 8))
    parts = (_string(b"none"), _string(b"none"), _string(b""), bytes((0, 0, 0, 1)))
    whole = b"openssh-key-v1\0" + b"".join(parts) + _string(blob) + _string(secret)
    path = directory / name
    path.touch(0o600)
    path.write_text(
        "-----BEGIN OPENSSH PRIVATE KEY-----\n"
        + base64.encodebytes(whole).decode()
        + "-----END OPENSSH PRIVATE KEY-----\n"
    )
    text = f"{algorithm} {base64.b64encode(blob).decode()} {name}\n"
    path.with_name(name + ".pub").write_text(text)
    return path


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
