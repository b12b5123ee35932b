"""Files that are found whole or not at all."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mypaas_git.files import sweep_unwritten, temporary, write_atomically, write_once


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


def test_what_the_dead_left_is_swept(tmp_path: Path) -> None:
    """A process that was killed before the rename leaves its file; the living keep theirs."""
    program = (
        "import os, sys, pathlib, mypaas_git.files as files\n"
        "pathlib.Path.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "files.write_atomically(pathlib.Path(sys.argv[1]), b'new')\n"
    )
    path = tmp_path / "a.yml"
    path.write_bytes(b"old")
    died = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    with temporary(tmp_path, ".b.yml.", ".new") as (living, _):
        sweep_unwritten(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([path, living])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
