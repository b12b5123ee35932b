r"""The lines of a dotenv file as variables. Pure.

::

    # a comment
    export KEY=value            # a comment, behind a space
    KEY = "one line\nand two"   # \n \r \t \\ \" \$ \` mean what they do in a shell
    KEY='as it
    stands'
    KEY='it'\''s'               # what shells and shlex.quote() write

A value that does not begin with a quote is taken as it stands, to the end of the line or a
comment, quotes and backslashes in it included. Nothing is ever expanded. Of several lines
for a key the last one counts.
"""

from __future__ import annotations

import re

from mypaas_git.errors import NameRefused, UsageError
from mypaas_git.names import VariableName

_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "\n": "", **{c: c for c in '\\"$`'}}
_BLANK = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_QUOTE_AHEAD = re.compile(r"[ \t]*(?=[\"'])")
_START = re.compile(r"[ \t]*(?:export[ \t]+)?([^=\n]*)")
_PLAIN = re.compile(r"[^\n]*")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_SINGLE = re.compile(r"'([^']*)'")
_END = re.compile(r"[ \t]*(?:(?<=[ \t])#[^\n]*)?(?:\n|\Z)")


def parse_dotenv(text: str) -> dict[str, str]:
    """Return the variables of ``text``. Raises UsageError with the line, never a value."""
    # A text of Windows; a value that wants a carriage return writes "\r".
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        blank = _BLANK.match(text, at)
        if blank:
            at = blank.end()
        else:
            key, value, at = _variable(text, at)
            found[key] = value
    return found


def _variable(text: str, at: int) -> tuple[VariableName, str, int]:
    """The variable that begins at ``at``, and where what follows it begins."""
    start = _START.match(text, at)
    if start is None or text[start.end() : start.end() + 1] != "=":
        raise _fault(text, at, "has no '='; write KEY=value")
    key = parse_key(start[1].rstrip(" \t"), f"line {_line(text, at)}")
    begin = start.end() + 1
    quoted = _QUOTE_AHEAD.match(text, begin)
    if quoted:
        return key, *_quoted(text, quoted.end(), key)
    plain = _PLAIN.match(text, begin)
    line = plain[0] if plain else ""
    return key, re.split(r"(?:^|(?<=[ \t]))#", line)[0].strip(" \t"), begin + len(line) + 1


def _quoted(text: str, at: int, key: str) -> tuple[str, int]:
    r"""A value of quoted pieces, as in ``'it'\''s'``, and where what follows it begins."""
    value = ""
    while not (end := _END.match(text, at)):
        piece = text[at]
        if (double := _DOUBLE.match(text, at)) is not None:
            value, at = value + _unescaped(double[1]), double.end()
        elif (single := _SINGLE.match(text, at)) is not None:
            value, at = value + single[1], single.end()
        elif piece in "\"'":
            raise _fault(text, at, f"begins a quote in {key} that does not end")
        elif piece == "\\" and text[at + 1 : at + 2] not in ("", "\n"):
            value, at = value + text[at + 1], at + 2
        else:
            raise _fault(text, at, f"has something behind the quoted value of {key}")
    return value, end.end()


def _unescaped(text: str) -> str:
    """What a double-quoted ``text`` stands for; a backslash that escapes nothing is one."""
    return re.sub(
        r"\\(.)", lambda found: _ESCAPED.get(found[1], found[0]), text, flags=re.DOTALL
    )


def render_dotenv(key: str, value: str) -> str:
    """A line, or several, that :func:`parse_dotenv` reads as this variable."""
    if re.fullmatch(r"[A-Za-z0-9_./:@%+,=-]*", value):
        return f"{key}={value}"
    escaped = re.sub(r'[\\"$`]', r"\\\g<0>", value).replace("\r", "\\r").replace("\n", "\\n")
    return f'{key}="{escaped}"'


def parse_key(
    text: str, where: str, form: str = "KEY=value, as in LOG_LEVEL=debug"
) -> VariableName:
    """Return ``text`` as a variable's name.

    Raises UsageError that says ``where`` it stands, and which ``form`` is wanted there. What
    is no name may be a piece of a secret, so that it is not shown.
    """
    try:
        return VariableName.parse(text)
    except NameRefused as error:
        if re.fullmatch(r"MYPAAS_[A-Za-z0-9_]*", text):
            raise UsageError(f"{where}: {error.message}") from None
        raise UsageError(
            f"{where} is not {form}; names are made of letters, digits and '_', no digit first"
        ) from None


def _fault(text: str, at: int, what: str) -> UsageError:
    return UsageError(f"line {_line(text, at)} {what}")


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
