"""Which images a Dockerfile builds upon or copies from. Pure.

A service's image holds its code and whatever was built into it, so that another service
must not get at it: not by ``FROM``, ``COPY --from`` or ``RUN --mount=from``, not through a
variable, and not by a builder of its own (``# syntax``), which could read any image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mypaas_git.directives.instructions import (
    Instruction,
    instructions,
    parser_directives,
    readings,
    words,
)
from mypaas_git.directives.lexer import Fault
from mypaas_git.names import ServiceName

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,500}")
_OFFICIAL = re.compile(r"(docker\.io/)?docker/dockerfile(-upstream)?(:[A-Za-z0-9._-]+)?(@\S+)?")
# The platform's: what they are only the builder knows.
_BUILT_IN = re.compile(r"(TARGET|BUILD)(PLATFORM|OS|ARCH|VARIANT|OSVERSION)|TARGETSTAGE")
_UNKNOWN = "?"
_ALL_OF_ID = re.compile(r"(sha256:)?[0-9a-f]{64}")
_STAGE = re.compile(r"[a-z][a-z0-9._-]*")
_FLAG = re.compile(r"--([a-z-]+)(?:=(.*))?", re.DOTALL)


@dataclass(frozen=True)
class ImageRules:
    """Images of services are called ``<namespace>/<service>``; ``open`` are for everybody."""

    namespace: str
    open: frozenset[str] = frozenset()


class Use(NamedTuple):
    """An image that line ``number`` names; ``base`` tells whether by FROM.

    ``quoted`` is as for an :class:`Instruction`. ``platform`` is empty for that of the host.
    """

    number: int
    reference: str
    base: bool = False
    quoted: bool = False
    platform: str = ""


class _Unreadable(ValueError):
    """Why nobody can tell from the Dockerfile which image is meant."""


def uses(dockerfile: bytes) -> tuple[list[Use], list[Fault]]:
    """The images that a Dockerfile names, its own stages left out, and what is wrong."""
    text = dockerfile.decode("utf-8", "replace")
    found: list[Use] = []
    faults = [
        Fault(setting.number, _foreign_builder(setting.value))
        for setting in parser_directives(text)
        if setting.key == "syntax" and not _OFFICIAL.fullmatch(setting.value)
    ]
    if text.lstrip("\ufeff \t\r\n").startswith("{"):
        faults.append(Fault(1, _foreign_builder("")))
    for each in readings(text):
        reading = _Reading()
        for instruction in each:
            try:
                found += reading.take(instruction)
            except _Unreadable as error:
                faults.append(Fault(instruction.number, str(error)))
    return list(dict.fromkeys(found)), list(dict.fromkeys(faults))


def uses_of_triggers(triggers: Iterable[Instruction]) -> list[str]:
    """The images that the ONBUILD instructions of a base image would copy from."""
    found: list[str] = []
    for each in triggers:
        try:
            found += [use.reference for use in _Reading().take(each)]
        except _Unreadable:
            found.append(_UNKNOWN)
    return found


def fault_of(reference: str, service: ServiceName, rules: ImageRules) -> str | None:
    """Why the image of another service may not be used; None for every other image."""
    if _ALL_OF_ID.fullmatch(reference):
        return f"{reference[:24]!a} is the id of an image, which may be anybody's; use a tag"
    owner = _owner(reference, rules.namespace)
    if owner is None or owner == service or owner in rules.open:
        return None
    return (
        f"{reference!a} is the image of the service '{owner[:63]}'; build upon another, or an "
        f"admin can add it to base_images under [host] in config.toml"
    )


def label_faults(dockerfile: bytes) -> list[Fault]:
    """Labels in the language of this server or of Traefik (T49)."""
    found = [
        Fault(
            each.number,
            f"the label {key[:60]!a} is reserved: routes and names come from directives, such "
            f"as '# mypaas.url=…'; remove it",
        )
        for each in instructions(dockerfile.decode("utf-8", "replace"))
        for key in _label_keys(each)
        if is_reserved_label(key) and not each.quoted
    ]
    return list(dict.fromkeys(found))


def is_reserved_label(key: str) -> bool:
    """Whether a label speaks this server's or Traefik's language."""
    return key.lower().startswith(("traefik.", "mypaas."))


class _Reading:
    """Instructions one after the other: which stages and variables there are so far."""

    def __init__(self) -> None:
        self._stages: set[str] = set()
        self._count = 0
        self._variables: dict[str, str] = {}
        self._ambiguous: set[str] = set()

    def take(self, each: Instruction) -> Iterator[Use]:
        """The images that one instruction names. Raises _Unreadable."""
        if each.word == "ONBUILD":
            word, _, rest = each.rest.partition(" ")
            each = each._replace(word=word.upper(), rest=rest.strip())
        if each.word == "ARG" and not self._count:
            self._declare(each.rest)
        elif each.word == "FROM":
            yield from self._from(each)
        elif each.word in {"COPY", "ADD", "RUN"}:
            for reference in _named_by_flags(each):
                if not self._is_stage(reference) and not self._is_number(reference):
                    yield Use(each.number, reference, quoted=each.quoted)

    def _from(self, each: Instruction) -> Iterator[Use]:
        parts = [part for part in words(each.rest) if not part.startswith("--")]
        if len(parts) != 1 and (len(parts) != 3 or parts[1].upper() != "AS"):
            return  # no builder takes it, as in a heredoc of SQL
        self._count += 1
        reference = self._expanded(parts[0])
        if not self._is_stage(reference) and reference.lower() != "scratch":
            name, platform = _readable(reference), _platform(words(each.rest))
            yield Use(each.number, name, True, each.quoted, platform)
        # A name that no builder takes for a stage's must not hide an image of that name.
        if len(parts) == 3 and not each.quoted and _STAGE.fullmatch(parts[2].lower()):
            self._stages.add(parts[2].lower())

    def _is_number(self, reference: str) -> bool:
        """Whether ``--from`` names an earlier stage by its number; FROM cannot."""
        return re.fullmatch(r"0|[1-9][0-9]?", reference) is not None and (
            int(reference) < self._count - 1
        )

    def _is_stage(self, reference: str) -> bool:
        pattern = re.escape(reference.lower()).replace(re.escape(_UNKNOWN), ".*")
        return any(re.fullmatch(pattern, stage) for stage in self._stages)

    def _declare(self, rest: str) -> None:
        for word in words(rest):
            name, equals, default = word.partition("=")
            if equals and name in {"TARGETPLATFORM", "BUILDPLATFORM"}:
                raise _Unreadable(f"{name} is the builder's to set; leave the ARG out")
            if name in self._variables or (equals and _BUILT_IN.fullmatch(name)):
                self._ambiguous.add(name)
            try:
                self._variables[name] = self._expanded(default) if equals else ""
            except _Unreadable:
                self._ambiguous.add(name)
                self._variables[name] = ""

    def _expanded(self, word: str) -> str:
        """A word as the builder reads it: without quotes, its variables replaced."""
        return re.sub(
            r"""\\(?P<plain>.)|'(?P<single>[^']*)'|(?P<quote>")"""
            r"""|\$(?P<name>[A-Za-z_][A-Za-z0-9_]*)|\$\{(?P<braced>[^}]*)\}|(?P<odd>['$])""",
            self._piece,
            word,
        )

    def _piece(self, match: re.Match[str]) -> str:
        if match["odd"]:
            raise _Unreadable("its quotes and variables cannot be read; name the image in full")
        if match["name"] or match["braced"] is not None:
            return self._variable(match["name"] or match["braced"])
        return match["plain"] or match["single"] or ""

    def _variable(self, text: str) -> str:
        match = re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:?)([-+])(.*))?", text, re.DOTALL)
        if match is None or match[1] in self._ambiguous:
            raise _Unreadable(
                f"'${{{text[:60]}}}' can be read in more than one way; name the image in full"
            )
        name, _, sign, other = match.groups()
        if _BUILT_IN.fullmatch(name):
            return _UNKNOWN
        value = self._variables.get(name)
        if value is None and sign is None:
            raise _Unreadable(
                f"the variable {name[:60]} is set nowhere before; write 'ARG {name[:60]}=…' "
                "above the first FROM, or name the image in full"
            )
        if sign == "-" and not value:
            return self._expanded(other)
        if sign == "+":
            return self._expanded(other) if value else ""
        return value or ""


