"""What a command works with: who asks, where its output goes, and the app."""

from __future__ import annotations

import contextlib
import functools
import getpass
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import click
import structlog

from mypaas_git.access.audit import Record, record
from mypaas_git.access.policy import Identity, Verb, allow
from mypaas_git.app import App
from mypaas_git.cli.interrupts import interrupts
from mypaas_git.errors import (
    Cancelled,
    MypaasError,
    NameRefused,
    ServiceMissing,
    UsageError,
)
from mypaas_git.ledger.model import Release
from mypaas_git.names import ServiceName, release_label
from mypaas_git.operations import Asker
from mypaas_git.progress import LineProgress, Progress, clean_lines
from mypaas_git.runtime.base import Operator

log: Any = structlog.get_logger()


class Terminal(Protocol):
    """Where a command reads and writes; ``left`` tells that nobody is there any more.

    ``gone`` is true as well when a command that would go on for ever should end.
    """

    def read(self, n: int) -> bytes: ...

    def write(self, data: bytes) -> None: ...

    def write_error(self, data: bytes) -> None: ...

    @property
    def gone(self) -> bool: ...

    @property
    def left(self) -> bool: ...

    def be_patient(self) -> None:
        """Wait for a reader who does not read, as long as there is one."""

    def operator(self) -> contextlib.AbstractContextManager[Operator]:
        """Whoever is there, in front of a command that runs in a container."""


@dataclass
class Context:
    """One command's surroundings, the same in the shell and over ssh.

    ``make_app`` is called by the first command that needs the app, so that
    ``--help`` works without a home. What a command writes into ``detail`` is in its
    record in the audit trail: never a secret. ``service`` is what it is about, which some
    learn only as they go.
    """

    make_app: Callable[[], App]
    identity: Identity
    terminal: Terminal
    detail: dict[str, str] = field(default_factory=dict)
    service: ServiceName | None = None

    @functools.cached_property
    def app(self) -> App:
        return self.make_app()

    def allow(self, verb: Verb, service: ServiceName | None = None) -> None:
        """Raise AccessDenied unless whoever asks may do this."""
        allow(self.identity, verb, service)

    @contextlib.contextmanager
    def audited(self, did: str) -> Iterator[None]:
        """Record what is done meanwhile, and how it ends."""
        try:
            yield
        except BaseException as error:
            self._record(record(self.identity, did, self.service, _reason(error), self.detail))
            raise
        self._record(record(self.identity, did, self.service, None, self.detail))

    def tell_release(self, release: Release) -> None:
        """Have the record say which release came of it."""
        self.detail.update(release_detail(release))

    def _record(self, new: Record) -> None:
        log.info(
            "command-ended",
            key=new.who,
            did=new.verb,
            service=new.service,
            outcome=new.outcome.value,
            code=new.code,
        )
        # A shell's command may have failed since there is no home to record it in.
        with contextlib.suppress(MypaasError):
            self.app.audit.add(new)

    def say(self, text: str) -> None:
        """Write a line of the command's answer."""
        self.terminal.write(f"{text}\n".encode())

    def note(self, text: str) -> None:
        """Write a message beside the answer."""
        self.terminal.write_error(f"{text}\n".encode())

    def json(self, document: Any) -> None:
        """Write the answer as one JSON document."""
        self.say(json.dumps(document, indent=2))

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Write rows in columns, without control characters."""
        cleaned = [[" ".join(clean_lines(cell)) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cleaned, strict=True)]
        for row in cleaned:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.say("  ".join(cells).rstrip())

    def progress(self) -> Progress:
        """Progress for whoever reads it; a deploy goes on when nobody does any more."""

        def show(line: str) -> None:
            with contextlib.suppress(BrokenPipeError):
                self.note(line.removesuffix("\n"))

        return LineProgress(show)

    @contextlib.contextmanager
    def asking(self) -> Iterator[Asker]:
        """Whoever runs this command, as one who wants something done to a service."""
        with interrupts() as interrupted:
            yield Asker(
                self.identity, self.progress(), lambda: self.terminal.left or interrupted()
            )

    def read_all(self, limit: int) -> bytes:
        """Everything on standard input, up to ``limit`` bytes."""
        found = b""
        while len(found) < limit and (chunk := self.terminal.read(limit - len(found))):
            found += chunk
        return found


def release_detail(release: Release) -> dict[str, str]:
    """What the audit trail says of a release."""
    detail = {"release": release.label, "commit": release.commit}
    if release.restores:
        detail["restores"] = release_label(release.restores)
    return detail


def _reason(error: BaseException) -> BaseException | None:
    """Why a command ended: a failure that was told already stands behind the exit code."""
    if isinstance(error, click.exceptions.Exit):
        return (error.__cause__ or MypaasError("told already")) if error.exit_code else None
    return error


class ServiceParameter(click.ParamType[ServiceName]):
    """A service's name on a command line."""

    name = "service"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,  # noqa: ARG002 - click's signature
        ctx: click.Context | None,  # noqa: ARG002
    ) -> ServiceName:
        try:
            return ServiceName.parse(value)
        except NameRefused as error:
            raise UsageError(error.message) from None


class ReleaseParameter(click.ParamType[int]):
    """The number of a release on a command line, as ``v13`` or ``13``."""

    name = "release"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,  # noqa: ARG002 - click's signature
        ctx: click.Context | None,  # noqa: ARG002
    ) -> int:
        match = re.fullmatch(r"v?([1-9][0-9]{0,8})", str(value))
        if match is None:
            raise UsageError(f"{value!a} is not the name of a release; they look like v13")
        return int(match[1])


SERVICE = ServiceParameter()
RELEASE = ReleaseParameter()

pass_context = click.make_pass_decorator(Context)


def known_service(context: Context, service: ServiceName) -> ServiceName:
    """Return ``service`` when it exists and was not removed. Raises ServiceMissing."""
    if context.app.ledger.has(service):
        return service
    if context.app.ledger.releases(service):
        raise ServiceMissing(f"{service} was removed; {how_back(service)}")
    raise no_service(service)


def no_service(service: ServiceName) -> ServiceMissing:
    """The error for a name of which there is nothing."""
    return ServiceMissing(f"there is no service '{service}'; see: mypaas services")


def how_back(service: ServiceName) -> str:
    """What deploys a removed service again, with another commit or with the same."""
    return f"a push deploys it again, or: mypaas redeploy {service}"


def local_identity() -> Identity:
    """Whoever works in the server's own shell, who could read every file anyway."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "shell"
    return Identity(name=name, admin=True)


@contextlib.contextmanager
def told_already() -> Iterator[None]:
    """End the command with 1, or 130, on a failure that its progress has told already."""
    try:
        yield
    except MypaasError as error:
        if not error.told:
            raise
        raise click.exceptions.Exit(130 if isinstance(error, Cancelled) else 1) from error
