"""The ledger as an SQLite file: what was deployed outlives every process."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mypaas_git.directives.model import ServiceSpec
from mypaas_git.errors import LedgerFault, ReleaseMissing, ServiceMissing
from mypaas_git.ledger.model import (
    FOLLOWERS,
    Action,
    Downtime,
    Maintenance,
    Release,
    Standing,
    State,
    Wanted,
)
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
    """
    ALTER TABLE releases ADD COLUMN action TEXT NOT NULL DEFAULT 'push';
    ALTER TABLE releases ADD COLUMN restores INTEGER;
    ALTER TABLE releases ADD COLUMN built_by INTEGER NOT NULL DEFAULT 0;
    UPDATE releases SET built_by = number;
    ALTER TABLE releases ADD COLUMN env TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE releases ADD COLUMN probes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE releases ADD COLUMN probes_failed INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE services (service TEXT PRIMARY KEY, wanted TEXT NOT NULL);
    CREATE TABLE layers (service TEXT NOT NULL, number INTEGER NOT NULL, id TEXT NOT NULL);
    """,
    # Whose a named volume is outlives the service, as the volume does.
    """
    CREATE TABLE volumes (name TEXT PRIMARY KEY, service TEXT NOT NULL);
    INSERT OR IGNORE INTO volumes
        SELECT json_extract(value, '$.source'), service
        FROM releases, json_each(releases.spec, '$.volumes')
        WHERE substr(json_extract(value, '$.source'), 1, 1) NOT IN ('/', '~')
        ORDER BY started_at;
    """,
    """
    CREATE TABLE maintenance (
        service TEXT PRIMARY KEY,
        who TEXT NOT NULL,
        since REAL NOT NULL
    );
    """,
]
_COLUMNS = (
    "service, number, state, commit_id, branch, who, fingerprint, image, spec, "
    "started_at, live_at, ended_at, down, reason, message, action, restores, "
    "built_by, env, probes, probes_failed"
)
_UNDERWAY = "state IN ('building', 'starting', 'switching')"


class Ledger:
    """Every release and every attempt.

    Each call is a transaction of its own on a connection of its own, so threads
    and processes may share the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.touch(mode=0o600)  # it holds secrets: no moment with another mode
        except OSError as error:
            raise LedgerFault(f"{path} cannot be made: {error.strerror}") from error
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
        self,
        spec: ServiceSpec,
        *,
        commit: str,
        branch: str,
        who: str,
        fingerprint: str,
        env: Mapping[str, str] | None = None,
        action: Action = Action.PUSH,
        restores: Release | None = None,
    ) -> Release:
        """Record a new attempt and give it its number."""
        with self._transaction() as db:
            (number,) = db.execute(
                "SELECT COALESCE(MAX(number), 0) + 1 FROM releases WHERE service = ?",
                (spec.service,),
            ).fetchone()
            db.execute(
                "INSERT INTO releases (service, number, state, commit_id, branch, who,"
                " fingerprint, spec, started_at, action, restores, built_by, env)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
                    action.value,
                    restores.number if restores else None,
                    restores.built_by if restores else number,
                    json.dumps(dict(env or {})),
                ),
            )
        return self.release(spec.service, number)

    def starting(self, release: Release, image: str) -> Release:
        """The image is built; containers come next."""
        return self._advance(release, State.STARTING, image=image)

    def switching(self, release: Release) -> Release:
        """The new replicas are healthy; the route is next."""
        return self._advance(release, State.SWITCHING)

    def live(self, release: Release, down: float = 0.0) -> Release:
        """``release`` serves from now on, and the one before no longer, in one step.

        ``down`` is how many seconds nothing has served so far.
        """
        return self._advance(release, State.LIVE, live_at=time.time(), down=down)

    def measured(self, release: Release, seen: Downtime) -> Release:
        """Note what visitors saw while ``release`` went live."""
        with self._transaction() as db:
            db.execute(
                "UPDATE releases SET down = ?, probes = ?, probes_failed = ?"
                " WHERE service = ? AND number = ?",
                (seen.seconds, seen.probes, seen.failed, release.service, release.number),
            )
        return self.release(release.service, release.number)

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
        return self._select(f"WHERE service = ? AND {_UNDERWAY}", service)

    def services(self) -> list[ServiceName]:
        """Every service that was ever deployed, or tried to be, and was not removed."""
        return [name for name, wanted in self.all_services().items() if not wanted.gone]

    def has(self, service: ServiceName) -> bool:
        """Whether ``service`` was ever deployed, or tried to be, and was not removed."""
        return bool(self.releases(service)) and not self.wanted(service).gone

    def all_services(self) -> dict[ServiceName, Wanted]:
        """Every service of which there is a row, and what is to become of it."""
        with self._transaction("BEGIN") as db:
            rows = db.execute(
                "SELECT service, COALESCE(wanted, 'running')"
                " FROM (SELECT service FROM releases UNION SELECT service FROM services)"
                " LEFT JOIN services USING (service) ORDER BY service"
            )
            return {ServiceName(name): Wanted(wanted) for name, wanted in rows}

    def standings(self) -> list[Standing]:
        """How every service stands, the removed ones too, by their names."""
        live = {release.service: release for release in self.live_releases()}
        underway = {release.service for release in self._select(f"WHERE {_UNDERWAY}")}
        with self._transaction("BEGIN") as db:
            closed = {name for (name,) in db.execute("SELECT service FROM maintenance")}
        return [
            Standing(service, wanted, live.get(service), service in underway, service in closed)
            for service, wanted in self.all_services().items()
        ]

    def standing(self, service: ServiceName) -> Standing:
        """How one service stands, whether or not there is a row of it."""
        return Standing(
            service,
            self.wanted(service),
            self.live_release(service),
            bool(self.underway(service)),
            self.maintenance(service) is not None,
        )

    def maintenance(self, service: ServiceName) -> Maintenance | None:
        """Who closed ``service`` to visitors, and when; None when it is open."""
        with self._transaction("BEGIN") as db:
            row = db.execute(
                "SELECT who, since FROM maintenance WHERE service = ?", (service,)
            ).fetchone()
        return Maintenance(*row) if row else None

    def close(self, service: ServiceName, who: str) -> None:
        """Note that visitors of ``service`` get a page, if it is live; the first note stays."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO maintenance"
                " SELECT service, ?, ? FROM releases WHERE service = ? AND state = 'live'",
                (who, time.time(), service),
            )

    def open(self, service: ServiceName) -> None:
        """Note that ``service`` is open to visitors again."""
        with self._transaction() as db:
            db.execute("DELETE FROM maintenance WHERE service = ?", (service,))

    def wanted(self, service: ServiceName) -> Wanted:
        """What is to become of ``service``."""
        with self._transaction("BEGIN") as db:
            row = db.execute(
                "SELECT wanted FROM services WHERE service = ?", (service,)
            ).fetchone()
        return Wanted(row[0]) if row else Wanted.RUNNING

    def want(self, service: ServiceName, wanted: Wanted) -> None:
        """Decide what is to become of ``service``; nothing of a gone one is live."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO services VALUES (?, ?)", (service, wanted.value))
            if wanted.gone:
                db.execute(
                    "UPDATE releases SET state = 'retired', ended_at = ?"
                    " WHERE service = ? AND state = 'live'",
                    (time.time(), service),
                )
                db.execute("DELETE FROM maintenance WHERE service = ?", (service,))

    def forget(self, service: ServiceName) -> None:
        """Remove every row of ``service``."""
        with self._transaction() as db:
            for table in ("releases", "services", "layers", "maintenance"):
                db.execute(f"DELETE FROM {table} WHERE service = ?", (service,))  # noqa: S608 - our own names

    def add_layer(self, release: Release, id_: str) -> None:
        """Note an image that the build of ``release`` has made on its way."""
        with self._transaction() as db:
            row = (release.service, release.number, id_)
            db.execute("INSERT INTO layers VALUES (?, ?, ?)", row)

    def layers(self, service: ServiceName) -> list[str]:
        """What builds of ``service`` have made on their way, oldest first."""
        with self._transaction("BEGIN") as db:
            rows = db.execute(
                "SELECT id FROM layers WHERE service = ? ORDER BY rowid", (service,)
            )
            return [id_ for (id_,) in rows]

    def forget_layers(self, service: ServiceName) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM layers WHERE service = ?", (service,))

    def volume_owner(self, name: str) -> ServiceName | None:
        """The service that first used a named volume, whether or not it is still there."""
        with self._transaction("BEGIN") as db:
            row = db.execute("SELECT service FROM volumes WHERE name = ?", (name,)).fetchone()
        return ServiceName(row[0]) if row else None

    def claim_volume(self, name: str, service: ServiceName) -> ServiceName:
        """Have a named volume belong to ``service`` unless it has an owner; returns that."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO volumes VALUES (?, ?)", (name, service))
            row = db.execute("SELECT service FROM volumes WHERE name = ?", (name,)).fetchone()
        return ServiceName(row[0])

    def _advance(self, release: Release, state: State, **fields: object) -> Release:
        with self._transaction() as db:
            (now,) = db.execute(
                "SELECT state FROM releases WHERE service = ? AND number = ?",
                (release.service, release.number),
            ).fetchone()
            if state not in FOLLOWERS[State(now)]:
                raise ValueError(f"{release.label} cannot become {state.value}: it is {now}")
            if state is State.LIVE:
                db.execute("DELETE FROM services WHERE service = ?", (release.service,))
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
    fields["action"] = Action(fields["action"])
    fields["env"] = json.loads(fields["env"])
    fields["spec"] = ServiceSpec.from_dict(json.loads(fields["spec"]))
    return Release(**fields)
