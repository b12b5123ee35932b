"""Certificates of the admin's own, which stand in files."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from mypaas_git.directives.model import wildcard_over
from mypaas_git.errors import SettingsError
from mypaas_git.routing.leaf import Leaf, leaf

log = structlog.get_logger()

SOON = 14 * 86400.0
"""Seconds before its end from which on a certificate should be replaced."""


@dataclass(frozen=True)
class Pair:
    """A certificate with its chain and its private key, as PEM texts, and what it says."""

    cert: str
    key: str
    leaf: Leaf


class OwnCertificates:
    """``files`` has the paths of certificate and key for each host, or wildcard."""

    def __init__(self, files: Mapping[str, tuple[Path, Path]]) -> None:
        self._files = files
        self._pairs: dict[str, Pair] = {}
        self._marks: dict[str, object] = {}

    def covers(self, host: str) -> bool:
        """Whether one of them is meant for ``host``."""
        return host in self._files or wildcard_over(host) in self._files

    def check(self) -> None:
        """Raise SettingsError for the first that cannot be served."""
        for host in self._files:
            self._load(host)

    def faults(self) -> dict[str, str]:
        """What is wrong with each of them as it stands now; empty when nothing is."""
        found = {}
        for host in self._files:
            try:
                pair = self._load(host)
                soon = pair.leaf.until - time.time() < SOON
                found[host] = f"it expires on {pair.leaf.day}; replace it" if soon else ""
            except SettingsError as error:
                found[host] = error.message
        return found

    def pairs(self) -> list[Pair]:
        """All that can be served. Of files that were replaced by bad ones, those before."""
        for host, paths in self._files.items():
            mark = tuple(map(_mark, paths))
            if mark == self._marks.get(host):
                continue
            self._marks[host] = mark
            try:
                self._pairs[host] = self._load(host)
            except SettingsError as error:
                log.error("certificate-refused", host=host, why=error.message)
        return list(self._pairs.values())

    def _load(self, host: str) -> Pair:
        cert, key = self._files[host]
        where = f'[http.certificates."{host}"]'
        try:
            return _pair(host, _text(cert), _text(key), cert, key)
        except ValueError as error:
            raise SettingsError(f"{where} {error}") from None


def _pair(host: str, cert: str, key: str, cert_path: Path, key_path: Path) -> Pair:
    """Raises ValueError with what is wrong."""
    try:
        certificate = x509.load_pem_x509_certificates(cert.encode())[0]
        said = leaf(certificate)
    except ValueError:
        raise ValueError(f"cert: {cert_path} holds no certificate in PEM") from None
    try:
        private = serialization.load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(
            f"key: {key_path} holds no private key in PEM without a passphrase"
        ) from None
    if certificate.public_key() != private.public_key():
        raise ValueError(f"key: {key_path} is not the key of {cert_path}")
    if not said.covers(host):
        named = ", ".join(said.hosts) or "no host"
        raise ValueError(f"cert: {cert_path} is for {named}, not for {host}")
    if said.until < time.time():
        raise ValueError(f"cert: {cert_path} has expired on {said.day}")
    return Pair(cert, key, said)


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a file in PEM") from None


def _mark(path: Path) -> tuple[int, ...]:
    """Tells a file from what it was before."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)
