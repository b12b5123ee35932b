"""The ``authorized_keys`` file: which keys may come in, and with which rights.

People edit the file by hand, so comments, blank lines and order survive what is done to
it here. What a line says is told in :mod:`mypaas_git.access.keyline`.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import structlog

from mypaas_git.access.keyline import KeyEntry, Rights, check_name, make_entry, parse_line
from mypaas_git.access.policy import Identity
from mypaas_git.access.publickey import parse_public_key
from mypaas_git.errors import KeyRefused, SettingsError
from mypaas_git.files import write_atomically

log: Any = structlog.get_logger()


@dataclass(frozen=True)
class Broken:
    """A line that was meant to grant something and does not; numbers count from 1."""

    line_number: int
    reason: str


class KeyFile:
    """The file at ``path``, read afresh by every method.

    A missing file holds no keys. Methods raise :class:`SettingsError` when the
    file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._uses = path.with_name("last_used")
        self._known: tuple[bytes, _Scanned] = (b"", ([], []))
        self._told: list[Broken] = []

    def entries(self) -> list[KeyEntry]:
        """The lines that grant something, expired ones included, in the file's order."""
        return list(self._scanned()[0])

    def broken(self) -> list[Broken]:
        """The lines that cannot be understood, and therefore grant nothing."""
        return list(self._scanned()[1])

    def report_broken(self) -> None:
        """Have the log name the broken lines, once for each state of the file."""
        broken = self.broken()
        for line in broken:
            if line not in self._told:
                log.warning(
                    "broken line of authorized_keys", line=line.line_number, why=line.reason
                )
        self._told = broken

    def valid(self, blob: bytes, now: datetime) -> KeyEntry | None:
        """The entry of the public key ``blob``, unless there is none or it has expired."""
        for entry in self.entries():
            if entry.blob == blob:
                return None if entry.expired(now) else entry
        return None

    def find(self, blob: bytes, now: datetime) -> Identity | None:
        """Who comes in with the public key ``blob`` at ``now``; None for nobody."""
        entry = self.valid(blob, now)
        return entry.identity if entry else None

    def used(self, blob: bytes) -> None:
        """Note that the owner of a key has just come in or asked for something.

        The time of an empty file says when: that is cheap, and nobody waits for anybody.
        """
        with contextlib.suppress(OSError):  # a full disk must not keep people out
            self._uses.mkdir(mode=0o700, exist_ok=True)
            self._use(blob).touch(mode=0o600)

    def last_used(self, entry: KeyEntry) -> datetime | None:
        """When the key was last used; None when it never was."""
        try:
            seconds = self._use(entry.blob).stat().st_mtime
        except OSError:
            return None
        return datetime.fromtimestamp(seconds, timezone.utc)

    def add(self, name: str, public_key_text: str, rights: Rights) -> KeyEntry:
        """Append the key in ``public_key_text``, a public key file's content.

        Raises :class:`KeyRefused`.
        """
        algorithm, blob = parse_public_key(public_key_text)
        check_name(name)
        with self._locked():
            lines = self._lines()
            _refuse_rivals(_scan(lines)[0], name, blob)
            entry = make_entry(name, algorithm, blob, rights, len(lines) + 1)
            lines.append(entry.text.encode())
            self._write(lines)
        return entry

    def remove(self, name: str) -> KeyEntry:
        """Take the key ``name`` out.

        Raises :class:`KeyRefused` for an unknown name, and for the last admin's
        key, since nobody could let anybody in again.
        """
        with self._locked():
            lines = self._lines()
            entries = _scan(lines)[0]
            entry = _named(entries, name)
            if entry.rights.admin and not _another_admin(entries, entry):
                raise KeyRefused(f"'{name}' is the last admin's key; add another admin first")
            del lines[entry.line - 1]
            self._write(lines)
        with contextlib.suppress(OSError):
            self._use(entry.blob).unlink()
        return entry

    def _scanned(self) -> _Scanned:
        """What the lines grant; work that is only done when the file has changed."""
        content = self._content()
        known, scanned = self._known
        if content != known:
            scanned = _scan(_split(content))
            self._known = content, scanned
        return scanned

    def _use(self, blob: bytes) -> Path:
        return self._uses / hashlib.sha256(blob).hexdigest()

    def _lines(self) -> list[bytes]:
        return _split(self._content())

    def _content(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise SettingsError(f"cannot read {self.path}: {error.strerror}") from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # The file itself is replaced by each writer, so the lock lies beside it.
        lock = self.path.with_name(self.path.name + ".lock")
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SettingsError(f"cannot lock {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, lines: list[bytes]) -> None:
        try:
            write_atomically(self.path, b"".join(line + b"\n" for line in lines))
        except OSError as error:
            raise SettingsError(f"cannot write {self.path}: {error.strerror}") from error


def _refuse_rivals(entries: list[KeyEntry], name: str, blob: bytes) -> None:
    for entry in entries:
        if entry.blob == blob:
            raise KeyRefused(f"this key is there already, as '{entry.name}'")
        if entry.name == name:
            raise KeyRefused(
                f"there is a key named '{name}' already; remove it first or take another name"
            )


def _named(entries: list[KeyEntry], name: str) -> KeyEntry:
    for entry in entries:
        if entry.name == name:
            return entry
    near = difflib.get_close_matches(name, [entry.name for entry in entries], 1)
    hint = f"; is it '{near[0]}'?" if near else ""
    raise KeyRefused(f"there is no key named {name[:80]!a}{hint}")


def _another_admin(entries: list[KeyEntry], leaving: KeyEntry) -> bool:
    now = datetime.now(timezone.utc)
    return any(
        entry.rights.admin and not entry.expired(now)
        for entry in entries
        if entry is not leaving
    )


_Scanned = tuple[list[KeyEntry], list[Broken]]


def _split(content: bytes) -> list[bytes]:
    return content.removesuffix(b"\n").split(b"\n") if content else []


def _scan(lines: list[bytes]) -> _Scanned:
    """What each line grants; the first of two lines with the same key or name counts."""
    entries: list[KeyEntry] = []
    broken: list[Broken] = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = parse_line(line, number)
            if entry is not None:
                _refuse_repetition(entries, entry)
                entries.append(entry)
        except KeyRefused as refused:
            broken.append(Broken(number, refused.message))
    return entries, broken


def _refuse_repetition(entries: list[KeyEntry], new: KeyEntry) -> None:
    for entry in entries:
        if entry.blob == new.blob:
            raise KeyRefused(f"the same key is on line {entry.line}, as '{entry.name}'")
        if entry.name == new.name:
            raise KeyRefused(f"the name '{new.name}' is taken by line {entry.line}")
