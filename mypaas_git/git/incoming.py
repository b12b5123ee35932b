"""What is known of a pack's objects while it comes in, until all of them are found good.

Every object in a repository's store is complete: all that it links to is there too. So
a new object is complete when each of its links leads into the same pack or into the
store.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import BinaryIO

from mypaas_git.errors import PackRefused
from mypaas_git.git.check import BLOB, NAMES, TREE, Seen, check_entries, check_object
from mypaas_git.git.contents import Contents
from mypaas_git.git.deltas import Deltas
from mypaas_git.git.dotfiles import MAX_FILE, check_dotfile, too_long
from mypaas_git.git.limits import MAX_PARSED, MIB, Limits
from mypaas_git.git.packfile import PackFile
from mypaas_git.git.packindex import write_index
from mypaas_git.git.packstream import Entry
from mypaas_git.git.stored import Stored
from mypaas_git.git.thin import append
from mypaas_git.git.trees import Trees


class Incoming:
    """The objects of one pack that comes in beside what is ``stored``.

    ``scratch`` is where large ones lie while they are worked on.
    """

    def __init__(self, stored: Stored, limits: Limits, scratch: Path) -> None:
        self._stored = stored
        self._scratch = scratch
        # By raw id: offset, crc and kind of an object in one number; of what is linked to
        # and was not seen yet, the kind that it has to be.
        self._objects: dict[bytes, int] = {}
        self._links: dict[bytes, int] = {}
        self._dotfiles: set[tuple[bytes, bytes]] = set()
        seen = Seen()
        self._trees = Trees(
            partial(check_object, TREE, seen=seen), partial(check_entries, seen=seen)
        )
        self._deltas = Deltas(self._add, limits.held, scratch)
        # What was lent from outside; and of what came in nevertheless, whose loan that took.
        self._borrowed: set[bytes] = set()
        self._lenders: dict[bytes, bytes] = {}
        self._lender = b""
        # Large blobs that are here already, to be compared once the pack lies on the disk.
        self._known: list[bytes] = []

    def take(self, entry: Entry) -> None:
        """Note an object as it comes by."""
        if entry.id is None:
            self._deltas.add(entry)
            return
        contents = None if entry.data is None else Contents.of(entry.data)
        self._add(entry.kind, entry.id, entry.offset, entry.crc, contents)

    def resolve(self, pack: PackFile) -> None:
        """Find out what the deltas are, and whether any object poses as another."""
        for id_ in self._known:
            head = pack.head(_offset(self._objects[id_]))
            chunks = pack.chunks(head)
            with closing(Contents.gather(chunks, head.size, self._scratch)) as contents:
                self._compare(BLOB, id_, contents)
        for id_ in list(self._objects):
            if not self._deltas.are_left:
                break
            place = self._objects[id_]
            self._deltas.resolve(pack, _kind(place), id_, _offset(place))
        self._deltas.resolve_thin(pack, self._borrow)
        self._refuse_circles()

    def check_links(self) -> None:
        """Raise :class:`PackRefused` unless all that is linked to is there and of its kind."""
        for id_, kind in self._links.items():
            if id_ not in self._stored:
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
        bases = sorted(self._borrowed - self._objects.keys())
        if not bases:
            return None
        with append(file, len(self._objects) + len(bases)) as appender:
            for id_ in bases:
                kind = self._stored.kind(id_)
                with closing(self._stored.contents(id_)) as contents:
                    offset, crc = appender.add(kind, contents)
                self._objects[id_] = _place(offset, crc, kind)
        return appender.checksum

    def write_index(self, file: BinaryIO, checksum: bytes) -> None:
        ids = sorted(self._objects)
        places = [self._objects[id_] for id_ in ids]
        write_index(file, ids, list(map(_offset, places)), list(map(_crc, places)), checksum)

    def _add(
        self, kind: int, id_: bytes, offset: int, crc: int, contents: Contents | None
    ) -> None:
        if id_ in self._objects:
            raise PackRefused(f"the object {id_.hex()} is in the pack twice")
        self._objects[id_] = _place(offset, crc, kind)
        if id_ in self._borrowed:
            self._lenders[id_] = self._lender
        _expect(id_, self._links.pop(id_, kind), kind)
        if id_ in self._stored:
            if contents is None:
                self._known.append(id_)
            else:
                self._compare(kind, id_, contents)
        if kind != BLOB and contents is not None:
            self._check(kind, id_, contents)

    def _check(self, kind: int, id_: bytes, contents: Contents) -> None:
        if contents.size > MAX_PARSED:
            raise PackRefused(
                f"the {NAMES[kind]} {id_.hex()} is over {MAX_PARSED // MIB} MiB long"
            )
        check = self._trees.check if kind == TREE else partial(check_object, kind)
        checked = check(id_, contents.whole())
        self._dotfiles.update(checked.dotfiles)
        for target, wanted in checked.links:
            place = self._objects.get(target)
            if place is not None:
                _expect(target, wanted, _kind(place))
            elif self._links.setdefault(target, wanted) != wanted:
                raise PackRefused(
                    f"{target.hex()} is linked to as a {NAMES[wanted]} and as something else"
                )

    def _compare(self, kind: int, id_: bytes, contents: Contents) -> None:
        """SHA-1 can be made to collide: an object is not taken for one that it poses as."""
        with closing(self._stored.contents(id_)) as here:
            if self._stored.kind(id_) != kind or not here.equals(contents):
                raise PackRefused(
                    f"{id_.hex()} is not the object of that id that is here already"
                )

    def _borrow(self, id_: bytes) -> tuple[int, Callable[[], Contents]] | None:
        if id_ not in self._stored:
            return None
        self._borrowed.add(id_)
        self._lender = id_
        return self._stored.kind(id_), partial(self._stored.contents, id_)

    def _refuse_circles(self) -> None:
        """Refuse deltas that could be resolved only since the store has their result.

        git looks for a base in the pack itself, and would go round and round.
        """
        for id_ in self._lenders:
            seen = {id_}
            while (id_ := self._lenders.get(id_, b"")) not in seen and id_:
                seen.add(id_)
            if id_:
                raise PackRefused(f"the delta {id_.hex()} of the pack is based on itself")


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
