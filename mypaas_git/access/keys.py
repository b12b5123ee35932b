"""The ``authorized_keys`` file: which keys may come in, and with which rights.

The format is OpenSSH's (sshd(8), "AUTHORIZED_KEYS FILE FORMAT"): one key a line,
options before it, a comment behind it. The options here are ``admin``,
``services="a,b"`` and ``expiry-time="YYYYMMDD[Z]"``; the comment is the key's name.
People edit the file by hand, so comments, blank lines and order survive, and a
line that is not understood in full grants nothing.
"""

from __future__ import annotations

import base64
import contextlib
import difflib
import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from mypaas_git.access.policy import Identity
from mypaas_git.access.publickey import ALGORITHM_NAME, decode, fingerprint, parse_public_key
from mypaas_git.errors import KeyRefused, NameRefused, SettingsError, UsageError
from mypaas_git.files import write_atomically
from mypaas_git.names import ServiceName

OPTIONS = ("admin", "services", "expiry-time")
MAX_EXPIRY_DAYS = 36500

# OpenSSH knows no other white space, and str.split() knows a lot.
_BLANKS, _SPACE = " \t\r", re.compile(r"[ \t]+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_OPTION = re.compile(r'([A-Za-z0-9-]+)(?:="((?:[^"\\]|\\.)*)")?')
_TIME = re.compile(r"([0-9]{8}(?:[0-9]{4}(?:[0-9]{2})?)?)(Z?)")
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class KeyEntry:
    """A line that grants something.

    ``fingerprint`` is ``SHA256:…``, ``blob`` the public key in its wire format,
    ``services`` None means every service, ``expires`` knows its time zone, and
    ``line`` counts from 1.
    """

    name: str
    fingerprint: str
    algorithm: str
    blob: bytes
    admin: bool
    services: frozenset[ServiceName] | None
    expires: datetime | None
    line: int

    def expired(self, now: datetime) -> bool:
        """Whether the key's time is over at ``now``."""
        return self.expires is not None and now.astimezone() >= self.expires

    @property
    def identity(self) -> Identity:
        """Who comes in with this key."""
        return Identity(self.name, self.fingerprint, self.admin, self.services)


@dataclass(frozen=True)
class Broken:
    """A line that was meant to grant something and does not; numbers count from 1."""

    line_number: int
    reason: str


@dataclass(frozen=True)
class _Rights:
    admin: bool = False
    services: frozenset[ServiceName] | None = None
    expires: datetime | None = None


class KeyFile:
    """The file at ``path``, read afresh by every method.

    A missing file holds no keys. Methods raise :class:`SettingsError` when the
    file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[KeyEntry]:
        """The lines that grant something, expired ones included, in the file's order."""
        return _scan(self._lines())[0]

    def broken(self) -> list[Broken]:
        """The lines that cannot be understood, and therefore grant nothing."""
        return _scan(self._lines())[1]

    def find(self, blob: bytes, now: datetime) -> Identity | None:
        """Who comes in with the public key ``blob`` at ``now``; None for nobody."""
        for entry in self.entries():
            if entry.blob == blob:
                return None if entry.expired(now) else entry.identity
        return None

    def add(
        self,
        name: str,
        public_key_text: str,
        *,
        admin: bool,
        services: Sequence[ServiceName] | None,
        expires: datetime | None,
    ) -> KeyEntry:
        """Append the key in ``public_key_text``, a public key file's content.

        ``services`` None means every service. Raises :class:`KeyRefused`.
        """
        algorithm, blob = parse_public_key(public_key_text)
        granted = None if services is None else frozenset(services)
        rights = _checked_rights(_Rights(admin, granted, expires))
        with self._locked():
            lines = self._lines()
            _refuse_rivals(_scan(lines)[0], check_name(name), blob)
            lines.append(_format_line(name, algorithm, blob, rights).encode())
            self._write(lines)
        return _entry(name, algorithm, blob, rights, len(lines))

    def remove(self, name: str) -> KeyEntry:
        """Take the key ``name`` out.

        Raises :class:`KeyRefused` for an unknown name, and for the last admin's
        key, since nobody could let anybody in again.
        """
        with self._locked():
            lines = self._lines()
            entries = _scan(lines)[0]
            entry = _named(entries, name)
            if entry.admin and not _another_admin(entries, entry):
                raise KeyRefused(f"'{name}' is the last admin's key; add another admin first")
            del lines[entry.line - 1]
            self._write(lines)
        return entry

    def _lines(self) -> list[bytes]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SettingsError(f"cannot read {self.path}: {error.strerror}") from error
        return content.removesuffix(b"\n").split(b"\n") if content else []

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


def parse_expiry(text: str, now: datetime | None = None) -> datetime:
    """When a key given ``text`` expires: ``90d``, ``12h``, ``2026-12-31`` or ``20261231``.

    A date means its first moment in the server's time zone, as in OpenSSH. Raises
    :class:`UsageError` for anything else and for a time that is not in the future.
    """
    now = (now or datetime.now(timezone.utc)).astimezone()
    expires = _expiry(text, now)
    if expires is None:
        shown = ascii(text[:40])
        raise UsageError(
            f"{shown} is not an expiry: give 90d, 12h, or a date such as 2030-12-31"
        )
    if expires <= now:
        raise UsageError(f"the expiry '{text}' is not in the future")
    return expires


def _expiry(text: str, now: datetime) -> datetime | None:
    span = re.fullmatch(r"([0-9]{1,7})([dh])", text)
    if span:
        hours = int(span[1]) * (24 if span[2] == "d" else 1)
        return now + timedelta(hours=hours) if hours <= MAX_EXPIRY_DAYS * 24 else None
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8}", text):
        with contextlib.suppress(KeyRefused):
            return _parse_time(text.replace("-", ""))
    return None


def check_name(name: str) -> str:
    """Return ``name`` when a key may be called so, else raise :class:`KeyRefused`."""
    if _NAME.fullmatch(name) is None:
        raise KeyRefused(
            f"{name[:80]!a} is not a name for a key: it is 1 to 64 of "
            "letters, digits and '.', '_', '@', '+', '-', starting with a letter or digit"
        )
    return name


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
        entry.admin and not entry.expired(now) for entry in entries if entry is not leaving
    )


# One line, read.


def _scan(lines: list[bytes]) -> tuple[list[KeyEntry], list[Broken]]:
    """What each line grants; the first of two lines with the same key or name counts."""
    entries: list[KeyEntry] = []
    broken: list[Broken] = []
    for number, line in enumerate(lines, start=1):
        if line.strip(_BLANKS.encode())[:1] in {b"", b"#"}:
            continue
        try:
            entry = _parse_line(line, number)
            _refuse_repetition(entries, entry)
        except KeyRefused as refused:
            broken.append(Broken(number, refused.message))
        else:
            entries.append(entry)
    return entries, broken


def _refuse_repetition(entries: list[KeyEntry], new: KeyEntry) -> None:
    for entry in entries:
        if entry.blob == new.blob:
            raise KeyRefused(f"the same key is on line {entry.line}, as '{entry.name}'")
        if entry.name == new.name:
            raise KeyRefused(f"the name '{new.name}' is taken by line {entry.line}")


def _parse_line(line: bytes, number: int) -> KeyEntry:
    try:
        text = line.decode().strip(_BLANKS)
    except UnicodeDecodeError:
        raise KeyRefused("the line is not UTF-8") from None
    if _CONTROLS.search(text):
        raise KeyRefused("there are control characters in the line")
    rights, rest = _parse_options(text)
    words = _SPACE.split(rest, maxsplit=2)
    if len(words) < 2:
        raise KeyRefused("there is no key: expected [OPTIONS] ALGORITHM KEY NAME")
    blob = decode(words[0], words[1])
    if len(words) == 2:
        raise KeyRefused("the key has no name: write one behind it")
    return _entry(check_name(words[2]), words[0], blob, rights, number)


def _entry(name: str, algorithm: str, blob: bytes, rights: _Rights, line: int) -> KeyEntry:
    return KeyEntry(
        name=name,
        fingerprint=fingerprint(blob),
        algorithm=algorithm,
        blob=blob,
        admin=rights.admin,
        services=rights.services,
        expires=rights.expires,
        line=line,
    )


def _parse_options(text: str) -> tuple[_Rights, str]:
    """The rights before the key, and the text from the key on."""
    if ALGORITHM_NAME.fullmatch(_SPACE.split(text, maxsplit=1)[0]):
        return _Rights(), text
    found: dict[str, str | None] = {}
    at = 0
    while True:
        option = _OPTION.match(text, at)
        if option is None:
            raise KeyRefused(f"the options before the key end unreadably at column {at + 1}")
        key = option[1].lower()
        if key in found:
            raise KeyRefused(f"the option '{key}' is given twice")
        found[key] = option[2]
        at = option.end()
        if text[at : at + 1] != ",":
            break
        at += 1
    if text[at : at + 1] not in {" ", "\t"}:
        raise KeyRefused(f"the options before the key end unreadably at column {at + 1}")
    return _rights(found), text[at:].lstrip()


def _rights(options: dict[str, str | None]) -> _Rights:
    for key, value in options.items():
        if key not in OPTIONS:
            near = difflib.get_close_matches(key, OPTIONS, 1)
            hint = f"; is it '{near[0]}'?" if near else f"; known are {', '.join(OPTIONS)}"
            raise KeyRefused(f"unknown option '{key[:40]}'{hint}")
        if (key == "admin") != (value is None):
            raise KeyRefused(f"write {key}" + ("" if key == "admin" else '="…"'))
    services, expiry = options.get("services"), options.get("expiry-time")
    return _checked_rights(
        _Rights(
            admin="admin" in options,
            services=None if services is None else _parse_services(services),
            expires=None if expiry is None else _parse_time(expiry),
        )
    )


def _checked_rights(rights: _Rights) -> _Rights:
    if rights.admin and rights.services is not None:
        raise KeyRefused("an admin's key has a right to every service: give one or the other")
    if rights.services is not None and not rights.services:
        raise KeyRefused("the list of services is empty")
    return rights


def _parse_services(text: str) -> frozenset[ServiceName]:
    try:
        return frozenset(ServiceName.parse(name.strip()) for name in text.split(","))
    except NameRefused as refused:
        raise KeyRefused(refused.message) from refused


def _parse_time(text: str) -> datetime:
    """A time of OpenSSH's ``expiry-time``: YYYYMMDD[HHMM[SS]][Z], local without the Z."""
    match = _TIME.fullmatch(text)
    if match:
        layout = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}[len(match[1])]
        with contextlib.suppress(ValueError, OverflowError, OSError):
            time = datetime.strptime(match[1], layout)
            return time.replace(tzinfo=timezone.utc) if match[2] else time.astimezone()
    raise KeyRefused(
        "expiry-time takes YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, and a Z for UTC"
    )


def _format_line(name: str, algorithm: str, blob: bytes, rights: _Rights) -> str:
    options = ["admin"] if rights.admin else []
    if rights.services is not None:
        options.append(f'services="{",".join(sorted(rights.services))}"')
    if rights.expires is not None:
        moment = rights.expires.astimezone(timezone.utc)
        options.append(f'expiry-time="{moment:%Y%m%d%H%M%S}Z"')
    words = [",".join(options)] if options else []
    return " ".join([*words, algorithm, base64.b64encode(blob).decode(), name])
