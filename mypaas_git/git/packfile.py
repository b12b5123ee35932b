"""Reads objects of a pack that lies on the disk, a piece at a time.

Format: ``gitformat-pack(5)``, "pack-*.pack files have the following format".
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from dulwich.pack import OFS_DELTA, REF_DELTA

from mypaas_git.errors import PackRefused

HEAD: Final = 64
"""Bytes that hold a size, and a delta's base, with room to spare."""
CHUNK: Final = 1 << 16
MAX_SHIFT: Final = 70
"""Bits of a size, which is far more than any object has."""


class Head(NamedTuple):
    """What stands before an object's data.

    ``size`` is that of the data, which is the instructions of a delta. ``base`` is the
    offset or raw id of its base, ``at`` where the data begin.
    """

    kind: int
    size: int
    base: int | bytes | None
    at: int


Fields = tuple[int, int, int | bytes | None, int]
"""The same as a :class:`Head`, which takes longer to make than to read."""


class PackFile:
    """One pack, by its file descriptor, which stays the caller's."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def head(self, offset: int) -> Head:
        raw = os.pread(self._descriptor, HEAD, offset)
        try:
            return Head(*parse_head(raw, 0, offset))
        except (IndexError, ValueError):
            raise _damaged() from None

    def chunks(self, head: Head) -> Iterator[bytes]:
        """Yield an object's data in pieces of at most CHUNK."""
        stream, at, left = zlib.decompressobj(), head.at, head.size
        given = b""
        try:
            while not stream.eof:
                if not given:
                    given = os.pread(self._descriptor, CHUNK, at)
                    at += len(given)
                    if not given:
                        raise _damaged()
                piece = stream.decompress(given, min(CHUNK, left + 1))
                given = stream.unconsumed_tail
                left -= len(piece)
                if piece:
                    yield piece
        except zlib.error:
            raise _damaged() from None
        if left:
            raise _damaged()

    def read(self, head: Head) -> bytes:
        """All of an object's data at once."""
        # Deflate rarely needs more room than what it was given.
        given = os.pread(self._descriptor, min(head.size, 4 * CHUNK) + HEAD, head.at)
        stream = zlib.decompressobj()
        try:
            data = stream.decompress(given, head.size + 1)
        except zlib.error:
            raise _damaged() from None
        if stream.eof and len(data) == head.size:
            return data
        return b"".join(self.chunks(head))


def parse_head(raw: bytes, at: int, offset: int) -> Fields:
    """What stands at ``raw[at:]``, which is at ``offset`` in its pack.

    Raises IndexError when it is not all there, ValueError when it is none.
    """
    begun = at
    byte = raw[at]
    kind, size, shift = byte >> 4 & 7, byte & 15, 4
    while byte & 0x80:
        at += 1
        byte = raw[at]
        size |= (byte & 0x7F) << shift
        shift += 7
        if shift > MAX_SHIFT:
            raise ValueError("an object of the pack declares an impossible size")
    at += 1
    base: int | bytes | None = None
    if kind == OFS_DELTA:
        distance = raw[at] & 0x7F
        while raw[at] & 0x80:
            at += 1
            distance = (distance + 1) << 7 | raw[at] & 0x7F
            if distance >> 63:
                raise ValueError("a delta of the pack has an impossible base")
        base = offset - distance
        at += 1
    elif kind == REF_DELTA:
        base = raw[at : at + 20]
        at += 20
        if len(base) < 20:
            raise IndexError
    return kind, size, base, offset + at - begun


def _damaged() -> PackRefused:
    return PackRefused("a pack on the server is damaged")
