"""The objects that a repository has: what kind, how big, what they hold.

A pack's headers tell the first two without unfolding anything, and whatever is large
is unfolded to the disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from dulwich.object_store import DiskObjectStore
from dulwich.objects import RawObjectID

from mypaas_git.errors import PackRefused
from mypaas_git.git.contents import Contents, apply, result_size
from mypaas_git.git.packfile import Head, PackFile
from mypaas_git.git.packindex import PackIndex

DELTA = 4096
"""Bytes that could be written in the time that a delta takes, be its result ever so small."""
MAX_KINDS = 100_000
"""Deltas of a pack whose kind is remembered, besides those of one chain."""


class _Pack:
    """A pack and its index; the bases of its deltas are all in the pack itself."""

    def __init__(self, index: Path) -> None:
        self.index = PackIndex(index)
        self._path = index.with_suffix(".pack")
        self._file: BinaryIO | None = None
        self._kinds: dict[int, int] = {}

    @property
    def file(self) -> PackFile:
        if self._file is None:
            self._file = self._path.open("rb")
        return PackFile(self._file.fileno())

    def chain(self, offset: int) -> list[Head]:
        """What is at ``offset``, and if it is a delta what is below, to the whole object."""
        heads: list[Head] = []
        for _, head in self._descent(offset):
            heads.append(head)
            if head.base is None:
                break
        return heads

    def kind(self, offset: int) -> int:
        """The type number of what is at ``offset``.

        That of all below is known from then on, since a chain can be long and lead to
        thousands of objects that are asked about.
        """
        kind = 0
        passed: list[int] = []
        for at, head in self._descent(offset):
            kind = head.kind if head.base is None else self._kinds.get(at, 0)
            if kind:
                break
            passed.append(at)
        if len(self._kinds) > MAX_KINDS:
            self._kinds.clear()
        self._kinds.update(dict.fromkeys(passed, kind))
        return kind

    def _descent(self, offset: int) -> Iterator[tuple[int, Head]]:
        """Yield what is at ``offset`` and then what is below, each with its offset."""
        seen: set[int] = set()
        at: int | None = offset
        while at is not None and at not in seen:
            seen.add(at)
            head = self.file.head(at)
            yield at, head
            at = self.index.offset(head.base) if isinstance(head.base, bytes) else head.base
        raise PackRefused(f"{self._path.name} on the server is damaged: a delta has no base")

    def close(self) -> None:
        self.index.close()
        if self._file is not None:
            self._file.close()


class Stored:
    """Looks objects up in the packs that the store has now; use as a context manager."""

    def __init__(self, store: DiskObjectStore) -> None:
        self._store = store
        self._scratch = Path(os.fspath(store.path))
        others = [each for each in store.alternates if isinstance(each, DiskObjectStore)]
        self._directories = [Path(os.fspath(each.path)) for each in (store, *others)]
        self._packs: dict[Path, _Pack] = {}
        # Directories of loose objects, of which a store like ours has very few.
        self._loose: dict[str, list[Path]] = {}

    def __enter__(self) -> Stored:
        self.refresh()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        for pack in self._packs.values():
            pack.close()

    def reopen(self) -> None:
        """Share no place in a file with the process that this one was forked from.

        Of a pack that is open already, each reads where it wants.
        """
        others = self._directories[1:]
        self._store = DiskObjectStore(self._store.path, alternates=others)

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing at the last look."""
        return not self._packs and not self._loose

    def refresh(self) -> None:
        """Look for what came since; the directories are not read each time."""
        for directory in self._directories:
            for path in (directory / "pack").glob("*.idx"):
                if path not in self._packs:
                    with suppress(FileNotFoundError):
                        self._packs[path] = _Pack(path)
            for path in directory.glob("[0-9a-f][0-9a-f]"):
                known = self._loose.setdefault(path.name, [])
                if path not in known:
                    known.append(path)

    def __contains__(self, id_: bytes) -> bool:
        if self._find(id_) is not None:
            return True
        if not self._loose:
            return False
        name = id_.hex()
        return any((path / name[2:]).exists() for path in self._loose.get(name[:2], ()))

    def kind(self, id_: bytes) -> int:
        """The type number of the object with the raw id ``id_``. Raises KeyError."""
        found = self._find(id_)
        if found is None:
            return self._elsewhere(id_)[0]
        pack, offset = found
        return pack.kind(offset)

    def size(self, id_: bytes) -> int:
        """How many bytes the object holds. Raises KeyError."""
        found = self._find(id_)
        if found is None:
            return self._elsewhere(id_)[1].size
        pack, offset = found
        head = pack.file.head(offset)
        if head.base is None:
            return head.size
        return result_size(next(pack.file.chunks(head)))[1]

    def cost(self, id_: bytes) -> int:
        """About how many bytes are written to unfold the object. Raises KeyError."""
        found = self._find(id_)
        if found is None:
            return self.size(id_)
        pack, offset = found
        return len(pack.chain(offset)) * (self.size(id_) + DELTA)

    def contents(self, id_: bytes) -> Contents:
        """What the object holds. Raises KeyError."""
        found = self._find(id_)
        if found is None:
            return self._elsewhere(id_)[1]
        pack, offset = found
        *deltas, whole = pack.chain(offset)
        result = self._unfolded(pack.file, whole)
        for head in reversed(deltas):
            with closing(result), closing(self._unfolded(pack.file, head)) as delta:
                result = apply(result, delta, self._scratch)
        return result

    def _unfolded(self, file: PackFile, head: Head) -> Contents:
        return Contents.gather(file.chunks(head), head.size, self._scratch)

    def _find(self, id_: bytes) -> tuple[_Pack, int] | None:
        for pack in self._packs.values():
            offset = pack.index.offset(id_)
            if offset is not None:
                return pack, offset
        return None

    def _elsewhere(self, id_: bytes) -> tuple[int, Contents]:
        """An object that is in a file of its own, or in a pack that came since."""
        kind, data = self._store.get_raw(RawObjectID(id_))
        return kind, Contents.of(data)
