"""Packs made by hand, the way that no git would."""

from __future__ import annotations

import zlib
from hashlib import sha1

COMMIT, TREE, BLOB, TAG, OFS_DELTA, REF_DELTA = 1, 2, 3, 4, 6, 7
NAMES = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}
WHO = b"A <a@example.com> 1700000000 +0000"


def object_id(kind: int, data: bytes) -> bytes:
    """The raw id of an object."""
    header = b"%s %d\0" % (NAMES[kind], len(data))
    return sha1(header + data, usedforsecurity=False).digest()


def entry(kind: int, data: bytes, *, base: bytes = b"", size: int | None = None) -> bytes:
    """One object of a pack; ``size`` is a lie, ``base`` what stands before a delta."""
    size = len(data) if size is None else size
    head = bytearray([kind << 4 | size & 15])
    size >>= 4
    while size:
        head[-1] |= 0x80
        head.append(size & 0x7F)
        size >>= 7
    return bytes(head) + base + zlib.compress(data)


def pack(*entries: bytes, count: int | None = None) -> bytes:
    """A pack of ``entries`` with the right checksum."""
    number = len(entries) if count is None else count
    body = b"PACK\0\0\0\2" + number.to_bytes(4, "big") + b"".join(entries)
    return body + sha1(body, usedforsecurity=False).digest()


def varint(number: int) -> bytes:
    """A size as deltas begin with them."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def distance(number: int) -> bytes:
    """How far before itself the base of a delta begins."""
    out = bytearray([number & 0x7F])
    while number >= 0x80:
        number = (number >> 7) - 1
        out.insert(0, number & 0x7F | 0x80)
    return bytes(out)


def insert(base: bytes, text: bytes) -> bytes:
    """A delta that replaces ``base`` by a short ``text``."""
    return varint(len(base)) + varint(len(text)) + bytes([len(text)]) + text


def text(data: bytes) -> bytes:
    """A delta's instruction to insert a short text."""
    return bytes([len(data)]) + data if data else b""


def copy(at: int, size: int) -> bytes:
    """A delta's instruction to copy from its base."""
    return b"\xbf" + at.to_bytes(4, "little") + size.to_bytes(2, "little")


def repeat(base: bytes, times: int) -> bytes:
    """A delta that repeats ``base``, which is at most 64 KiB long, over and over."""
    copy = b"\xb0" + len(base).to_bytes(2, "little")
    return varint(len(base)) + varint(len(base) * times) + copy * times


def tree(*items: tuple[bytes, bytes, bytes]) -> bytes:
    """A tree of (mode, name, raw id)."""
    return b"".join(b"%s %s\0%s" % item for item in items)


def commit(tree_id: bytes, *parents: bytes) -> bytes:
    lines = [b"tree " + tree_id.hex().encode()]
    lines += [b"parent " + parent.hex().encode() for parent in parents]
    return b"\n".join([*lines, b"author " + WHO, b"committer " + WHO, b"", b"message\n"])


def tag(target: bytes, kind: bytes) -> bytes:
    return b"object %s\ntype %s\ntag t\ntagger %s\n\nmessage\n" % (
        target.hex().encode(),
        kind,
        WHO,
    )


def whole(*items: tuple[bytes, bytes, bytes], blobs: tuple[bytes, ...] = ()) -> bytes:
    """A complete pack: one commit of one tree with these items, and the blobs."""
    top = tree(*items)
    return pack(
        entry(COMMIT, commit(object_id(TREE, top))),
        entry(TREE, top),
        *(entry(BLOB, blob) for blob in blobs),
    )
