"""What a push asks for: the refs that the client wants moved, and which may not be.

Format: version 0 of git's ``gitprotocol-pack(5)``, "Reference Update Request".
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from dulwich.refs import Ref, check_ref_format

from mypaas_git.errors import GitRefused, MypaasError, RefRefused
from mypaas_git.git.wire import Wire
from mypaas_git.progress import clean

MAX_COMMANDS = 10_000
MAX_LINE = 4096
"""Bytes of one command, its capabilities included."""
MAX_REASON = 900
"""Bytes of a reason; git cuts a line that is longer than 1000."""
RESERVED = "refs/tags/release/"
"""Tags that the server itself sets."""
MAX_OPTIONS = 100
SIDE_BAND = b"side-band-64k"
PLAN = "plan"
OPTIONS = (PLAN,)
"""What ``git push -o`` may ask for."""
_HEX = frozenset(b"0123456789abcdef")
_ZERO = b"0" * 40


@dataclass(frozen=True)
class RefUpdate:
    """A ref's object before and after, in hex; None where there is none."""

    ref: str
    old: str | None
    new: str | None


@dataclass
class Command:
    """One update as the client spelt its ref, and why it is refused if it is."""

    raw_ref: bytes
    update: RefUpdate
    reason: str | None = None
    error: Exception | None = None

    def refuse(self, error: MypaasError) -> None:
        self.reason, self.error = reason(error), error


@dataclass
class Request:
    """All commands of a push, what the client can do, and the push's options."""

    commands: list[Command] = field(default_factory=list)
    capabilities: frozenset[bytes] = frozenset()
    options: list[str] = field(default_factory=list)

    @property
    def sends_pack(self) -> bool:
        """A client that only deletes sends none."""
        return any(command.update.new for command in self.commands)

    @property
    def plans(self) -> bool:
        """Whether nothing is to be changed, only told."""
        return PLAN in self.options

    def refuse(self, error: MypaasError) -> None:
        """Refuse whatever was not refused yet."""
        for command in self.accepted:
            command.refuse(error)

    @property
    def accepted(self) -> list[Command]:
        return [command for command in self.commands if command.reason is None]

    def keep_atomic(self) -> None:
        """Of an atomic push all refs move or none: refuse the rest if one is refused."""
        if b"atomic" in self.capabilities and len(self.accepted) < len(self.commands):
            self.refuse(RefRefused("another ref of this atomic push was refused"))


@dataclass(frozen=True)
class Rules:
    """What may be pushed: ``branches`` deploy, and no other branch is taken.

    ``allow`` raises a :class:`MypaasError` for a ref that whoever pushes may not move.
    """

    branches: Sequence[str]
    allow: Callable[[str], None] = lambda _: None

    def branch(self, ref: str) -> str | None:
        """The name of the branch that deploys, None for every other ref."""
        branch = ref.removeprefix("refs/heads/")
        return branch if branch != ref and branch in self.branches else None

    def deploys(self, update: RefUpdate) -> bool:
        return update.new is not None and self.branch(update.ref) is not None

    def judge(self, request: Request, refs: Mapping[str, str]) -> None:
        """Refuse the commands that can be refused before anything is taken in.

        ``refs`` are those that the repository has.
        """
        deploys = sum(self.deploys(command.update) for command in request.commands)
        seen: set[str] = set()
        for command in request.commands:
            try:
                self._check(command.update, refs, seen, deploys)
            except MypaasError as error:
                command.refuse(error)
            seen.add(command.update.ref)
        for option in request.options:
            if option not in OPTIONS:
                request.refuse(GitRefused(_unknown(option)))
        request.keep_atomic()

    def _check(
        self, update: RefUpdate, refs: Mapping[str, str], seen: set[str], deploys: int
    ) -> None:
        _check_name(update.ref)
        self.allow(update.ref)
        if update.ref in seen:
            raise RefRefused("the same ref twice in one push")
        if update.new is None:
            self._check_deletion(update)
        elif update.ref.startswith("refs/heads/") and not self.branch(update.ref):
            raise self._no_deploy_branch(clean(update.ref.removeprefix("refs/heads/")))
        if refs.get(update.ref) != update.old:
            raise RefRefused("the ref moved meanwhile: fetch, merge, and push again")
        if deploys > 1 and self.deploys(update):
            raise RefRefused("one push deploys one branch: push them one by one")

    def _no_deploy_branch(self, pushed: str) -> RefRefused:
        only = f"only {' and '.join(self.branches)} deploy"
        for branch in self.branches:
            with suppress(MypaasError):
                self.allow(f"refs/heads/{branch}")
                return RefRefused(
                    f"{only}: git push mypaas {shlex.quote(f'{pushed}:{branch}')}, with your "
                    f"own name of the branch before the colon"
                )
        return RefRefused(f"{only}, and your key may not push there; ask an admin")

    def _check_deletion(self, update: RefUpdate) -> None:
        branch = self.branch(update.ref)
        if branch:
            raise RefRefused(f"'{branch}' names what is live and cannot be deleted")
        if update.old is None:
            raise RefRefused("there is no such ref to delete")


