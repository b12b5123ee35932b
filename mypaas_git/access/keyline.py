"""One line of ``authorized_keys``: a key, its name, and the rights before it.

The format is OpenSSH's (sshd(8), "AUTHORIZED_KEYS FILE FORMAT"). Of its options here are
``expiry-time="YYYYMMDD[Z]"`` and, for keys on a hardware token, ``no-touch-required`` and
``verify-required``; our own are ``admin``, ``services="a,b"`` and ``branches="main,x/*"``.
A line that is not understood in full grants nothing.
"""

from __future__ import annotations

import base64
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from mypaas_git.access import securitykey
from mypaas_git.access.expiry import format_time, parse_time
from mypaas_git.access.policy import Identity
from mypaas_git.access.publickey import ALGORITHM_NAME, decode, fingerprint
from mypaas_git.errors import KeyRefused, NameRefused
from mypaas_git.names import ServiceName

FLAGS = ("admin", "no-touch-required", "verify-required")
OPTIONS = (*FLAGS, "services", "branches", "expiry-time")

# OpenSSH knows no other white space, and str.split() knows a lot.
BLANKS, _SPACE = " \t\r", re.compile(r"[ \t]+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_BRANCH = re.compile(r"[A-Za-z0-9_*][A-Za-z0-9_.*-]*(/[A-Za-z0-9_*][A-Za-z0-9_.*-]*)*")
_OPTION = re.compile(r'([A-Za-z0-9-]+)(?:="((?:[^"\\]|\\.)*)")?')
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Rights:
    """What a line grants.

    ``services`` None means every service, ``branches`` None every branch, and ``expires``
    knows its time zone. A token has to be touched for each login (``touch``), and to ask
    for a PIN or a finger as well (``verify``).
    """

    admin: bool = False
    services: frozenset[ServiceName] | None = None
    branches: tuple[str, ...] | None = None
    expires: datetime | None = None
    touch: bool = True
    verify: bool = False

    def checked(self) -> Rights:
        """These rights. Raises :class:`KeyRefused` for those that contradict each other."""
        if self.admin and self.services is not None:
            raise KeyRefused(
                "an admin's key has a right to every service: give one or the other"
            )
        if self.admin and self.branches is not None:
            raise KeyRefused("an admin's key may push every branch: give one or the other")
        if self.services is not None and not self.services:
            raise KeyRefused("the list of services is empty")
        for branch in self.branches or ():
            _check_branch(branch)
        return self

    def accepts(self, flags: int) -> bool:
        """Whether a token's signature with these flags will do."""
        touched = bool(flags & securitykey.TOUCHED) or not self.touch
        return touched and (bool(flags & securitykey.VERIFIED) or not self.verify)


@dataclass(frozen=True)
class KeyEntry:
    """A line that grants something.

    ``fingerprint`` is ``SHA256:…``, ``blob`` the public key in its wire format, and
    ``line`` counts from 1.
    """

    name: str
    fingerprint: str
    algorithm: str
    blob: bytes
    rights: Rights
    line: int

    def expired(self, now: datetime) -> bool:
        """Whether the key's time is over at ``now``."""
        return self.rights.expires is not None and now.astimezone() >= self.rights.expires

    @property
    def identity(self) -> Identity:
        """Who comes in with this key."""
        rights = self.rights
        return Identity(
            self.name, self.fingerprint, rights.admin, rights.services, rights.branches
        )

    @property
    def text(self) -> str:
        """The line, as the server writes it."""
        words = [",".join(_options(self.rights)), self.algorithm]
        return " ".join(filter(None, [*words, base64.b64encode(self.blob).decode(), self.name]))


def make_entry(name: str, algorithm: str, blob: bytes, rights: Rights, line: int) -> KeyEntry:
    """The entry of a key. Raises :class:`KeyRefused` for rights that do not fit it."""
    on_token = algorithm in securitykey.ALGORITHMS
    if not on_token and (rights.verify or not rights.touch):
        raise KeyRefused("no-touch-required and verify-required are for sk-… keys")
    return KeyEntry(
        check_name(name), fingerprint(blob), algorithm, blob, rights.checked(), line
    )


def parse_line(line: bytes, number: int) -> KeyEntry | None:
    """What a line grants; None for a comment. Raises :class:`KeyRefused`."""
    if line.strip(BLANKS.encode())[:1] in {b"", b"#"}:
        return None
    try:
        text = line.decode().strip(BLANKS)
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
    return make_entry(words[2], words[0], blob, rights, number)


def check_name(name: str) -> str:
    """Return ``name`` when a key may be called so, else raise :class:`KeyRefused`."""
    if _NAME.fullmatch(name) is None:
        raise KeyRefused(
            f"{name[:80]!a} is not a name for a key: it is 1 to 64 of "
            "letters, digits and '.', '_', '@', '+', '-', starting with a letter or digit"
        )
    return name


def _check_branch(branch: str) -> None:
    if _BRANCH.fullmatch(branch) is None:
        raise KeyRefused(
            f"{branch[:80]!a} is not a branch; branches look like main or release/*"
        )


def _options(rights: Rights) -> Iterable[str]:
    if rights.admin:
        yield "admin"
    if not rights.touch:
        yield "no-touch-required"
    if rights.verify:
        yield "verify-required"
    if rights.services is not None:
        yield f'services="{",".join(sorted(rights.services))}"'
    if rights.branches is not None:
        yield f'branches="{",".join(rights.branches)}"'
    if rights.expires is not None:
        yield f'expiry-time="{format_time(rights.expires)}"'


def _parse_options(text: str) -> tuple[Rights, str]:
    """The rights before the key, and the text from the key on."""
    if ALGORITHM_NAME.fullmatch(_SPACE.split(text, maxsplit=1)[0]):
        return Rights(), text
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
    return _parse_rights(found), text[at:].lstrip()


def _parse_rights(options: dict[str, str | None]) -> Rights:
    rights = Rights()
    for key, value in options.items():
        if key not in OPTIONS:
            near = difflib.get_close_matches(key, OPTIONS, 1)
            hint = f"; is it '{near[0]}'?" if near else f"; known are {', '.join(OPTIONS)}"
            raise KeyRefused(f"unknown option '{key[:40]}'{hint}")
        if (key in FLAGS) != (value is None):
            raise KeyRefused(f"write {key}" + ("" if key in FLAGS else '="…"'))
        rights = _with_option(rights, key, value or "")
    return rights


def _with_option(rights: Rights, key: str, value: str) -> Rights:
    if key == "admin":
        return replace(rights, admin=True)
    if key == "no-touch-required":
        return replace(rights, touch=False)
    if key == "verify-required":
        return replace(rights, verify=True)
    if key == "services":
        return replace(rights, services=_parse_services(value))
    if key == "branches":
        return replace(rights, branches=tuple(each.strip() for each in value.split(",")))
    return replace(rights, expires=parse_time(value))


def _parse_services(text: str) -> frozenset[ServiceName]:
    try:
        return frozenset(ServiceName.parse(name.strip()) for name in text.split(","))
    except NameRefused as refused:
        raise KeyRefused(refused.message) from refused
