"""``.dockerignore`` as Docker reads it.

Rules: the Dockerfile reference, ".dockerignore file", and where that is vague
the engine's own matcher (package ``patternmatcher`` of moby): a pattern that
matches a directory matches all below it, the last pattern that matches wins,
``**`` stands for any number of directories.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mypaas_git.errors import TreeRefused


class DockerIgnore:
    """The patterns of one file, from the text of it."""

    def __init__(self, text: str) -> None:
        """Raises :class:`TreeRefused` naming the line that is no pattern."""
        self._patterns = list(_patterns(text))

    @property
    def has_exceptions(self) -> bool:
        """Whether a file below an excluded directory may be let in again by a ``!`` pattern."""
        return any(pattern.exception for pattern in self._patterns)

    def excludes(self, path: str) -> bool:
        """Whether ``path``, relative and with ``/`` between its parts, is left out."""
        parts = path.split("/")
        paths = ["/".join(parts[: end + 1]) for end in range(len(parts))]
        excluded = False
        for pattern in self._patterns:
            # A pattern that could not change the answer is not worth matching.
            if pattern.exception == excluded and any(map(pattern.regex.fullmatch, paths)):
                excluded = not pattern.exception
        return excluded


@dataclass(frozen=True)
class _Pattern:
    regex: re.Pattern[str]
    exception: bool


def _patterns(text: str) -> Iterator[_Pattern]:
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        pattern = line.strip()
        if not pattern or line.startswith("#"):
            continue
        exception = pattern.startswith("!")
        pattern = pattern.removeprefix("!").strip()
        try:
            if not pattern:
                raise ValueError("nothing follows the '!'")
            clean = posixpath.normpath("/" + pattern).lstrip("/") or "/"
            if pattern.startswith(".."):
                clean = posixpath.normpath(pattern)
            yield _Pattern(re.compile(_regex(clean), re.DOTALL), exception)
        except ValueError as error:
            raise TreeRefused(f".dockerignore line {number} is no pattern: {error}") from None


def _regex(pattern: str) -> str:
    """Translate a cleaned pattern."""
    regex, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**", at):
            at += 2
            if pattern.startswith("/", at):
                at += 1
            regex += "(?:.*/)?" if at < len(pattern) else ".*"
            continue
        if char == "[":
            piece, at = _char_class(pattern, at + 1)
            regex += piece
            continue
        if char == "\\":
            at += 1
            if at == len(pattern):
                raise ValueError("it ends in a backslash")
            char = pattern[at]
            regex += re.escape(char)
        else:
            regex += {"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char))
        at += 1
    return regex


def _char_class(pattern: str, at: int) -> tuple[str, int]:
    """Translate ``[a-z]`` or ``[^a-z]`` whose inside starts at ``at``; return where it ends."""
    negated = "^" if pattern.startswith("^", at) else ""
    at += len(negated)
    ranges = ""
    while at < len(pattern) and (pattern[at] != "]" or not ranges):
        low, at = _char(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _char(pattern, at + 1)
        if high < low:
            raise ValueError(f"the range {low}-{high} goes backwards")
        ranges += f"{re.escape(low)}-{re.escape(high)}"
    if at >= len(pattern):
        raise ValueError("its '[' has no ']'")
    return f"[{negated}{ranges}]", at + 1


def _char(pattern: str, at: int) -> tuple[str, int]:
    if pattern.startswith("\\", at):
        at += 1
    if at >= len(pattern) or pattern[at - 1 : at + 1] in ("[]", "^]"):
        raise ValueError("its '[' has no ']'")
    return pattern[at], at + 1
