"""Receiving, measured: what a push takes here, as a share of what OpenSSH and git take.

    PYTHONPATH=tests .venv/bin/python scripts/benchmarks/ingest.py [--quick] [--only NAME]

Both servers run on loopback, on one file system, and are pushed to in turns by the same
stock git. Times are medians; the verdict is about their ratio. Ours is the real server
with all its checks and fsyncs; a tag is pushed, which it stores without deploying. What
is printed is kept in ``.cache/bench/ingest.json``, of one case in ``ingest-NAME.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import ingest_connections
import ingest_contexts
import ingest_pushes
from ingest_pushes import Runs
from ingest_repositories import repository
from ingest_workloads import MIB, WORKLOADS, Workload

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "bench"
FULL, QUICK = 660.0, 90.0
"""Seconds after which no further round begins; repositories are made before."""


@dataclass(frozen=True)
class Case:
    """One row of the table, and how its figures come about."""

    name: str
    title: str
    targets: Mapping[str, float]
    rounds: int
    run: Callable[[Path, int, float], Mapping[str, Runs]]
    peak: int | None = None


@dataclass
class Row:
    """Ours against one of the others. Ratios are ours by theirs."""

    case: str
    title: str
    against: str
    rounds: int
    ours: float
    theirs: float
    target: float | None
    ours_cpu: float
    theirs_cpu: float
    ours_peak: int
    theirs_peak: int
    peak_target: int | None
    ratio: float = field(init=False)
    verdict: str = field(init=False)

    def __post_init__(self) -> None:
        self.ratio = self.ours / self.theirs
        wrong = [self.target is not None and self.ratio > self.target]
        wrong.append(self.peak_target is not None and self.ours_peak > self.peak_target)
        judged = self.target is not None or self.peak_target is not None
        self.verdict = "" if not judged else "MISS" if any(wrong) else "PASS"


def main() -> int:
    """Run what the arguments ask for; 1 when a target is missed."""
    options = _options()
    os.environ["LC_ALL"] = "C.UTF-8"
    cases = [case for case in _cases() if options.only in (None, case.name)]
    end = time.monotonic() + (QUICK if options.quick else FULL)
    rows: list[Row] = []
    say(_HEAD)
    for number, case in enumerate(cases):
        share = (end - time.monotonic()) / (len(cases) - number)
        rows += _measure(case, time.monotonic() + share, quick=options.quick)
    _keep(rows, f"ingest-{options.only}" if options.only else "ingest", quick=options.quick)
    missed = [row for row in rows if row.verdict == "MISS"]
    say(f"{len(missed)} of {sum(bool(row.verdict) for row in rows)} targets missed")
    return 1 if missed else 0


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, two minutes")
    names = [case.name for case in _cases()]
    parser.add_argument("--only", metavar="NAME", choices=names, help=f"of {', '.join(names)}")
    return parser.parse_args()


def _cases() -> list[Case]:
    return [
        *map(_pushes, WORKLOADS),
        Case("login", "ssh logs in", {"git": 0.25}, 21, _logins(1)),
        Case("logins", "50 ssh log in at once", {"git": 0.5}, 5, _logins(50)),
        Case("context", "context of 100,000 files", {"git": 2.0}, 5, _context),
    ]


def _pushes(workload: Workload) -> Case:
    def run(root: Path, rounds: int, deadline: float) -> Mapping[str, Runs]:
        source = _source(workload.repository)
        return ingest_pushes.measure(workload, source, root, rounds, deadline)

    return Case(
        workload.name, workload.title, workload.targets, workload.rounds, run, workload.peak
    )


def _logins(at_once: int) -> Callable[[Path, int, float], Mapping[str, Runs]]:
    def run(root: Path, rounds: int, deadline: float) -> Mapping[str, Runs]:
        return ingest_connections.measure(root, at_once, rounds, deadline)

    return run


def _context(root: Path, rounds: int, deadline: float) -> Mapping[str, Runs]:
    return ingest_contexts.measure(_source("many-files"), root, rounds, deadline)


def _source(name: str) -> Path:
    return repository(CACHE / "repositories", name)


def _measure(case: Case, deadline: float, *, quick: bool) -> list[Row]:
    """Run a case and print its rows."""
    CACHE.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="run-", dir=CACHE))
    try:
        results = case.run(root, max(1, case.rounds // 3) if quick else case.rounds, deadline)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    rows = _rows(case, results)
    for row in rows:
        say(_line(row))
    return rows


def _rows(case: Case, results: Mapping[str, Runs]) -> list[Row]:
    ours = results["mypaas"]
    others = [(name, runs) for name, runs in results.items() if runs is not ours]
    return [
        Row(
            case=case.name,
            title=case.title,
            against=name,
            rounds=len(ours.walls),
            ours=ours.wall,
            theirs=theirs.wall,
            target=case.targets.get(name),
            ours_cpu=ours.cpu,
            theirs_cpu=theirs.cpu,
            ours_peak=ours.peak,
            theirs_peak=theirs.peak,
            # One row is enough to say it.
            peak_target=case.peak if number == 0 else None,
        )
        for number, (name, theirs) in enumerate(others)
    ]


_HEAD = (
    f"{'what is pushed':36}{'against':20}{'n':>3}{'ours':>9}{'theirs':>9}{'ratio':>7}"
    f"{'target':>8}{'':6}{'cpu s':>14}{'ratio':>7}{'peak MiB':>12}"
)


def _line(row: Row) -> str:
    target = "" if row.target is None else f"≤ {row.target:.2f}"
    limit = "" if row.peak_target is None else f" ≤ {row.peak_target // MIB} MiB"
    cpu = f"{row.ours_cpu:.3f} / {row.theirs_cpu:.3f}"
    ratio = f"{row.ours_cpu / row.theirs_cpu:.2f}" if row.theirs_cpu else ""
    peak = f"{row.ours_peak // MIB} / {row.theirs_peak // MIB}"
    return (
        f"{row.title:36}{row.against:20}{row.rounds:3}{_time(row.ours):>9}"
        f"{_time(row.theirs):>9}{row.ratio:7.2f}{target:>8} {row.verdict:5}{cpu:>14}{ratio:>7}"
        f"{peak:>12}{limit}"
    )


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _keep(rows: list[Row], name: str, *, quick: bool) -> None:
    """Leave the figures where a later run can be compared with them."""
    told = {"quick": quick, "time": time.time(), "rows": [asdict(row) for row in rows]}
    (CACHE / f"{name}.json").write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
