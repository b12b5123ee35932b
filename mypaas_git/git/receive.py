"""``git-receive-pack``: a push is judged, taken in, carried out and reported.

dulwich's own handler answers "ok" to a push that lost the race for a branch,
takes refs to objects that nobody has, and drops the connection on what it did
not expect; so only its protocol and pack parts are used. Protocol: version 0 of
git's ``gitprotocol-pack(5)``, "Pushing Data To a Server".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock

import structlog
from dulwich.errors import GitProtocolError
from dulwich.objects import ZERO_SHA
from dulwich.protocol import format_ref_line, pkt_seq

from mypaas_git.errors import GitRefused, MypaasError, RefRefused
from mypaas_git.failpoints import reach
from mypaas_git.git.commands import (
    SIDE_BAND,
    Command,
    RefUpdate,
    Request,
    Rules,
    read_request,
    reason,
)
from mypaas_git.git.ingest import Take, ingest, take_in
from mypaas_git.git.limits import Limits, PackBroken
from mypaas_git.git.packstream import PackStream
from mypaas_git.git.repository import Repositories, Repository
from mypaas_git.git.wire import AGENT, Stream, Wire
from mypaas_git.names import ServiceName
from mypaas_git.progress import LineProgress, Progress

__all__ = ["Deploy", "RefUpdate", "Stream", "receive_pack"]

SHOWN_FAULTS = 10
"""Refused refs that get a line of their own before the report."""
_CAPABILITIES = [
    b"report-status",
    SIDE_BAND,
    b"ofs-delta",
    b"delete-refs",
    b"quiet",
    b"atomic",
    b"object-format=sha1",
    AGENT,
]

log = structlog.get_logger()

Deploy = Callable[[Repository, RefUpdate, Progress, Callable[[], None]], None]
"""Makes a commit live, then as its last step calls ``move()``, which moves the branch.

A :class:`MypaasError` leaves the branch where it was and is the reason that git prints.
"""


def receive_pack(
    stream: Stream,
    repositories: Repositories,
    name: ServiceName,
    *,
    branches: Sequence[str],
    max_pack_size: int,
    deploy: Deploy,
    push_id: str,
    take: Take = take_in,
) -> None:
    """Serve one push to the repository of ``name``, which is created when it is missing.

    A push to one of ``branches`` deploys; ``max_pack_size`` is in bytes; ``take`` takes
    packs in. Returns
    when the push was reported or nobody is left to report to. Raises
    :class:`RepositoryMissing` when what is in the repository's place is none.
    """
    wire = Wire(stream)
    with suppress(GitProtocolError):
        _advertise(wire, _refs(repositories, name))
        try:
            request = read_request(wire)
        except GitRefused:
            wire.drain(max_pack_size)
            return
        if request.commands:
            push = _Push(
                _Pusher(wire, request, take), request, Rules(branches), deploy, push_id
            )
            push.run(repositories, name, max_pack_size)


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


class _Pusher:
    """Who pushes: sends a pack, sees progress and gets the report, unless gone."""

    def __init__(self, wire: Wire, request: Request, take: Take) -> None:
        self._wire = wire
        self._take = take
        self._side_band = SIDE_BAND in request.capabilities
        self._wants_report = b"report-status" in request.capabilities
        self._sends_pack = request.sends_pack
        self._broken = False
        # A build and a health check may both have something to say.
        self._writing = Lock()
        self._listens = True
        self.progress = LineProgress(self._show)

    def ingest(self, repository: Repository, limit: int) -> None:
        """Take the pack in, if there is one. Raises :class:`GitRefused`."""
        if not self._sends_pack:
            return
        self._sends_pack, self._broken = False, True
        try:
            ingest(self._wire.recv, repository.objects, limit, self._take)
        except PackBroken:
            raise
        except GitRefused:
            self._broken = False
            raise
        self._broken = False

    def report(self, unpacked: str, commands: Sequence[Command]) -> None:
        """Say what became of everything, the last words of a push."""
        lines = [f"unpack {unpacked}\n".encode()]
        for command in commands:
            status = b"ok %s" % command.raw_ref
            if command.reason is not None:
                status = b"ng %s %s" % (command.raw_ref, command.reason.encode())
            lines.append(status + b"\n")
        with self._writing:
            if self._wants_report and self._side_band:
                self._wire.write_sideband(1, pkt_seq(*lines))
            elif self._wants_report:
                for line in lines:
                    self._wire.write_pkt_line(line)
            if self._wants_report or self._side_band:
                self._wire.write_pkt_line(None)
            self._listens = False

    def finish(self, limit: int) -> None:
        """Read what is still being sent: git looks at the report only afterwards."""
        if self._sends_pack:
            try:
                for _ in PackStream(self._wire.recv, len, Limits(received=limit)).entries():
                    pass
            except GitRefused:
                self._broken = True
        if self._broken:
            self._wire.drain(limit)

    def _show(self, line: str) -> None:
        """Show a line at once; that nobody is there to see it is no reason to stop."""
        with self._writing:
            if self._side_band and self._listens:
                try:
                    self._wire.write_sideband(2, line.encode("utf-8", "replace"))
                except GitProtocolError:
                    self._listens = False


class _Push:
    """One push, from its commands to the report."""

    def __init__(
        self, pusher: _Pusher, request: Request, rules: Rules, deploy: Deploy, push_id: str
    ) -> None:
        self._pusher = pusher
        self._request = request
        self._rules = rules
        self._deploy = deploy
        self._id = push_id
        self._unpacked = "ok"

    def run(self, repositories: Repositories, name: ServiceName, limit: int) -> None:
        """The plot: judge, take in, carry out, report."""
        try:
            self._rules.judge(self._request, _refs(repositories, name))
            self._warn(self._request.commands)
            if self._request.accepted:
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
        waiting = self._request.accepted
        try:
            self._pusher.ingest(repository, limit)
        except GitRefused as error:
            self._unpacked = reason(error)
            for command in waiting:
                command.refuse(error)
        for command in self._request.accepted:
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

        def move() -> None:
            nonlocal moved
            repository.move_ref(update.ref, update.old, update.new)
            moved = True
            repository.adopt_head(update.ref)

        self._deploy(repository, update, self._pusher.progress, move)
        if not moved:
            raise RuntimeError("a deploy ended well without moving its branch")

    def _give_up(self, commands: Sequence[Command]) -> None:
        """The pusher learns which push it was; the log has the rest."""
        for command in commands:
            command.reason = f"internal error, push id {self._id}"
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
