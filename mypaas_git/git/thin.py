"""Completes a thin pack: the bases that its deltas lack are appended to it.

Format: ``gitformat-pack(5)``; git's own ``index-pack --fix-thin`` does the same.
"""

from __future__ import annotations

import zlib
from binascii import crc32
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from typing import BinaryIO

from dulwich.object_format import SHA1
from dulwich.pack import pack_object_header

from mypaas_git.git.contents import Contents

CHUNK = 1 << 18
TRAILER = 20
"""Bytes of the checksum at a pack's end."""


class Appender:
    """Adds objects at the end of a pack; ``checksum`` is its new one."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = sha1(usedforsecurity=False)
        self._crc = 0
        self.checksum = b""

    def begin(self, count: int) -> None:
        """Have the header tell of ``count`` objects, and go to where the checksum was."""
        end = self._file.seek(-TRAILER, 2)
        self._file.truncate()
        self._file.seek(8)
        self._file.write(count.to_bytes(4, "big"))
        self._file.seek(0)
        while piece := self._file.read(CHUNK):
            self._hash.update(piece)
        self._file.seek(end)

    def add(self, kind: int, contents: Contents) -> tuple[int, int]:
        """Append an object, and return its offset and crc."""
        offset, self._crc = self._file.tell(), 0
        self._put(bytes(pack_object_header(kind, None, contents.size, SHA1)))
        deflate = zlib.compressobj(1)
        for piece in contents.chunks():
            self._put(deflate.compress(piece))
        self._put(deflate.flush())
        return offset, self._crc

    def end(self) -> None:
        self.checksum = self._hash.digest()
        self._file.write(self.checksum)

    def _put(self, piece: bytes) -> None:
        self._crc = crc32(piece, self._crc)
        self._hash.update(piece)
        self._file.write(piece)


@contextmanager
def append(file: BinaryIO, count: int) -> Iterator[Appender]:
    """Append to the pack in ``file``, which then holds ``count`` objects."""
    appender = Appender(file)
    appender.begin(count)
    yield appender
    appender.end()
