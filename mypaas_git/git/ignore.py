"""Docker's ``.dockerignore``, by the rules of the builder's own matcher.

They are those of https://docs.docker.com/build/concepts/context/#dockerignore-files
as moby's ``patternmatcher`` carries them out: ``*`` and ``?`` stay within one
name, ``**`` spans any number of directories, what matches a directory matches
everything below it, and the last line that matches decides.
"""

from __future__ import annotations

import posixpath
import re
from typing import NamedTuple

from mypaas_git.errors import TreeRefused

STAR, SPAN, REST = "[^/]*", "(?s:.*/)?", "(?s:.*)"
"""``*``; ``**`` or ``**/`` before something; either of them at the end."""
MAX_REGEX_STARS = 3
"""More than so many and a regex may take hours, deaf to everybody, to say no."""


class DockerIgnore:
    """The patterns of one ``.dockerignore``; paths are relative and use ``/``.

    Raises :class:`TreeRefused` naming the line that is no pattern.
    """

    def __init__(self, text: str) -> None:
        self._rules: list[_Rule] = []
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
            try:
                rule = _rule(line)
            except ValueError:
                raise TreeRefused(
                    f".dockerignore:{number}: {line.strip()[:80]!a} is not a pattern"
                ) from None
            if rule:
                self._rules.append(rule)
        self.has_exceptions = any(rule.keeps for rule in self._rules)
        self._directories = {"": 0}

    def excludes(self, path: str) -> bool:
        """Whether ``path``, a file or a directory, stays out of the build context."""
        if not self._rules:
            return False
        above = path.rpartition("/")[0]
        matched = self._matched(path, self._matched_above(above))
        # The last rule that matches is the highest bit.
        return matched > 0 and not self._rules[matched.bit_length() - 1].keeps

    def _matched_above(self, directory: str) -> int:
        """The rules that match ``directory`` or one above it, remembered."""
        unknown = []
        while directory not in self._directories:
            unknown.append(directory)
            directory = directory.rpartition("/")[0]
        matched = self._directories[directory]
        for each in reversed(unknown):
            matched = self._directories[each] = self._matched(each, matched)
        return matched

    def _matched(self, path: str, matched: int) -> int:
        """``matched`` with the bits of the rules that match ``path`` itself set too."""
        for index, rule in enumerate(self._rules):
            if not matched >> index & 1 and rule.matches(path):
                matched |= 1 << index
        return matched


class _Rule(NamedTuple):
    """One line: its translation as a regex and in pieces, and whether it began with ``!``."""

    regex: re.Pattern[str]
    pieces: tuple[re.Pattern[str] | str, ...]
    keeps: bool

    def matches(self, path: str) -> bool:
        if sum(isinstance(piece, str) for piece in self.pieces) <= MAX_REGEX_STARS:
            return self.regex.fullmatch(path) is not None
        return _matches_slowly(self.pieces, path)


def _rule(line: str) -> _Rule | None:
    """Read a line; ValueError when it is malformed."""
    text = line.strip()
    if line.startswith("#") or not text:
        return None
    keeps = text.startswith("!")
    if keeps:
        text = text[1:].strip()
        if not text:
            raise ValueError(line)
    pattern = posixpath.normpath(text)
    pieces = _pieces(pattern.lstrip("/") or pattern)
    try:
        regex = re.compile("".join(pieces))
        return _Rule(
            regex, tuple(p if p in {STAR, SPAN, REST} else re.compile(p) for p in pieces), keeps
        )
    except re.error as error:
        raise ValueError(line) from error


def _pieces(pattern: str) -> list[str]:
    """Translate a pattern, piece by piece, to what a regex says."""
    found: list[str] = []
    at = 0
    while at < len(pattern):
        piece, length = _piece(pattern, at)
        found.append(piece)
        at += length
    return found


def _piece(pattern: str, at: int) -> tuple[str, int]:
    """Return the translation of what stands at ``at``, and its length."""
    char = pattern[at]
    if char == "*":
        return _stars(pattern, at)
    if char == "?":
        return "[^/]", 1
    if char == "[":
        return _class(pattern, at)
    if char == "\\":
        if at + 1 == len(pattern):
            raise ValueError(pattern)
        return re.escape(pattern[at + 1]), 2
    return re.escape(char), 1


def _stars(pattern: str, at: int) -> tuple[str, int]:
    if not pattern.startswith("**", at):
        return STAR, 1
    slash = pattern.startswith("/", at + 2)
    length = 3 if slash else 2
    rest = pattern[at + length :]
    # "**.log" is no more than an ending, unless another wildcard follows.
    ending = at == 0 and not slash and not set(rest) & set("*?[\\")
    return (REST if not rest or ending else SPAN), length


def _class(pattern: str, at: int) -> tuple[str, int]:
    """Translate ``[a-z]`` or ``[^a-z]``."""
    inner = re.compile(r"\[(\^?)((?:[^\]\\]|\\.)+)\]", re.DOTALL).match(pattern, at)
    if not inner:
        raise ValueError(pattern)
    # What is special in a class for Python alone is a plain character here.
    members = re.sub(r"\\.|[\[&~|]", lambda m: re.escape(m[0][-1]), inner[2])
    return f"[{inner[1]}{members}]", len(inner[0])


def _matches_slowly(pieces: tuple[re.Pattern[str] | str, ...], path: str) -> bool:
    """Match in time that grows with the length of ``path`` only, as an automaton.

    A state is an index into ``pieces``; ``-1 - index`` is the inside of a SPAN.
    """
    states = _reached({0}, pieces)
    for char in path:
        after = set()
        for state in states:
            after.update(_step(state, pieces, char))
        states = _reached(after, pieces)
    return len(pieces) in states


def _step(state: int, pieces: tuple[re.Pattern[str] | str, ...], char: str) -> set[int]:
    if state < 0:
        return {state, -state} if char == "/" else {state}
    if state == len(pieces):
        return set()
    piece = pieces[state]
    if isinstance(piece, re.Pattern):
        return {state + 1} if piece.fullmatch(char) else set()
    if piece == SPAN:
        return _step(-1 - state, pieces, char)
    return {state} if piece == REST or char != "/" else set()


def _reached(states: set[int], pieces: tuple[re.Pattern[str] | str, ...]) -> set[int]:
    """``states`` and those that follow because a star may stand for nothing."""
    reached = set(states)
    for index, piece in enumerate(pieces):
        if index in reached and isinstance(piece, str):
            reached.add(index + 1)
    return reached
