"""Certificates of the admin's own are looked at before they are served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from support.pebble import self_signed

from mypaas_git.errors import SettingsError
from mypaas_git.routing.own import OwnCertificates

HOST = "www.a.test"
NAME = x509.DNSName(HOST)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "cert.pem", tmp_path / "key.pem"


def write(files: tuple[Path, Path], texts: tuple[bytes, bytes]) -> None:
    for path, text in zip(files, texts, strict=True):
        path.write_bytes(text)


def test_what_is_good_is_served_and_followed(files: tuple[Path, Path]) -> None:
    """A chain may follow; new files count, and bad ones do not."""
    own = OwnCertificates({HOST: files})
    cert, key = self_signed(NAME, days=90)
    chain, _ = self_signed(x509.DNSName("ca.test"))
    write(files, (cert + chain, key))
    own.check()
    (pair,) = own.pairs()
    assert pair.cert == (cert + chain).decode()
    assert pair.leaf.hosts == (HOST,)
    assert own.faults() == {HOST: ""}
    files[0].write_text("half of it")
    assert own.pairs() == [pair]
    assert "holds no certificate" in own.faults()[HOST]
    write(files, self_signed(NAME, days=3))
    assert own.pairs() != [pair]
    assert own.faults()[HOST].startswith("it expires on ")


def test_for_whom_they_are() -> None:
    """For their host, or for all hosts of a label below."""
    own = OwnCertificates({HOST: (Path(), Path()), "*.b.test": (Path(), Path())})
    for host in (HOST, "*.b.test", "x.b.test"):
        assert own.covers(host)
    for host in ("a.test", "b.test", "x.y.b.test", "x.www.a.test"):
        assert not own.covers(host)


def wildcard() -> tuple[bytes, bytes]:
    return self_signed(x509.DNSName("*.a.test"), days=90)


def test_a_wildcard_certificate_does(files: tuple[Path, Path]) -> None:
    """For a host below it, and for itself."""
    write(files, wildcard())
    for host in (HOST, "*.a.test"):
        OwnCertificates({host: files}).check()


def others_key() -> tuple[bytes, bytes]:
    return self_signed(NAME)[0], self_signed(NAME)[1]


def locked_key() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    cert, _ = self_signed(NAME, key=key)
    lock = BestAvailableEncryption(b"secret")
    return cert, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (others_key, "is not the key of"),
        (locked_key, "without a passphrase"),
        (lambda: self_signed(x509.DNSName("a.test")), "is for a.test, not for www.a.test"),
        (lambda: self_signed(NAME, days=-1), "has expired on"),
        (lambda: (b"", self_signed(NAME)[1]), "holds no certificate in PEM"),
        (lambda: (self_signed(NAME)[0], b"x"), "holds no private key in PEM"),
        (lambda: self_signed(NAME)[::-1], "holds no certificate in PEM"),
        (lambda: (b"\xff", b"x"), "is not a file in PEM"),
    ],
)
def test_what_cannot_be_served_is_refused(
    files: tuple[Path, Path], make: Callable[[], tuple[bytes, bytes]], said: str
) -> None:
    """In a line with its place in config.toml."""
    write(files, make())
    with pytest.raises(SettingsError) as caught:
        OwnCertificates({HOST: files}).check()
    assert caught.value.message.startswith(f'[http.certificates."{HOST}"] ')
    assert said in caught.value.message
    assert OwnCertificates({HOST: files}).pairs() == []


def test_a_missing_file_is_named(files: tuple[Path, Path]) -> None:
    """With what the system says."""
    with pytest.raises(SettingsError, match=r"cert\.pem cannot be read: No such file"):
        OwnCertificates({HOST: files}).check()
