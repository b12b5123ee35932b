"""Reads and writes the index of a pack.

Format: ``gitformat-pack(5)``, "Version 2 pack-*.idx files". dulwich's reader looks at all
of the table in front when it opens one, and its writer takes four calls per object; with
many packs, and with large ones, that adds up.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from hashlib import sha1
from pathlib import Path
from typing import BinaryIO, Final

from mypaas_git.errors import PackRefused

MAGIC: Final = b"\377tOc\0\0\0\2"
FAN_OUT: Final = struct.Struct(">256L")
IDS: Final = 8 + 4 * 256
"""Where the ids begin: behind the magic and the fan-out table."""
ID: Final = 20
FAR: Final = 1 << 31
"""Offsets from here on are kept in a table of their own."""
NEAR: Final = 256
"""Ids that are looked through in memory; to reach into the file takes longer."""


class PackIndex:
    """Where the objects of one pack are. Raises :class:`PackRefused` for what is no index."""

    def __init__(self, path: Path, *, mapped: bool = True) -> None:
        """A ``mapped`` index takes a descriptor, another one as much memory as it is long."""
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < IDS:
                raise _odd(path)
            self._data: mmap.mmap | bytes = (
                mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
                if mapped
                else file.read(size)
            )
        ends = FAN_OUT.unpack_from(self._data, len(MAGIC))
        # How many ids there are up to each first byte; none before the first.
        self._ends: tuple[int, ...] = (*ends, 0)
        # Behind the ids come four bytes of CRC for each, then the offsets.
        self._offsets = IDS + (ID + 4) * ends[255]
        self._far = self._offsets + 4 * ends[255]
        if self._data[: len(MAGIC)] != MAGIC or size < self._far:
            self.close()
            raise _odd(path)

    def close(self) -> None:
        if isinstance(self._data, mmap.mmap):
            self._data.close()

    def offset(self, id_: bytes) -> int | None:
        """The offset of the object with this raw id, None when it is in another pack."""
        first = id_[0]
        low, high = self._ends[first - 1], self._ends[first]
        while high - low > NEAR:
            middle = (low + high) // 2
            at = IDS + ID * middle
            if self._data[at : at + ID] <= id_:
                low = middle
            else:
                high = middle
        place = _search(self._data[IDS + ID * low : IDS + ID * high], id_)
        return None if place is None else self._offset(low + place)

    def _offset(self, number: int) -> int:
        at = self._offsets + 4 * number
        offset = int.from_bytes(self._data[at : at + 4], "big")
        if offset < FAR:
            return offset
        at = self._far + 8 * (offset - FAR)
        return int.from_bytes(self._data[at : at + 8], "big")


def _search(ids: bytes, id_: bytes) -> int | None:
    """Which of sorted raw ids, one behind the other, is ``id_``."""
    low, high = 0, len(ids) // ID
    while low < high:
        middle = (low + high) // 2
        at = ID * middle
        found = ids[at : at + ID]
        if found == id_:
            return middle
        if found < id_:
            low = middle + 1
        else:
            high = middle
    return None


def _odd(path: Path) -> PackRefused:
    return PackRefused(f"{path.name} is no index of version 2: have git repack do its work")


def write_index(
    file: BinaryIO,
    ids: Sequence[bytes],
    offsets: array[int],
    crcs: array[int],
    pack: bytes,
) -> None:
    """Write an index of objects in the order of their raw ids; ``pack`` is its checksum.

    Of a million objects, lists of numbers would take more memory than the pack itself.
    """
    fan_out = [bisect_left(ids, bytes([first + 1])) for first in range(255)] + [len(ids)]
    near, far = array("I"), array("Q")
    for offset in offsets:
        if offset < FAR:
            near.append(offset)
        else:
            near.append(FAR + len(far))
            far.append(offset)
    digest = sha1(usedforsecurity=False)
    for part in (
        MAGIC,
        FAN_OUT.pack(*fan_out),
        b"".join(ids),
        _in_network_order(crcs),
        _in_network_order(near),
        _in_network_order(far),
        pack,
    ):
        digest.update(part)
        file.write(part)
    file.write(digest.digest())


def _in_network_order(numbers: array[int]) -> array[int]:
    swapped = numbers[:]
    if sys.byteorder == "little":
        swapped.byteswap()
    return swapped
