"""A pack comes in: quarantined, checked, and only then part of the repository.

Every object in a repository's store is complete: all that it links to is
there too. So a new object is complete when each of its links leads into the
same pack or into the store.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from dulwich.object_format import SHA1
from dulwich.object_store import DiskObjectStore
from dulwich.objects import ObjectID, RawObjectID, hex_to_sha, sha_to_hex
from dulwich.pack import PackFileDisappeared, extend_pack, write_pack_index_v2

from mypaas_git.errors import GitRefused, PackRefused
from mypaas_git.failpoints import reach
from mypaas_git.files import sync_directory
from mypaas_git.git.check import BLOB, NAMES, TREE, Link, check_object
from mypaas_git.git.deltas import Deltas, inflate
from mypaas_git.git.kinds import Kinds
from mypaas_git.git.packstream import MAX_PARSED, MIB, Entry, PackStream
from mypaas_git.git.repository import Repository
from mypaas_git.git.trees import Trees

PREFIX = "incoming-"
DEAD_AFTER = 3600.0
"""Seconds without a write after which a quarantine belongs to nobody any more."""


def ingest(read: Callable[[int], bytes], repository: Repository, limit: int) -> None:
    """Receive a pack of at most ``limit`` bytes, and add it to the repository.

    ``read(n)`` gives up to ``n`` bytes and ``b""`` at the end; nothing behind
    the pack is waited for. Raises :class:`PackRefused` or :class:`TreeRefused`,
    and then nothing is left behind.
    """
    objects = Path(os.fspath(repository.store.path))
    sweep(objects, DEAD_AFTER)
    try:
        with (
            tempfile.TemporaryDirectory(prefix=PREFIX, dir=objects) as quarantine,
            Kinds(repository.store) as kinds,
        ):
            pack = Path(quarantine) / "new.pack"
            checksum = _receive(read, pack, _Store(repository.store, kinds), limit)
            reach("receive.quarantined")
            if checksum:
                _migrate(pack, objects / "pack", checksum)
            reach("receive.stored")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise PackRefused("the server's disk is full") from error


def _receive(
    read: Callable[[int], bytes], path: Path, store: _Store, limit: int
) -> bytes | None:
    """Write a complete pack and its index; return its checksum, None if it is empty."""
    incoming = _Incoming(store)
    with path.open("w+b") as file:
        stream = PackStream(read, file.write, limit)
        _take_all(stream, incoming)
        if not stream.count:
            return None
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pack:
            incoming.resolve(pack)
        incoming.check_links()
        checksum = incoming.complete(file) or stream.checksum
        _settle(file)
    with path.with_suffix(".idx").open("wb") as file:
        write_pack_index_v2(file, incoming.index(), checksum)
        _settle(file)
    return checksum


def _take_all(stream: PackStream, incoming: _Incoming) -> None:
    entries = stream.entries()
    try:
        for entry in entries:
            incoming.take(entry)
    except GitRefused:
        for _ in entries:
            pass  # what follows the pack is not mistaken for it, nor git left unheard
        raise


def _settle(file: BinaryIO) -> None:
    file.flush()
    os.fchmod(file.fileno(), 0o444)
    os.fsync(file.fileno())


def _migrate(pack: Path, packs: Path, checksum: bytes) -> None:
    """Move the pack in; others see it from the moment that its index is there."""
    packs.mkdir(exist_ok=True)
    target = packs / f"pack-{checksum.hex()}.pack"
    if target.with_suffix(".idx").exists():
        return  # the very same pack came in before
    pack.replace(target)
    pack.with_suffix(".idx").replace(target.with_suffix(".idx"))
    sync_directory(packs)


def sweep(objects: Path, dead_after: float) -> None:
    """Remove what pushes left behind that have not moved for ``dead_after`` seconds."""
    for path in objects.glob(PREFIX + "*"):
        with suppress(FileNotFoundError):
            last = max(each.stat().st_mtime for each in (path, *path.iterdir()))
            if last < time.time() - dead_after:
                shutil.rmtree(path, ignore_errors=True)


class _Store:
    """The objects that the repository has already."""

    def __init__(self, store: DiskObjectStore, kinds: Kinds) -> None:
        self._store = store
        self._kinds = kinds
        # Whatever the client was told of lies in these: the directory is not read each time.
        self._packs = store.packs

    def __contains__(self, id_: bytes) -> bool:
        raw = RawObjectID(id_)
        try:
            if any(raw in pack for pack in self._packs):
                return True
        except PackFileDisappeared:
            return sha_to_hex(raw) in self._store
        return self._store.contains_loose(sha_to_hex(raw))

    def kind(self, id_: bytes) -> int:
        return self._kinds.of(id_)

    def get(self, id_: bytes) -> tuple[int, bytes]:
        return self._store.get_raw(RawObjectID(id_))


class _Incoming:
    """What is known of the objects of a pack that is coming in."""

    def __init__(self, store: _Store) -> None:
        self._store = store
        # Raw ids to kind, offset and crc of the objects; hex ids to kind of what they link to.
        self._objects: dict[bytes, tuple[int, int, int]] = {}
        self._links: dict[ObjectID, int] = {}
        self._trees = Trees(partial(check_object, TREE))
        self._deltas = Deltas(self._found)
        self._borrowed: set[RawObjectID] = set()

    def take(self, entry: Entry) -> None:
        """Note an object as it comes by."""
        if entry.id is None:
            self._deltas.add(entry)
        else:
            self._add(entry.kind, entry.id, entry.offset, entry.crc, entry.data)

    def resolve(self, pack: mmap.mmap) -> None:
        """Find out what the deltas are, and whether any object poses as another."""
        for id_, (kind, offset, _) in list(self._objects.items()):
            self._deltas.resolve(pack, kind, id_, offset)
            # Deltas and what has data were compared when they were found.
            if kind == BLOB and id_ in self._store:
                self._compare(kind, id_, inflate(pack, offset))
        self._deltas.resolve_thin(pack, self._borrow)

    def check_links(self) -> None:
        """Raise :class:`PackRefused` unless all that is linked to is there and of its kind."""
        for id_, kind in self._links.items():
            raw = hex_to_sha(id_)
            if raw in self._objects:
                actual = self._objects[raw][0]
            elif raw not in self._store:
                raise PackRefused(
                    f"the {NAMES[kind]} {_text(id_)} is missing from the pack; if yours is a "
                    f"shallow clone, 'git fetch --unshallow' first"
                )
            else:
                actual = self._store.kind(raw)
            if actual != kind:
                raise PackRefused(
                    f"{_text(id_)} is a {NAMES[actual]} where a {NAMES[kind]} must be"
                )

    def complete(self, file: BinaryIO) -> bytes | None:
        """Append the bases that a thin pack lacks; return its new checksum if it does."""
        bases = self._borrowed - self._objects.keys()
        if not bases:
            return None
        checksum, entries = extend_pack(file, bases, self._get_raw, SHA1)
        for id_, offset, crc in entries:
            self._objects[id_] = (BLOB, offset, crc)
        return checksum

    def index(self) -> Iterable[tuple[bytes, int, int]]:
        return sorted((id_, at, crc) for id_, (_, at, crc) in self._objects.items())

    def _found(self, kind: int, id_: bytes, offset: int, crc: int, data: bytes) -> None:
        self._add(kind, id_, offset, crc, data)

    def _add(self, kind: int, id_: bytes, offset: int, crc: int, data: bytes | None) -> None:
        if id_ in self._objects:
            raise PackRefused(f"the object {id_.hex()} is in the pack twice")
        self._objects[id_] = (kind, offset, crc)
        if data is not None and id_ in self._store:
            self._compare(kind, id_, data)
        if kind != BLOB and data is not None:
            if len(data) > MAX_PARSED:
                raise PackRefused(
                    f"the {NAMES[kind]} {id_.hex()} is over {MAX_PARSED // MIB} MiB long"
                )
            name = sha_to_hex(RawObjectID(id_))
            check = self._trees.check if kind == TREE else partial(check_object, kind)
            self._link(check(name, data))

    def _link(self, links: list[Link]) -> None:
        for id_, kind in links:
            if self._links.setdefault(id_, kind) != kind:
                raise PackRefused(
                    f"{_text(id_)} is linked to as a {NAMES[kind]} and as something else"
                )

    def _compare(self, kind: int, id_: bytes, data: bytes) -> None:
        """SHA-1 can be made to collide: an object is not taken for one that it poses as."""
        if self._store.get(id_) != (kind, data):
            raise PackRefused(f"{id_.hex()} is not the object of that id that is here already")

    def _borrow(self, id_: bytes) -> tuple[int, bytes] | None:
        if id_ not in self._store:
            return None
        self._borrowed.add(RawObjectID(id_))
        return self._store.get(id_)

    def _get_raw(self, id_: RawObjectID | ObjectID) -> tuple[int, bytes]:
        return self._store.get(id_)


def _text(id_: bytes) -> str:
    return id_.decode("ascii", "replace")
