"""Reads and writes the index of a pack.

Format: ``gitformat-pack(5)``, "Version 2 pack-*.idx files". dulwich's reader looks at all
of the table in front when it opens one, and its writer takes four calls per object; with
many packs, and with large ones, that adds up.
"""

from __future__ import annotations

import mmap
import struct
from bisect import bisect_left
from collections.abc import Sequence
from hashlib import sha1
from pathlib import Path
from typing import BinaryIO, Final

from mypaas_git.errors import PackRefused

MAGIC = b"\377tOc\0\0\0\2"
FAN_OUT: Final = 8
IDS: Final = FAN_OUT + 4 * 256
ID: Final = 20
FAR: Final = 1 << 31
"""Offsets from here on are kept in a table of their own."""


class PackIndex:
    """Where the objects of one pack are. Raises :class:`PackRefused` for what is no index."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            # An mmap has a descriptor of its own.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._count = 0
        if self._map[:FAN_OUT] != MAGIC or len(self._map) < IDS:
            self._map.close()
            raise PackRefused(
                f"{path.name} is no index of version 2: have git repack do its work"
            )
        self._count = self._number(FAN_OUT + 4 * 255)

    def close(self) -> None:
        self._map.close()

    def offset(self, id_: bytes) -> int | None:
        """The offset of the object with this raw id, None when it is in another pack."""
        first = id_[0]
        low = self._number(FAN_OUT + 4 * (first - 1)) if first else 0
        high = self._number(FAN_OUT + 4 * first)
        while low < high:
            middle = (low + high) // 2
            at = IDS + ID * middle
            found = self._map[at : at + ID]
            if found == id_:
                return self._offset(middle)
            if found < id_:
                low = middle + 1
            else:
                high = middle
        return None

    def _offset(self, number: int) -> int:
        # Behind the ids come four bytes of CRC for each, then the offsets.
        offsets = IDS + (ID + 4) * self._count
        offset = self._number(offsets + 4 * number)
        if offset < FAR:
            return offset
        at = offsets + 4 * self._count + 8 * (offset - FAR)
        return int.from_bytes(self._map[at : at + 8], "big")

    def _number(self, at: int) -> int:
        return int.from_bytes(self._map[at : at + 4], "big")


def write_index(
    file: BinaryIO,
    ids: Sequence[bytes],
    offsets: Sequence[int],
    crcs: Sequence[int],
    pack: bytes,
) -> None:
    """Write an index of objects in the order of their raw ids; ``pack`` is its checksum."""
    far = [offset for offset in offsets if offset >= FAR]
    places = iter(range(FAR, FAR + len(far)))
    near = [offset if offset < FAR else next(places) for offset in offsets]
    fan_out = [bisect_left(ids, bytes([first + 1])) for first in range(255)] + [len(ids)]
    digest = sha1(usedforsecurity=False)
    for part in (
        MAGIC,
        struct.pack(">256L", *fan_out),
        b"".join(ids),
        struct.pack(f">{len(crcs)}L", *crcs),
        struct.pack(f">{len(near)}L", *near),
        struct.pack(f">{len(far)}Q", *far),
        pack,
    ):
        digest.update(part)
        file.write(part)
    file.write(digest.digest())
