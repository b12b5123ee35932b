"""Whose turn it is: by flock, among threads and processes alike."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from support.net import wait_until

from mypaas_git.deploy.lock import ServiceLocks, never
from mypaas_git.errors import Cancelled, MypaasError, ServiceBusy, Superseded
from mypaas_git.names import ServiceName
from mypaas_git.progress import LineProgress

APP, OTHER = ServiceName("app"), ServiceName("other")

IMPORTS = """
import sys, time
from pathlib import Path
from mypaas_git.deploy.lock import ServiceLocks
from mypaas_git.names import ServiceName
from mypaas_git.progress import Tee

locks = ServiceLocks(Path(sys.argv[1]))
"""
HOLD = f"""{IMPORTS}
with locks.hold(ServiceName("app"), "carol", Tee()):
    print("held", flush=True)
    sys.stdin.read()
"""
BUILD = f"""{IMPORTS}
with locks.hold_build(Tee()):
    print(time.monotonic(), flush=True)
    time.sleep(0.3)
    print(time.monotonic())
"""


@contextlib.contextmanager
def held_elsewhere(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, carol's, that holds the lock until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


class Waiter:
    """Somebody in a thread of their own: what they were told, and what came of it."""

    def __init__(
        self, take: Callable[[LineProgress], AbstractContextManager[None]], *, busy: float = 0.0
    ) -> None:
        self._take = take
        self._busy = busy
        self.told: list[str] = []
        self.error: MypaasError | None = None
        self.had_it = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            with self._take(LineProgress(self.told.append)):
                self.had_it = True
                time.sleep(self._busy)
        except MypaasError as error:
            self.error = error

    def waits(self) -> Waiter:
        """Return once they were told to wait."""
        wait_until(lambda: self.told, "somebody is told to wait")
        return self

    def ended(self) -> Waiter:
        self.thread.join(5)
        assert not self.thread.is_alive(), "still waiting"
        return self


@pytest.fixture
def locks(tmp_path: Path) -> ServiceLocks:
    return ServiceLocks(tmp_path, builds=2)


def verb(
    locks: ServiceLocks, who: str, *, cancelled: Callable[[], bool] = never, busy: float = 0.0
) -> Waiter:
    return Waiter(lambda out: locks.hold(APP, who, out, cancelled), busy=busy)


def push(
    locks: ServiceLocks, who: str, *, cancelled: Callable[[], bool] = never, busy: float = 0.0
) -> Waiter:
    return Waiter(lambda out: locks.hold_for_push(APP, who, out, cancelled), busy=busy)


def test_who_waits_is_told_for_whom_and_since_when(tmp_path: Path, locks: ServiceLocks) -> None:
    """One line at once, with the holder's name and the time; then it is their turn."""
    began = int(time.time())
    with held_elsewhere(tmp_path):
        waiting = push(locks, "dave").waits()
    waiting.ended()
    assert waiting.had_it
    (line,) = waiting.told
    found = re.fullmatch(
        r"-----> Waiting for carol \(since (\d\d:\d\d:\d\d) UTC, \d s so far\) "
        r"to finish with app\n",
        line,
    )
    assert found, line
    around = [time.strftime("%H:%M:%S", time.gmtime(began + n)) for n in range(10)]
    assert found[1] in around


