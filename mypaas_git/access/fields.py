"""The fields of ssh's messages and keys: RFC 4251, section 5."""

from __future__ import annotations


def strings(data: bytes) -> list[bytes]:
    """The strings of which ``data`` is made, to its very end. Raises ValueError."""
    found, at = [], 0
    while at < len(data):
        start = at + 4
        at = start + int.from_bytes(data[at:start], "big")
        found.append(data[start:at])
    if at != len(data):
        raise ValueError(f"a string that ends {at - len(data)} bytes too late")
    return found


def positive(data: bytes) -> int:
    """A string as the positive number that it holds. Raises ValueError."""
    if not data or data[0] >= 0x80:
        raise ValueError("not a positive number")
    return int.from_bytes(data, "big")
