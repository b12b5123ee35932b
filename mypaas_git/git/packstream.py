"""One pass over a pack as it comes in: stored, measured and hashed, never held in memory.

What a pack declares is believed only as far as the limits go, so that a few
bytes cannot unfold to gigabytes. Format: git's ``gitformat-pack(5)``.
"""

from __future__ import annotations

import zlib
from binascii import crc32
from collections.abc import Callable, Iterator
from hashlib import sha1
from typing import NamedTuple

from dulwich.objects import object_header
from dulwich.pack import OFS_DELTA, REF_DELTA

from mypaas_git.errors import PackRefused
from mypaas_git.git.check import BLOB, NAMES

CHUNK = 1 << 16
MIB = 1 << 20
MAX_OBJECT = 512 * MIB
"""Bytes of one object; git itself treats what is bigger specially."""
MAX_PARSED = 64 * MIB
"""Bytes of one commit, tree or tag."""
MIN_DELTA = 4
"""Bytes of the shortest delta that git takes: two sizes and an instruction."""
MAX_OBJECTS = 2_000_000
"""Objects of one pack; each takes some hundred bytes of memory."""
MAX_UNFOLDED = 256 * MIB
"""Bytes that all objects together may unfold to, besides what deflate can make of the pack."""
DEFLATE_RATIO = 1032
"""How many bytes zlib can make of one."""


class PackBroken(PackRefused):
    """What is left of the stream cannot be told from the pack any more."""


class Entry(NamedTuple):
    """One object of a pack.

    ``size`` is what it unfolds to, for a delta after it was applied. ``base``
    is the offset or raw id of a delta's base. ``id`` (raw) and, unless it is a
    blob, ``data`` are known of whole objects only.
    """

    offset: int
    kind: int
    size: int
    crc: int
    base: int | bytes | None = None
    id: bytes | None = None
    data: bytes | None = None


