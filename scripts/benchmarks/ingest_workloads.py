"""What is measured against what, and how much of the other's time it may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MIB = 1 << 20


@dataclass(frozen=True)
class Variant:
    """One way of receiving: ``peer``'s, with these settings of git in its repositories."""

    name: str
    peer: str
    config: Mapping[str, str] = field(default_factory=dict)


OURS = Variant("mypaas", "mypaas")
GIT = Variant("git", "git")
PACKED = Variant("git, unpackLimit=1", "git", {"receive.unpackLimit": "1"})
CHECKED = Variant("git, fsckObjects", "git", {"receive.fsckObjects": "true"})


@dataclass(frozen=True)
class Workload:
    """A push that is made ``rounds`` times to each of the ``variants``, in turns.

    ``targets`` are the most that ours may take of another's time, ``peak`` the most bytes
    of memory. With ``base``, that branch is there already. ``at_once`` pushes are made at
    the same time, each to a repository of its own.
    """

    name: str
    title: str
    repository: str
    targets: Mapping[str, float]
    rounds: int
    variants: tuple[Variant, ...] = (OURS, GIT, CHECKED)
    base: str | None = None
    at_once: int = 1
    peak: int | None = None


WORKLOADS = (
    Workload("tiny", "a tiny first push", "tiny", {"git": 0.25}, 21),
    Workload(
        "commit",
        "one commit on top of 5,000",
        "five-thousand",
        {"git": 0.25},
        21,
        base="base",
    ),
    Workload("history", "12,000 commits", "history", {"git": 0.75}, 5),
    Workload(
        "big-file",
        "one file of 200 MB",
        "big-file",
        {"git": 0.25, "git, unpackLimit=1": 0.7},
        3,
        variants=(OURS, GIT, PACKED, CHECKED),
        peak=80 * MIB,
    ),
    Workload("many-files", "100,000 files in one commit", "many-files", {"git": 1.0}, 5),
    Workload(
        "histories",
        "12,000 commits, four pushes at once",
        "history",
        {"git": 0.65},
        3,
        variants=(OURS, GIT),
        at_once=4,
    ),
)
