"""Sends bent pushes to our receive-pack, over pipes, and looks for what must never be.

That is: an exception, a traceback in the log, an answer that git could not read, a wait
of more than ten seconds, a descriptor, thread or file that is left, and a repository that
``git fsck --strict`` dislikes. A run follows from its seed; a batch of pushes goes to one
repository, so that a batch can be run again by itself.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import structlog
from fuzz_inputs import Known, Maker, Sent
from support.stockgit import git

from mypaas_git.git.ingest import Take, take_in
from mypaas_git.git.receive import RefUpdate, receive_pack
from mypaas_git.git.repository import Repositories, Repository
from mypaas_git.names import ServiceName
from mypaas_git.progress import Progress

SECONDS = 10
"""After so long a push hangs."""
BATCH = 250
"""Pushes to one repository."""
PIPE = 1 << 20
"""Bytes that a pipe holds, and that a push or its answer stays below."""
HELLO = ServiceName("hello")


@dataclass
class Outcome:
    """What a run has shown."""

    pushes: int = 0
    moved: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def add(self, other: Outcome) -> None:
        self.pushes += other.pushes
        self.moved += other.moved
        self.reasons += other.reasons
        self.faults += other.faults
        self.slowest = max(self.slowest, other.slowest)


class Hang(BaseException):
    """Nothing came back in time."""


class Pipes:
    """A client's end and ours; all that the client sends lies ready."""

    def __init__(self, data: bytes) -> None:
        self._from_client, self._to_us = _pipe()
        self._answer, self._to_client = _pipe()
        os.write(self._to_us, data)
        os.close(self._to_us)

    def read(self, n: int) -> bytes:
        return os.read(self._from_client, n)

    def write(self, data: bytes) -> None:
        os.write(self._to_client, data)

    def answer(self) -> bytes:
        """All that was answered; nothing can be said any more."""
        os.close(self._from_client)
        os.close(self._to_client)
        answer = b""
        while piece := os.read(self._answer, PIPE):
            answer += piece
        os.close(self._answer)
        return answer


class Batch:
    """Pushes to one repository, which is looked at afterwards."""

    def __init__(self, root: Path, seed: int, number: int, take: Take = take_in) -> None:
        self._repositories = Repositories(root / "repos")
        self._root = root
        self._seed = seed
        self._number = number
        self._take = take
        self._known = Known()
        self.outcome = Outcome()

    def run(self, pushes: int = BATCH) -> Outcome:
        before = _descriptors(), _threads()
        for number in range(pushes):
            random = Random(f"{self._seed}/{self._number}/{number}")  # noqa: S311 - no secret
            sent = Maker(random, self._known).push()
            self._push(number, sent)
        self._look(before)
        shutil.rmtree(self._root / "repos", ignore_errors=True)
        return self.outcome

    def _push(self, number: int, sent: Sent) -> None:
        pipes = Pipes(sent.data[:PIPE])
        began = time.monotonic()
        with structlog.testing.capture_logs() as logged:
            try:
                with _deadline():
                    self._receive(pipes)
            except (Exception, Hang) as error:  # noqa: BLE001 - each of them is a finding
                self._fault(number, f"{type(error).__name__}: {error}")
        self.outcome.pushes += 1
        self.outcome.slowest = max(self.outcome.slowest, time.monotonic() - began)
        for entry in logged:
            if entry["log_level"] in {"error", "critical"}:
                self._fault(number, f"logged: {entry}")
        self._judge(number, sent, pipes.answer())

    def _receive(self, pipes: Pipes) -> None:
        receive_pack(
            pipes,
            self._repositories,
            HELLO,
            branches=["main", "master"],
            max_pack_size=PIPE,
            deploy=_deploy,
            plan=_plan,
            push_id="fuzz",
            take=self._take,
        )

    def _judge(self, number: int, sent: Sent, answer: bytes) -> None:
        """Read the answer as git would, and remember what it says."""
        try:
            report = read_answer(answer)
        except ValueError as error:
            self._fault(number, f"the answer is no git: {error}: {answer[-200:]!r}")
            return
        for line in report:
            words = line.split(b" ", 2)
            if words[0] == b"ng":
                # A name with a space in it, which is refused, comes back as it was.
                code = words[-1].split(b":")[0].split(b" ")[-1]
                self.outcome.reasons[code.decode()] += 1
                if b"internal error" in line:
                    self._fault(number, line.decode("utf-8", "replace"))
            elif words[0] == b"ok":
                self.outcome.moved += 1
        self._learn(sent)

    def _learn(self, sent: Sent) -> None:
        """See what the server has now; not every client asked to be told."""
        before = self._known.refs
        if self._repositories.exists(HELLO):
            with self._repositories.open(HELLO) as repository:
                self._known.refs = repository.refs()
        if self._known.refs != before:
            for kind, data in sent.objects:
                self._known.add(kind, data)

    def _look(self, before: tuple[int, int]) -> None:
        """Look for what was left, and at the repository."""
        if (_descriptors(), _threads()) != before:
            self._fault(-1, f"descriptors, threads: {before} → {(_descriptors(), _threads())}")
        left = [
            path
            for pattern in ("incoming-*", ".new-*", "tmp*", "*.lock")
            for path in self._root.rglob(pattern)
            if not path.name.startswith("a.lock")
        ]
        if left:
            self._fault(-1, f"left behind: {left}")
        path = self._root / "repos" / "hello.git"
        if path.exists():
            self._check(path)

    def _check(self, path: Path) -> None:
        options = ("--strict", "--full", "--no-dangling")
        try:
            done = git(path, "fsck", *options, check=False, seconds=60)
        except subprocess.TimeoutExpired:
            self._fault(-1, "git fsck does not end")
            return
        if done.returncode or "error" in done.stderr:
            self._fault(-1, f"git fsck: {done.stderr[:500]}")

    def _fault(self, number: int, what: str) -> None:
        self.outcome.faults.append(f"seed {self._seed}, {self._number}/{number}: {what}")


