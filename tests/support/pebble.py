"""Let's Encrypt's own test server, pebble, and the DNS by which it finds hosts."""

from __future__ import annotations

import datetime
import json
import os
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support import engine
from support.net import free_port, listening, wait_until
from support.paas import Paas

ELSEWHERE = "127.0.0.9"
"""An address where nobody listens."""


class Pebble:
    """An ACME server for the services of ``paas``, whose Traefik can reach nobody else's.

    ``directory`` is its url, ``ca`` what to trust for that. Every name leads to 127.0.0.1
    unless :meth:`lead` says otherwise; ``refused`` are hosts that it gives no certificates.
    ``name_server`` is where containers ask for names.
    """

    def __init__(
        self, root: Path, paas: Paas, *, validity: int, refused: tuple[str, ...], http: bool
    ) -> None:
        network = engine.inspect(f"{paas.namespace}-net")
        self.address: str = network["IPAM"]["Config"][0]["Gateway"]
        self.port, self._management = free_port(), free_port()
        self._dns, self._names = free_port(), free_port()
        self.directory = f"https://{self.address}:{self.port}/dir"
        self.name_server = f"{self.address}:{free_port()}"
        self._root = root
        self.ca = root / "pebble-ca.pem"
        self._log = root / "pebble.log"
        self._running: list[subprocess.Popen[bytes]] = []
        self.ca.write_bytes(b"".join(self._own_certificate()))
        config = {
            "listenAddress": f"{self.address}:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self._management}",
            "certificate": str(self.ca),
            "privateKey": str(self.ca),
            "httpPort": paas.web if http else free_port(),
            "tlsPort": paas.web_secure,
            "domainBlocklist": refused,
            "certificateValidityPeriod": validity,
        }
        (root / "pebble.json").write_text(json.dumps({"pebble": config}))

    def start(self) -> None:
        self._run(
            "pebble-challtestsrv",
            *("-dns01", f"127.0.0.1:{self._dns},{self.name_server}"),
            *("-management", f"127.0.0.1:{self._names}", "-defaultIPv6", ""),
            *("-http01", "", "-https01", "", "-tlsalpn01", ""),
        )
        wait_until(lambda: listening(self._names), "the DNS of pebble listens")
        arguments = ["-config", "pebble.json", "-dnsserver", f"127.0.0.1:{self._dns}"]
        # It can refuse good nonces at random, which only makes a test slower.
        self._run("pebble", *arguments, PEBBLE_VA_NOSLEEP="1", PEBBLE_WFE_NONCEREJECT="0")
        wait_until(lambda: listening(self._management), "pebble listens")
        # It starts to serve ACME last.
        wait_until(self._answers, "pebble answers")

    def stop(self) -> None:
        for process in self._running:
            process.terminate()
            process.wait(30)
        self._running = []

    @property
    def orders(self) -> int:
        """How many orders it has got."""
        return self._log.read_text("utf-8", "replace").count("Added order ")

    def tries(self, host: str) -> int:
        """How often it was to find out whose a host is."""
        return self._log.read_text("utf-8", "replace").count(f'Type:"dns", Value:"{host}"')

    def lead(self, host: str, address: str) -> None:
        """Have the DNS say that ``host`` is at ``address``."""
        self._tell("clear-a", {"host": f"{host}."})
        self._tell("add-a", {"host": f"{host}.", "addresses": [address]})

    @contextmanager
    def dns_provider(self) -> Iterator[str]:
        """The url at which a client with lego's provider "httpreq" has names changed."""
        tell = self._tell

        class Provider(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                what = "set-txt" if self.path == "/present" else "clear-txt"
                tell(what, {"host": told["fqdn"], "value": told["value"]})
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        with ThreadingHTTPServer((self.address, 0), Provider) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://{self.address}:{server.server_address[1]}"
            server.shutdown()

    def trusting(self) -> ssl.SSLContext:
        """What a client trusts that trusts nobody but this server's root."""
        context = ssl._create_unverified_context()  # noqa: S323 - its root is new each time
        url = f"https://127.0.0.1:{self._management}/roots/0"
        with urllib.request.urlopen(url, context=context, timeout=10) as answer:
            root = answer.read().decode()
        return ssl.create_default_context(cadata=root)

    def _answers(self) -> bool:
        context = ssl._create_unverified_context()  # noqa: S323 - it is only to be there
        try:
            urllib.request.urlopen(self.directory, context=context, timeout=10).close()
        except OSError:
            return False
        return True

    def _tell(self, what: str, told: Mapping[str, object]) -> None:
        url = f"http://127.0.0.1:{self._names}/{what}"
        urllib.request.urlopen(url, json.dumps(told).encode(), timeout=10).close()

    def _run(self, *argv: str, **env: str) -> None:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                argv,
                cwd=self._root,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._running.append(process)

    def _own_certificate(self) -> tuple[bytes, bytes]:
        return self_signed(x509.IPAddress(ip_address(self.address)))


def self_signed(
    *names: x509.GeneralName, days: float = 2, key: ec.EllipticCurvePrivateKey | None = None
) -> tuple[bytes, bytes]:
    """A certificate for ``names``, which is its own authority, and its key, in PEM."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@contextmanager
def run_pebble(
    root: Path,
    paas: Paas,
    *,
    validity: int = 90 * 86400,
    refused: tuple[str, ...] = (),
    http: bool = True,
) -> Iterator[Pebble]:
    """A pebble that runs; ``validity`` is that of its certificates, in seconds.

    Without ``http`` port 80 seems closed to it.
    """
    pebble = Pebble(root, paas, validity=validity, refused=refused, http=http)
    try:
        pebble.start()
        yield pebble
    finally:
        pebble.stop()
