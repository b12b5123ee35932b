"""How Traefik asks for certificates, and what it answers when it gets none. Pure.

Source of the arguments: Traefik v3, "ACME"; of the errors' names: RFC 8555, 6.7.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

RESOLVER = "acme"
STORAGE = "/acme"
"""The directory of certificates, inside the container."""
CA = "/acme-ca.pem"

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
MAX_ANSWER = 300
"""Characters of an answer that are shown."""


@dataclass(frozen=True)
class Acme:
    """Who is asked, and how it is shown whose a host is.

    ``ca`` is a file of certificates to trust for ``server``, ``lifetime`` how many seconds
    its certificates are valid; ``dns_env`` holds secrets.
    """

    email: str
    server: str = LETS_ENCRYPT
    ca: str = ""
    challenge: str = "http"
    lifetime: float = 90 * 86400.0
    dns_provider: str = ""
    dns_resolvers: tuple[str, ...] = ()
    dns_env: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def renews_before(self) -> float:
        """From how many seconds before their end on Traefik renews certificates."""
        return next(before for least, before in _RENEWALS if self.lifetime >= least)

    @property
    def storage(self) -> str:
        """The file of certificates: one a server, as none's are taken for another's.

        Somebody who was tried out with a test server's would keep them otherwise.
        """
        if self.server == LETS_ENCRYPT:
            return "acme.json"
        return f"acme-{hashlib.sha256(self.server.encode()).hexdigest()[:8]}.json"

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that Traefik needs, which are secret."""
        return self.dns_env if self.challenge == "dns" else {}

    def arguments(self) -> list[str]:
        """What Traefik is to be started with."""
        told = {
            "email": self.email,
            "caServer": self.server,
            "storage": f"{STORAGE}/{self.storage}",
            "keyType": "EC256",
            "certificatesDuration": f"{self.lifetime / 3600:.0f}",
            **({"caCertificates": CA} if self.ca else {}),
            **self._challenge(),
        }
        prefix = f"--certificatesResolvers.{RESOLVER}.acme"
        return [f"{prefix}.{key}={value}" for key, value in told.items()]

    def _challenge(self) -> dict[str, str]:
        if self.challenge == "tls-alpn":
            return {"tlsChallenge": "true"}
        if self.challenge == "http":
            return {"httpChallenge.entryPoint": "web"}
        told = {"dnsChallenge.provider": self.dns_provider}
        if self.dns_resolvers:
            told["dnsChallenge.resolvers"] = ",".join(self.dns_resolvers)
            # Whoever names them may not reach the ones that the world asks.
            told["dnsChallenge.propagation.disableANSChecks"] = "true"
            told["dnsChallenge.propagation.requireAllRNS"] = "true"
        return told


_DAY = 86400.0
# By Traefik's documentation: the least lifetime of a certificate, and when it is renewed.
_RENEWALS = (
    (365 * _DAY, 120 * _DAY),
    (90 * _DAY, 30 * _DAY),
    (30 * _DAY, 10 * _DAY),
    (7 * _DAY, _DAY),
    (_DAY, 6 * 3600.0),
    (0.0, 20 * 60.0),
)


@dataclass(frozen=True)
class Failure:
    """A certificate that could not be had: for which hosts, ``error`` as logged, and when
    (seconds since the epoch, whole ones)."""

    hosts: tuple[str, ...]
    error: str
    at: float

    @property
    def kind(self) -> str:
        """The error's name by RFC 8555; empty where there was no answer of that form."""
        found = _PROBLEM.search(self.error)
        return found[1] if found else ""

    @property
    def answer(self) -> str:
        """What the ACME server said, in a line."""
        found = _PROBLEM.search(self.error)
        said = found[2].rstrip("] ") if found else _PREFACE.sub("", self.error)
        # It may quote a page of the host's, and so anything.
        said = "".join(each if each.isprintable() else " " for each in _TOKEN.sub("/…", said))
        said = " ".join(said.split())
        return said if len(said) <= MAX_ANSWER else said[: MAX_ANSWER - 1] + "…"


_PROBLEM = re.compile(r"urn:ietf:params:acme:error:(\w+) :: (.*)", re.DOTALL)
_PREFACE = re.compile(
    r"(unable to generate a certificate for the domains \[.*?\]|cannot get ACME client.*?'"
    r"|unable to communicate with the API server|error): (?=.)"
)
# The secret part of an address that only the ACME server asks for.
_TOKEN = re.compile(r"(?<=/\.well-known/acme-challenge)/[\w-]+")


def failure_in(line: str) -> Failure | None:
    """The failure that a line of Traefik's log, in JSON, tells of."""
    try:
        told = json.loads(line)
        if told["level"] != "error" or not isinstance(told["domains"], list):
            return None
        at = datetime.datetime.fromisoformat(told["time"].replace("Z", "+00:00")).timestamp()
        return Failure(tuple(map(str, told["domains"])), str(told["error"]), at)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def advice(kind: str, host: str, challenge: str) -> str:
    """What to check after a failure of this ``kind``."""
    if kind in _ADVICE:
        return _ADVICE[kind].format(host=host)
    if kind and kind not in _VALIDATION:
        return "see Traefik's log (docker logs)"
    if challenge == "dns":
        return "check acme_dns_provider and [http.acme_dns_env] in config.toml"
    if not kind:
        return "check that this server reaches acme_server ([http] in config.toml)"
    port, what = (80, "http") if challenge == "http" else (443, "https")
    return (
        f"check that {host} leads to this server in the DNS, and that port {port} is open "
        f"to the internet for {what}"
    )


# The ACME server could not see whose the host is.
_VALIDATION = ("connection", "unauthorized", "dns", "incorrectResponse", "tls")
_ADVICE = {
    "rateLimited": "a limit of the ACME server is used up; wait as long as it says",
    "rejectedIdentifier": "the ACME server has no certificates for {host}; choose another host",
    "caa": "a CAA record in the DNS forbids it; allow it there",
    "externalAccountRequired": "this acme_server wants an account, which is not supported",
    "serverInternal": "the fault is the ACME server's",
    "badNonce": "the fault is the ACME server's",
}
