"""The deltas of a pack, resolved with a bound on what is in memory at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Final, Protocol

from mypaas_git.errors import PackRefused
from mypaas_git.git.check import COMMIT
from mypaas_git.git.contents import MAX_MEMORY, Contents, apply
from mypaas_git.git.packfile import PackFile
from mypaas_git.git.packstream import Entry

OVERHEAD: Final = 200
"""Bytes that it takes to remember an object, besides its own."""
MAX_FILES: Final = 8
"""Bases that wait on the disk for their further deltas."""

_NONE: Final[list[Entry]] = []
Waiting = tuple[dict[int, list[Entry]], dict[bytes, list[Entry]]]
"""Deltas by the offset of their base, and by its raw id."""


class Found(Protocol):
    """Told of every object: its kind, raw id, offset and crc in the pack, and its contents."""

    def __call__(
        self, kind: int, id_: bytes, offset: int, crc: int, contents: Contents, /
    ) -> None: ...


class Deltas:
    """Collects a pack's deltas while it comes in, and resolves them afterwards.

    ``held`` is how many bytes of bases may wait in memory; those beyond are worked out
    again when they are needed. A third as much may be taken by the deltas themselves, and
    again by what they may be based on; those beyond are read again. ``scratch`` is where
    large ones lie meanwhile.
    """

    def __init__(self, found: Found, held: int, scratch: Path) -> None:
        self._found = found
        self._scratch = scratch
        self._shelf = _Shelf(held)
        # What waits for a base, by its offset or its raw id.
        self._by_offset: dict[int, list[Entry]] = {}
        self._by_id: dict[bytes, list[Entry]] = {}
        self._room = self._room_of_bases = held // 3
        # By its offset, what is no delta and was small.
        self._bases: dict[int, bytes] = {}

    def add(self, entry: Entry) -> None:
        """Note an object of the pack, which may be no delta."""
        base, data = entry.base, entry.data
        size = OVERHEAD if data is None else len(data) + OVERHEAD
        if base is None:
            # Commits are rarely based on one another.
            if data is not None and entry.kind != COMMIT and size <= self._room_of_bases:
                self._room_of_bases -= size
                self._bases[entry.offset] = data
            return
        self._room -= size
        if self._room < 0:
            entry.data = None
        if isinstance(base, int):
            self._by_offset.setdefault(base, []).append(entry)
        else:
            self._by_id.setdefault(base, []).append(entry)

    def __len__(self) -> int:
        """How many deltas wait."""
        return sum(map(len, self._by_offset.values())) + sum(map(len, self._by_id.values()))

    @property
    def waiting(self) -> Waiting:
        """What waits, to be put back should it all have to be resolved again."""
        return self._by_offset.copy(), self._by_id.copy()

    @waiting.setter
    def waiting(self, waiting: Waiting) -> None:
        self._by_offset, self._by_id = waiting

    def hold(self, held: int) -> None:
        """From now on, have at most so many bytes of bases wait in memory."""
        self._shelf.hold(held)

    def forget(self, offset: int, id_: bytes) -> None:
        """Another has resolved what waits for the object at ``offset``."""
        self._take(id_, offset)

    def wanted(self, offset: int, id_: bytes) -> bool:
        """Whether deltas wait for the object at ``offset``."""
        return offset in self._by_offset or id_ in self._by_id

    def resolve(self, pack: PackFile, kind: int, id_: bytes, offset: int) -> None:
        """Resolve what waits, directly or not, for the whole object at ``offset``."""
        waiting = self._take(id_, offset)
        if waiting:
            self._chain(pack, kind, lambda: self._open(pack, offset), waiting)

    def resolve_thin(
        self,
        pack: PackFile,
        borrow: Callable[[bytes], tuple[int, Callable[[], Contents]] | None],
    ) -> None:
        """Resolve what waits for objects outside of the pack, which ``borrow`` finds.

        Raises :class:`PackRefused` when deltas are left over.
        """
        for base in sorted(self._by_id):
            if base in self._by_id and (lent := borrow(base)):
                kind, load = lent
                self._chain(pack, kind, load, self._take(base))
        for shown in chain(
            (id_.hex() for id_ in self._by_id), (f"at offset {at}" for at in self._by_offset)
        ):
            raise PackRefused(f"the base {shown} of a delta is neither in the pack nor here")

    def _take(self, id_: bytes, offset: int | None = None) -> list[Entry]:
        waiting = _NONE if offset is None else self._by_offset.pop(offset, _NONE)
        if self._by_id:  # as of thin packs only
            waiting = self._by_id.pop(id_, _NONE) + waiting
        return waiting

    def _open(self, pack: PackFile, offset: int) -> Contents:
        data = self._bases.pop(offset, None)
        if data is not None:
            return Contents.of(data)
        head = pack.head(offset)
        if head.size <= MAX_MEMORY:
            return Contents.of(pack.read(head))
        return Contents.gather(pack.chunks(head), head.size, self._scratch)

    def _chain(
        self, pack: PackFile, kind: int, load: Callable[[], Contents], waiting: list[Entry]
    ) -> None:
        """Resolve what waits for what ``load`` gives, then what waits for the results."""
        stack = [_Base(None, None, waiting)]
        try:
            while stack:
                base = stack[-1]
                if not base.left:
                    self._shelf.remove(stack.pop())
                    continue
                # Whoever has the list may want to begin anew, so that it stays as it is.
                base.left -= 1
                entry = base.waiting[base.left]
                result = self._make(pack, self._contents(pack, base, load), entry)
                wanting = self._take(self._tell(kind, entry, result), entry.offset)
                if wanting:
                    stack.append(_Base(base, entry, wanting))
                    self._shelf.put(stack[-1], result)
                else:
                    result.close()
        finally:
            self._shelf.clear()

    def _tell(self, kind: int, entry: Entry, result: Contents) -> bytes:
        """Report an object that was found, and return its raw id."""
        try:
            id_ = result.id(kind)
            self._found(kind, id_, entry.offset, entry.crc, result)
        except BaseException:
            result.close()
            raise
        return id_

    def _make(self, pack: PackFile, base: Contents, entry: Entry) -> Contents:
        if entry.data is not None:
            return apply(base, Contents.of(entry.data), self._scratch)
        with closing(self._open(pack, entry.offset)) as delta:
            return apply(base, delta, self._scratch)

    def _contents(self, pack: PackFile, base: _Base, load: Callable[[], Contents]) -> Contents:
        """What ``base`` holds, worked out anew from as far below as necessary."""
        if base.kept is not None:
            return base.kept
        above: list[Entry] = []
        at = base
        while at.kept is None and at.below is not None and at.entry is not None:
            above.append(at.entry)
            at = at.below
        found = at.kept
        if found is None:
            found = load()
            self._shelf.put(at, found)
        for entry in reversed(above):
            below, found = found, self._make(pack, found, entry)
            if below is not at.kept:
                below.close()
        if above:
            self._shelf.put(base, found)
        return found


class _Base:
    """Something that deltas wait for: what ``entry`` makes of the base below.

    ``left`` of those that wait are to be resolved.
    """

    __slots__ = ("below", "entry", "kept", "left", "waiting")

    def __init__(self, below: _Base | None, entry: Entry | None, waiting: list[Entry]) -> None:
        self.below = below
        self.entry = entry
        self.waiting = waiting
        self.left = len(waiting)
        self.kept: Contents | None = None


class _Shelf:
    """Bases that are kept; when there are too many, the oldest goes, being needed last."""

    def __init__(self, held: int) -> None:
        self._held = held
        self._bases: OrderedDict[_Base, None] = OrderedDict()
        self._memory = self._files = 0

    def hold(self, held: int) -> None:
        self._held = held

    def put(self, base: _Base, contents: Contents) -> None:
        base.kept = contents
        self._bases[base] = None
        self._count(contents, 1)
        while len(self._bases) > 1 and (self._memory > self._held or self._files > MAX_FILES):
            self._drop(self._bases.popitem(last=False)[0])

    def remove(self, base: _Base) -> None:
        if base.kept is not None:
            del self._bases[base]
            self._drop(base)

    def clear(self) -> None:
        while self._bases:
            self._drop(self._bases.popitem()[0])

    def _drop(self, base: _Base) -> None:
        if base.kept is not None:
            self._count(base.kept, -1)
            base.kept.close()
            base.kept = None

    def _count(self, contents: Contents, sign: int) -> None:
        if contents.data is None:
            self._files += sign
        else:
            self._memory += sign * contents.size
