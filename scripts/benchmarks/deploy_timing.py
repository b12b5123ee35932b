"""When visitors saw what somebody did to a service, and what it cost them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from support.load import Load, Report
from support.net import wait_until

SETTLE = 3.0
"""Seconds after which what was in flight, two-second answers at most, has ended."""


@dataclass(frozen=True)
class Timing:
    """Seconds from the start of a command, and the requests that it may have harmed.

    ``first`` until the first answer of the new version, ``only`` until the last quick
    request that still went to another, ``returned`` until the command's end.
    """

    first: float
    only: float
    returned: float
    requests: int
    failed: int
    reasons: dict[str, int]


def timed(load: Load, version: str, act: Callable[[], object]) -> Timing:
    """Do ``act``, which brings ``version`` to life, and tell what ``load`` saw of it."""
    began = time.monotonic()
    act()
    returned = time.monotonic()
    wait_until(lambda: load.sees(version), f"{version} answers")
    time.sleep(SETTLE)
    return measured(load.so_far(), version, began, returned, time.monotonic())


def measured(
    report: Report, version: str, began: float, returned: float, ended: float
) -> Timing:
    """What the requests between ``began`` and ``ended`` tell."""
    seen = Report([each for each in report.outcomes if began <= each.end <= ended])
    first, last = seen.first_seen(version), seen.last_without(version)
    return Timing(
        first=(first or ended) - began,
        only=max(0.0, (last or began) - began),
        returned=returned - began,
        requests=len(seen.outcomes),
        failed=len(seen.failed),
        reasons=seen.reasons(),
    )
