"""The contents of an object, in memory or, when it is large, in a file without a name.

So a large file costs no more memory than a small one, deltas of it included.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from hashlib import sha1
from pathlib import Path
from typing import Final

from dulwich.errors import ApplyDeltaError
from dulwich.objects import Blob, Commit, Tag, Tree
from dulwich.pack import apply_delta

from mypaas_git.errors import PackRefused
from mypaas_git.git.packfile import CHUNK
from mypaas_git.git.signals import hear

MAX_MEMORY = 1 << 20
"""Bytes from which on contents go to the disk."""


class Contents:
    """``size`` bytes that can be read as often as wanted, until they are closed."""

    __slots__ = ("_file", "data", "size")

    def __init__(self, size: int, data: bytes | None, file: io.FileIO | None = None) -> None:
        self.size = size
        self.data = data
        self._file = file

    @staticmethod
    def of(data: bytes) -> Contents:
        return Contents(len(data), data)

    @classmethod
    def gather(cls, chunks: Iterable[bytes], size: int, scratch: Path) -> Contents:
        """Keep ``chunks``, which are ``size`` bytes, in memory or in a file in ``scratch``."""
        if size <= MAX_MEMORY:
            return cls.of(b"".join(chunks))
        # Without a name it goes with its last user, whatever becomes of them.
        descriptor, name = tempfile.mkstemp(dir=scratch)
        Path(name).unlink()
        file = io.FileIO(descriptor, "r+")
        try:
            for chunk in chunks:
                file.write(chunk)
        except BaseException:
            file.close()
            raise
        return cls(size, None, file)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def whole(self) -> bytes:
        return b"".join(self.chunks()) if self.data is None else self.data

    def chunks(self) -> Iterator[bytes]:
        return self.pieces(0, self.size)

    def pieces(self, at: int, size: int) -> Iterator[bytes]:
        """Yield ``size`` bytes from ``at`` on."""
        if self.data is not None:
            yield self.data[at : at + size]
            return
        assert self._file is not None  # noqa: S101 - one of the two holds the contents
        end = at + size
        while at < end and (piece := os.pread(self._file.fileno(), min(CHUNK, end - at), at)):
            yield piece
            at += len(piece)

    def id(self, kind: int) -> bytes:
        """The raw id of an object of this kind with these contents."""
        if self.data is not None:
            return object_id(kind, self.data)
        digest = sha1(header(kind, self.size), usedforsecurity=False)
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.digest()

    def equals(self, other: Contents) -> bool:
        if self.data is not None and other.data is not None:
            return self.data == other.data
        if self.size != other.size:
            return False
        at = 0
        for chunk in self.chunks():
            if b"".join(other.pieces(at, len(chunk))) != chunk:
                return False
            at += len(chunk)
        return True


_HEADERS: Final = {
    each.type_num: each.type_name + b" %d\0" for each in (Blob, Commit, Tag, Tree)
}


def header(kind: int, size: int) -> bytes:
    """What an id is the hash of in front of the contents."""
    return _HEADERS[kind] % size


def object_id(kind: int, data: bytes) -> bytes:
    """The raw id of an object."""
    return sha1(_HEADERS[kind] % len(data) + data, usedforsecurity=False).digest()


def apply(base: Contents, delta: Contents, scratch: Path) -> Contents:
    """The contents that ``delta`` makes of ``base``. Raises :class:`PackRefused`."""
    if base.data is not None and delta.data is not None:
        sizes = _sizes(delta.data)
        if sizes[2] <= MAX_MEMORY:
            return Contents.of(_patched(base.data, delta.data, sizes))
    reader = _Reader(delta.chunks())
    if reader.size() != base.size:
        raise _cannot(_OTHER_BASE)
    size = reader.size()
    return Contents.gather(_exactly(_carry_out(base, reader), size), size, scratch)


def result_size(delta: bytes) -> tuple[int, int]:
    """How big base and result are of a delta, or of the beginning of one."""
    base, _, result, _ = _sizes(delta)
    return base, result


def patch(base: bytes, delta: bytes) -> bytes:
    """What a delta makes of its base, as strictly as git's ``patch_delta`` does it.

    Raises :class:`PackRefused`.
    """
    return _patched(base, delta, _sizes(delta))


_Sizes = tuple[int, int, int, int]
"""What a delta begins with: the size of its base, then of its result, each with its end."""


_OTHER_BASE: Final = "it was made for another base"
_GUARD: Final = b"\x08" + bytes(8)
"""An instruction to add eight zeros, in which no other can end: zero is no instruction."""


def _patched(base: bytes, delta: bytes, sizes: _Sizes) -> bytes:
    """Carry a delta out by dulwich's ``apply_delta``, which is quick and not strict enough.

    It passes over a last instruction that leads nowhere, and then git cannot read what was
    taken. Hence the guard behind it, which only comes out at the end when all before it was
    good, or when the last instruction is to add what it lacks as a whole.
    """
    size, middle, length, end = sizes
    if size != len(base):
        raise _cannot(_OTHER_BASE)
    guarded = delta[:middle] + _number(length + 8) + delta[end:] + _GUARD
    try:
        result = b"".join(apply_delta(base, guarded))
    except (ApplyDeltaError, IndexError):
        return _patched_strictly(base, delta, sizes)  # it says what is wrong
    if result.endswith(_GUARD):
        return _patched_strictly(base, delta, sizes)
    return result[:-8]


def _patched_strictly(base: bytes, delta: bytes, sizes: _Sizes) -> bytes:
    """Carry a delta out one instruction after the other."""
    _, _, left, at = sizes
    pieces: list[bytes] = []
    try:
        while at < len(delta):
            piece, at = _instruction(base, delta, at)
            left -= len(piece)
            if left < 0:
                break
            pieces.append(piece)
    except IndexError:
        raise _cannot("it ends early") from None
    if left:
        raise _cannot("its result is not as long as it declares")
    return b"".join(pieces)


def _instruction(base: bytes, delta: bytes, at: int) -> tuple[bytes, int]:
    """What the instruction at ``at`` adds to the result, and where the next one begins."""
    command = delta[at]
    at += 1
    if command & 0x80:
        begin = size = 0
        for place in _PLACES[command & 15]:
            begin |= delta[at] << place
            at += 1
        for place in _PLACES[command >> 4 & 7]:
            size |= delta[at] << place
            at += 1
        size = size or 0x10000
        if begin + size > len(base):
            raise _cannot("it copies from behind the end of its base")
        return base[begin : begin + size], at
    if not command:
        raise _cannot("it has an instruction that git does not know")
    if at + command > len(delta):
        raise _cannot("it ends early")
    return delta[at : at + command], at + command


# For each set of bytes that a number may be given by, where they stand in it.
_PLACES = [tuple(8 * bit for bit in range(4) if wanted >> bit & 1) for wanted in range(16)]


def _sizes(delta: bytes) -> _Sizes:
    base, middle = _size(delta, 0)
    result, end = _size(delta, middle)
    return base, middle, result, end


def _size(delta: bytes, at: int) -> tuple[int, int]:
    """One of the sizes that a delta begins with, and where it ends."""
    size = shift = 0
    try:
        while (byte := delta[at]) & 0x80:
            size |= (byte & 0x7F) << shift
            shift += 7
            at += 1
            if shift > 70:
                break
        else:
            return size | byte << shift, at + 1
    except IndexError:
        pass
    raise PackRefused("a delta of the pack is malformed")


def _number(size: int) -> bytes:
    """A size as :func:`_size` reads it."""
    if 0x7F < size < 0x4000:  # as most are
        return bytes((size & 0x7F | 0x80, size >> 7))
    digits = bytearray()
    while size > 0x7F:
        digits.append(size & 0x7F | 0x80)
        size >>= 7
    digits.append(size)
    return bytes(digits)


class _Reader:
    """Takes a delta apart as its pieces come."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = b""
        self._at = 0

    def byte(self) -> int | None:
        """The next byte, None at the end."""
        if not self._fill():
            return None
        self._at += 1
        return self._chunk[self._at - 1]

    def number(self, wanted: int) -> int:
        """Bytes of a number, lowest first, of which ``wanted`` says which are there."""
        found = 0
        for place in range(wanted.bit_length()):
            if wanted >> place & 1:
                byte = self.byte()
                if byte is None:
                    raise _cannot("it ends early")
                found |= byte << 8 * place
        return found

    def size(self) -> int:
        size = shift = 0
        while True:
            byte = self.byte()
            if byte is None or shift > 70:
                raise PackRefused("a delta of the pack is malformed")
            size |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return size

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes, or what is left."""
        taken = bytearray()
        while len(taken) < size and self._fill():
            piece = self._chunk[self._at : self._at + size - len(taken)]
            self._at += len(piece)
            taken += piece
        return bytes(taken)

    def _fill(self) -> bool:
        """Have a byte at hand, if there is one."""
        while self._at == len(self._chunk):
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            hear()  # a delta may have millions of instructions
            self._chunk, self._at = chunk, 0
        return True


def _carry_out(base: Contents, reader: _Reader) -> Iterator[bytes]:
    """Yield what the instructions of a delta say, one after the other."""
    while (command := reader.byte()) is not None:
        if command & 0x80:
            at = reader.number(command & 15)
            size = reader.number(command >> 4 & 7) or 0x10000
            if at + size > base.size:
                raise _cannot("it copies from behind the end of its base")
            yield from base.pieces(at, size)
        elif command:
            text = reader.take(command)
            if len(text) != command:
                raise _cannot("it ends early")
            yield text
        else:
            raise _cannot("it has an instruction that git does not know")


def _exactly(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    left = size
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            break
        yield piece
    if left:
        raise _cannot("its result is not as long as it declares")


def _cannot(why: str) -> PackRefused:
    return PackRefused(f"a delta of the pack cannot be applied: {why}")
