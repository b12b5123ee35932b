"""Many deploys in a row under a constant load, good ones and bad ones."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from deploy_service import Service
from deploy_timing import SETTLE, measured
from deploy_verdicts import Part, progress, seconds
from support import rolling
from support.load import QUICK, Report
from support.paas import Paas


def good(count: int, root: Path) -> Part:
    """``count`` rolling deploys of two replicas: not one request may fail."""
    part = Part(f"{count} rolling deploys in a row", ("", "median"))
    with _served(root) as service, service.load() as load:
        marks = []
        for _ in range(count):
            service.change()
            began = time.monotonic()
            service.push()
            marks.append((service.version, began, time.monotonic()))
            progress(f"{service.version} is live")
        time.sleep(SETTLE)
        marks.append(("", time.monotonic(), 0.0))
    report = load.so_far()
    timings = [
        measured(report, version, began, returned, following)
        for (version, began, returned), (_, following, _) in itertools.pairwise(marks)
    ]
    part.rows += [
        ("push to the first new answer", seconds([each.first for each in timings])),
        ("push to only new answers", seconds([each.only for each in timings])),
        ("push to git's return", seconds([each.returned for each in timings])),
    ]
    _add_requests(part, report)
    seen = report.versions()
    part.judge("versions seen", str(len(seen)), str(count + 1), len(seen) == count + 1)
    part.raw["deploys"] = [asdict(timing) for timing in timings]
    return part


def bad(count: int, root: Path) -> Part:
    """``count`` deploys that fail, of all kinds in turn: nobody may notice."""
    part = Part(f"{count} bad deploys of {len(rolling.KINDS)} kinds", ("", "median"))
    moved = 0
    took: dict[str, list[float]] = {kind: [] for kind in rolling.KINDS}
    with _served(root) as service, service.load() as load:
        first = service.branch()
        for kind in itertools.islice(itertools.cycle(rolling.KINDS), count):
            service.spoil(kind)
            began = time.monotonic()
            said = service.push_in_vain()
            took[kind].append(time.monotonic() - began)
            if f"({rolling.KINDS[kind][1]}: " not in said:
                raise RuntimeError(f"'{kind}' failed for another reason:\n{said}")
            moved += service.branch() != first
            progress(f"{kind}: refused")
    report = load.so_far()
    part.rows += [(f"{kind}: push to refusal", seconds(took[kind])) for kind in took]
    _add_requests(part, report)
    part.judge("branch moved", str(moved), "0", moved == 0)
    part.judge(
        "versions seen", ", ".join(sorted(report.versions())), "v1", report.versions() == {"v1"}
    )
    part.raw["seconds"] = took
    return part


def _add_requests(part: Part, report: Report) -> None:
    counts = sorted(report.counts().items())
    part.rows += [(f"requests, {kind}", str(count)) for kind, count in counts]
    part.rows.append(("slowest quick request", f"{report.slowest(*QUICK):.2f} s"))
    failed, total = len(report.failed), len(report.outcomes)
    part.judge("failed requests", f"{failed} of {total}", "0", failed == 0)
    for reason, times in report.reasons().items():
        print(f"   failed {times} times: {reason}")
    part.raw |= {"requests": report.counts(), "failed": failed, "reasons": report.reasons()}


@contextmanager
def _served(root: Path) -> Iterator[Service]:
    """A service on a server of its own on this host's engine and 127.0.0.1."""
    paas = Paas(root)
    try:
        paas.init()
        paas.configure("health_timeout", '"4s"')  # of which bad ones take all
        paas.start()
        yield Service(paas, "rolling")
    finally:
        paas.close()
