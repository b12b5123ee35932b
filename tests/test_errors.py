"""The codes of errors, which scripts look for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import mypaas_git.errors
from mypaas_git.errors import MypaasError

DOCS = Path(__file__).resolve().parent.parent / "docs"


def leaves(top: type[MypaasError]) -> Iterator[type[MypaasError]]:
    for each in top.__subclasses__():
        if each.__module__ == mypaas_git.errors.__name__:
            yield each
            yield from leaves(each)


def test_every_code_is_documented() -> None:
    """The table of docs/deploys.rst has each code once, and no other."""
    section = (DOCS / "deploys.rst").read_text().partition("The word before the colon")[2]
    table = re.findall(r"^``([a-z-]+)`` ", section.split("\n\n")[1], re.MULTILINE)
    assert sorted(table) == sorted(each.code for each in leaves(MypaasError))


def test_the_tree_in_the_module_is_complete() -> None:
    """What the module shows at its top is what it defines."""
    shown = re.findall(r"[├└]── (\w+) +([a-z-]+)", mypaas_git.errors.__doc__ or "", re.ASCII)
    assert sorted(shown) == sorted((each.__name__, each.code) for each in leaves(MypaasError))
