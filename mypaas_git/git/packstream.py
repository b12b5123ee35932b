"""One pass over a pack as it comes in: stored, measured and hashed, never held in memory.

Format: git's ``gitformat-pack(5)``.
"""

from __future__ import annotations

import zlib
from binascii import crc32
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha1
from typing import Final
from zlib import decompressobj

from mypaas_git.git.check import BLOB, NAMES
from mypaas_git.git.contents import header, object_id, result_size
from mypaas_git.git.limits import MAX_OBJECT, MAX_PARSED, MIB, Limits, PackBroken
from mypaas_git.git.packfile import Fields, parse_head

CHUNK: Final = 1 << 18
PIECE: Final = 1 << 16
MIN_ENTRY: Final = 9
"""Bytes of the shortest object: its head, and zlib's for nothing at all."""
TRAILER: Final = 20
MIN_DELTA: Final = 4
"""Bytes of the shortest delta that git takes: two sizes and an instruction."""


class Entry:
    """One object of a pack.

    ``size`` is what it unfolds to, for a delta after it was applied. ``base``
    is the offset or raw id of a delta's base. ``id`` (raw) is known of whole objects only.
    ``data`` is what was inflated, unless that is large.
    """

    __slots__ = ("base", "crc", "data", "id", "kind", "offset", "size")

    def __init__(  # noqa: PLR0917 - a hundred thousand are made, and names would take time
        self,
        offset: int,
        kind: int,
        size: int,
        crc: int,
        base: int | bytes | None,
        id_: bytes | None,
        data: bytes | None,
    ) -> None:
        self.offset = offset
        self.kind = kind
        self.size = size
        self.crc = crc
        self.base = base
        self.id = id_
        self.data = data