def test_who_waits_long_is_reminded(
    locks: ServiceLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deploy can take minutes: who waits sees now and then that there is a reason."""
    monkeypatch.setattr("mypaas_git.deploy.lock.REMIND", 0.2)
    with locks.hold_now(APP, "carol"):
        waiting = verb(locks, "dave")
        wait_until(lambda: len(waiting.told) >= 3, "told again")
    waiting.ended()


def test_nobody_waits_for_a_free_lock(locks: ServiceLocks) -> None:
    """Nothing is said either, whether the lock was ever held or not."""
    for _ in range(2):
        alone = push(locks, "dave").ended()
        assert alone.had_it
        assert not alone.told


def test_services_do_not_wait_for_each_other(locks: ServiceLocks) -> None:
    """Each has a lock of its own."""
    with locks.hold_now(APP, "carol"), locks.hold_now(OTHER, "dave"):
        pass


def test_of_those_that_wait_the_newest_push_goes_on(
    tmp_path: Path, locks: ServiceLocks
) -> None:
    """The others are refused at once, and told by whom they were superseded."""
    with held_elsewhere(tmp_path):
        first = push(locks, "dave").waits()
        second = push(locks, "erin").waits()
        first.ended()
        third = push(locks, "frank").waits()
        second.ended()
        assert third.thread.is_alive()
    assert third.ended().had_it
    for older, by in ((first, "erin"), (second, "frank")):
        assert isinstance(older.error, Superseded)
        assert older.error.message == f"a newer push by {by} came while this one waited"
        assert not older.had_it


def test_pushes_that_come_at_once(locks: ServiceLocks) -> None:
    """Exactly one of those that waited has its turn, however closely they came."""
    with locks.hold_now(APP, "carol"):
        pushes = [push(locks, f"p{n}").waits() for n in range(8)]
    for each in pushes:
        each.ended()
    assert [each.had_it for each in pushes] == [False] * 7 + [True]


def test_a_push_that_has_its_turn_keeps_it(locks: ServiceLocks) -> None:
    """A newer one waits for it instead of ending it."""
    first = push(locks, "dave", busy=0.3)
    wait_until(lambda: first.had_it, "dave deploys")
    second = push(locks, "erin").waits()
    assert "Waiting for dave" in second.told[0]
    assert first.ended().error is None
    assert second.ended().had_it


def test_verbs_are_not_superseded(locks: ServiceLocks) -> None:
    """Who restarts or rolls back has no newer version: both they and the push go on."""
    with locks.hold_now(APP, "carol"):
        restart = verb(locks, "dave").waits()
        older = push(locks, "erin").waits()
        rollback = verb(locks, "frank").waits()
        newest = push(locks, "grace").waits()
    for each in (restart, rollback, newest):
        assert each.ended().had_it
        assert each.error is None
    assert isinstance(older.ended().error, Superseded)


def test_a_killed_holder_frees_the_lock(tmp_path: Path, locks: ServiceLocks) -> None:
    """The kernel does it: no file has to be cleared away."""
    with held_elsewhere(tmp_path) as holder:
        with pytest.raises(ServiceBusy, match="app is being deployed by carol"):
            locks.hold_now(APP, "dave").__enter__()
        waiting = push(locks, "erin").waits()
        holder.send_signal(signal.SIGKILL)
        assert waiting.ended().had_it
    with locks.hold_now(APP, "dave"):
        pass


def test_who_leaves_does_not_wait_on(locks: ServiceLocks) -> None:
    """Cancelled names the holder, and the next in line is not kept waiting for the dead."""
    left = threading.Event()
    with locks.hold_now(APP, "carol"):
        leaving = [
            push(locks, "erin", cancelled=left.is_set).waits(),
            verb(locks, "dave", cancelled=left.is_set).waits(),
        ]
        left.set()
        for each in leaving:
            assert isinstance(each.ended().error, Cancelled)
            assert "while it waited for carol (since " in str(each.error)
    with locks.hold_now(APP, "frank"):
        pass


def test_what_is_no_note_is_passed_over(tmp_path: Path, locks: ServiceLocks) -> None:
    """The lock counts, whatever a crash or an admin made of the files beside it."""
    with locks.hold_now(APP, "carol"):
        (tmp_path / "app.lock").write_bytes(b'{"who": ')
        waiting = push(locks, "dave").waits()
        assert "Waiting for another deploy to finish" in waiting.told[0]
        (tmp_path / "app.newest").write_bytes(b"[]")
    assert waiting.ended().had_it
    (tmp_path / "app.newest").unlink()
    assert push(locks, "erin").ended().had_it


def test_builds_are_bounded_across_processes(tmp_path: Path) -> None:
    """Of five that want to build at once two do at any time, and each has its turn."""
    builders = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(5)
    ]
    spans = [tuple(map(float, each.communicate(timeout=30)[0].split())) for each in builders]
    assert all(len(span) == 2 for span in spans)
    at_once = [sum(begin <= moment < end for begin, end in spans) for moment, _ in spans]
    assert max(at_once) == 2, spans


def test_who_waits_to_build_is_told_once_and_may_leave(locks: ServiceLocks) -> None:
    """They learn how many builds run; whoever leaves takes nobody's place."""
    left = threading.Event()
    quiet = LineProgress(lambda _: None)
    with locks.hold_build(quiet), locks.hold_build(quiet):
        leaving = Waiter(lambda out: locks.hold_build(out, left.is_set)).waits()
        waiting = Waiter(locks.hold_build).waits()
        left.set()
        assert isinstance(leaving.ended().error, Cancelled)
        assert not waiting.had_it
    assert waiting.ended().had_it
    assert waiting.told == ["-----> Waiting to build: 2 builds run already\n"]
