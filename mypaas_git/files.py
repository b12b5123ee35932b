"""Files that a reader, or a crash, finds whole or not at all; for their owner's eyes only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_SUFFIX = ".new"


def write_atomically(path: Path, content: bytes, made_in: Path | None = None) -> None:
    """Give ``path`` new content, durably. Raises OSError, and then nothing has changed.

    The file is made beside it, or in the directory ``made_in`` on the same file system.
    """
    with _made(path, content, made_in or path.parent) as made:
        made.replace(path)
    sync_directory(path.parent)


def write_once(path: Path, content: bytes) -> None:
    """Make ``path``, durably, unless it is there: the first writer wins. Raises OSError."""
    with _made(path, content, path.parent) as made, contextlib.suppress(FileExistsError):
        # Unlike a rename, a link leaves alone what is there.
        path.hardlink_to(made)
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
def temporary(
    directory: Path, prefix: str, suffix: str = ""
) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file of mode 0600, whose name is gone afterwards.

    Its lock is held all along, by which :func:`sweep` knows that somebody needs it still.
    """
    descriptor, path = _claimed(directory, prefix, suffix)
    with os.fdopen(descriptor, "wb") as file:
        try:
            yield path, file
        finally:
            path.unlink(missing_ok=True)


def sweep(directory: Path, pattern: str) -> None:
    """Remove the :func:`temporary` files of processes that have died meanwhile."""
    for path in directory.glob(pattern):
        with contextlib.suppress(OSError):  # its writer lives, or was quicker
            _remove_unclaimed(path)


@contextlib.contextmanager
def abandoned(path: Path) -> Iterator[bool]:
    """Yields whether nobody lives who needs the :func:`temporary` file ``path``.

    It is gone afterwards then, unless the block raises.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def sweep_unwritten(directory: Path) -> None:
    """Remove what :func:`write_atomically` and the like left in ``directory`` when killed."""
    sweep(directory, f".*{_SUFFIX}")


def _claimed(directory: Path, prefix: str, suffix: str) -> tuple[int, Path]:
    while True:
        descriptor, name = tempfile.mkstemp(dir=directory, prefix=prefix, suffix=suffix)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, Path(name)
        os.close(descriptor)  # it was swept before it was locked


def _remove_unclaimed(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _made(path: Path, content: bytes, directory: Path) -> Iterator[Path]:
    """A file of mode 0600 for ``path``, gone afterwards; no glob for ``*.x`` finds it."""
    with temporary(directory, f".{path.name}.", _SUFFIX) as (made, file):
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        yield made
