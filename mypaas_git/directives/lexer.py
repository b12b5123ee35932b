"""The bytes of a Dockerfile become its directive lines.

A line is a directive when it is one ``#``, with spaces or tabs allowed before
and after it, then ``mypaas.``, wherever it stands in the file, a heredoc
included. Lines end as Docker sees them: at a newline, with or without a
carriage return before it, the file's byte order mark left out.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from mypaas_git.errors import DirectivesInvalid

MAX_BYTES = 1 << 20
"""Bytes of a Dockerfile; a longer one is refused as a whole."""

MAX_LINE = 65535
"""Bytes of one line, which is the Docker Engine's own limit."""

_DIRECTIVE = re.compile(r"[ \t]*#[ \t]*(mypaas\..*)", re.DOTALL)


class Line(NamedTuple):
    """A directive; ``number`` counts the Dockerfile's lines from 1."""

    number: int
    key: str
    value: str


class Fault(NamedTuple):
    """What is wrong with a line; ``number`` 0 speaks of the whole file."""

    number: int
    message: str


def lex(dockerfile: bytes) -> tuple[list[Line], list[Fault]]:
    """Return the directives of a Dockerfile, and what is wrong with its lines.

    Raises :class:`DirectivesInvalid` for a file over MAX_BYTES.
    """
    if len(dockerfile) > MAX_BYTES:
        raise DirectivesInvalid(
            f"the Dockerfile has {len(dockerfile)} bytes and may have at most {MAX_BYTES}"
        )
    rows = dockerfile.removeprefix(codecs.BOM_UTF8).split(b"\n")
    read = [_read(number, raw.removesuffix(b"\r")) for number, raw in enumerate(rows, 1)]
    return (
        [each for each in read if isinstance(each, Line)],
        [each for each in read if isinstance(each, Fault)],
    )


def bare(text: str) -> str:
    """Return ``text`` without spaces and tabs around it, then without matching quotes."""
    text = text.strip(" \t")
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text


def _read(number: int, raw: bytes) -> Line | Fault | None:
    """Return the directive on a line, or what is wrong with it, None for any other line."""
    try:
        pair = _split(_decode(raw))
    except ValueError as error:
        return Fault(number, str(error))
    return Line(number, *pair) if pair else None


def _decode(raw: bytes) -> str:
    if len(raw) > MAX_LINE:
        raise ValueError(f"a line of {len(raw)} bytes; Docker reads at most {MAX_LINE}")
    if b"\0" in raw:
        raise ValueError("a NUL byte, which no text has; save the Dockerfile as UTF-8 text")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8; save the Dockerfile as UTF-8 text") from None


def _split(line: str) -> tuple[str, str] | None:
    """Return the directive's key and value, None for a line that is no directive."""
    match = _DIRECTIVE.fullmatch(line)
    if match is None:
        return None
    key, equals, value = match[1].partition("=")
    if not equals:
        raise ValueError(
            f"a directive without '='; write '# {_first_word(key)}=value', "
            "or switch it off with '#---'"
        )
    return key.strip(" \t"), bare(value)


def _first_word(text: str) -> str:
    match = re.match(r"mypaas\.[a-z]{1,20}", text)
    return match[0] if match else "mypaas.key"
