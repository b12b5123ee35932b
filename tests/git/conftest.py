"""What the git room's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gitserver import GitServer, run_git_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    """A git server with no repository yet."""
    with run_git_server(tmp_path) as running:
        yield running


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Where a test's working copy goes."""
    return tmp_path / "work"
