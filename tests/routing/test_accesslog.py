"""The log of requests: when a new file is begun, and what happens to full ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from mypaas_git.routing import accesslog
from mypaas_git.routing.accesslog import KEPT, AccessLog


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AccessLog:
    """One that is full beyond 3 bytes; ``reopened`` appears when the proxy is told."""
    monkeypatch.setattr(accesslog, "MAX_BYTES", 3)
    made = AccessLog(tmp_path / "traefik", (tmp_path / "reopened").touch)
    made.make()
    return made


def is_reopened(log: AccessLog) -> bool:
    return (log.directory.parent / "reopened").exists()


def texts(log: AccessLog) -> dict[str, str]:
    return {path.name: path.read_text() for path in log.directory.iterdir()}


def test_a_full_file_makes_way(log: AccessLog) -> None:
    """Each moves by one, and the oldest goes; one that is not full stays."""
    names = ["access.log", *(f"access.log.{number}" for number in range(1, KEPT + 1))]
    for name in names:
        (log.directory / name).write_text(name[-3:])
    before = texts(log)
    log.rotate()
    assert (texts(log), is_reopened(log)) == (before, False)
    (log.directory / "access.log").write_text("full")
    log.rotate()
    moved = ["full", *(before[name] for name in names[1:-1])]
    assert texts(log) == dict(zip(names[1:], moved, strict=True))
    assert is_reopened(log)


def test_a_missing_file_is_asked_for(log: AccessLog) -> None:
    """Whoever renamed the last one may have died before the proxy heard of it."""
    (log.directory / "access.log.1").write_text("still written to")
    log.rotate()
    assert is_reopened(log)
    assert texts(log) == {"access.log.1": "still written to"}