def run(root: Path, seed: int, batches: Iterator[int], take: Take = take_in) -> Outcome:
    """Run these batches below the empty directory ``root``."""
    outcome = Outcome()
    for number in batches:
        outcome.add(Batch(root, seed, number, take).run())
    return outcome


def read_answer(answer: bytes) -> list[bytes]:
    """The lines of the report in an answer. Raises ValueError when git could not read it."""
    lines, at = _packets(answer, 0)
    report: list[bytes] = []
    # What was advertised ends with the first flush.
    while at < len(answer):
        lines, at = _packets(answer, at)
        banded = all(line[:1] in b"\1\2\3" for line in lines)
        if banded:
            inner = b"".join(line[1:] for line in lines if line[:1] == b"\1")
            lines = _packets(inner, 0)[0] if inner else []
        report += [line.rstrip(b"\n") for line in lines]
    return report


def _packets(data: bytes, at: int) -> tuple[list[bytes], int]:
    """The packets up to the flush, or the end, and where that is."""
    found: list[bytes] = []
    while at < len(data):
        size = int(data[at : at + 4], 16)
        if size == 0:
            return found, at + 4
        if size < 4 or at + size > len(data):
            raise ValueError(f"a packet of {size} bytes at {at}")
        found.append(data[at + 4 : at + size])
        at += size
    return found, at


def _deploy(
    repository: Repository, update: RefUpdate, progress: Progress, move: Callable[[], None]
) -> None:
    """Look at all of a commit, as a deploy does, and have the branch move."""
    _plan(repository, update, progress)
    move()


def _plan(repository: Repository, update: RefUpdate, progress: Progress) -> None:
    assert update.new
    progress.step(repository.commit_subject(update.new))
    repository.read_file(update.new, "Dockerfile", 1 << 20)
    for _ in repository.context(update.new):
        pass


@contextmanager
def _deadline() -> Iterator[None]:
    def hang(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _pipe() -> tuple[int, int]:
    reads, writes = os.pipe()
    with suppress(PermissionError):
        fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, PIPE)
    return reads, writes


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a Path would open one more


def _threads() -> int:
    return threading.active_count()
