"""Labels in the language of this server or of Traefik, which no Dockerfile may set (T49)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mypaas_git.directives.instructions import Instruction, readings, triggered
from mypaas_git.directives.lexer import Fault

_WORD = re.compile(r"""(?:\\.|"(?:\\.|[^"\\])*"|'[^']*'|[^\s])+""", re.DOTALL)


def label_faults(dockerfile: bytes) -> list[Fault]:
    """What is wrong with the labels of a Dockerfile."""
    found = [
        Fault(
            each.number,
            f"the label {key[:60]!a} is reserved: routes and names come from directives, such "
            f"as '# mypaas.url=…'; remove it",
        )
        for reading in readings(dockerfile.decode("utf-8", "replace"), heredocs=True)
        for each in reading
        for key in _keys(triggered(each))
        if is_reserved_label(key)
    ]
    return list(dict.fromkeys(found))


def is_reserved_label(key: str) -> bool:
    """Whether a label speaks this server's or Traefik's language."""
    return key.lower().startswith(("traefik.", "mypaas."))


def _keys(each: Instruction) -> Iterator[str]:
    if each.word != "LABEL":
        return
    found = _WORD.findall(each.rest)
    if found and "=" not in found[0]:
        yield re.sub(r"[\"'\\]", "", found[0])
        return
    for word in found:
        yield re.sub(r"[\"'\\]", "", word).partition("=")[0]
