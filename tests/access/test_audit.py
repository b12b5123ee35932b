"""The audit trail as files: what is kept, for how long, and what a crash leaves of it."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

from structlog.testing import capture_logs

from mypaas_git.access.audit import MAX_TEXT, OLDER, Outcome, Record, Trail, record
from mypaas_git.access.policy import Identity
from mypaas_git.errors import AccessDenied, BuildFailed, PlanOnly
from mypaas_git.names import ServiceName

ALICE = Identity("alice", "SHA256:a", address="192.0.2.1:22")
STRANGER = Identity("", "SHA256:s", address="192.0.2.9:22")
WEB = ServiceName.parse("web")


def said(text: str, who: Identity = ALICE, service: str = "web") -> Record:
    return record(who, text, service)


def verbs(trail: Trail, count: int = 1000) -> list[str]:
    return [each.verb for each in trail.last(count)]


def test_written_and_read(tmp_path: Path) -> None:
    """What was added is found again, in order, of one service or of all; private."""
    trail = Trail(tmp_path)
    assert trail.last(10) == []
    added = [said("one"), said("two", service="shop"), said("three")]
    for each in added:
        trail.add(each)
    assert trail.last(10) == added
    assert trail.last(2) == added[1:]
    assert trail.last(0) == []
    assert trail.last(10, WEB) == [added[0], added[2]]
    assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o600}


def test_outcomes() -> None:
    """Refusals tell why; the message of a failed build, which may quote it, stays out."""
    assert record(ALICE, "push", "web").outcome is Outcome.OK
    assert record(ALICE, "push", "web", PlanOnly("nothing")).outcome is Outcome.OK
    denied = record(ALICE, "push", "web", AccessDenied("no right"))
    assert (denied.outcome, denied.code, denied.why) == (
        Outcome.REFUSED,
        "access-denied",
        "no right",
    )
    failed = record(ALICE, "push", "web", BuildFailed("RUN echo hunter2"))
    assert (failed.outcome, failed.code, failed.why) == (Outcome.FAILED, "build-failed", "")
    assert record(ALICE, "push", "web", BrokenPipeError()).code == "client-gone"
    assert record(ALICE, "push", "web", RuntimeError("x")).code == "internal-error"


def test_long_and_hostile_text(tmp_path: Path) -> None:
    """A record is one line of bounded length, whatever a client has made of it."""
    trail = Trail(tmp_path)
    trail.add(record(ALICE, "push", "\n\x1b]0;x\x07" * 1000, None, {"ref": "é\0" * 1000}))
    (found,) = trail.last(10)
    assert len(found.service) == len(found.detail["ref"]) == MAX_TEXT
    content = (tmp_path / "audit.jsonl").read_bytes()
    assert content.count(b"\n") == 1
    assert content.isascii()
    assert b"\x1b" not in content


def test_line_that_was_cut_off(tmp_path: Path) -> None:
    """A record of which a crash left a part is passed over, and spoils no other."""
    trail = Trail(tmp_path)
    trail.add(said("first"))
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b'{"at": 12')
    trail.add(said("second"))
    assert verbs(trail) == ["first", "second"]


def test_bounded(tmp_path: Path) -> None:
    """A full file is put aside, so many are kept, and the newest records always are."""
    trail = Trail(tmp_path, max_bytes=1000)
    for number in range(100):
        trail.add(said(f"v{number}"))
    kept = verbs(trail)
    assert kept == [f"v{number}" for number in range(100 - len(kept), 100)]
    assert len(list(tmp_path.glob("audit.jsonl*"))) == OLDER + 1
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) <= 1000 * (OLDER + 1)
    assert verbs(trail, 3) == ["v97", "v98", "v99"]


def test_strangers_push_nobody_out(tmp_path: Path) -> None:
    """However often strangers knock, what keys have done stays."""
    trail = Trail(tmp_path, max_bytes=1000)
    trail.add(said("by alice"))
    for _ in range(100):
        trail.add(record(STRANGER, "login", None, AccessDenied("unknown")))
    assert "by alice" in verbs(trail)
    assert trail.last(1)[0].verb == "login"


def test_writers_at_the_same_time(tmp_path: Path) -> None:
    """Threads, and processes by the same lock, lose nothing, not even at a full file."""
    full = 20_000

    def write(name: str) -> None:
        trail = Trail(tmp_path, max_bytes=full)
        for number in range(50):
            trail.add(said(f"{name}.{number}"))

    threads = [threading.Thread(target=write, args=[str(each)]) for each in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = verbs(Trail(tmp_path, max_bytes=full))
    assert sorted(found) == sorted(
        f"{each}.{number}" for each in range(4) for number in range(50)
    )


def test_nowhere_to_write(tmp_path: Path) -> None:
    """A trail that cannot be written keeps nobody from what they do."""
    with capture_logs() as logs:
        Trail(tmp_path / "missing").add(said("lost"))
    assert [each["event"] for each in logs] == ["not audited"]
    assert "lost" in logs[0]["record"]
