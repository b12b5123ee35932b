"""Files that are found whole or not at all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mypaas_git.files import write_atomically, write_once


def test_nothing_half_written_is_ever_seen(tmp_path: Path) -> None:
    """The file is replaced whole, is for our eyes only, and nothing else stays."""
    path = tmp_path / "a.yml"
    write_atomically(path, b"one")
    inode = path.stat().st_ino
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_ino != inode
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["a.yml"]
    with pytest.raises(OSError, match=re.escape("missing")):
        write_atomically(tmp_path / "missing" / "a.yml", b"x")


def test_the_first_writer_wins(tmp_path: Path) -> None:
    """What is there stays, and no temporary file does."""
    path = tmp_path / "key"
    write_once(path, b"first")
    write_once(path, b"second")
    assert path.read_bytes() == b"first"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["key"]
