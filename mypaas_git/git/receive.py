"""``git-receive-pack``: a push is judged, taken in, carried out and reported.

dulwich's own handler answers "ok" to a push that lost the race for a branch,
takes refs to objects that nobody has, and drops the connection on what it did
not expect; so only its protocol and pack parts are used. Protocol: version 0 of
git's ``gitprotocol-pack(5)``, "Pushing Data To a Server".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple, Protocol

import structlog
from dulwich.errors import GitProtocolError
from dulwich.objects import ZERO_SHA
from dulwich.protocol import format_ref_line

from mypaas_git.errors import GitRefused, MypaasError, PlanOnly, RefRefused
from mypaas_git.failpoints import reach
from mypaas_git.git.commands import (
    SIDE_BAND,
    Command,
    RefUpdate,
    Request,
    Rules,
    read_request,
    reason,
    unreadable,
)
from mypaas_git.git.ingest import Take, quarantined, take_in
from mypaas_git.git.pusher import Pusher
from mypaas_git.git.repository import Repositories, Repository
from mypaas_git.git.wire import AGENT, Stream, Wire
from mypaas_git.names import ServiceName
from mypaas_git.progress import Progress, clean

__all__ = ["Deploy", "Move", "Plan", "RefUpdate", "Stream", "receive_pack"]

SHOWN_FAULTS = 10
"""Refused refs that get a line of their own before the report."""
_CAPABILITIES = [
    b"report-status",
    b"report-status-v2",
    SIDE_BAND,
    b"ofs-delta",
    b"delete-refs",
    b"quiet",
    b"atomic",
    b"push-options",
    b"object-format=sha1",
    AGENT,
]

log = structlog.get_logger()


class Move(Protocol):
    """Moves the branch, from where the client saw it or from ``now``. Raises RefRefused."""

    def __call__(self, now: str | None = None, /) -> None: ...


Deploy = Callable[[Repository, RefUpdate, Progress, Move], None]
"""Makes a commit live, then as its last step calls ``move()``, which moves the branch.

