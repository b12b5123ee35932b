"""Key pairs, made by ssh-keygen."""

from __future__ import annotations

import subprocess
from pathlib import Path


def ssh_key(directory: Path, name: str = "alice", *, kind: str = "ed25519") -> Path:
    """The private key's file, ``directory/name``; the public key is ``name.pub``."""
    path = directory / name
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return path
