"""What is known of a pack's objects while it comes in, until all of them are found good.

Every object in a repository's store is complete: all that it links to is there too. So
a new object is complete when each of its links leads into the same pack or into the
store.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from mypaas_git.errors import GitRefused, PackRefused
from mypaas_git.git.check import BLOB, NAMES, TREE, Checked, Seen, check_object
from mypaas_git.git.contents import Contents
from mypaas_git.git.deltas import Deltas
from mypaas_git.git.dotfiles import MAX_FILE, check_dotfile, too_long
from mypaas_git.git.limits import MAX_PARSED, MIB, Limits, need_room
from mypaas_git.git.packfile import PackFile
from mypaas_git.git.packindex import write_index
from mypaas_git.git.packstream import Entry
from mypaas_git.git.second import Second, Shares, can_help
from mypaas_git.git.signals import hear
from mypaas_git.git.stored import Stored
from mypaas_git.git.thin import append
from mypaas_git.git.trees import Trees

MANY = 5000
"""Deltas that are worth a second process."""

_Dotfile = tuple[bytes, bytes]
_Report = tuple[dict[bytes, int], set[_Dotfile]]
"""What a second process has found: objects and dotfiles, as in :class:`Incoming`."""
EVERY: Final = 2048
"""Objects after which the memory that is left is looked at."""
_KINDS: Final = 8
"""Every number of a kind is below it, and that of every place is not."""


class Incoming:
    """The objects of one pack that comes in beside what is ``stored``.

    ``scratch`` is where large ones lie while they are worked on.
    """

    def __init__(self, stored: Stored, limits: Limits, scratch: Path) -> None:
        self._stored = stored
        # Of a first push, nothing can be here already.
        self._is_alone = stored.is_empty
        self._limits = limits
        self._scratch = scratch
        # By raw id: an object's place, which is its offset, crc and kind in one number; of
        # what is linked to and was not seen yet, the kind that it has to be.
        self._objects: dict[bytes, int] = {}
        self._taken = 0
        self._dotfiles: set[_Dotfile] = set()
        self._trees = _new_trees()
        self._deltas = Deltas(self._add, limits.held, scratch)
        # What was lent from outside; and of what came in nevertheless, whose loan that took.
        self._borrowed: set[bytes] = set()
        self._lenders: dict[bytes, bytes] = {}
        self._lender = b""
        self._reread = 0
        # Large blobs that are here already, to be compared once the pack lies on the disk.
        self._known: list[bytes] = []

    def take(self, entry: Entry) -> None:
        """Note an object as it comes by."""
        self._count()
        self._deltas.add(entry)
        if entry.id is None:
            return
        self._note(entry.id, _place(entry.offset, entry.crc, entry.kind))
        if entry.kind == BLOB and not self._is_here(entry.id):
            return  # as most are
        contents = None if entry.data is None else Contents.of(entry.data)
        self._judge(entry.kind, entry.id, contents)

    def resolve(self, pack: PackFile) -> None:
        """Find out what the deltas are, and whether any object poses as another."""
        for id_ in self._known:
            head = pack.head(_offset(self._objects[id_]))
            chunks = pack.chunks(head)
            with closing(Contents.gather(chunks, head.size, self._scratch)) as contents:
                self._compare(BLOB, id_, contents)
        bases = self._bases()
        if len(bases) > 1 and len(self._deltas) >= MANY and self._is_helped():
            self._resolve_by_two(pack, bases)
        self._resolve(pack, bases)
        self._deltas.resolve_thin(pack, self._borrow)
        self._refuse_circles()

    def check_links(self) -> None:
        """Raise :class:`PackRefused` unless all that is linked to is there and of its kind."""
        for id_, kind in self._objects.items():
            if kind >= _KINDS:
                continue  # it is in the pack, and was looked at
            if not self._is_here(id_):
                raise PackRefused(
                    f"the {NAMES[kind]} {id_.hex()} is missing from the pack; if yours is a "
                    f"shallow clone, 'git fetch --unshallow' first"
                )
            _expect(id_, kind, self._stored.kind(id_))

    @property
    def has_dotfiles(self) -> bool:
        return bool(self._dotfiles)

    def check_dotfiles(self, everything: Stored) -> None:
        """Check the files that git reads itself; ``everything`` holds the pack, too."""
        for id_, which in sorted(self._dotfiles):
            if everything.size(id_) > MAX_FILE:
                raise too_long(which)
            with closing(everything.contents(id_)) as contents:
                check_dotfile(which, contents.whole())

    def complete(self, file: BinaryIO) -> bytes | None:
        """Append the bases that a thin pack lacks; return its new checksum if it does."""
        bases = sorted(id_ for id_ in self._borrowed if not self._holds(id_))
        if not bases:
            return None
        count = sum(place >= _KINDS for place in self._objects.values())
        with append(file, count + len(bases)) as appender:
            for id_ in bases:
                kind = self._stored.kind(id_)
                with closing(self._unfolded(id_)) as contents:
                    offset, crc = appender.add(kind, contents)
                self._objects[id_] = _place(offset, crc, kind)
        return appender.checksum

    def write_index(self, file: BinaryIO, checksum: bytes) -> None:
        ids = sorted([id_ for id_, place in self._objects.items() if place >= _KINDS])
        offsets, crcs = array("Q"), array("I")
        for id_ in ids:
            place = self._objects[id_]
            offsets.append(_offset(place))
            crcs.append(_crc(place))
        write_index(file, ids, offsets, crcs, checksum)

    def _holds(self, id_: bytes) -> bool:
        """Whether the pack holds an object, to which there may be links only."""
        return self._objects.get(id_, 0) >= _KINDS

    def _is_helped(self) -> bool:
        return self._limits.helped is not None and can_help() and self._limits.helped()

    def _bases(self) -> list[bytes]:
        """The whole objects that deltas wait for."""
        if not len(self._deltas):
            return []
        wanted = self._deltas.wanted
        found = [
            id_
            for id_, place in self._objects.items()
            if place >= _KINDS and wanted(_offset(place), id_)
        ]
        # In the pack's order, so that what is told is its first fault.
        found.sort(key=self._objects.__getitem__)
        return found

    def _resolve(self, pack: PackFile, bases: Iterable[bytes]) -> None:
        for id_ in bases:
            place = self._objects[id_]
            self._deltas.resolve(pack, _kind(place), id_, _offset(place))

    def _resolve_by_two(self, pack: PackFile, bases: list[bytes]) -> None:
        """Resolve what waits for ``bases``, half of it in a second process.

        When that ends early, its part is left. When there is a fault or too little memory,
        everything is as it was before: one process alone is to find out, as it always would.
        """
        objects, dotfiles = self._objects.copy(), self._dotfiles.copy()
        waiting = self._deltas.waiting
        self._deltas.hold(self._limits.held // 2)
        try:
            with closing(Shares(bases)) as shares:
                work = partial(self._as_second, pack, shares, objects)
                with Second(work, self._scratch) as second:
                    self._resolve(pack, shares)
                    report = second.report()
            if report is not None:
                self._merge(*report)
                for id_ in bases:
                    self._deltas.forget(_offset(self._objects[id_]), id_)
        except (GitRefused, MemoryError):
            self._objects, self._dotfiles = objects, dotfiles
            self._deltas.waiting = waiting
            # They are told of once, and that was undone.
            self._trees = _new_trees()
        self._deltas.hold(self._limits.held)

    def _as_second(
        self, pack: PackFile, shares: Shares[bytes], before: dict[bytes, int]
    ) -> _Report:
        """Resolve a part of the deltas, and tell what came of it."""
        self._stored.reopen()
        self._dotfiles = set()
        self._resolve(pack, shares)
        new = {id_: it for id_, it in self._objects.items() if before.get(id_) != it}
        return new, self._dotfiles

    def _merge(self, objects: dict[bytes, int], dotfiles: set[_Dotfile]) -> None:
        """Take over what the second process has found and checked."""
        for id_, it in objects.items():
            self._count()
            if it < _KINDS:
                self._link(id_, it)
            else:
                self._note(id_, it)
                self._deltas.forget(_offset(it), id_)
        self._dotfiles |= dotfiles

    def _add(self, kind: int, id_: bytes, offset: int, crc: int, contents: Contents) -> None:
        """Note what a delta makes."""
        self._count()
        self._note(id_, _place(offset, crc, kind))
        if id_ in self._borrowed:
            self._lenders[id_] = self._lender
        self._judge(kind, id_, contents)

    def _judge(self, kind: int, id_: bytes, contents: Contents | None) -> None:
        if self._is_here(id_):
            if contents is None:
                self._known.append(id_)
            else:
                self._compare(kind, id_, contents)
        if kind != BLOB and contents is not None:
            self._check(kind, id_, contents)

    def _is_here(self, id_: bytes) -> bool:
        """Whether the store held an object before this pack."""
        return not self._is_alone and id_ in self._stored

    def _count(self) -> None:
        """Have signals heard, and raise MemoryError in time."""
        hear()
        self._taken += 1
        if self._taken % EVERY == 0:
            need_room()

    def _note(self, id_: bytes, place: int) -> None:
        before = self._objects.setdefault(id_, place)
        if before == place:
            return
        if before >= _KINDS:
            raise PackRefused(f"the object {id_.hex()} is in the pack twice")
        _expect(id_, before, _kind(place))
        self._objects[id_] = place

    def _check(self, kind: int, id_: bytes, contents: Contents) -> None:
        if contents.size > MAX_PARSED:
            raise PackRefused(
                f"the {NAMES[kind]} {id_.hex()} is over {MAX_PARSED // MIB} MiB long"
            )
        data = contents.whole()
        if kind == TREE:
            checked = self._trees.check(id_, data)
        else:
            checked = check_object(kind, id_, data)
        if checked.dotfiles:
            self._dotfiles.update(checked.dotfiles)
        for target, wanted in checked.links:
            self._link(target, wanted)

    def _link(self, target: bytes, wanted: int) -> None:
        known = self._objects.setdefault(target, wanted)
        if known >= _KINDS:
            _expect(target, wanted, _kind(known))
        elif known != wanted:
            raise PackRefused(
                f"{target.hex()} is linked to as a {NAMES[wanted]} and as something else"
            )

    def _compare(self, kind: int, id_: bytes, contents: Contents) -> None:
        """SHA-1 can be made to collide: an object is not taken for one that it poses as."""
        with closing(self._unfolded(id_)) as here:
            if self._stored.kind(id_) != kind or not here.equals(contents):
                raise PackRefused(
                    f"{id_.hex()} is not the object of that id that is here already"
                )

    def _borrow(self, id_: bytes) -> tuple[int, Callable[[], Contents]] | None:
        if not self._is_here(id_):
            return None
        self._borrowed.add(id_)
        self._lender = id_
        return self._stored.kind(id_), partial(self._unfolded, id_)

    def _unfolded(self, id_: bytes) -> Contents:
        """What is here already, which a chain of thousands of deltas may lead to."""
        self._reread += self._stored.cost(id_)
        if self._reread > self._limits.reread:
            raise self._limits.fault("the pack is about too much of what is here already")
        return self._stored.contents(id_)

    def _refuse_circles(self) -> None:
        """Refuse deltas that could be resolved only since the store has their result.

        git looks for a base in the pack itself, and would go round and round.
        """
        fine: set[bytes] = set()
        for begin in self._lenders:
            id_, seen = begin, set[bytes]()
            while id_ and id_ not in fine:
                if id_ in seen:
                    raise PackRefused(f"the delta {id_.hex()} of the pack is based on itself")
                seen.add(id_)
                id_ = self._lenders.get(id_, b"")
            fine |= seen


def _new_trees() -> Trees[bytes, Checked]:
    seen = Seen()
    return Trees(seen.check_tree, seen.check_entries)


def _expect(id_: bytes, wanted: int, actual: int) -> None:
    if actual != wanted:
        raise PackRefused(f"{id_.hex()} is a {NAMES[actual]} where a {NAMES[wanted]} must be")


def _place(offset: int, crc: int, kind: int) -> int:
    return (offset << 32 | crc) << 3 | kind


def _offset(place: int) -> int:
    return place >> 35


def _crc(place: int) -> int:
    return place >> 3 & 0xFFFFFFFF


def _kind(place: int) -> int:
    return place & 7
