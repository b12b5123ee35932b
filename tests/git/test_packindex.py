"""Looking objects up in a pack's index: what stock git writes is understood."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from contextlib import closing
from hashlib import sha1
from pathlib import Path

import pytest
from dulwich.object_format import DEFAULT_OBJECT_FORMAT
from dulwich.pack import load_pack_index
from gitserver import commit
from support.stockgit import git

from mypaas_git.errors import PackRefused
from mypaas_git.git.packindex import FAR, PackIndex, write_index


def index(ids: Sequence[bytes], offsets: Sequence[int], large: Sequence[int] = ()) -> bytes:
    """The part of an index that is read: no pack in a test is beyond 2 GiB."""
    fan = [sum(id_[0] <= first for id_ in ids) for first in range(256)]
    return b"".join(
        (
            b"\xfftOc\0\0\0\2",
            struct.pack(">256I", *fan),
            *ids,
            bytes(4 * len(ids)),
            struct.pack(f">{len(offsets)}I", *offsets),
            struct.pack(f">{len(large)}Q", *large),
        )
    )


def test_like_git(tmp_path: Path) -> None:
    """Every object is found where ``git verify-pack`` has it."""
    work = tmp_path / "work"
    commit(work, {f"f{number}": f"{number}" for number in range(600)})
    git(work, "repack", "-adq")
    path = next((work / ".git/objects/pack").glob("*.idx"))
    found = PackIndex(path)
    shown = git(work, "verify-pack", "-v", str(path)).stdout.splitlines()
    objects = [words for words in map(str.split, shown) if len(words[0]) == 40]
    assert len(objects) == 602
    for id_, _, _, _, offset, *_ in objects:
        assert found.offset(bytes.fromhex(id_)) == int(offset)
    for number in range(300):
        assert found.offset(sha1(b"%d" % number, usedforsecurity=False).digest()) is None


def test_ids_that_run_into_each_other(tmp_path: Path) -> None:
    """The end of one id and the beginning of the next are not taken for an id."""
    ids = [b"\5\5\6" * 6 + b"\5\5", b"\5\6" * 10]
    path = tmp_path / "x.idx"
    path.write_bytes(index(ids, [12, 40]))
    found = PackIndex(path)
    for at in range(1, 20):
        assert found.offset(b"".join(ids)[at : at + 20]) is None
    assert [found.offset(id_) for id_ in ids] == [12, 40]


def test_many_that_begin_alike(tmp_path: Path) -> None:
    """Each is found, and none between them, in front of them or behind."""
    ids = [b"\5%b" % number.to_bytes(19, "big") for number in range(1, 2000, 2)]
    path = tmp_path / "x.idx"
    path.write_bytes(index(ids, range(len(ids))))
    found = PackIndex(path)
    assert [found.offset(id_) for id_ in ids] == list(range(len(ids)))
    for number in range(0, 2002, 2):
        assert found.offset(b"\5%b" % number.to_bytes(19, "big")) is None


def test_offsets_beyond_two_gigabytes(tmp_path: Path) -> None:
    """They are in a table of their own."""
    path = tmp_path / "x.idx"
    path.write_bytes(index([b"a" * 20, b"b" * 20], [12, 1 << 31], [5 << 31]))
    assert PackIndex(path).offset(b"b" * 20) == 5 << 31
    assert PackIndex(path).offset(b"a" * 20) == 12


def test_what_is_written(tmp_path: Path) -> None:
    """We find it again, and so does dulwich, which knows of crcs and checksums."""
    path = tmp_path / "x.idx"
    ids = [byte * 20 for byte in (b"\0", b"\5", b"a", b"\xff")]
    offsets, crcs = [12, 5 << 31, FAR - 1, FAR], [0, 1, 0xFFFFFFFF, 0x01020304]
    with path.open("wb") as file:
        write_index(file, ids, array("Q", offsets), array("I", crcs), b"p" * 20)
    found = PackIndex(path)
    assert [found.offset(id_) for id_ in ids] == offsets
    with closing(load_pack_index(path, DEFAULT_OBJECT_FORMAT)) as other:
        other.check()
        assert other.get_pack_checksum() == b"p" * 20
        assert list(other.iterentries()) == list(zip(ids, offsets, crcs, strict=True))


@pytest.mark.parametrize("damage", [b"", b"\0" * 2000, index([b"a" * 20], [12])[:-1]])
def test_no_index(tmp_path: Path, damage: bytes) -> None:
    """What is no index, or not all of one, is told from one."""
    path = tmp_path / "x.idx"
    path.write_bytes(damage)
    with pytest.raises(PackRefused, match=r"x\.idx"):
        PackIndex(path)
