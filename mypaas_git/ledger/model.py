"""Releases, their states, and how these may follow each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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


class Action(str, Enum):
    """What somebody did to bring a release about."""

    PUSH = "push"
    REDEPLOY = "redeploy"
    RESTART = "restart"
    ROLLBACK = "rollback"
    CONFIG = "config"


class Wanted(str, Enum):
    """What is to become of a service, whatever runs at the moment.

    A removed one keeps its history, so that its numbers are not used twice; an erased
    one is about to lose that too.
    """

    RUNNING = "running"
    STOPPED = "stopped"
    REMOVED = "removed"
    ERASED = "erased"

    @property
    def gone(self) -> bool:
        return self in (Wanted.REMOVED, Wanted.ERASED)


@dataclass(frozen=True)
class Downtime:
    """What visitors saw of a deploy: ``seconds`` without an answer, and how that is known.

    Of ``probes`` requests through the proxy ``failed`` got no answer of the service.
    """

    seconds: float = 0.0
    probes: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Release:
    """One attempt to bring a commit to life; numbers count per service, from 1.

    Times are seconds since the epoch. ``live_at`` is when it began to serve,
    ``ended_at`` when it failed or was retired. ``env`` are the values that its containers
    get, secrets among them. ``restores`` is the release whose image and spec it took over,
    None for one that was built; ``built_by`` is the one whose build made the image.
    ``down``, ``probes`` and ``probes_failed`` are its :class:`Downtime`. ``reason`` and
    ``message`` say why it failed.
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
    action: Action = Action.PUSH
    restores: int | None = None
    built_by: int = 0
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    probes: int = 0
    probes_failed: int = 0

    def runs_like(self, other: Release) -> bool:
        """Whether nobody could tell the containers of the two apart."""
        return (self.built_by, self.spec, self.env) == (other.built_by, other.spec, other.env)

    @property
    def label(self) -> str:
        return release_label(self.number)

    @property
    def served(self) -> bool:
        """Whether it was ever live."""
        return self.live_at is not None

    @property
    def seconds(self) -> float | None:
        """How long the attempt took, to live or to failure; None while it is underway."""
        end = self.live_at or self.ended_at
        return None if end is None else max(0.0, end - self.started_at)


@dataclass(frozen=True)
class Maintenance:
    """``who`` closed the service to visitors, and when, in seconds since the epoch."""

    who: str
    since: float


@dataclass(frozen=True)
class Standing:
    """What the ledger says of a service at the moment.

    ``underway`` tells whether an attempt has neither succeeded nor failed, ``maintenance``
    whether visitors get a page whatever runs.
    """

    service: ServiceName
    wanted: Wanted
    live: Release | None
    underway: bool
    maintenance: bool = False