class PackStream:
    """Reads a pack with ``read``, writing it to ``write`` as it was.

    ``read(n)`` gives up to ``n`` bytes and ``b""`` at the end. ``limit`` is in
    bytes. Every fault raises :class:`PackBroken`.
    """

    def __init__(
        self, read: Callable[[int], bytes], write: Callable[[bytes], object], limit: int
    ) -> None:
        self._read = read
        self._write = write
        self._limit = limit
        self._received = 0
        self._unfolded = 0
        self._buffer = b""
        self._position = 0
        # Up to here the buffer has been hashed and written.
        self._settled = 0
        self._base = 0
        self._hash = sha1(usedforsecurity=False)
        self._crc = 0
        self.count = 0
        self.checksum = b""

    def entries(self) -> Iterator[Entry]:
        """Yield the pack's objects in the order in which they come, then check its checksum."""
        header = self._exactly(12)
        if header[:4] != b"PACK" or header[4:8] not in (b"\0\0\0\2", b"\0\0\0\3"):
            raise PackBroken("what was sent is no pack of version 2 or 3")
        self.count = int.from_bytes(header[8:], "big")
        if self.count > MAX_OBJECTS:
            raise PackBroken(
                f"the pack declares {self.count} objects: at most {MAX_OBJECTS} are taken"
            )
        for _ in range(self.count):
            yield self._entry()
        self._settle()
        self.checksum = self._hash.digest()
        if self._exactly(20) != self.checksum:
            raise PackBroken("the pack's checksum is wrong: it was damaged on its way")
        self._settle()

    def _entry(self) -> Entry:
        self._settle()
        self._crc = 0
        offset = self._base + self._position
        kind, size = self._type_and_size()
        if kind in NAMES:
            self._unfold(size, MAX_OBJECT if kind == BLOB else MAX_PARSED)
            id_, data = self._whole(kind, size)
            self._settle()
            return Entry(offset, kind, size, self._crc, id=id_, data=data)
        if kind not in (OFS_DELTA, REF_DELTA):
            raise PackBroken(f"the pack holds an object of the unknown type {kind}")
        base = self._exactly(20) if kind == REF_DELTA else offset - self._distance()
        if size > MAX_OBJECT:
            raise PackBroken(_too_big(size, MAX_OBJECT))
        result = self._delta(size)
        self._settle()
        return Entry(offset, kind, result, self._crc, base=base)

    def _whole(self, kind: int, size: int) -> tuple[bytes, bytes | None]:
        """Hash an object that is no delta; all but blobs are small enough to be kept."""
        digest = sha1(object_header(kind, size), usedforsecurity=False)
        kept: list[bytes] | None = [] if kind != BLOB else None
        for piece in self._inflated(size):
            digest.update(piece)
            if kept is not None:
                kept.append(piece)
        return digest.digest(), None if kept is None else b"".join(kept)

    def _delta(self, size: int) -> int:
        """Read a delta, and return how big its result says it will be."""
        if size < MIN_DELTA:
            raise PackBroken("a delta of the pack is malformed")
        head = b""
        for piece in self._inflated(size):
            head = (head + piece)[:32] if len(head) < 32 else head
        _, length = _delta_size(head, 0)
        result, _ = _delta_size(head, length)
        self._unfold(size, MAX_OBJECT)
        self._unfold(result, MAX_OBJECT)
        return result

    def _unfold(self, size: int, most: int) -> None:
        """Count ``size`` bytes that an object will take, and refuse what is too much."""
        if size > most:
            raise PackBroken(_too_big(size, most))
        self._unfolded += size
        if self._unfolded > MAX_UNFOLDED + DEFLATE_RATIO * self._received:
            raise PackBroken(
                f"the pack unfolds to more than {self._unfolded // MIB} MiB, "
                f"out of all proportion to the {self._received} bytes sent"
            )

    def _inflated(self, size: int) -> Iterator[bytes]:
        """Yield the contents of one zlib stream, which must be ``size`` bytes long."""
        stream = zlib.decompressobj()
        left = size
        # Little more than the object itself is offered, since zlib copies what it leaves over.
        offer = size + size // 512 + 64
        try:
            while not stream.eof:
                if self._position == len(self._buffer):
                    self._fill()
                given = self._buffer[self._position : self._position + min(offer, CHUNK)]
                piece = stream.decompress(given, min(left + 1, CHUNK))
                # At the end, the tail of the call before may still be there.
                rest = stream.unused_data if stream.eof else stream.unconsumed_tail
                self._position += len(given) - len(rest)
                left -= len(piece)
                if left < 0:
                    raise PackBroken("an object of the pack is longer than it declares")
                if piece:
                    yield piece
        except zlib.error:
            raise PackBroken("the pack is damaged: it cannot be inflated") from None
        if left:
            raise PackBroken("an object of the pack is shorter than it declares")

    def _type_and_size(self) -> tuple[int, int]:
        byte = self._byte()
        kind, size, shift = byte >> 4 & 7, byte & 15, 4
        while byte & 0x80:
            byte = self._byte()
            size |= (byte & 0x7F) << shift
            shift += 7
            if shift > 70:
                raise PackBroken("an object of the pack declares an impossible size")
        return kind, size

    def _distance(self) -> int:
        byte = self._byte()
        distance = byte & 0x7F
        while byte & 0x80:
            byte = self._byte()
            distance = (distance + 1) << 7 | byte & 0x7F
            if distance >> 63:
                raise PackBroken("a delta of the pack has an impossible base")
        return distance

    def _byte(self) -> int:
        if self._position == len(self._buffer):
            self._fill()
        self._position += 1
        return self._buffer[self._position - 1]

    def _exactly(self, size: int) -> bytes:
        return bytes(self._byte() for _ in range(size))

    def _settle(self) -> None:
        """Hash and write what was consumed."""
        piece = self._buffer[self._settled : self._position]
        self._settled = self._position
        self._crc = crc32(piece, self._crc)
        self._hash.update(piece)
        self._write(piece)

    def _fill(self) -> None:
        """Replace the buffer, all of which was consumed, by what comes next."""
        self._settle()
        self._base += len(self._buffer)
        self._buffer = self._read(CHUNK)
        self._position = self._settled = 0
        self._received += len(self._buffer)
        if not self._buffer:
            raise PackBroken("the pack ended early: the connection broke")
        if self._received > self._limit:
            raise PackBroken(
                f"the pack is over the limit of {self._limit} bytes ([git] max_pack_size)"
            )


def _delta_size(delta: bytes, at: int) -> tuple[int, int]:
    """Read one of the sizes that a delta begins with; return it and where it ends."""
    size = shift = 0
    while True:
        if at >= len(delta) or shift > 70:
            raise PackBroken("a delta of the pack is malformed")
        byte = delta[at]
        size |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        if not byte & 0x80:
            return size, at


def _too_big(size: int, most: int) -> str:
    return (
        f"the pack holds an object of {size} bytes: "
        f"at most {most // MIB} MiB are taken, so keep big files elsewhere"
    )
