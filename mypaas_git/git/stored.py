"""The objects that a repository has: what kind, how big, what they hold.

A pack's headers tell the first two without unfolding anything, and whatever is large
is unfolded to the disk.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from dulwich.object_format import SHA1
from dulwich.object_store import DiskObjectStore
from dulwich.objects import RawObjectID
from dulwich.pack import PackIndex, load_pack_index

from mypaas_git.git.contents import Contents, apply, result_size
from mypaas_git.git.packfile import Head, PackFile

_Place = tuple[PackFile, int]
"""A pack and an offset in it."""


class Stored:
    """Looks objects up in the packs that the store has now; use as a context manager."""

    def __init__(self, store: DiskObjectStore) -> None:
        self._store = store
        self._scratch = Path(os.fspath(store.path))
        others = [each for each in store.alternates if isinstance(each, DiskObjectStore)]
        self._directories = [Path(os.fspath(each.path)) for each in (store, *others)]
        self._indexes: list[tuple[Path, PackIndex]] = []
        self._files: dict[Path, BinaryIO] = {}
        # Directories of loose objects, of which a store like ours has very few.
        self._loose: dict[str, list[Path]] = {}

    def __enter__(self) -> Stored:
        # A client was told of nothing newer: the directories need not be read each time.
        for directory in self._directories:
            for path in (directory / "pack").glob("*.idx"):
                with suppress(FileNotFoundError):
                    self._indexes.append((path, load_pack_index(path, SHA1)))
            for path in directory.glob("[0-9a-f][0-9a-f]"):
                self._loose.setdefault(path.name, []).append(path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for _, index in self._indexes:
            index.close()
        for file in self._files.values():
            file.close()

    def __contains__(self, id_: bytes) -> bool:
        for _, index in self._indexes:
            with suppress(KeyError):
                index.object_offset(RawObjectID(id_))
                return True
        name = id_.hex()
        return any((path / name[2:]).exists() for path in self._loose.get(name[:2], ()))

    def kind(self, id_: bytes) -> int:
        """The type number of the object with the raw id ``id_``. Raises KeyError."""
        place = self._find(id_)
        while place:
            head = place[0].head(place[1])
            if head.base is None:
                return head.kind
            place = self._base(place[0], head)
        return self._elsewhere(id_)[0]

    def size(self, id_: bytes) -> int:
        """How many bytes the object holds. Raises KeyError."""
        place = self._find(id_)
        if place is None:
            return self._elsewhere(id_)[1].size
        head = place[0].head(place[1])
        if head.base is None:
            return head.size
        return result_size(next(place[0].chunks(head)))[1]

    def contents(self, id_: bytes) -> Contents:
        """What the object holds. Raises KeyError."""
        deltas: list[tuple[PackFile, Head]] = []
        place, found = self._find(id_), None
        while place and found is None:
            head = place[0].head(place[1])
            if head.base is None:
                found = self._unfolded(place[0], head)
                break
            deltas.append((place[0], head))
            if isinstance(head.base, bytes):
                id_ = head.base
            place = self._base(place[0], head)
        result = found or self._elsewhere(id_)[1]
        for file, head in reversed(deltas):
            base, delta = result, self._unfolded(file, head)
            result = apply(base, delta, self._scratch)
            base.close()
            delta.close()
        return result

    def open(self, id_: bytes) -> tuple[PackFile, Head] | None:
        """Where the object lies whole and can be read piece by piece, None if nowhere."""
        place = self._find(id_)
        head = place and place[0].head(place[1])
        return (place[0], head) if place and head and head.base is None else None

    def _unfolded(self, file: PackFile, head: Head) -> Contents:
        return Contents.gather(file.chunks(head), head.size, self._scratch)

    def _find(self, id_: bytes) -> _Place | None:
        raw = RawObjectID(id_)
        for path, index in self._indexes:
            with suppress(KeyError):
                offset = index.object_offset(raw)
                return PackFile(self._file(path).fileno()), offset
        return None

    def _base(self, file: PackFile, head: Head) -> _Place | None:
        return self._find(head.base) if isinstance(head.base, bytes) else (file, head.base or 0)

    def _elsewhere(self, id_: bytes) -> tuple[int, Contents]:
        """An object that is in a file of its own, or in a pack that came since."""
        kind, data = self._store.get_raw(RawObjectID(id_))
        return kind, Contents.of(data)

    def _file(self, index: Path) -> BinaryIO:
        if index not in self._files:
            path = index.with_suffix(".pack")
            self._files[index] = path.open("rb")
        return self._files[index]
