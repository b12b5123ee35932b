"""The ``ARG`` variables of a Dockerfile that its ``FROM`` lines can use. Pure.

Only what every builder understands alike is read; the rest is refused where it matters.
"""

from __future__ import annotations

import re

from mypaas_git.directives.instructions import Unreadable
from mypaas_git.directives.lexer import bare

UNKNOWN = "?"
"""Stands for the value of a variable that is the platform's: only the builder knows it."""

_NAME = "[A-Za-z_][A-Za-z0-9_]*"
_ARG = rf"""({_NAME})(?:(=)("[^"`\\]*"|'[^'`\\$]*'|[^\s"'`\\]*))?(?: +|$)"""
_VARIABLE = re.compile(
    rf"\$({_NAME})|\$\{{({_NAME})(?::([-+])([A-Za-z0-9._/:@+-]*))?\}}|\$.{{0,60}}"
)
_PLATFORM = re.compile(r"(TARGET|BUILD)(PLATFORM|OS|ARCH|VARIANT|OSVERSION)|TARGETSTAGE")
# What the docker client and this server give a build, whatever the Dockerfile says.
_GIVEN = re.compile(r"(?i:(https?|ftp|no|all)_proxy)|BUILDKIT_.*|SOURCE_DATE_EPOCH")


class Variables:
    """What the ARG instructions so far have set, above the first FROM."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._ambiguous: set[str] = set()

    def declare(self, rest: str) -> None:
        """Take what follows ARG. Raises Unreadable."""
        found = re.findall(_ARG, rest) if re.fullmatch(f"({_ARG})*", rest) else []
        if not found or (len(found) > 1 and "$" in rest):
            raise Unreadable(
                "it can be read in more than one way; give each ARG above FROM a line of its "
                "own, as ARG NAME=value or ARG NAME, without escapes"
            )
        for name, equals, default in found:
            if equals and name in {"TARGETPLATFORM", "BUILDPLATFORM"}:
                raise Unreadable(f"{name} is the builder's to set; leave the ARG out")
            if name in self._values or (equals and _PLATFORM.fullmatch(name)):
                self._ambiguous.add(name)
            try:
                self._values[name] = self.expanded(bare(default))
            except Unreadable:
                self._ambiguous.add(name)

    def expanded(self, word: str) -> str:
        """``word``, its variables replaced. Raises Unreadable."""
        if "$" in word and not word.isascii():
            raise Unreadable(f"{word[:60]!a} can be read in more than one way; use ASCII")
        return _VARIABLE.sub(self._value, word)

    def _value(self, match: re.Match[str]) -> str:
        name, sign, other = match[1] or match[2] or "", match[3], match[4] or ""
        value = UNKNOWN if _PLATFORM.fullmatch(name) else self._values.get(name)
        twofold = sign is not None and UNKNOWN in (value or "")
        if not name or twofold or name in self._ambiguous or _GIVEN.fullmatch(name):
            raise Unreadable(
                f"{match[0][:60]!a} can be read in more than one way; name the image in full"
            )
        if value is None and sign is None:
            raise Unreadable(
                f"the variable {name[:60]} is set nowhere before; write 'ARG {name[:60]}=…' "
                "above the first FROM, or name the image in full"
            )
        if sign == "+":
            return other if value else ""
        return value or other
