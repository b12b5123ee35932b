"""Releases, their states, and how these may follow each other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mypaas_git.directives.model import ServiceSpec
from mypaas_git.names import ServiceName, release_label


class State(str, Enum):
    """Where a release stands.

    ::

        building → starting → switching → live → retired
            └─────────┴───────────┴────→ failed
    """

    BUILDING = "building"
    STARTING = "starting"
    SWITCHING = "switching"
    LIVE = "live"
    RETIRED = "retired"
    FAILED = "failed"

    @property
    def underway(self) -> bool:
        return self in (State.BUILDING, State.STARTING, State.SWITCHING)


FOLLOWERS: dict[State, frozenset[State]] = {
    State.BUILDING: frozenset({State.STARTING, State.FAILED}),
    State.STARTING: frozenset({State.SWITCHING, State.FAILED}),
    State.SWITCHING: frozenset({State.LIVE, State.FAILED}),
    State.LIVE: frozenset({State.RETIRED}),
    State.RETIRED: frozenset(),
    State.FAILED: frozenset(),
}


@dataclass(frozen=True)
class Release:
    """One attempt to bring a commit to life; numbers count per service, from 1.

    Times are seconds since the epoch. ``live_at`` is when it began to serve,
    ``ended_at`` when it failed or was retired. ``down`` is how many seconds
    the service did not answer for its sake. ``reason`` and ``message`` say why
    it failed.
    """

    service: ServiceName
    number: int
    state: State
    commit: str
    branch: str
    who: str
    fingerprint: str
    image: str
    spec: ServiceSpec
    started_at: float
    live_at: float | None = None
    ended_at: float | None = None
    down: float = 0.0
    reason: str = ""
    message: str = ""

    @property
    def label(self) -> str:
        return release_label(self.number)

    @property
    def seconds(self) -> float | None:
        """How long the attempt took, to live or to failure; None while it is underway."""
        end = self.live_at or self.ended_at
        return None if end is None else max(0.0, end - self.started_at)
