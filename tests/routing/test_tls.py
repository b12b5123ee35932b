"""How https is spoken, by clients that insist on one thing each."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from support.apps import make_app, unique, web_dockerfile
from support.net import wait_until
from support.paas import Paas
from support.pebble import self_signed

FORGOTTEN = "ALL:@SECLEVEL=0"
"""Everything that OpenSSL still knows."""


def speak(
    paas: Paas,
    host: str = "any.test",
    *,
    version: ssl.TLSVersion | None = None,
    ciphers: str = FORGOTTEN,
    alpn: tuple[str, ...] = (),
) -> tuple[str, str, str | None, bytes]:
    """Version, cipher, protocol and certificate of a handshake; raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = version or ssl.TLSVersion.TLSv1
    context.maximum_version = version or ssl.TLSVersion.MAXIMUM_SUPPORTED
    context.set_ciphers(ciphers)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    with (
        socket.create_connection(("127.0.0.1", paas.web_secure), 10) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        cipher = secured.cipher()
        certificate = secured.getpeercert(binary_form=True)
        assert cipher is not None
        assert certificate is not None
        return str(secured.version()), cipher[0], secured.selected_alpn_protocol(), certificate


# OpenSSL, too, warns of what nobody should speak any more.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions_are_refused(paas: Paas, version: ssl.TLSVersion) -> None:
    """Nothing below 1.2."""
    with pytest.raises(ssl.SSLError, match="alert protocol version"):
        speak(paas, version=version)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "ciphers",
    [
        "AES128-GCM-SHA256:AES256-SHA",
        "ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA",
        "ECDHE-RSA-AES256-SHA384:ECDHE-ECDSA-AES256-SHA384",
        "DHE-RSA-AES128-GCM-SHA256",
    ],
)
def test_weak_ciphers_are_refused(paas: Paas, ciphers: str) -> None:
    """Neither without forward secrecy nor in CBC mode."""
    with pytest.raises(ssl.SSLError, match="alert handshake failure"):
        speak(paas, version=ssl.TLSVersion.TLSv1_2, ciphers=f"{ciphers}:@SECLEVEL=0")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "ciphers",
    [
        "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-CHACHA20-POLY1305",
    ],
)
def test_good_ciphers_are_spoken(paas: Paas, ciphers: str) -> None:
    """What the intermediate profile has for TLS 1.2."""
    version, cipher, _, _ = speak(paas, version=ssl.TLSVersion.TLSv1_2, ciphers=ciphers)
    assert version == "TLSv1.2"
    assert cipher in ciphers.split(":")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_newest_is_chosen(paas: Paas) -> None:
    """TLS 1.3, and HTTP/2 for whoever speaks it."""
    assert speak(paas, alpn=("h2", "http/1.1"))[0:3:2] == ("TLSv1.3", "h2")
    assert speak(paas, alpn=("http/1.1",))[2] == "http/1.1"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_certificates_of_ones_own(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """Served for their host alone, looked at before, replaced without a restart."""
    paas, name = new_paas(), unique("own")
    host, other = f"{name}.test", f"other-{name}.test"
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def give(*, days: float = 90, for_host: str = host) -> bytes:
        pem, private = self_signed(x509.DNSName(for_host), days=days)
        for path, content in ((cert, pem), (key, private)):
            new = path.with_suffix(".new")
            new.write_bytes(content)
            new.replace(path)
        return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)

    section = f'[http.certificates."{host}"]\ncert = "{cert}"\nkey = "{key}"\n'
    with (paas.home / "config.toml").open("a") as config:
        config.write(section)
    give()
    good = key.read_bytes()
    give()
    key.write_bytes(good)
    done = paas.cli("server", "start")
    assert done.returncode == 1
    assert f'[http.certificates."{host}"] key: {key} is not the key of' in done.stderr

    first = give()
    paas.configure("http2", "false")
    paas.configure("http3", "true")
    paas.configure("hsts", '"1d"')
    paas.start()
    told = paas.deploy(
        make_app(tmp_path, web_dockerfile(f"url=https://{host}", f"url=https://{other}")), name
    )
    assert f"https://{host}\n" in told.replace(" ", "").replace("remote:", "")
    assert f"https://{other}  self-signed certificate, as" in told
    assert speak(paas, host)[3] == first
    foreign = {speak(paas, each)[3] for each in (other, "unknown.test", f"x.{host}")}
    (shown,) = map(x509.load_der_x509_certificate, foreign)
    assert shown.subject.rfc4514_string() == "CN=mypaas: no certificate (yet)"
    assert (paas.home / "acme" / "self-signed.pem").stat().st_mode & 0o077 == 0
    assert paas.get(f"https://{host}/").headers["strict-transport-security"] == "max-age=86400"
    assert "strict-transport-security" not in paas.get(f"https://{other}/").headers
    assert speak(paas, host, alpn=("h2", "http/1.1"))[2] == "http/1.1"
    assert (
        paas.get(f"https://{host}/").headers["alt-svc"].startswith(f'h3=":{paas.web_secure}"')
    )
    assert speaks_quic(paas.web_secure)
    assert (paas.home / "routes" / "_tls.yml").stat().st_mode & 0o077 == 0

    second = give(days=3)
    wait_until(lambda: speak(paas, host)[3] == second, "the new certificate is served")
    assert {speak(paas, other)[3]} == foreign
    doctor = paas.cli("server", "doctor").stdout
    assert "it expires on" in doctor
    assert f"https://{other}" in doctor
    cert.write_text("half a file")
    wait_until(lambda: "certificate-refused" in paas.log(), "the bad file is noticed")
    assert speak(paas, host)[3] == second
    assert "holds no certificate in PEM" in paas.cli("server", "doctor").stdout


def speaks_quic(port: int) -> bool:
    """Whether a packet of a version that nobody has is answered by those that there are.

    By RFC 9000, 17.2.1: version 0, then the ids swapped, then version 1 among others.
    """
    ids = os.urandom(8), os.urandom(8)
    packet = b"\xc0\x1a\x2a\x3a\x4a" + b"".join(b"\x08" + each for each in ids)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(2)
        for _ in range(10):
            probe.sendto(packet.ljust(1200, b"\0"), ("127.0.0.1", port))
            with contextlib.suppress(TimeoutError):
                answer = probe.recv(2000)
                swapped = b"".join(b"\x08" + each for each in reversed(ids))
                return answer[1:23] == bytes(4) + swapped and b"\0\0\0\x01" in answer[23:]
    return False
