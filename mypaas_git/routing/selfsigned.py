"""What https shows for a host that has no certificate, or none yet.

Traefik would make such a certificate anew whenever any route changes, with an RSA key:
that takes ten times as long as the change itself.
"""

from __future__ import annotations

import datetime
import functools
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mypaas_git.files import write_once

NAME = "mypaas: no certificate (yet)"
"""For whom it is: no browser takes it for anybody's."""
LASTS = datetime.timedelta(days=365 * 50)


class SelfSigned:
    """The certificate of a home, which is made when it is first asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @functools.cached_property
    def pem(self) -> str:
        """The private key and the certificate. Raises OSError."""
        if not self._path.exists():
            write_once(self._path, _made())
        return self._path.read_text("ascii")


def _made() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + LASTS)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return secret + certificate.public_bytes(serialization.Encoding.PEM)
