"""The ledger: numbers, legal transitions, one live release, durable."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mypaas_git.directives.model import (
    EnvVar,
    Healthcheck,
    Publish,
    Redirect,
    ServiceSpec,
    Url,
    Volume,
)
from mypaas_git.errors import LedgerFault, ReleaseMissing, ServiceMissing
from mypaas_git.ledger.model import Release, Standing, State, Wanted
from mypaas_git.ledger.store import Ledger
from mypaas_git.names import ServiceName

HELLO = ServiceName.parse("hello")
FULL = ServiceSpec(
    service=HELLO,
    urls=(Url("https", "example.com", "/a"),),
    redirects=(Redirect(Url("http", "old.example"), Url("https", "example.com", "/a")),),
    stripprefix=True,
    auth="USERS",
    sticky=True,
    volumes=(Volume("~/data", "/data", read_only=True),),
    env=(EnvVar("A", "1"), EnvVar("SECRET", None)),
    publish=(Publish(80, 8080),),
    scale=2,
    healthcheck=Healthcheck("/up", 5, 1),
    maxcpu=0.5,
    maxmem=1 << 29,
    users=("alice:$2b$06$hash",),
)


def begin(ledger: Ledger, spec: ServiceSpec = FULL) -> Release:
    return ledger.begin(spec, commit="3f2a91c" * 5, branch="main", who="alice", fingerprint="F")


def go_live(ledger: Ledger) -> Release:
    release = ledger.starting(begin(ledger), "mypaas/hello:v1")
    return ledger.live(ledger.switching(release), down=0.25)


def test_a_release_is_read_back_whole(tmp_path: Path) -> None:
    """Another process finds everything that was recorded."""
    live = go_live(Ledger(tmp_path / "ledger.db"))
    found = Ledger(tmp_path / "ledger.db").live_release(HELLO)
    assert found == live
    assert found is not None
    assert found.spec == FULL
    assert (found.number, found.who, found.down, found.image) == (
        1,
        "alice",
        0.25,
        "mypaas/hello:v1",
    )
    assert found.seconds is not None


def test_a_new_live_release_retires_the_old(tmp_path: Path) -> None:
    """Never are two releases of a service live, nor none in between."""
    ledger = Ledger(tmp_path / "ledger.db")
    go_live(ledger)
    go_live(ledger)
    assert [(r.number, r.state) for r in ledger.releases(HELLO)] == [
        (2, State.LIVE),
        (1, State.RETIRED),
    ]


def test_maintenance_goes_on_until_it_is_ended(tmp_path: Path) -> None:
    """Over releases, for whoever asks first, and not beyond the service's life."""
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.close(HELLO, "alice")
    assert ledger.maintenance(HELLO) is None, "nothing of it is live"
    go_live(ledger)
    ledger.close(HELLO, "alice")
    ledger.close(HELLO, "bob")
    go_live(ledger)
    found = Ledger(tmp_path / "ledger.db").maintenance(HELLO)
    assert found is not None
    assert found.who == "alice"
    assert ledger.standing(HELLO).maintenance
    assert [each.maintenance for each in ledger.standings()] == [True]
    ledger.open(HELLO)
    assert ledger.maintenance(HELLO) is None
    ledger.close(HELLO, "alice")
    ledger.want(HELLO, Wanted.REMOVED)
    assert ledger.maintenance(HELLO) is None


def test_a_failed_attempt_keeps_its_number_and_reason(tmp_path: Path) -> None:
    """Failures are part of the history, and numbers are never used twice."""
    ledger = Ledger(tmp_path / "ledger.db")
    failed = ledger.failed(begin(ledger), reason="build-failed", message="Step 2", down=0)
    assert (failed.state, failed.reason, failed.message) == (
        State.FAILED,
        "build-failed",
        "Step 2",
    )
    assert begin(ledger).number == 2
    assert [r.number for r in ledger.underway(HELLO)] == [2]


def test_illegal_transitions_are_refused(tmp_path: Path) -> None:
    """A release cannot skip a state or come back from the dead."""
    ledger = Ledger(tmp_path / "ledger.db")
    release = begin(ledger)
    with pytest.raises(ValueError, match="cannot become live"):
        ledger.live(release, down=0)
    ledger.failed(release, reason="x", message="y", down=0)
    with pytest.raises(ValueError, match="cannot become starting"):
        ledger.starting(release, "image")


def test_missing_things_are_named(tmp_path: Path) -> None:
    """A wrong service and a wrong release are told apart."""
    ledger = Ledger(tmp_path / "ledger.db")
    with pytest.raises(ServiceMissing):
        ledger.release(HELLO, 1)
    begin(ledger)
    with pytest.raises(ReleaseMissing, match="no release v7"):
        ledger.release(HELLO, 7)


def test_a_service_without_releases_is_erased(tmp_path: Path) -> None:
    """Whoever repairs finds what is to go, though nothing of it was ever deployed."""
    ledger, service = Ledger(tmp_path / "ledger.db"), ServiceName("unborn")
    ledger.want(service, Wanted.ERASED)
    assert ledger.standings() == [Standing(service, Wanted.ERASED, None, underway=False)]
    assert ledger.services() == []
    assert not ledger.has(service)
    ledger.forget(service)
    assert ledger.standings() == []


def test_numbers_are_unique_under_contention(tmp_path: Path) -> None:
    """Many writers at once get a number each."""
    ledger = Ledger(tmp_path / "ledger.db")
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: begin(ledger).number, range(24)))
    assert sorted(numbers) == list(range(1, 25))


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """An old program does not write into a newer ledger (T70)."""
    path = tmp_path / "ledger.db"
    Ledger(path)
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(LedgerFault, match="newer"):
        Ledger(path)


def test_a_corrupt_file_is_one_line(tmp_path: Path) -> None:
    """Garbage in place of the ledger is a clear refusal, and is left as it is (T70)."""
    path = tmp_path / "ledger.db"
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(LedgerFault, match=r"ledger\.db"):
        Ledger(path)
    assert path.read_bytes().startswith(b"garbage")