def _named_by_flags(each: Instruction) -> Iterator[str]:
    """What ``--from=`` and ``--mount=…,from=`` name, wherever in the line they stand."""
    for word in words(each.rest):
        flag = _FLAG.fullmatch(word)
        if flag is None or flag[2] is None:
            continue
        value = re.sub(r"[\"']", "", flag[2])
        if flag[1] == "from":
            yield _readable(value)
        elif flag[1] == "mount":
            for field in value.split(","):
                key, _, source = field.partition("=")
                if key.strip().lower() == "from":
                    yield _readable(source.strip())


def _platform(parts: Iterable[str]) -> str:
    """What ``--platform`` asks for. Raises _Unreadable for what a variable hides."""
    for part in parts:
        name, _, value = part.partition("=")
        if name == "--platform" and not re.fullmatch(r"\$\{?(BUILD|TARGET)PLATFORM\}?", value):
            if not re.fullmatch(r"[a-z0-9/_-]+", value):
                raise _Unreadable(
                    f"the platform {value[:60]!a} cannot be read; write it in full, or "
                    "leave it out"
                )
            return value
    return ""


def _readable(reference: str) -> str:
    """``reference`` when it is the name of an image. Raises _Unreadable."""
    if not _REFERENCE.fullmatch(reference) or "://" in reference:
        raise _Unreadable(
            f"{reference[:60]!a} is not the name of an image; write it in full, such as "
            "python:3.12-slim"
        )
    return reference


def _owner(reference: str, namespace: str) -> str | None:
    """The service whose image a reference names, whether or not there is one."""
    path = reference.partition("@")[0].lower()
    path = re.sub(
        r"^((index\.)?docker\.io|registry-1\.docker\.io|registry\.hub\.docker\.com)/", "", path
    )
    first, slash, rest = path.partition("/")
    return rest.partition(":")[0] if slash and first == namespace else None


def _foreign_builder(builder: str) -> str:
    shown = f"'# syntax={builder[:60]}'" if builder else "a Dockerfile that begins with '{'"
    return (
        f"{shown} has a program of its own read the Dockerfile, which could read every image "
        "of this host; use '# syntax=docker/dockerfile:1', or leave it out"
    )


def _label_keys(each: Instruction) -> Iterator[str]:
    if each.word == "ONBUILD":
        word, _, rest = each.rest.partition(" ")
        each = each._replace(word=word.upper(), rest=rest.strip())
    if each.word != "LABEL":
        return
    found = words(each.rest)
    if found and "=" not in found[0]:
        yield re.sub(r"[\"'\\]", "", found[0])
        return
    for word in found:
        yield re.sub(r"[\"'\\]", "", word).partition("=")[0]
