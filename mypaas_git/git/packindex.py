"""Writes the index of a pack.

Format: ``gitformat-pack(5)``, "Version 2 pack-*.idx files". dulwich's own writer takes
four calls per object, which adds up.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Sequence
from hashlib import sha1
from typing import BinaryIO

FAR = 1 << 31
"""Offsets from here on are kept in a table of their own."""


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
        b"\377tOc\0\0\0\2",
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
