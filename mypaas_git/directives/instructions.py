"""The instructions of a Dockerfile, as either of Docker's builders may read them. Pure.

The two differ, and each from its older versions: some know heredocs, in some a doubled
escape ends a line. Who looks for what must not be there has to see every reading, so that a
line which only one of them takes for an instruction is one here. What they read in ways of
their own, such as other blanks than spaces and tabs, is refused instead of imitated.

Source: moby/buildkit, ``frontend/dockerfile/parser``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from mypaas_git.directives.lexer import Fault

_SETTING = re.compile(r"\s*(?:#|//)\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(\S(?:.*\S)?)\s*")
_CONTROL = re.compile(r"[\0-\x08\x0b-\x1f\x7f]")
_ODD_BLANK = re.compile(r"[ \t]*([^\S \t])")
_FLAG = re.compile(
    r"""--(?P<name>[a-z-]+)(?:=(?P<value>(?:[^\s"'`\\]|"[^"`\\]*"|'[^'`\\]*')*))?(?=[ \t]|$)"""
)
_NEEDS_VALUE = {"from", "mount", "platform"}
_WORD = re.compile(r"""(?:\\.|"(?:\\.|[^"\\])*"|'[^']*'|[^\s"'\\])+""", re.DOTALL)
# What some version takes for the beginning of a heredoc, here-strings left out.
_LIKE_HEREDOC = re.compile(r"(?<!\S)[0-9\\]*<\\?<(?!<)-?\S")
_HEREDOC = re.compile(r"""[0-9]*<<(-?)(["']?)([A-Za-z0-9_][A-Za-z0-9_.-]*)\2""")
_ODD_VARIABLE = re.compile(r"\$\{(?![A-Za-z_][A-Za-z0-9_]*\})")


class Unreadable(ValueError):
    """Why builders may differ on what is meant."""


class Instruction(NamedTuple):
    """``number`` is the line that it begins on, ``word`` its name in capitals.

    ``rest`` is what follows, on one line.
    """

    number: int
    word: str
    rest: str


class Setting(NamedTuple):
    """A ``# key=value`` line for the parser itself; ``key`` is in lower case."""

    number: int
    key: str
    value: str


class Flag(NamedTuple):
    """``--name=value`` before the arguments of an instruction, its quotes removed."""

    name: str
    value: str


class _End(NamedTuple):
    """The line that ends a heredoc; ``tabs`` may stand before it in one that began ``<<-``."""

    line: str
    tabs: bool


def parser_directives(text: str) -> list[Setting]:
    """What a builder may take for its settings: among the comments at the top.

    ``// syntax=`` and a line ``#!`` before them count as well, as in newer versions.
    """
    found: list[Setting] = []
    for number, line in enumerate(_lines(text), 1):
        match = _SETTING.fullmatch(line)
        if match:
            found.append(Setting(number, match[1].lower(), match[2]))
        elif not re.match(r"\s*(#|//|$)", line):
            break
    return found


def odd_lines(text: str) -> Iterator[Fault]:
    """Lines with characters that end a word, a line or a comment for some readers only."""
    for number, line in enumerate(_lines(text), 1):
        blank = _ODD_BLANK.match(line)
        if _CONTROL.search(line):
            yield Fault(number, "it holds a control character, which builders differ on")
        elif blank:
            yield Fault(number, f"it begins with the blank {blank[1]!a}; use spaces or tabs")


def readings(text: str, *, heredocs: bool) -> list[list[Instruction]]:
    """Every reading there is. What one says of a later line counts in that reading alone.

    Without ``heredocs``, their lines are instructions as well.
    """
    escapes = {"\\", *(each.value for each in parser_directives(text) if each.key == "escape")}
    found: list[list[Instruction]] = []
    for escape in sorted(escapes & {"\\", "`"}):
        for doubled in (True, False):
            lines = _read(_lines(text), escape, doubled=doubled, heredocs=heredocs)
            reading = list(lines)
            if reading not in found:
                found.append(reading)
    return found


def triggered(each: Instruction) -> Instruction:
    """The instruction that ONBUILD leaves to whoever builds upon the image, or itself."""
    return _instruction(each.rest, each.number) if each.word == "ONBUILD" else each


def split_flags(rest: str) -> tuple[list[Flag], str]:
    """The flags that an instruction begins with, and its arguments. Raises Unreadable."""
    found: list[Flag] = []
    while rest.startswith("--"):
        match = _FLAG.match(rest)
        lacks = match and match["value"] is None and match["name"] in _NEEDS_VALUE
        if match is None or lacks or not match[0].isascii():
            shown = rest.partition(" ")[0][:60]
            raise Unreadable(
                f"the flag {shown!a} can be read in more than one way; write it as "
                "--name=value without escapes"
            )
        found.append(Flag(match["name"], re.sub(r"[\"']", "", match["value"] or "")))
        rest = rest[match.end() :].lstrip()
    return found, rest


def check_heredocs(each: Instruction) -> None:
    """Raise Unreadable when builders may differ on what ends the heredocs of a line."""
    _ends(each)


def _lines(text: str) -> list[str]:
    return [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]


def _instruction(line: str, number: int) -> Instruction:
    # Builders strip every blank of Unicode, and then split at spaces and tabs alone.
    word, _, rest = line.strip().replace("\t", " ").partition(" ")
    return Instruction(number, word.upper(), rest.strip())


def _read(
    lines: list[str], escape: str, *, doubled: bool, heredocs: bool
) -> Iterator[Instruction]:
    """One reading; ``doubled`` tells whether a doubled escape continues a line as well."""
    before = "" if doubled else rf"(?<!{re.escape(escape)})"
    goes_on = re.compile(rf"{before}{re.escape(escape)}[ \t]*$")
    number, collected = 0, ""
    ends: list[_End] = []
    for at, line in enumerate(lines, 1):
        if ends:
            if (line.lstrip("\t") if ends[0].tabs else line) == ends[0].line:
                ends.pop(0)
            continue
        if re.match(r"[ \t]*(#|$)", line):
            continue  # a comment, or nothing: neither ends what goes on
        number = number if collected else at
        if goes_on.search(line):
            collected += goes_on.sub("", line)
            continue
        each, collected = _instruction(collected + line, number), ""
        yield each
        with suppress(Unreadable):
            ends = _ends(each) if heredocs else []
    if collected:
        yield _instruction(collected, number)


def _ends(each: Instruction) -> list[_End]:
    """What ends the heredocs that begin on an instruction's line. Raises Unreadable."""
    each = triggered(each)
    if each.word not in {"RUN", "COPY", "ADD"} or not _LIKE_HEREDOC.search(each.rest):
        return []
    found = [word for word in _WORD.findall(each.rest) if _LIKE_HEREDOC.match(word)]
    plain = list(filter(None, map(_HEREDOC.fullmatch, found)))
    open_quote = _WORD.sub("", each.rest).strip()
    if open_quote or len(plain) < len(found) or _ODD_VARIABLE.search(each.rest):
        raise Unreadable(
            "its heredoc can be read in more than one way; begin it with <<WORD or "
            '<<"WORD", on a line that closes its quotes and has no ${…} but plain ones'
        )
    return [_End(match[3], tabs=bool(match[1])) for match in plain]
