"""The table of directives and the names that were probably meant."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from mypaas_git.directives.lexer import lex
from mypaas_git.directives.model import ServiceSpec
from mypaas_git.directives.table import DIRECTIVES, nearest

DOCS = Path(__file__).resolve().parents[2] / "docs" / "directives.rst"


def test_every_directive_fills_a_field() -> None:
    """The table and the spec speak of the same things."""
    fields = {field.name for field in dataclasses.fields(ServiceSpec)}
    assert {each.field for each in DIRECTIVES.values()} == fields - {"scale_mode", "users"}


def test_repeatable() -> None:
    """What may stand more than once."""
    repeatable = {key for key, each in DIRECTIVES.items() if each.repeatable}
    assert repeatable == {
        *("mypaas.url", "mypaas.redirect", "mypaas.volume", "mypaas.env", "mypaas.publish")
    }


def test_documentation_names_every_directive() -> None:
    """The documentation has a section for each directive, in the table's order."""
    rows = DOCS.read_text(encoding="utf-8").splitlines()
    titles = [row for row, line in itertools.pairwise(rows) if row and line == "-" * len(row)]
    assert [title for title in titles if title.startswith("mypaas.")] == list(DIRECTIVES)


def test_documented_examples() -> None:
    """Every example in the documentation is taken."""
    lines, faults = lex(DOCS.read_bytes())
    assert faults == []
    assert {line.key for line in lines} == set(DIRECTIVES)
    for line in lines:
        DIRECTIVES[line.key].parse(line.value)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("mypaas.ulr", "mypaas.url"),
        ("mypaas.urls", "mypaas.url"),
        ("mypaas.URL", "mypaas.url"),
        ("mypaas.volumes", "mypaas.volume"),
        ("mypaas.environment", None),
        ("mypaas.health", "mypaas.healthcheck"),
        ("mypaas.mem", "mypaas.maxmem"),
        ("mypaas.max_cpu", "mypaas.maxcpu"),
        ("mypaas.servcie", "mypaas.service"),
        ("mypaas.", None),
        ("mypaas.zzzz", None),
    ],
)
def test_nearest(key: str, meant: str | None) -> None:
    """A slip of the finger is recognised, another word is not."""
    assert nearest(key) == meant
