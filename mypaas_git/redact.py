"""Secrets taken out of what is shown or kept: ``[KEY]`` where a value stood."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

SECRET_LENGTH = 6
"""Characters from which on a value is hidden; shorter ones are everyday words and numbers."""


class Redactor:
    """Called with a text, returns it without the values of ``secrets``.

    This guards against accidents, and not against somebody who encodes a value first.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        # Output comes in lines, so that each line of a certificate has to be known.
        found = {line: f"[{key}]" for key, value in secrets.items() for line in _telling(value)}
        self._hidden = dict(sorted(found.items(), key=lambda item: -len(item[0])))
        self._pattern = re.compile("|".join(map(re.escape, self._hidden)))

    def __call__(self, text: str) -> str:
        if not self._hidden:
            return text
        return self._pattern.sub(lambda found: self._hidden[found[0]], text)


def loggable(argv: Sequence[str]) -> list[str]:
    """The words of one of our commands as a log may keep them, without the values in it.

    Of a ``config`` only names of variables are left, whatever its writer got wrong, and of
    a ``run`` nothing that its command is told.
    """
    words = list(argv)
    if words[:1] and words[0].startswith("config"):
        return [*words[:3], *map(_name_alone, words[3:])]
    if words[:1] == ["run"]:
        return words[:4] + ["…"] * (len(words) > 4)
    return words


def _name_alone(word: str) -> str:
    name, equals, _ = word.partition("=")
    if word.startswith("--") or word == "-":
        return name
    return f"{name}=…" if equals and re.fullmatch("[A-Za-z0-9_]{1,80}", name) else "…"


def _telling(value: str) -> Iterable[str]:
    lines = (line.strip() for line in value.splitlines())
    return [line for line in lines if len(line) >= SECRET_LENGTH]
