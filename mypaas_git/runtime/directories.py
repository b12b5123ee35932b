"""Directories of the host that are about to be mounted."""

from __future__ import annotations

import errno
import os
import stat


def ensure(path: str) -> None:
    """Make the directory ``path``, and those above it, unless it or a file is there.

    No symbolic link is followed, so that nothing is made elsewhere: ``path`` was resolved
    before, and a link in it appeared since. Raises OSError.
    """
    parts = [part for part in path.split("/") if part]
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number, name in enumerate(parts, 1):
            inner = _open(name, here)
            os.close(here)
            here = inner
            _check(os.fstat(here).st_mode, last=number == len(parts))
    finally:
        os.close(here)


def _open(name: str, directory: int) -> int:
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=directory)
    except FileNotFoundError:
        os.mkdir(name, 0o755, dir_fd=directory)
        return os.open(name, flags, dir_fd=directory)


def _check(mode: int, *, last: bool) -> None:
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "a symbolic link appeared in it")
    if stat.S_ISDIR(mode) or (last and stat.S_ISREG(mode)):
        return
    raise OSError(errno.ENOTDIR, "it is not a directory")
