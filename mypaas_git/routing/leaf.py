"""The certificate that the proxy shows for a host, and those in files."""

from __future__ import annotations

import datetime
import socket
import ssl
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from mypaas_git.directives.model import wildcard_over

TIMEOUT = 3.0
"""Seconds that a handshake with a proxy on this host may take."""


@dataclass(frozen=True)
class Leaf:
    """For which hosts a certificate is, and until when (seconds since the epoch)."""

    hosts: tuple[str, ...]
    until: float

    def covers(self, host: str) -> bool:
        """Whether it is for ``host``, which may be a wildcard itself."""
        return host in self.hosts or wildcard_over(host) in self.hosts

    @property
    def day(self) -> str:
        """The last day of its validity."""
        moment = datetime.datetime.fromtimestamp(self.until, datetime.timezone.utc)
        return moment.date().isoformat()


def shown(entry: tuple[str, int], host: str) -> Leaf:
    """What the proxy at ``entry`` shows for ``host``. Raises OSError."""
    # What is shown is looked at, whoever has signed it; nothing is sent.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(entry, TIMEOUT) as connection,
        context.wrap_socket(connection, server_hostname=host.replace("*", "any")) as secured,
    ):
        der = secured.getpeercert(binary_form=True)
    try:
        return leaf(x509.load_der_x509_certificate(der or b""))
    except ValueError as error:
        raise OSError(f"a certificate that cannot be read: {error}") from error


def leaf(certificate: x509.Certificate) -> Leaf:
    """What ``certificate`` says. Raises ValueError."""
    try:
        names = certificate.extensions.get_extension_for_oid(
            ExtensionOID.SUBJECT_ALTERNATIVE_NAME
        ).value
        assert isinstance(names, x509.SubjectAlternativeName)  # noqa: S101 - by its id
        hosts = tuple(name.lower() for name in names.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        hosts = ()
    return Leaf(hosts, certificate.not_valid_after_utc.timestamp())
