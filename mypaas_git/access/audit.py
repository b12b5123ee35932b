"""The audit trail: who did what, when, from where, and with which outcome.

One JSON document a line, only ever appended, in two files: strangers who knock a million
times do not push out what keys have done. A file that is full becomes ``….1``, that one
``….2``, and so on; the oldest goes.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import structlog

from mypaas_git.access.policy import Identity
from mypaas_git.errors import AccessDenied, Cancelled, MypaasError, PlanOnly, SettingsError
from mypaas_git.names import ServiceName

MAX_BYTES = 16 << 20
"""Of one file: some 60,000 records."""
OLDER = 4
"""Full files of each kind that are kept."""
MAX_TEXT = 300
"""Characters of one value; a client may have chosen it."""

log: Any = structlog.get_logger()


class Outcome(str, Enum):
    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True)
class Record:
    """One thing that was asked for, and what came of it.

    ``at`` is in seconds since the epoch. ``who`` is a key's name, empty for a stranger.
    ``code`` is that of the error, and ``why`` its message where it was a refusal: the
    messages of other errors may quote a build. ``detail`` never holds a secret.
    """

    at: float
    who: str
    fingerprint: str
    address: str
    verb: str
    service: str
    outcome: Outcome
    code: str = ""
    why: str = ""
    detail: Mapping[str, str] = field(default_factory=dict)


def record(
    identity: Identity,
    verb: str,
    service: str | None,
    error: BaseException | None = None,
    detail: Mapping[str, str] | None = None,
) -> Record:
    """The record of something that has just ended, with ``error`` or well."""
    outcome, code = _outcome(error)
    return Record(
        at=time.time(),
        who=identity.name,
        fingerprint=identity.fingerprint,
        address=identity.address,
        verb=verb,
        service=_cut(service or ""),
        outcome=outcome,
        code=code,
        why=_cut(str(error)) if outcome is Outcome.REFUSED else "",
        detail={key: _cut(value) for key, value in (detail or {}).items()},
    )


def _outcome(error: BaseException | None) -> tuple[Outcome, str]:
    if error is None or isinstance(error, PlanOnly):
        return Outcome.OK, ""
    if isinstance(error, AccessDenied):
        return Outcome.REFUSED, error.code
    if isinstance(error, MypaasError):
        return Outcome.FAILED, error.code
    if isinstance(error, BrokenPipeError):
        return Outcome.FAILED, "client-gone"
    if isinstance(error, KeyboardInterrupt):
        return Outcome.FAILED, Cancelled.code
    return Outcome.FAILED, "internal-error"


class Trail:
    """The files in ``directory``, which threads and processes may share."""

    def __init__(self, directory: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._lock = directory / "audit.lock"
        self._keys = directory / "audit.jsonl"
        self._strangers = directory / "audit-strangers.jsonl"
        self._max_bytes = max_bytes

    def add(self, new: Record) -> None:
        """Append a record; whoever has proven a key finds theirs on the disk afterwards.

        What cannot be recorded is in the log: a full disk keeps nobody from repairing it.
        """
        path = self._keys if new.who else self._strangers
        line = json.dumps(asdict(new))
        try:
            self._append(path, line.encode() + b"\n", durable=bool(new.who))
        except OSError as error:
            log.error("not audited", why=error.strerror, record=line)

    def last(self, count: int, service: ServiceName | None = None) -> list[Record]:
        """The newest ``count`` records, of ``service`` if one is named, oldest first.

        Raises SettingsError when a file cannot be read.
        """
        found = [
            each
            for path in (self._keys, self._strangers)
            for each in _first(self._newest_first(path), count, service)
        ]
        found.sort(key=lambda each: each.at)
        return found[-count:] if count else []

    def _append(self, path: Path, line: bytes, *, durable: bool) -> None:
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists() and path.stat().st_size + len(line) > self._max_bytes:
                _rotate(path)
            _write(path, line, durable=durable)
        finally:
            os.close(lock)

    def _newest_first(self, path: Path) -> Iterator[Record]:
        for each in _files(path):
            try:
                lines = each.read_bytes().split(b"\n")
            except FileNotFoundError:
                continue
            except OSError as error:
                raise SettingsError(f"cannot read {each}: {error.strerror}") from error
            for line in reversed(lines):
                parsed = _parse(line)
                if parsed is not None:
                    yield parsed


def _write(path: Path, line: bytes, *, durable: bool) -> None:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line  # the end of a line that a crash cut off
        os.write(descriptor, line)
        if durable:
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _files(path: Path) -> list[Path]:
    """Where the records are, the newest first."""
    return [path, *(path.with_name(f"{path.name}.{n}") for n in range(1, OLDER + 1))]


def _rotate(path: Path) -> None:
    files = _files(path)
    for older, newer in zip(files[:0:-1], files[-2::-1], strict=True):
        if newer.exists():
            newer.replace(older)


def _first(records: Iterator[Record], count: int, service: ServiceName | None) -> list[Record]:
    found: list[Record] = []
    for each in records:
        if len(found) == count:
            break
        if service is None or each.service == service:
            found.append(each)
    return found


def _parse(line: bytes) -> Record | None:
    """The record on a line; None for one that was cut off."""
    try:
        values = json.loads(line)
        return Record(**{**values, "outcome": Outcome(values["outcome"])})
    except (ValueError, TypeError, KeyError):
        return None


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
