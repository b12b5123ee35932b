"""What reads packs runs as it is, or compiled where that is to be tested."""

from __future__ import annotations

from pathlib import Path

from gitserver import COMPILED
from test_workers import children, helper, noise_pack, take

import mypaas_git
from mypaas_git.git import (
    check,
    contents,
    deltas,
    incoming,
    ingest,
    packstream,
    second,
    signals,
    stored,
    trees,
    worker,
)
from mypaas_git.git.repository import Repositories
from mypaas_git.git.workers import Workers
from mypaas_git.names import ServiceName


def test_what_runs_here() -> None:
    """The modules that setup.py names, and none by which handlers of signals are heard."""
    for module in (check, contents, deltas, incoming, packstream, trees):
        assert Path(module.__file__ or "").suffix == (".so" if COMPILED else ".py")
    for module in (ingest, second, signals, stored, worker):
        assert Path(module.__file__ or "").suffix == ".py"


def test_what_runs_in_a_child(tmp_path: Path) -> None:
    """The helper, which runs in another directory, finds the same package as its server."""
    mapped: list[str] = []

    def read(_size: int) -> bytes:
        now = children(helper(workers))
        mapped.extend(Path(f"/proc/{child}/maps").read_text() for child in now)
        return left.pop(0)

    data = noise_pack(1 << 20)
    left = [data[at : at + 100_000] for at in range(0, len(data), 100_000)]
    workers = Workers()
    workers.start()
    with Repositories(tmp_path).open_or_create(ServiceName("hello")) as repository:
        take(workers, repository, read)
    workers.close()
    assert mapped
    library = Path(mypaas_git.__file__).parents[1] / "mypaas_git__mypyc"
    assert (f" {library}." in mapped[-1]) is COMPILED
