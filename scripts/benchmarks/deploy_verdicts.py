"""What a part of the benchmark has found: figures, and whether they meet their targets."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """One target, what was measured, and whether that meets it."""

    what: str
    measured: str
    target: str
    met: bool


@dataclass
class Part:
    """The rows of its table, its verdicts, and the raw figures for the file."""

    title: str
    head: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        return all(verdict.met for verdict in self.verdicts)

    def judge(self, what: str, measured: str, target: str, met: bool) -> None:
        self.verdicts.append(Verdict(what, measured, target, met))

    def show(self) -> None:
        """Print the table, then a line for each target."""
        print(f"\n== {self.title}", flush=True)
        for line in table([self.head, *self.rows]):
            print(f"   {line}")
        judged = [
            (verdict.what, verdict.measured, verdict.target, "PASS" if verdict.met else "MISS")
            for verdict in self.verdicts
        ]
        for line in table([("target", "measured", "wanted", ""), *judged]):
            print(f"   {line}")
        print(flush=True)


def progress(text: str) -> None:
    """Tell somebody who looks on how far it is, on a line that the next text replaces."""
    if sys.stdout.isatty():
        print(f"   {text:60}", end="\r", flush=True)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows with aligned columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        ).rstrip()
        for row in rows
    ]


def seconds(values: Sequence[float]) -> str:
    """The median, and how far it went."""
    middle = statistics.median(values)
    if len(values) == 1:
        return f"{middle:.2f} s"
    return f"{middle:.2f} s ({min(values):.2f}-{max(values):.2f})"
