"""Contents of files straight out of the packs, many small ones fast, large ones in pieces.

Format: ``gitformat-pack(5)``, "pack-*.pack files have the following format".
"""

from __future__ import annotations

import os
import zlib
from binascii import unhexlify
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import sha1
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from dulwich.object_store import DiskObjectStore
from dulwich.objects import Blob, RawObjectID

from mypaas_git.errors import GitRefused, PackRefused
from mypaas_git.git.packindex import PackIndex

if TYPE_CHECKING:
    from dulwich.objects import ObjectID

    from mypaas_git.git.repository import Repository

BLOB: Final = Blob.type_num
SMALL: Final = 4096
"""Bytes that are looked at first, in which most objects end."""
AHEAD: Final = 1 << 16
"""Bytes that are read at once where objects lie in the order in which they are asked for."""
CHUNK: Final = 1 << 18
"""Bytes of a large file that are in memory at once."""

Contents = tuple[int, Iterable[bytes]]
"""How many bytes there are, and the bytes."""


class Blobs:
    """Reads what lies whole in a repository's packs; a context manager, for one thread."""

    def __init__(self, repository: Repository) -> None:
        # A plan reads from a quarantine, whose alternate is the repository.
        stores = (repository.store, *repository.store.alternates)
        self._packs: list[_Pack] = []
        for store in stores:
            if isinstance(store, DiskObjectStore):
                self._packs += _packs(Path(os.fspath(store.path)) / "pack")
        # What was read last: of which file, from where on, and the bytes.
        self._window = (-1, 0, b"")

    def __enter__(self) -> Blobs:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pack in self._packs:
            pack.close()

    def read(self, id_: ObjectID) -> Contents | None:
        """The contents of a blob; None for what is something else, or lies elsewhere.

        Raises :class:`GitRefused` when it is damaged, which of a large one may be found out
        only at its end.
        """
        raw = RawObjectID(unhexlify(id_))
        place = self._find(raw)
        if place is None:
            return None
        file, offset = place
        head = self._look(file, offset)
        if not head or head[0] >> 4 & 7 != BLOB:
            return None
        size, at = _size(head)
        if size > SMALL:
            return size, _pieces(id_, raw, file, offset + at, size)
        try:
            # What is given cannot unfold to more than a few megabytes.
            data = zlib.decompress(head[at : at + size + 64], bufsize=size + 1)
        except zlib.error:  # which may be because it is not all there
            return size, _pieces(id_, raw, file, offset + at, size)
        found = sha1(b"blob %d\0%b" % (len(data), data), usedforsecurity=False).digest()
        if len(data) != size or found != raw:
            raise _damaged(id_)
        return size, (data,)

    def _look(self, file: int, offset: int) -> bytes:
        """At most SMALL bytes of ``file`` from ``offset`` on, fewer only at its end."""
        last, start, window = self._window
        at = offset - start
        if file != last or not 0 <= at <= len(window) - SMALL:
            near = file == last and 0 <= at <= len(window) + AHEAD
            window = os.pread(file, AHEAD if near else SMALL, offset)
            self._window, at = (file, offset, window), 0
        return window[at : at + SMALL]

    def _find(self, raw: RawObjectID) -> tuple[int, int] | None:
        for pack in self._packs:
            offset = pack.index.offset(raw)
            if offset is not None:
                return pack.descriptor(), offset
        return None


class _Pack:
    """A pack that is opened when something is wanted of it; ``index`` says where things are."""

    __slots__ = ("_file", "_path", "index")

    def __init__(self, index: Path) -> None:
        self.index = PackIndex(index, mapped=False)  # each map takes a descriptor
        self._path = index.with_suffix(".pack")
        self._file = -1

    def descriptor(self) -> int:
        if self._file < 0:
            self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return self._file

    def close(self) -> None:
        self.index.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _packs(directory: Path) -> Iterator[_Pack]:
    """The packs that are there now; what comes later, or is odd, dulwich finds."""
    for path in sorted(directory.glob("*.idx")):
        with suppress(PackRefused, FileNotFoundError):
            yield _Pack(path)


def _pieces(id_: ObjectID, raw: RawObjectID, file: int, at: int, size: int) -> Iterator[bytes]:
    """Yield a blob whose deflated contents begin at ``at``, hashing it on the way."""
    digest = sha1(b"blob %d\0" % size, usedforsecurity=False)
    stream, given, left = zlib.decompressobj(), b"", size
    try:
        while not stream.eof:
            if not given:
                given = os.pread(file, CHUNK, at)
                at += len(given)
                if not given:
                    raise _damaged(id_)
            piece = stream.decompress(given, min(CHUNK, left + 1))
            given = stream.unconsumed_tail
            left -= len(piece)
            if left < 0:
                break
            digest.update(piece)
            yield piece
    except zlib.error:
        raise _damaged(id_) from None
    if left or digest.digest() != raw:
        raise _damaged(id_)


def _size(head: bytes) -> tuple[int, int]:
    """The size that an object declares, and where its contents begin."""
    size, shift, at = head[0] & 15, 4, 1
    while head[at - 1] & 0x80 and at < len(head):
        size |= (head[at] & 0x7F) << shift
        shift += 7
        at += 1
    return size, at


def _damaged(id_: ObjectID) -> GitRefused:
    return GitRefused(f"the object {id_.decode('ascii', 'replace')} is damaged on the server")
