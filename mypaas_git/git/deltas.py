"""The deltas of a pack, resolved with a bound on what is in memory at once."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Protocol

from mypaas_git.errors import PackRefused
from mypaas_git.git.contents import MAX_MEMORY, Contents, apply
from mypaas_git.git.packfile import PackFile
from mypaas_git.git.packstream import Entry

OVERHEAD = 150
"""Bytes that it takes to remember a delta, besides its own."""
MAX_FILES = 8
"""Bases that wait on the disk for their further deltas."""


_NONE: list[int] = []


class Found(Protocol):
    """Told of every object: its kind, raw id, offset and crc in the pack, and its contents."""

    def __call__(
        self, kind: int, id_: bytes, offset: int, crc: int, contents: Contents, /
    ) -> None: ...


class Deltas:
    """Collects a pack's deltas while it comes in, and resolves them afterwards.

    ``held`` is how many bytes of bases may wait in memory; those beyond are worked out
    again when they are needed. A third as much may be taken by the deltas themselves; those
    beyond are read again. ``scratch`` is where large ones lie meanwhile.
    """

    def __init__(self, found: Found, held: int, scratch: Path) -> None:
        self._found = found
        self._scratch = scratch
        self._shelf = _Shelf(held)
        # By offset or raw id of the base: offset and crc, in one number, of what needs it.
        self._waiting: dict[int | bytes, list[int]] = defaultdict(list)
        self._room = held // 3
        self._deltas: dict[int, bytes] = {}

    def add(self, entry: Entry) -> None:
        if entry.base is None:
            return
        self._waiting[entry.base].append(entry.offset << 32 | entry.crc)
        if entry.data is not None and self._room > 0:
            self._room -= len(entry.data) + OVERHEAD
            self._deltas[entry.offset] = entry.data

    def __len__(self) -> int:
        """How many deltas wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def waiting(self) -> dict[int | bytes, list[int]]:
        """What waits, to be put back should it all have to be resolved again."""
        return self._waiting.copy()

    @waiting.setter
    def waiting(self, waiting: dict[int | bytes, list[int]]) -> None:
        self._waiting = waiting

    def hold(self, held: int) -> None:
        """From now on, have at most so many bytes of bases wait in memory."""
        self._shelf.hold(held)

    def forget(self, bases: Iterable[int | bytes]) -> None:
        """Another has resolved what waits for these, by offset or raw id."""
        for base in self._waiting.keys() & bases:
            del self._waiting[base]

    def wanted(self, offset: int, id_: bytes) -> bool:
        """Whether deltas wait for the object at ``offset``."""
        return offset in self._waiting or id_ in self._waiting

    def resolve(self, pack: PackFile, kind: int, id_: bytes, offset: int) -> None:
        """Resolve what waits, directly or not, for the whole object at ``offset``."""
        waiting = self._take(offset, id_)
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
        for base in sorted(key for key in self._waiting if isinstance(key, bytes)):
            if base in self._waiting and (lent := borrow(base)):
                kind, load = lent
                self._chain(pack, kind, load, self._take(None, base))
        for left in self._waiting:
            shown = left.hex() if isinstance(left, bytes) else f"at offset {left}"
            raise PackRefused(f"the base {shown} of a delta is neither in the pack nor here")

    def _take(self, offset: int | None, id_: bytes) -> list[int]:
        by_id = self._waiting.pop(id_, _NONE)
        by_offset = _NONE if offset is None else self._waiting.pop(offset, _NONE)
        # Whoever has the list may want to begin anew, so that it is not the one that is used.
        return by_id + by_offset if by_id or by_offset else _NONE

    def _open(self, pack: PackFile, offset: int) -> Contents:
        head = pack.head(offset)
        if head.size <= MAX_MEMORY:
            return Contents.of(pack.read(head))
        return Contents.gather(pack.chunks(head), head.size, self._scratch)

    def _chain(
        self, pack: PackFile, kind: int, load: Callable[[], Contents], waiting: list[int]
    ) -> None:
        """Resolve what waits for what ``load`` gives, then what waits for the results."""

        def make(base: Contents, offset: int) -> Contents:
            known = self._deltas.get(offset)
            if known is not None:
                return apply(base, Contents.of(known), self._scratch)
            with closing(self._open(pack, offset)) as delta:
                return apply(base, delta, self._scratch)

        stack = [_Base(None, 0, waiting)]
        try:
            while stack:
                base = stack[-1]
                if not base.waiting:
                    self._shelf.remove(stack.pop())
                    continue
                place = base.waiting.pop()
                offset = place >> 32
                result = make(self._contents(base, load, make), offset)
                id_ = self._tell(kind, offset, place & 0xFFFFFFFF, result)
                wanting = self._take(offset, id_)
                if wanting:
                    stack.append(_Base(base, offset, wanting))
                    self._shelf.put(stack[-1], result)
                else:
                    result.close()
        finally:
            self._shelf.clear()

    def _tell(self, kind: int, offset: int, crc: int, result: Contents) -> bytes:
        """Report an object that was found, and return its raw id."""
        try:
            id_ = result.id(kind)
            self._found(kind, id_, offset, crc, result)
        except BaseException:
            result.close()
            raise
        return id_

    def _contents(
        self,
        base: _Base,
        load: Callable[[], Contents],
        make: Callable[[Contents, int], Contents],
    ) -> Contents:
        """What ``base`` holds, worked out anew from as far below as necessary."""
        if base.kept is not None:
            return base.kept
        above, at = [], base
        while at.kept is None and at.below is not None:
            above.append(at)
            at = at.below
        found = at.kept
        if found is None:
            found = load()
            self._shelf.put(at, found)
        for each in reversed(above):
            below, found = found, make(found, each.offset)
            if below is not at.kept:
                below.close()
        if above:
            self._shelf.put(base, found)
        return found


class _Base:
    """Something that deltas wait for: what is at ``offset``, a delta of the base below."""

    __slots__ = ("below", "kept", "offset", "waiting")

    def __init__(self, below: _Base | None, offset: int, waiting: list[int]) -> None:
        self.below = below
        self.offset = offset
        self.waiting = waiting
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
