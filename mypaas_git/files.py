"""Files that a reader, or a crash, finds whole or not at all; for their owner's eyes only."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Give ``path`` new content, durably. Raises OSError, and then nothing has changed."""
    with _beside(path, content) as temporary:
        temporary.replace(path)
    sync_directory(path.parent)


def write_once(path: Path, content: bytes) -> None:
    """Make ``path``, durably, unless it is there: the first writer wins. Raises OSError."""
    with _beside(path, content) as temporary, contextlib.suppress(FileExistsError):
        # Unlike a rename, a link leaves alone what is there.
        path.hardlink_to(temporary)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(top: Path) -> None:
    """Make everything at and below ``top`` durable."""
    for path in (top, *top.rglob("*")):
        if path.is_dir():
            sync_directory(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())


@contextlib.contextmanager
def _beside(path: Path, content: bytes) -> Iterator[Path]:
    """A file of mode 0600 next to ``path``, gone afterwards; no glob for ``*.x`` finds it."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
