"""Headers of a tar archive, made from a pattern where Python's ``tarfile`` takes its time.

Format: POSIX's ``pax`` interchange format, whose header block is that of ``ustar``.
"""

from __future__ import annotations

from functools import cache
from tarfile import PAX_FORMAT, REGTYPE, TarInfo
from typing import NamedTuple

MAX_NAME = 100
"""Bytes of a name that needs no header of its own."""
MAX_SIZE = 8**11 - 1
"""The last size that eleven octal digits can tell."""
# Where the fields are, from and up to; the checksum counts itself as spaces.
_NAME, _SIZE, _SUM = (0, 100), (124, 136), (148, 156)


class _Pattern(NamedTuple):
    """A header but for its name, size and checksum: what is between, behind, and its sum."""

    before: bytes
    between: bytes
    behind: bytes
    total: int


class Headers:
    """Headers whose entries all have the time ``when``, in seconds since the epoch."""

    def __init__(self, when: int) -> None:
        self._when = when
        self._pattern = cache(self._make_pattern)

    def file(self, path: str, mode: int, size: int) -> bytes:
        """The header of a regular file. ``path`` may hold surrogates for what is not UTF-8."""
        if len(path) > MAX_NAME or not path.isascii() or size > MAX_SIZE:
            return self.any(path, REGTYPE, mode, size=size)
        name, digits = path.encode("ascii"), b"%011o\0" % size
        before, between, behind, total = self._pattern(mode)
        total += sum(name) + sum(digits)
        return b"%b%b%b%b%06o\0 %b" % (
            name.ljust(MAX_NAME, b"\0"),
            before,
            digits,
            between,
            total,
            behind,
        )

    def any(self, path: str, kind: bytes, mode: int, *, size: int = 0, link: str = "") -> bytes:
        """The header of anything; of a directory, ``path`` ends in a slash."""
        info = TarInfo(path)
        info.type, info.mode, info.size, info.linkname = kind, mode, size, link
        info.mtime = self._when
        return info.tobuf(PAX_FORMAT, "utf-8", "surrogateescape")

    def _make_pattern(self, mode: int) -> _Pattern:
        block = self.any("", REGTYPE, mode)
        before, between = block[_NAME[1] : _SIZE[0]], block[_SIZE[1] : _SUM[0]]
        behind = block[_SUM[1] :]
        spaces = (_SUM[1] - _SUM[0]) * ord(" ")
        return _Pattern(
            before, between, behind, sum(before) + sum(between) + sum(behind) + spaces
        )
