"""Which images a Dockerfile builds upon or copies from. Pure.

A service's image holds its code and whatever was built into it, so that another service
must not get at it: not by ``FROM``, ``COPY --from`` or ``RUN --mount=from``, not through a
variable, and not by a builder of its own (``# syntax``), which could read any image.
Spellings that builders may read in more than one way are faults, whatever they hide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mypaas_git.directives.instructions import (
    Flag,
    Instruction,
    Unreadable,
    check_heredocs,
    odd_lines,
    parser_directives,
    readings,
    split_flags,
    triggered,
)
from mypaas_git.directives.lexer import Fault, bare
from mypaas_git.directives.variables import UNKNOWN, Variables
from mypaas_git.names import ServiceName

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,500}")
_OFFICIAL = re.compile(r"(docker\.io/)?docker/dockerfile(-upstream)?(:[A-Za-z0-9._-]+)?(@\S+)?")
_PLAIN = re.compile(r"""(?:(?![$"'`\\])[!-~])+""")
_ALL_OF_ID = re.compile(r"(sha256:)?[0-9a-f]{64}")
_STAGE = re.compile(r"[a-z][a-z0-9._-]*")


@dataclass(frozen=True)
class ImageRules:
    """Images of services are called ``<namespace>/<service>``; ``open`` are for everybody."""

    namespace: str
    open: frozenset[str] = frozenset()


class Use(NamedTuple):
    """An image that line ``number`` names; ``base`` tells whether by FROM.

    ``quoted`` tells that only a builder that knows neither heredocs nor platforms takes the
    line so. ``platform`` is empty for that of the host.
    """

    number: int
    reference: str
    base: bool = False
    quoted: bool = False
    platform: str = ""


def uses(dockerfile: bytes) -> tuple[list[Use], list[Fault]]:
    """The images that a Dockerfile names, its own stages left out, and what is wrong."""
    text = dockerfile.decode("utf-8", "replace")
    found, faults = _all_uses(text, in_stage=False)
    return found, [*_foreign_builders(text), *faults]


def uses_of_trigger(text: str) -> tuple[list[Use], list[Fault]]:
    """The images that an ONBUILD instruction of a base image would copy from."""
    return _all_uses(text, in_stage=True)


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


class _Reading:
    """Instructions one after the other: which stages and variables there are so far."""

    def __init__(self, *, in_stage: bool) -> None:
        self._in_stage = in_stage
        self._stages: set[str] = set()
        self._current: str | None = None
        self._variables = Variables()

    def take(self, each: Instruction) -> Iterator[Use]:
        """The images that one instruction names. Raises Unreadable."""
        each = triggered(each)
        if each.word == "ARG" and not self._in_stage:
            self._variables.declare(each.rest)
        elif each.word == "FROM":
            yield from self._from(each)
        elif each.word in {"COPY", "ADD", "RUN"}:
            check_heredocs(each)
            for reference in map(_readable, _named_by(split_flags(each.rest)[0])):
                if not self._is_stage(reference):
                    yield Use(each.number, reference)

    def _from(self, each: Instruction) -> Iterator[Use]:
        flags, rest = split_flags(each.rest)
        parts = re.findall("[^ ]+", rest)  # no blank but a space parts these
        if len(parts) != 1 and (len(parts) != 3 or parts[1].upper() != "AS"):
            return  # no builder takes it, as in a heredoc of SQL
        if _PLAIN.fullmatch(parts[0]) and not _REFERENCE.fullmatch(parts[0]):
            return  # nor this, such as 'FROM users;'
        reference = self._base(parts[0])
        self._in_stage = True
        self._stages.update(filter(None, [self._current]))
        for name, quoted in self._images(reference):
            yield Use(each.number, name, True, quoted, _platform(flags))
        # A name that no builder takes for a stage's must not hide an image of that name.
        named = len(parts) == 3 and _STAGE.fullmatch(parts[2].lower())
        self._current = parts[2].lower() if named else None

    def _base(self, word: str) -> str:
        """What FROM names by ``word``. Raises Unreadable."""
        plain = bare(word)
        if re.search(r"[\"'`\\]", plain) or (word != plain and "$" in plain):
            raise Unreadable(
                f"{word[:60]!a} can be read in more than one way; write it without quotes "
                "and escapes"
            )
        return self._variables.expanded(plain)

    def _images(self, reference: str) -> Iterator[tuple[str, bool]]:
        """What FROM would build upon, and whether by a builder that knows no platforms."""
        without = reference.replace(UNKNOWN, "")
        if without != reference and without and not self._is_stage(without):
            yield _readable(without), True
        if reference != "scratch" and not self._is_stage(reference):
            yield _readable(reference), False

    def _is_stage(self, reference: str) -> bool:
        pattern = re.escape(reference.lower()).replace(re.escape(UNKNOWN), ".*")
        return any(re.fullmatch(pattern, stage) for stage in self._stages)


def _all_uses(text: str, *, in_stage: bool) -> tuple[list[Use], list[Fault]]:
    """What every reading of ``text`` finds; ``in_stage`` tells that a FROM came before it."""
    faults = list(odd_lines(text))
    found: dict[Use, bool] = {}
    for heredocs in (True, False):
        for each in readings(text, heredocs=heredocs):
            reading = _Reading(in_stage=in_stage)
            for instruction in each:
                try:
                    for use in reading.take(instruction):
                        found.setdefault(use, not heredocs)
                except Unreadable as error:
                    faults.append(Fault(instruction.number, str(error)))
    everything = [use._replace(quoted=use.quoted or alone) for use, alone in found.items()]
    return sorted(everything, key=lambda use: use.number), list(dict.fromkeys(faults))


def _foreign_builders(text: str) -> Iterator[Fault]:
    """Faults of a Dockerfile that has something else than the builder read it."""
    for setting in parser_directives(text):
        if setting.key == "syntax" and not _OFFICIAL.fullmatch(setting.value):
            yield Fault(setting.number, _foreign_builder(f"'# syntax={setting.value[:60]}'"))
    if re.match(r"\ufeff?(#!.*\n)?\s*\{", text):
        yield Fault(1, _foreign_builder("a Dockerfile that begins with '{'"))


def _foreign_builder(shown: str) -> str:
    return (
        f"{shown} has a program of its own read the Dockerfile, which could read every image "
        "of this host; use '# syntax=docker/dockerfile:1', or leave it out"
    )


def _named_by(flags: Iterable[Flag]) -> Iterator[str]:
    """What ``--from=`` and ``--mount=…,from=`` name, stages by their number left out."""
    for flag in flags:
        if flag.name == "from" and not re.fullmatch(r"[0-9]{1,9}", flag.value):
            yield flag.value
        elif flag.name == "mount":
            for field in flag.value.split(","):
                key, _, source = field.partition("=")
                if key.strip().lower() == "from":
                    yield source.strip()


def _platform(flags: Iterable[Flag]) -> str:
    """What ``--platform`` asks for. Raises Unreadable for what a variable hides."""
    for flag in flags:
        if flag.name != "platform":
            continue
        if not re.fullmatch(r"\$(\{)?(BUILD|TARGET)PLATFORM(?(1)\})", flag.value):
            if not re.fullmatch(r"[a-z0-9/_-]+", flag.value):
                raise Unreadable(
                    f"the platform {flag.value[:60]!a} cannot be read; write it in full, or "
                    "leave it out"
                )
            return flag.value
    return ""


def _readable(reference: str) -> str:
    """``reference`` when it is the name of an image. Raises Unreadable."""
    if not _REFERENCE.fullmatch(reference) or "://" in reference:
        raise Unreadable(
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
