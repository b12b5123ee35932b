"""The server's own keys, by which its clients know it again."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from paramiko.pkey import PrivateKey, UnknownKeyType

from mypaas_git.errors import SettingsError
from mypaas_git.files import write_once

RSA_BITS = 3072

# What is offered, best first: file name, the algorithm inside, and how to make it.
_KEYS: tuple[tuple[str, str, Callable[[], PrivateKey]], ...] = (
    ("ssh_host_ed25519_key", "ssh-ed25519", ed25519.Ed25519PrivateKey.generate),
    (
        "ssh_host_ecdsa_key",
        "ecdsa-sha2-nistp256",
        lambda: ec.generate_private_key(ec.SECP256R1()),
    ),
    ("ssh_host_rsa_key", "ssh-rsa", lambda: rsa.generate_private_key(65537, RSA_BITS)),
)


def ensure_host_keys(directory: Path) -> list[paramiko.PKey]:
    """Return the host keys in ``directory``, making those that are missing.

    The files are OpenSSH private keys, mode 0600. Raises :class:`SettingsError`
    for a file that is no such key or that others can read: a new key in its place
    would look to every client like an attack.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return [_ensure(directory / name, kind, make) for name, kind, make in _KEYS]
    except OSError as error:
        raise SettingsError(
            f"cannot keep host keys in {directory}: {error.strerror}"
        ) from error


def known_hosts_line(host: str, port: int, key: paramiko.PKey) -> str:
    """The line of ``known_hosts`` that makes a client trust ``key`` at ``host``."""
    name = host if port == 22 else f"[{host}]:{port}"
    return f"{name} {key.get_name()} {key.get_base64()}"


def _ensure(path: Path, kind: str, make: Callable[[], PrivateKey]) -> paramiko.PKey:
    if not path.exists():
        _store(path, make())
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise SettingsError(f"others can read the host key {path}; run: chmod 600 {path}")
    return _load(path, kind)


def _load(path: Path, kind: str) -> paramiko.PKey:
    try:
        key = paramiko.PKey.from_path(path)
    except (
        ValueError,
        TypeError,
        AssertionError,
        UnsupportedAlgorithm,
        UnknownKeyType,
        paramiko.SSHException,
    ):
        key = None
    if key is None or key.get_name() != kind:
        raise SettingsError(
            f"the host key {path} is not an unencrypted OpenSSH private key of type {kind}; "
            "restore it from a backup, or delete it to get a new one (clients will be warned)"
        )
    return key


def _store(path: Path, key: PrivateKey) -> None:
    """Write ``key`` to ``path`` as a whole, unless somebody else was faster."""
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    write_once(path, text)