def read_request(wire: Wire) -> Request:
    """Read the commands and options up to the flush behind them.

    What is no command is answered with one line; then :class:`GitRefused` is raised.
    """
    request = Request()
    try:
        while line := wire.read_pkt_line():
            _read_line(request, line)
        if b"push-options" in request.capabilities:
            while line := wire.read_pkt_line():
                _read_option(request, line)
    except GitRefused as error:
        line = f"{reason(error)}\n".encode()
        if SIDE_BAND in request.capabilities:
            wire.write_sideband(3, line)
        else:
            wire.write_pkt_line(b"ERR " + line)
        raise
    return request


def unreadable(error: GitRefused) -> Command:
    """What stands for the commands of a push that could not be read."""
    return Command(b"", RefUpdate("", None, None), reason(error), error)


def reason(error: MypaasError) -> str:
    """``code: message`` as one clean line that is short enough for git."""
    line = clean(f"{error.code}: {error}").encode("utf-8", "replace")[:MAX_REASON]
    return line.decode("utf-8", "ignore")


def _read_line(request: Request, line: bytes) -> None:
    if len(line) > MAX_LINE:
        raise GitRefused(f"a command of {len(line)} bytes: at most {MAX_LINE} are read")
    text, _, capabilities = line.removesuffix(b"\n").partition(b"\0")
    if text.startswith(b"shallow "):
        return  # whether history is missing is seen from the objects themselves
    old, new, ref = [*text.split(b" ", 2), b"", b""][:3]
    if not (_is_id(old) and _is_id(new) and ref):
        raise GitRefused("a line of the push is no command of git's protocol")
    if len(request.commands) >= MAX_COMMANDS:
        raise GitRefused(f"more than {MAX_COMMANDS} refs in one push")
    if not request.commands:
        request.capabilities = frozenset(capabilities.split())
        _check_format(request.capabilities)
    update = RefUpdate(ref.decode("utf-8", "surrogateescape"), _hex(old), _hex(new))
    request.commands.append(Command(ref, update))


def _read_option(request: Request, line: bytes) -> None:
    if len(line) > MAX_LINE or len(request.options) >= MAX_OPTIONS:
        raise GitRefused("too many push options, or one that is too long")
    request.options.append(line.removesuffix(b"\n").decode("utf-8", "replace"))


def _unknown(option: str) -> str:
    return (
        f"the push option '{clean(option)[:80]}' is not known; known are: {', '.join(OPTIONS)}"
    )


def _check_format(capabilities: frozenset[bytes]) -> None:
    for capability in capabilities:
        if capability.startswith(b"object-format=") and capability != b"object-format=sha1":
            raise GitRefused("only repositories with SHA-1 ids can be pushed here")


def _check_name(ref: str) -> None:
    """Raise :class:`RefRefused` for what cannot be a ref here."""
    raw = ref.encode("utf-8", "surrogateescape")
    if not ref.isprintable() or len(raw) > 500 or not check_ref_format(Ref(raw)):
        raise RefRefused("not a name for a ref")
    if not ref.startswith(("refs/heads/", "refs/tags/")):
        raise RefRefused("only branches and tags are taken: refs/heads/… and refs/tags/…")
    if ref.startswith(RESERVED):
        raise RefRefused(f"{RESERVED}* is the server's own: choose another name")


def _is_id(text: bytes) -> bool:
    return len(text) == 40 and _HEX.issuperset(text)


def _hex(id_: bytes) -> str | None:
    return None if id_ == _ZERO else id_.decode("ascii")
