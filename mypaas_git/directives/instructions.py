"""The instructions of a Dockerfile, as either of Docker's builders may read them. Pure.

The two differ: BuildKit knows heredocs, newer versions of it let a doubled escape end a
line. Who looks for what must not be there has to see every reading, so that a line which
only one of them takes for an instruction is one here.

Source: moby/buildkit, ``frontend/dockerfile/parser``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_SETTING = re.compile(r"\s*(?:#|//)\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_HEREDOC = re.compile(r"[0-9]*<<(-?)([^<]+)")


class Instruction(NamedTuple):
    """``number`` is the line that it begins on, ``word`` its name in capitals.

    ``rest`` is what follows, on one line. ``quoted`` tells that it stands in a heredoc,
    where only the builder that knows none takes it for an instruction.
    """

    number: int
    word: str
    rest: str
    quoted: bool = False


class Setting(NamedTuple):
    """A ``# key=value`` line for the parser itself; ``key`` is in lower case."""

    number: int
    key: str
    value: str


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


def readings(text: str) -> list[list[Instruction]]:
    """Every reading there is. What one says of a later line counts in that reading alone."""
    escapes = {"\\", *(each.value for each in parser_directives(text) if each.key == "escape")}
    found: list[list[Instruction]] = []
    for escape in sorted(escapes & {"\\", "`"}):
        for doubled in (True, False):
            reading = list(_read(_lines(text), escape, doubled=doubled))
            if reading not in found:
                found.append(reading)
    return found


def instructions(text: str) -> list[Instruction]:
    """Every instruction in every reading, in the order of the lines."""
    return sorted({each for reading in readings(text) for each in reading})


def one_instruction(text: str, number: int = 0) -> Instruction:
    """The instruction that a line without continuation is, such as an ONBUILD trigger."""
    word, _, rest = text.strip().partition(" ")
    return Instruction(number, word.upper(), rest.strip())


def words(text: str) -> list[str]:
    """``text`` split at blanks that no quotes hold; quotes and escapes are left in."""
    return re.findall(r"""(?:\\.|"(?:\\.|[^"\\])*"|'[^']*'|[^\s])+""", text, re.DOTALL)


def _lines(text: str) -> list[str]:
    return [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]


def _read(lines: list[str], escape: str, *, doubled: bool) -> Iterator[Instruction]:
    """One reading; ``doubled`` tells whether a doubled escape continues a line as well."""
    before = "" if doubled else rf"(?<!{re.escape(escape)})"
    goes_on = re.compile(rf"{before}{re.escape(escape)}[ \t]*$")
    number, collected = 0, ""
    ends: list[str] = []
    for at, line in enumerate(lines, 1):
        if ends and not collected and line.lstrip("\t") == ends[0]:
            ends.pop(0)
            continue
        if re.match(r"\s*(#|$)", line):
            continue  # a comment, or nothing: neither ends what goes on
        number = number if collected else at
        if goes_on.search(line):
            collected += goes_on.sub("", line)
            continue
        each, collected = one_instruction(re.sub(r"\s", " ", collected + line), number), ""
        yield each._replace(quoted=bool(ends))
        if not ends:
            ends = _heredocs(each)
    if collected:
        yield one_instruction(collected, number)._replace(quoted=bool(ends))


def _heredocs(instruction: Instruction) -> list[str]:
    """The lines that end the heredocs which begin on an instruction's line."""
    if instruction.word not in {"RUN", "COPY", "ADD", "ONBUILD"}:
        return []
    found = map(_HEREDOC.fullmatch, words(instruction.rest))
    return [re.sub(r"[\"'\\]", "", match[2]) for match in found if match]
