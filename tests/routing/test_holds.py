"""Hosts that failed to get a certificate wait, longer each time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mypaas_git.routing import holds
from mypaas_git.routing.acme import Failure
from mypaas_git.routing.holds import PAUSES, UNHEARD, Hold, Holds

HOST = "a.test"


DENIED = "urn:ietf:params:acme:error:dns :: no such host"

ODD = b'{"a.test": {"failures": "x", "until": 1, "why": "", "kind": ""}}'


def failure(at: float | None = None, error: str = DENIED) -> Failure:
    return Failure((HOST,), error, time.time() if at is None else at)


@pytest.fixture
def known(tmp_path: Path) -> Holds:
    return Holds(tmp_path / "holds.json")


def end(known: Holds, *, ago: float = 0.0) -> None:
    """Have the hold be over, since ``ago`` seconds."""
    path = known._path
    hold = known.get(HOST)
    assert hold is not None
    path.write_text(path.read_text().replace(str(hold.until), str(time.time() - ago)))


def test_each_failure_waits_longer(known: Holds) -> None:
    """Up to a day, and what is seen while it waits does not count."""
    assert known.get(HOST) is None
    for number, pause in enumerate((*PAUSES, PAUSES[-1]), 1):
        before = time.time()
        known.add(HOST, failure())
        known.add(HOST, failure())
        hold = known.get(HOST)
        assert hold is not None
        assert (hold.failures, hold.over) == (number, False)
        assert before + pause <= hold.until <= time.time() + pause
        end(known)
    known.clear(HOST)
    assert known.all() == {}


def test_an_old_row_of_failures_is_forgotten(known: Holds) -> None:
    """A host that comes back after days begins anew, and is no longer kept."""
    for _ in range(3):
        known.add(HOST, failure())
        end(known)
    end(known, ago=2 * PAUSES[-1])
    known.add(HOST, failure())
    hold = known.get(HOST)
    assert hold is not None
    assert hold.failures == 1
    end(known, ago=2 * PAUSES[-1])
    known.add("b.test", failure())
    assert set(known.all()) == {"b.test"}


def test_silence_is_not_waited_for_as_long(known: Holds) -> None:
    """Where no ACME server answers, none counts."""
    for _ in range(len(PAUSES)):
        known.add(HOST, failure(error="connection refused"))
        hold = known.get(HOST)
        assert hold is not None
        assert hold.until <= time.time() + UNHEARD
        end(known)


def test_no_failure_counts_twice(known: Holds) -> None:
    """The line of the log that led to a hold is read again after it."""
    known.add(HOST, failure())
    end(known)
    known.add(HOST, failure(time.time() - 30))
    hold = known.get(HOST)
    assert hold is not None
    assert (hold.failures, hold.over) == (1, True)


def test_a_deploy_may_try_again(known: Holds, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not sooner than what would be allowed all day."""
    for _ in range(4):
        known.add(HOST, failure())
        end(known)
    known.add(HOST, failure())
    known.relent(HOST)
    hold = known.get(HOST)
    assert hold is not None
    assert not hold.over
    monkeypatch.setattr(holds, "RELENT", -1)
    known.relent(HOST)
    hold = known.get(HOST)
    assert hold is not None
    assert (hold.failures, hold.over) == (5, True)


def test_they_last_and_are_shared(tmp_path: Path) -> None:
    """What one process writes the other reads, and a broken file is none."""
    path = tmp_path / "holds.json"
    one, other = Holds(path), Holds(path)
    one.add(HOST, failure())
    assert other.get(HOST) is not None
    assert other.all() == one.all()
    assert path.stat().st_mode & 0o077 == 0
    for broken in (b"", b"[]", b'{"a": 3}', b'{"a.test": {"failures": 1}}', b"\xff", ODD):
        path.write_bytes(broken)
        assert other.all() == {}


def test_a_clock_that_was_put_back_holds_nobody() -> None:
    """What would wait for longer than any pause waits no more (T68)."""
    assert Hold(1, time.time() + 2 * PAUSES[-1], "").over
    assert not Hold(1, time.time() + 30, "").over
