"""What kind an object of the store is, told by its pack's header without unfolding it.

Format: ``gitformat-pack(5)``, "pack-*.pack files have the following format".
"""

from __future__ import annotations

from types import TracebackType
from typing import BinaryIO

from dulwich.object_store import DiskObjectStore
from dulwich.objects import RawObjectID, sha_to_hex
from dulwich.pack import OFS_DELTA, REF_DELTA, Pack

HEADER = 64
"""Bytes that hold a size, and a delta's base, with room to spare."""


class Kinds:
    """Looks kinds up in the packs that the store has now; use as a context manager."""

    def __init__(self, store: DiskObjectStore) -> None:
        self._store = store
        self._packs = store.packs
        self._files: dict[str, BinaryIO] = {}

    def __enter__(self) -> Kinds:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.close()

    def of(self, id_: bytes) -> int:
        """The type number of the object with the raw id ``id_``. Raises KeyError."""
        raw = RawObjectID(id_)
        for pack in self._packs:
            try:
                offset = pack.index.object_offset(raw)
            except KeyError:
                continue
            return self._at(pack, offset)
        return self._store[sha_to_hex(raw)].type_num

    def _at(self, pack: Pack, offset: int) -> int:
        """The kind of what is at ``offset``: of a delta, that of what it is based on."""
        while True:
            file = self._file(str(pack.data.path))
            file.seek(offset)
            head = file.read(HEADER)
            kind, at = head[0] >> 4 & 7, 0
            while head[at] & 0x80:
                at += 1
            at += 1
            if kind == REF_DELTA:
                return self.of(head[at : at + 20])
            if kind != OFS_DELTA:
                return kind
            offset -= _distance(head, at)

    def _file(self, path: str) -> BinaryIO:
        if path not in self._files:
            self._files[path] = open(path, "rb")  # noqa: PTH123, SIM115 - closed with all others
        return self._files[path]


def _distance(head: bytes, at: int) -> int:
    distance = head[at] & 0x7F
    while head[at] & 0x80:
        at += 1
        distance = (distance + 1) << 7 | head[at] & 0x7F
    return distance
