"""OpenSSH's ``known_hosts``: which keys a host has shown before, and where that is written.

Format: ``sshd(8)``, "SSH_KNOWN_HOSTS FILE FORMAT". ``@cert-authority`` lines are
passed over; a line that cannot be read speaks of no host, as in OpenSSH.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha1
from hmac import compare_digest, digest
from pathlib import Path

import paramiko

SYSTEM_WIDE = Path("/etc/ssh/ssh_known_hosts")


@dataclass(frozen=True)
class KnownKey:
    """A host's key as line ``line`` (from 1) of ``file`` has it."""

    file: Path
    line: int
    type: str
    blob: bytes
    revoked: bool = False

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


def default_files() -> list[Path]:
    """The user's own file, which is the one to write to, and the machine's."""
    return [Path.home() / ".ssh" / "known_hosts", SYSTEM_WIDE]


def host_label(host: str, port: int) -> str:
    """The name under which a host is listed: ``host``, or ``[host]:port`` off port 22."""
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def lookup(label: str, files: Sequence[Path]) -> list[KnownKey]:
    """Return every key that ``files`` list for the host; a missing file lists none.

    Raises :class:`OSError` when a file is there and cannot be read.
    """
    return [key for file in files for key in _keys(label, file)]


def remember(label: str, key: paramiko.PKey, file: Path) -> None:
    """Append ``key`` to ``file``, which is made with mode 0600 in a 0700 directory."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.touch(mode=0o600)
    with file.open("rb+") as known:
        text = known.read()
        if text and not text.endswith(b"\n"):
            known.write(b"\n")
        known.write(f"{label} {key.get_name()} {key.get_base64()}\n".encode("ascii"))


def _keys(label: str, file: Path) -> Iterator[KnownKey]:
    try:
        text = file.read_text("utf-8", "replace")
    except FileNotFoundError:
        return
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.split()
        marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
        if len(fields) < 3 or fields[0].startswith("#") or marker not in ("", "@revoked"):
            continue
        names, key_type, encoded = fields[:3]
        try:
            blob = b64decode(encoded, validate=True)
        except binascii.Error:
            continue
        if _matches(label, names):
            yield KnownKey(file, number, key_type, blob, revoked=marker == "@revoked")


def _matches(label: str, names: str) -> bool:
    """Whether the comma-separated patterns name the host; one with ``!`` rules it out."""
    found = False
    for pattern in names.split(","):
        if _matches_one(label, pattern.removeprefix("!")):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _matches_one(label: str, pattern: str) -> bool:
    if pattern.startswith("|1|"):
        return _matches_hash(label, pattern)
    wild = re.escape(pattern.lower()).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(wild, label) is not None


def _matches_hash(label: str, pattern: str) -> bool:
    """Whether ``|1|salt|hash`` is this host: HMAC-SHA1 with the salt as its key."""
    try:
        _, _, salt, expected = pattern.split("|")
        wanted = b64decode(expected, validate=True)
        return compare_digest(
            digest(b64decode(salt, validate=True), label.encode(), sha1), wanted
        )
    except ValueError:  # binascii.Error is one
        return False