class PackStream:
    """Reads a pack with ``read``, writing it to ``write`` as it was.

    ``read(n)`` gives up to ``n`` bytes and ``b""`` at the end. ``ahead`` is told when it is
    certain that more will be read, so that it can be on its way by then. Who only wants to
    get to the pack's end need not ``keep`` anything of it. Every fault raises
    :class:`PackBroken`.
    """

    def __init__(
        self,
        read: Callable[[int], bytes],
        write: Callable[[bytes], object],
        limits: Limits,
        *,
        ahead: Callable[[], object] | None = None,
        keep: bool = True,
    ) -> None:
        self._ahead = ahead
        self._keep = keep
        self._read = read
        self._write = write
        self._limits = limits
        self._received = 0
        self._unfolded = 0
        self._room = limits.unfolded
        self._buffer = b""
        self._position = 0
        # Where the buffer begins in the pack, and the current object in the buffer.
        self._base = 0
        self._begun = 0
        self._hash = sha1(usedforsecurity=False)
        self._crc = 0
        # Objects behind the current one.
        self._left = 0
        self.count = 0
        self.checksum = b""

    def entries(self) -> Iterator[Entry]:
        """Yield the pack's objects in the order in which they come, then check its checksum."""
        start = self._exactly(12)
        if start[:4] != b"PACK" or start[4:8] not in (b"\0\0\0\2", b"\0\0\0\3"):
            raise PackBroken("what was sent is no pack of version 2 or 3")
        self.count = int.from_bytes(start[8:], "big")
        if self.count > self._limits.objects:
            raise self._limits.fault(
                f"the pack declares {self.count} objects: "
                f"at most {self._limits.objects} are taken"
            )
        self._left = self.count
        while self._left:
            self._left -= 1
            yield self._entry()
        self._settle(self._position)
        self.checksum = self._hash.digest()
        trailer = self._exactly(TRAILER)
        if trailer != self.checksum:
            raise PackBroken("the pack's checksum is wrong: it was damaged on its way")
        self._write(trailer)

    def _entry(self) -> Entry:
        self._begun, self._crc = self._position, 0
        offset = self._base + self._position
        kind, size, base, _ = self._head()
        if kind in NAMES:
            self._unfold(size, MAX_OBJECT if kind == BLOB else MAX_PARSED)
            id_, data = self._whole(kind, size)
            return Entry(offset, kind, size, self._end(), None, id_, data)
        if base is None:
            raise PackBroken(f"the pack holds an object of the unknown type {kind}")
        if size > MAX_OBJECT:
            raise PackBroken(_too_big(size, MAX_OBJECT))
        result, data = self._delta(size)
        return Entry(offset, kind, result, self._end(), base, None, data)

    def _whole(self, kind: int, size: int) -> tuple[bytes, bytes | None]:
        """Hash an object that is no delta; all but large blobs are kept."""
        if size <= PIECE or (self._keep and kind != BLOB):
            data = self._quick(size)
            if data is None:
                data = b"".join(self._inflated(size))
            return object_id(kind, data), data
        digest = sha1(header(kind, size), usedforsecurity=False)
        for piece in self._inflated(size):
            digest.update(piece)
        return digest.digest(), None

    def _delta(self, size: int) -> tuple[int, bytes | None]:
        """Read a delta: how big its result says it will be, and unless it is long its data."""
        if size < MIN_DELTA:
            raise PackBroken("a delta of the pack is malformed")
        data = self._quick(size)
        base, result = result_size(data or self._beginning(size))
        self._unfold(size, MAX_OBJECT)
        self._unfold(result, MAX_OBJECT)
        if base > self._limits.base:
            raise self._limits.fault(_too_big(base, self._limits.base))
        return result, data

    def _beginning(self, size: int) -> bytes:
        """Read a delta, and return enough of it to tell what it is about."""
        head = b""
        for piece in self._inflated(size):
            head = (head + piece)[:32] if len(head) < 32 else head
        return head

    def _unfold(self, size: int, most: int) -> None:
        """Count ``size`` bytes that an object will take, and refuse what is too much."""
        if size > most:
            raise PackBroken(_too_big(size, most))
        self._unfolded += size
        if self._unfolded > self._room:
            raise self._limits.fault(
                f"the pack unfolds to more than {self._unfolded // MIB} MiB, "
                f"out of all proportion to the {self._received} bytes sent"
            )

    def _quick(self, size: int) -> bytes | None:
        """The contents of a zlib stream that lies in the buffer as a whole, as most do."""
        if size > PIECE:
            return None
        stream = decompressobj()
        at = self._position
        given = self._buffer[at : at + size + size // 512 + 64]
        try:
            data = stream.decompress(given, size + 1)
        except zlib.error:
            return None
        if not stream.eof or len(data) != size:
            return None
        self._position = at + len(given) - len(stream.unused_data)
        return data

    def _inflated(self, size: int) -> Iterator[bytes]:
        """Yield the contents of one zlib stream, which must be ``size`` bytes long."""
        stream = decompressobj()
        left = size
        # Little more than the object itself is offered, since zlib copies what it leaves over.
        offer = min(size + size // 512 + 64, PIECE)
        try:
            while not stream.eof:
                if self._position == len(self._buffer):
                    self._fill()
                given = self._buffer[self._position : self._position + offer]
                piece = stream.decompress(given, min(left + 1, PIECE))
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

    def _head(self) -> Fields:
        """Read what stands before an object's data."""
        offset = self._base + self._position
        try:
            try:
                head = parse_head(self._buffer, self._position, offset)
            except IndexError:
                return self._cut_head(offset)
        except ValueError as error:
            raise PackBroken(str(error)) from None
        self._position += head[3] - offset
        return head

    def _cut_head(self, offset: int) -> Fields:
        """The same, of which the buffer holds the beginning only."""
        raw = bytearray()
        while True:
            raw.append(self._byte())
            with suppress(IndexError):
                return parse_head(bytes(raw), 0, offset)

    def _byte(self) -> int:
        if self._position == len(self._buffer):
            self._fill()
        self._position += 1
        return self._buffer[self._position - 1]

    def _exactly(self, size: int) -> bytes:
        taken = self._buffer[self._position : self._position + size]
        self._position += len(taken)
        if len(taken) == size:
            return taken
        return taken + bytes(self._byte() for _ in range(size - len(taken)))

    def _end(self) -> int:
        """The CRC of the object that ends here."""
        return crc32(self._buffer[self._begun : self._position], self._crc)

    def _settle(self, end: int) -> None:
        """Hash and write the buffer, as far as ``end``."""
        piece = self._buffer[:end]
        self._hash.update(piece)
        self._write(piece)

    def _fill(self) -> None:
        """Replace the buffer, all of which was consumed, by what comes next."""
        self._crc = self._end()
        if not self.checksum:
            self._settle(len(self._buffer))
        self._base += len(self._buffer)
        self._buffer = self._read(CHUNK)
        self._position = self._begun = 0
        self._received += len(self._buffer)
        self._room += self._limits.ratio * len(self._buffer)
        if not self._buffer:
            raise PackBroken("the pack ended early: the connection broke")
        if self._received > self._limits.received:
            raise self._limits.fault(
                f"the pack is over the limit of {self._limits.received} bytes "
                f"([git] max_pack_size)"
            )
        # Of the current object, nothing more need come.
        sure = MIN_ENTRY * self._left + TRAILER if self._left else 0
        if self._ahead and sure > len(self._buffer):
            self._ahead()


def _too_big(size: int, most: int) -> str:
    return (
        f"the pack holds an object of {size} bytes: "
        f"at most {most // MIB} MiB are taken, so keep big files elsewhere"
    )