A :class:`MypaasError` leaves the branch where it was and is the reason that git prints.
"""
Plan = Callable[[Repository, RefUpdate, Progress], None]
"""Tells what a deploy would change. Raises what keeps a deploy from beginning."""


def receive_pack(
    stream: Stream,
    repositories: Repositories,
    name: ServiceName,
    *,
    branches: Sequence[str],
    max_pack_size: int,
    deploy: Deploy,
    plan: Plan,
    push_id: str,
    allow: Callable[[str], None] = lambda _: None,
    take: Take = take_in,
) -> Sequence[Command]:
    """Serve one push to the repository of ``name``, which is created when it is missing.

    A push to one of ``branches`` deploys, or tells its ``plan``; ``max_pack_size`` is in
    bytes; ``allow`` raises a :class:`MypaasError` for a ref that is not theirs to move;
    ``take`` takes packs in. Returns what was asked for, and what came of it, when that was
    reported or nobody is left to report to. Raises :class:`RepositoryMissing` when what is
    in the repository's place is none.
    """
    wire = Wire(stream)
    commands: Sequence[Command] = ()
    with suppress(GitProtocolError):
        _advertise(wire, _refs(repositories, name))
        try:
            request = read_request(wire)
        except GitRefused as error:
            commands = [unreadable(error)]
            wire.drain(max_pack_size)
            return commands
        commands = request.commands
        if commands:
            pusher = Pusher(wire, request, take)
            do = _Doers(deploy, plan)
            push = _Push(pusher, request, Rules(branches, allow), do=do, push_id=push_id)
            push.run(repositories, name, max_pack_size)
    return commands


def _refs(repositories: Repositories, name: ServiceName) -> dict[str, str]:
    if not repositories.exists(name):
        return {}
    with repositories.open(name) as repository:
        return repository.refs()


def _advertise(wire: Wire, refs: dict[str, str]) -> None:
    lines = [
        (ref.encode("utf-8", "surrogateescape"), sha.encode("ascii"))
        for ref, sha in refs.items()
    ] or [(b"capabilities^{}", ZERO_SHA)]
    for number, (ref, sha) in enumerate(lines):
        wire.write_pkt_line(format_ref_line(ref, sha, None if number else _CAPABILITIES))
    wire.write_pkt_line(None)


class _Doers(NamedTuple):
    deploy: Deploy
    plan: Plan


class _Push:
    """One push, from its commands to the report."""

    def __init__(
        self, pusher: Pusher, request: Request, rules: Rules, *, do: _Doers, push_id: str
    ) -> None:
        self._pusher = pusher
        self._request = request
        self._rules = rules
        self._do = do
        self._id = push_id
        self._unpacked = "ok"

    def run(self, repositories: Repositories, name: ServiceName, limit: int) -> None:
        """The plot: judge, take in, carry out, report."""
        try:
            with self._pusher.kept_alive():
                self._rules.judge(self._request, _refs(repositories, name))
                self._warn(self._request.commands)
                if self._request.accepted and self._request.plans:
                    with repositories.open_or_pretend(name) as repository:
                        self._tell(repository, limit)
                elif self._request.accepted:
                    with repositories.open_or_create(name) as repository:
                        self._take_in(repository, limit)
                        self._carry_out(repository)
        except Exception:
            log.exception("push failed", push=self._id, service=name)
            self._give_up(self._request.accepted)
        reach("report.unsent")
        self._pusher.report(self._unpacked, self._request.commands)
        self._pusher.finish(limit)

    def _warn(self, commands: Sequence[Command]) -> None:
        """Show why refs are refused; git itself shows a reason in brackets only."""
        refused = {command.reason: None for command in commands if command.reason}
        for why in list(refused)[:SHOWN_FAULTS]:
            self._pusher.progress.warning(why.partition(": ")[2])

    def _take_in(self, repository: Repository, limit: int) -> None:
        """Receive the objects, and see that each ref gets one that it can have."""
        with self._told(), quarantined(repository.objects) as quarantine:
            checksum = self._pusher.send_pack(quarantine, limit)
            reach("receive.quarantined")
            if checksum:
                quarantine.migrate(checksum)
            reach("receive.stored")
        self._check_objects(repository)

    def _tell(self, repository: Repository, limit: int) -> None:
        """Say what the push would change; its pack gets no further than the quarantine."""
        with quarantined(repository.objects) as quarantine:
            with self._told():
                self._pusher.send_pack(quarantine, limit)
            with repository.with_store(quarantine.store()) as enlarged:
                self._check_objects(enlarged)
                for command in self._request.accepted:
                    self._tell_of(enlarged, command)
        self._request.refuse(PlanOnly("nothing was changed"))

    def _tell_of(self, repository: Repository, command: Command) -> None:
        update, progress = command.update, self._pusher.progress
        if not self._rules.deploys(update):
            shown = clean(update.ref)
            where = f"be set to {update.new[:7]}" if update.new else "be deleted"
            progress.step(f"{shown} would {where}")
            return
        try:
            self._do.plan(repository, update, progress)
        except MypaasError as error:
            command.refuse(error)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Have a pack that is refused be the fate of all that needs it."""
        waiting = self._request.accepted
        try:
            yield
        except GitRefused as error:
            self._unpacked = reason(error)
            self._request.refuse(error)
            self._warn(waiting)

    def _check_objects(self, repository: Repository) -> None:
        waiting = self._request.accepted
        for command in waiting:
            try:
                _check_object(repository, command.update)
            except GitRefused as error:
                command.refuse(error)
        self._request.keep_atomic()
        self._warn(waiting)

    def _carry_out(self, repository: Repository) -> None:
        commands = self._request.accepted
        if b"atomic" in self._request.capabilities:
            # What can fail for many reasons comes last, while the rest can be undone.
            commands.sort(key=lambda command: self._rules.deploys(command.update))
        moved: list[RefUpdate] = []
        for command in commands:
            if command.reason is None:
                self._move(repository, command)
            if command.reason is None:
                moved.append(command.update)
            elif b"atomic" in self._request.capabilities:
                _undo(repository, moved)
                self._request.keep_atomic()

    def _move(self, repository: Repository, command: Command) -> None:
        """Deploy, or just move the ref."""
        update = command.update
        try:
            if self._rules.deploys(update):
                self._make_live(repository, update)
            else:
                repository.move_ref(update.ref, update.old, update.new)
        except MypaasError as error:
            command.refuse(error)
            if not self._rules.deploys(update):
                self._warn([command])
        except Exception:
            log.exception("push failed", push=self._id, ref=update.ref, commit=update.new)
            self._give_up([command])

    def _make_live(self, repository: Repository, update: RefUpdate) -> None:
        moved = False

        def move(now: str | None = None, /) -> None:
            nonlocal moved
            repository.move_ref(update.ref, now or update.old, update.new)
            moved = True
            repository.adopt_head(update.ref)

        self._do.deploy(repository, update, self._pusher.progress, move)
        if not moved:
            raise RuntimeError("a deploy ended well without moving its branch")

    def _give_up(self, commands: Sequence[Command]) -> None:
        """The pusher learns which push it was; the log has the rest."""
        for command in commands:
            command.reason = f"internal error, push id {self._id}"
            command.error = RuntimeError(command.reason)
        self._pusher.progress.warning(f"internal error, push id {self._id}")


def _check_object(repository: Repository, update: RefUpdate) -> None:
    if update.new is None:
        return
    kind = repository.kind(update.new)
    if update.ref.startswith("refs/heads/") and kind != "commit":
        raise RefRefused(f"a branch must be at a commit, not at a {kind}")
    repository.check_tag(update.new)


def _undo(repository: Repository, moved: list[RefUpdate]) -> None:
    """Put refs back, unless somebody else has moved them on."""
    while moved:
        update = moved.pop()
        with suppress(MypaasError):
            repository.move_ref(update.ref, update.new, update.old)
