#!/usr/bin/env python3
"""The long run of the fuzzer: bent pushes, a hundred thousand of them, on all processors.

``.venv/bin/python scripts/benchmarks/fuzz.py [--pushes 100000] [--seed 1]``; what it finds
is printed with the seed and batch that show it again: ``--seed 1 --batch 17``. The short
run is ``tests/git/test_fuzz.py``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "git")]

from fuzzer import BATCH, Batch, Outcome  # noqa: E402 - the tests are no package

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a disk would wait for each fsync


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pushes", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, help="run this batch alone")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    batches = [asked.batch] if asked.batch is not None else range(-(-asked.pushes // BATCH))
    began, outcome = time.monotonic(), Outcome()
    with ProcessPoolExecutor(asked.processes) as pool:
        for each in pool.map(partial(_run, asked.seed), batches):
            outcome.add(each)
            for fault in each.faults:
                sys.stdout.write(f"\nFAULT {fault}\n")
            _show(outcome, time.monotonic() - began)
    sys.stdout.write("\n")
    for reason, count in outcome.reasons.most_common():
        sys.stdout.write(f"{count:8} {reason}\n")
    return bool(outcome.faults)


def _run(seed: int, batch: int) -> Outcome:
    root = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="mypaas-fuzz-", dir=root) as scratch:
        return Batch(Path(scratch), seed, batch).run()


def _show(outcome: Outcome, seconds: float) -> None:
    sys.stdout.write(
        f"\r{outcome.pushes} pushes in {seconds:.0f} s, {outcome.moved} refs moved, "
        f"{len(outcome.faults)} faults, slowest push {outcome.slowest:.2f} s "
    )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
