"""Key pairs, made by ssh-keygen."""

from __future__ import annotations

import subprocess
from pathlib import Path


def ssh_key(
    directory: Path, name: str = "alice", *, kind: str = "ed25519", bits: str = ""
) -> Path:
    """The private key's file, ``directory/name``; the public key is ``name.pub``."""
    path = directory / name
    size = ["-b", bits] if bits else []
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", name, "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return path


def public_keys(home: Path) -> list[str]:
    """The public halves of a server's host keys, read from its own files."""
    # Not by rglob: a server that starts removes directories meanwhile.
    files = sorted((home / "host_keys").glob("ssh_host_*_key"))
    assert files, f"no host keys below {home}"
    return [
        subprocess.check_output(["ssh-keygen", "-y", "-f", str(path)], text=True)
        for path in files
    ]
