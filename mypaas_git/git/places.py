"""Where in a pack an object lies: git's ``gitformat-pack(5)``, "Version 2 pack-*.idx"."""

from __future__ import annotations

import struct
from pathlib import Path

_MAGIC = b"\xfftOc\0\0\0\2"
_FAN = struct.Struct(">256I")
_ID, _CRC, _OFFSET, _LARGE = 20, 4, 4, 8
_NAMES = len(_MAGIC) + _FAN.size
"""Where the ids begin."""


class Places:
    """A pack's index, to be asked for many objects: it is in memory, as it is on the disk.

    dulwich's own calls back into Python a dozen times for each object.
    """

    def __init__(self, path: Path) -> None:
        """Raises ValueError when the file is no index of version 2."""
        data = path.read_bytes()
        if data[: len(_MAGIC)] != _MAGIC or len(data) < _NAMES:
            raise ValueError(f"{path} is no index of a pack, version 2")
        self._data = data
        self._ends = (*_FAN.unpack_from(data, len(_MAGIC)), 0)
        count = self._ends[255]
        # All ids with the same first byte, which are some hundred of a hundred thousand.
        self._alike: dict[int, bytes] = {}
        self._offsets = _NAMES + count * (_ID + _CRC)
        self._large = self._offsets + count * _OFFSET
        if len(data) < self._large:
            raise ValueError(f"{path} is cut short")

    def find(self, id_: bytes) -> int | None:
        """The offset of the object with this raw id, None if it is not in the pack."""
        first = id_[0]
        before = self._ends[first - 1]
        alike = self._alike.get(first)
        if alike is None:
            begin, end = _NAMES + before * _ID, _NAMES + self._ends[first] * _ID
            alike = self._alike[first] = self._data[begin:end]
        at = alike.find(id_)
        while at > 0 and at % _ID:
            at = alike.find(id_, at + 1)  # the end of one id and the beginning of another
        return None if at < 0 else self._offset(before + at // _ID)

    def _offset(self, number: int) -> int:
        at = self._offsets + number * _OFFSET
        offset = int.from_bytes(self._data[at : at + _OFFSET], "big")
        if offset >> 31 == 0:
            return offset
        at = self._large + (offset & 0x7FFFFFFF) * _LARGE
        return int.from_bytes(self._data[at : at + _LARGE], "big")
