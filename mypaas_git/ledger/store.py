"""The ledger as an SQLite file: what was deployed outlives every process."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mypaas_git.directives.model import ServiceSpec
from mypaas_git.errors import LedgerFault, ReleaseMissing, ServiceMissing
from mypaas_git.ledger.model import FOLLOWERS, Release, State
from mypaas_git.names import ServiceName, release_label

# One entry a schema version; SQLite's user_version counts those that were applied.
MIGRATIONS = [
    """
    CREATE TABLE releases (
        service TEXT NOT NULL,
        number INTEGER NOT NULL,
        state TEXT NOT NULL,
        commit_id TEXT NOT NULL,
        branch TEXT NOT NULL,
        who TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        image TEXT NOT NULL DEFAULT '',
        spec TEXT NOT NULL,
        started_at REAL NOT NULL,
        live_at REAL,
        ended_at REAL,
        down REAL NOT NULL DEFAULT 0,
        reason TEXT NOT NULL DEFAULT '',
        message TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (service, number)
    );
    CREATE UNIQUE INDEX one_live_release ON releases (service) WHERE state = 'live';
    """,
]
_COLUMNS = (
    "service, number, state, commit_id, branch, who, fingerprint, image, spec, "
    "started_at, live_at, ended_at, down, reason, message"
)


class Ledger:
    """Every release and every attempt.

    Each call is a transaction of its own on a connection of its own, so threads
    and processes may share the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._transaction() as db:
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version > len(MIGRATIONS):
                raise LedgerFault(f"{path} was written by a newer mypaas-git; upgrade this one")
            for number, statements in enumerate(MIGRATIONS[version:], version + 1):
                for statement in filter(str.strip, statements.split(";")):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {number}")
        path.chmod(0o600)

    def begin(
        self, spec: ServiceSpec, *, commit: str, branch: str, who: str, fingerprint: str
    ) -> Release:
        """Record a new attempt and give it its number."""
        with self._transaction() as db:
            (number,) = db.execute(
                "SELECT COALESCE(MAX(number), 0) + 1 FROM releases WHERE service = ?",
                (spec.service,),
            ).fetchone()
            db.execute(
                "INSERT INTO releases (service, number, state, commit_id, branch, who,"
                " fingerprint, spec, started_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    spec.service,
                    number,
                    State.BUILDING.value,
                    commit,
                    branch,
                    who,
                    fingerprint,
                    json.dumps(spec.to_dict()),
                    time.time(),
                ),
            )
        return self.release(spec.service, number)

    def starting(self, release: Release, image: str) -> Release:
        """The image is built; containers come next."""
        return self._advance(release, State.STARTING, image=image)

    def switching(self, release: Release) -> Release:
        """The new replicas are healthy; the route is next."""
        return self._advance(release, State.SWITCHING)

    def live(self, release: Release, *, down: float) -> Release:
        """``release`` serves from now on, and the one before no longer, in one step."""
        return self._advance(release, State.LIVE, live_at=time.time(), down=down)

    def failed(self, release: Release, *, reason: str, message: str, down: float) -> Release:
        return self._advance(
            release,
            State.FAILED,
            ended_at=time.time(),
            reason=reason,
            message=message,
            down=down,
        )

    def release(self, service: ServiceName, number: int) -> Release:
        """Return one release. Raises ReleaseMissing, or ServiceMissing."""
        rows = self._select("WHERE service = ? AND number = ?", service, number)
        if rows:
            return rows[0]
        if not self.releases(service):
            raise ServiceMissing(f"there is no service '{service}'; see: mypaas services")
        raise ReleaseMissing(
            f"{service} has no release {release_label(number)}; see: mypaas releases {service}"
        )

    def releases(self, service: ServiceName) -> list[Release]:
        """Every release and attempt of a service, newest first."""
        return self._select("WHERE service = ? ORDER BY number DESC", service)

    def live_release(self, service: ServiceName) -> Release | None:
        rows = self._select("WHERE service = ? AND state = 'live'", service)
        return rows[0] if rows else None

    def live_releases(self) -> list[Release]:
        """What serves now, by the services' names."""
        return self._select("WHERE state = 'live' ORDER BY service")

    def underway(self, service: ServiceName) -> list[Release]:
        """Attempts that have neither succeeded nor failed."""
        return self._select(
            "WHERE service = ? AND state IN ('building', 'starting', 'switching')", service
        )

    def services(self) -> list[ServiceName]:
        """Every service that was ever deployed, or tried to be."""
        with self._transaction("BEGIN") as db:
            rows = db.execute("SELECT DISTINCT service FROM releases ORDER BY service")
            return [ServiceName(name) for (name,) in rows]

    def _advance(self, release: Release, state: State, **fields: object) -> Release:
        with self._transaction() as db:
            (now,) = db.execute(
                "SELECT state FROM releases WHERE service = ? AND number = ?",
                (release.service, release.number),
            ).fetchone()
            if state not in FOLLOWERS[State(now)]:
                raise ValueError(f"{release.label} cannot become {state.value}: it is {now}")
            if state is State.LIVE:
                db.execute(
                    "UPDATE releases SET state = 'retired', ended_at = ?"
                    " WHERE service = ? AND state = 'live'",
                    (time.time(), release.service),
                )
            columns = ", ".join(f"{name} = ?" for name in ("state", *fields))
            db.execute(
                f"UPDATE releases SET {columns} WHERE service = ? AND number = ?",  # noqa: S608 - our own names
                (state.value, *fields.values(), release.service, release.number),
            )
        return self.release(release.service, release.number)

    def _select(self, where: str, *values: object) -> list[Release]:
        with self._transaction("BEGIN") as db:
            rows = db.execute(f"SELECT {_COLUMNS} FROM releases {where}", values).fetchall()  # noqa: S608 - our own words
        return [_release(row) for row in rows]

    @contextlib.contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        try:
            db = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        except sqlite3.Error as error:
            raise LedgerFault(f"{self._path} cannot be opened: {error}") from error
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute(begin)
            yield db
            db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise LedgerFault(f"{self._path}: {error}") from error
        finally:
            db.close()  # rolls back whatever was not committed


def _release(row: tuple[Any, ...]) -> Release:
    names = [name.strip() for name in _COLUMNS.replace("commit_id", "commit").split(",")]
    fields: dict[str, Any] = dict(zip(names, row, strict=True))
    fields["service"] = ServiceName(fields["service"])
    fields["state"] = State(fields["state"])
    fields["spec"] = ServiceSpec.from_dict(json.loads(fields["spec"]))
    return Release(**fields)
