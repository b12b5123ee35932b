"""A pack comes in: quarantined, checked, and only then part of the repository.

The quarantine is a directory of objects like git's own: whoever looks into it sees the
repository's objects as well.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dulwich.object_store import DiskObjectStore

from mypaas_git import files
from mypaas_git.errors import GitRefused, PackRefused
from mypaas_git.failpoints import reach
from mypaas_git.files import sync_directory
from mypaas_git.git.incoming import Incoming
from mypaas_git.git.limits import Limits
from mypaas_git.git.packfile import PackFile
from mypaas_git.git.packstream import PackStream
from mypaas_git.git.stored import Stored

PREFIX = "incoming-"
DEAD_AFTER = 3600.0
"""Seconds without a write after which a quarantine belongs to nobody any more."""

Read = Callable[[int], bytes]
"""``read(n)`` gives up to ``n`` bytes and ``b""`` at the end."""


@dataclass(frozen=True)
class Quarantine:
    """A directory for a pack that may become one of the store in ``objects``."""

    path: Path
    objects: Path

    @property
    def pack(self) -> Path:
        return self.path / "pack" / "new.pack"

    @property
    def index(self) -> Path:
        return self.pack.with_suffix(".idx")

    def store(self) -> DiskObjectStore:
        """What is here and what is in the repository, as one."""
        return DiskObjectStore(self.path, alternates=[self.objects])

    def migrate(self, checksum: bytes) -> None:
        """Move the pack in; others see it from the moment that its index is there."""
        packs = self.objects / "pack"
        packs.mkdir(exist_ok=True)
        target = packs / f"pack-{checksum.hex()}.pack"
        if target.with_suffix(".idx").exists():
            return  # the very same pack came in before
        self.pack.replace(target)
        self.index.replace(target.with_suffix(".idx"))
        sync_directory(packs)


Take = Callable[[Read, Quarantine, int], "bytes | None"]
"""Takes a pack of at most so many bytes into the quarantine, and returns its checksum.

Nothing behind the pack is waited for. The checksum is None when the pack is empty.
Raises :class:`PackRefused` or :class:`TreeRefused`.
"""


def take_in(read: Read, quarantine: Quarantine, limit: int) -> bytes | None:
    """Take a pack in, in this process."""
    return take_within(read, quarantine, Limits(received=limit))


def take_within(
    read: Read,
    quarantine: Quarantine,
    limits: Limits,
    ahead: Callable[[], object] | None = None,
) -> bytes | None:
    """Write a complete pack and its index; return its checksum, None if it is empty.

    ``ahead`` is called when it is certain that ``read`` will be called once more.
    """
    with closing_store(DiskObjectStore(quarantine.objects)) as store, Stored(store) as stored:
        incoming = Incoming(stored, limits, quarantine.path)
        with quarantine.pack.open("w+b") as file:
            stream = PackStream(read, file.write, limits, ahead=ahead)
            _take_all(stream, incoming)
            if not stream.count:
                return None
            file.flush()
            incoming.resolve(PackFile(file.fileno()))
            incoming.check_links()
            checksum = incoming.complete(file) or stream.checksum
            _settle(file)
        with quarantine.index.open("wb") as file:
            incoming.write_index(file, checksum)
            _settle(file)
    if incoming.has_dotfiles:
        with closing_store(quarantine.store()) as store, Stored(store) as everything:
            incoming.check_dotfiles(everything)
    return checksum


def indexes_size(objects: Path) -> int:
    """Bytes of the address space that the indexes of a store take."""
    return sum(path.stat().st_size for path in (objects / "pack").glob("*.idx"))


@contextmanager
def quarantined(objects: Path) -> Iterator[Quarantine]:
    """A quarantine, which is gone afterwards with whatever was left in it."""
    sweep(objects, DEAD_AFTER)
    with told_of_full_disk(), tempfile.TemporaryDirectory(prefix=PREFIX, dir=objects) as path:
        quarantine = Quarantine(Path(path), objects)
        quarantine.pack.parent.mkdir()
        yield quarantine


def ingest(read: Read, objects: Path, limit: int, take: Take = take_in) -> None:
    """Receive a pack of at most ``limit`` bytes, and add it to the store in ``objects``.

    Raises :class:`PackRefused` or :class:`TreeRefused`, and then nothing is left behind.
    """
    with quarantined(objects) as quarantine:
        checksum = take(read, quarantine, limit)
        reach("receive.quarantined")
        if checksum:
            quarantine.migrate(checksum)
        reach("receive.stored")


@contextmanager
def told_of_full_disk() -> Iterator[None]:
    """Turn what the kernel says of a full disk into what the pusher is told."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise PackRefused("the server's disk is full") from error


@contextmanager
def closing_store(store: DiskObjectStore) -> Iterator[DiskObjectStore]:
    try:
        yield store
    finally:
        store.close()


def _take_all(stream: PackStream, incoming: Incoming) -> None:
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


def sweep(objects: Path, dead_after: float) -> None:
    """Remove what pushes left behind that have not moved for ``dead_after`` seconds."""
    for path in objects.glob(PREFIX + "*"):
        with suppress(FileNotFoundError):
            last = max(each.stat().st_mtime for each in (path, *path.rglob("*")))
            if last < time.time() - dead_after:
                shutil.rmtree(path, ignore_errors=True)


def sweep_packs(packs: Path) -> None:
    """Remove what was being written into ``packs`` by processes that have died."""
    files.sweep(packs, "tmp_*")
    for path in packs.glob("pack-*.pack"):
        if not path.with_suffix(".idx").exists():
            # Nobody sees it, unless its writer lives and the index is about to come.
            files.sweep(packs, path.name)
