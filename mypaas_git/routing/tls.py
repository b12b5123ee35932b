"""How https is spoken, as Traefik's dynamic configuration. Pure.

Source: Mozilla's Server Side TLS 5.7, "intermediate"; format: Traefik v3, "TLS".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mypaas_git.routing.own import Pair

CIPHERS = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
)
"""For TLS 1.2; those of 1.3 are all good and cannot be chosen."""

ALPN_CHALLENGE = "acme-tls/1"


def config(pairs: Iterable[Pair], self_signed: str, *, http2: bool) -> dict[str, Any]:
    """The options for every host, and the certificates of ``pairs``.

    A host that none is for gets the ``self_signed`` one (PEM, with its key), and not an error
    (``sniStrict``): whoever sets a server up reaches it before its certificate is there.
    """
    options = {
        "minVersion": "VersionTLS12",
        "cipherSuites": list(CIPHERS),
        "alpnProtocols": [*(["h2"] if http2 else []), "http/1.1", ALPN_CHALLENGE],
    }
    # As text: files of other owners could not be read in the container.
    certificates = [{"certFile": pair.cert, "keyFile": pair.key} for pair in pairs]
    default = {"defaultCertificate": {"certFile": self_signed, "keyFile": self_signed}}
    tls: dict[str, Any] = {"options": {"default": options}, "stores": {"default": default}}
    if certificates:
        tls["certificates"] = certificates
    return {"tls": tls}
