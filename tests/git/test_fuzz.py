"""A short run of the fuzzer; scripts/benchmarks/fuzz.py has the long one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fuzzer import BATCH, Batch, read_answer, run
from gitserver import uncovered

from mypaas_git.git.workers import Workers

SEED = 4
FOUND = [(1, 43), (1, 124), (2, 271)]
"""Seeds and batches that have shown something: a delta of what was there already, an
instruction that leads nowhere at the end of a delta, a commit without a message.
"""
REACHED = {"pack-refused", "ref-refused", "tree-refused", "git-refused", "plan-only"}
"""A run that does not get this far in shows nothing."""


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with closing(Workers()) as running:
        with uncovered():
            running.start()
        yield running


def test_bent_pushes(tmp_path: Path) -> None:
    """No traceback, hang, leak or bad repository, whatever is pushed (T17 to T34)."""
    outcome = run(tmp_path, SEED, iter(range(4)))
    assert outcome.faults == []
    assert outcome.pushes == 4 * BATCH
    assert outcome.moved > outcome.pushes // 20
    assert set(outcome.reasons) >= REACHED


@pytest.mark.parametrize(("seed", "batch"), FOUND)
def test_what_was_found(tmp_path: Path, seed: int, batch: int) -> None:
    """A batch that once did harm does none any more."""
    assert Batch(tmp_path, seed, batch).run().faults == []


def test_bent_pushes_by_workers(tmp_path: Path, workers: Workers) -> None:
    """The same, with small packs taken in in passing and large ones by a child."""
    outcome = run(tmp_path, SEED + 1, iter(range(2)), workers.take)
    assert outcome.faults == []
    assert outcome.moved > outcome.pushes // 20


@pytest.mark.parametrize("answer", [b"0009ab", b"xxxx", b"00000008ab", b"0003"])
def test_a_bad_answer_is_noticed(answer: bytes) -> None:
    """The fuzzer itself can tell what git could not read."""
    with pytest.raises(ValueError, match=r"a packet of|invalid literal"):
        read_answer(answer)
