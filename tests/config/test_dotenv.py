"""The lines that ``mypaas config set SERVICE -`` reads, in the forms that people have them."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mypaas_git.config.dotenv import parse_dotenv, render_dotenv
from mypaas_git.errors import UsageError

PEM = "-----BEGIN KEY-----\nMIIE==\n-----END KEY-----\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("\n  \n# only a comment\n\t# another\n", {}),
        ("A=b", {"A": "b"}),
        ("A=b\nB=c\n", {"A": "b", "B": "c"}),
        ("A=b\r\nB=c\r\n", {"A": "b", "B": "c"}),
        ("\ufeffA=b", {"A": "b"}),
        ("export A=b\nexport\tB = c", {"A": "b", "B": "c"}),
        ("  A = b  ", {"A": "b"}),
        ("A=", {"A": ""}),
        ("A=''\nB=\"\"", {"A": "", "B": ""}),
        ("A=b=c==", {"A": "b=c=="}),
        ("A=b # c", {"A": "b"}),
        ("A=b#c", {"A": "b#c"}),
        ("A=#b", {"A": ""}),
        ("A= # b", {"A": ""}),
        ("A='b # c' # d", {"A": "b # c"}),
        ('A="b # c" # d', {"A": "b # c"}),
        ('A={"b": "c d"}', {"A": '{"b": "c d"}'}),
        (r"A=b\nc $D `e`", {"A": r"b\nc $D `e`"}),
        (r"A='b\nc $D `e`'", {"A": r"b\nc $D `e`"}),
        (r'A="b\nc\t\"d\" \\ \$E \x $F"', {"A": 'b\nc\t"d" \\ $E \\x $F'}),
        ('A="b\nc"\nB=d', {"A": "b\nc", "B": "d"}),
        ("A='b\n\nc'\nB=d", {"A": "b\n\nc", "B": "d"}),
        ('A="b\\\nc"', {"A": "bc"}),
        ("A='it'\\''s'", {"A": "it's"}),
        ("A='it'\"'\"'s'", {"A": "it's"}),
        ("A=b\nA=c", {"A": "c"}),
        (f"KEY='{PEM}'\nB=c", {"KEY": PEM, "B": "c"}),
        ("A=ünïcode 🎈", {"A": "ünïcode 🎈"}),
        ("_a1=b", {"_a1": "b"}),
    ],
)
def test_lines(text: str, found: dict[str, str]) -> None:
    """Quotes of either kind, over lines; comments; nothing is expanded."""
    assert parse_dotenv(text) == found


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A=b\nhunter2", 2),
        ("A=b\n\n1A=hunter2", 3),
        ("A-B=hunter2", 1),
        ("=hunter2", 1),
        ("hunter2/=", 1),
        ("MYPAAS_PORT=hunter2", 1),
        ("A=b\nB='hunter2\nand more", 2),
        ('A="hunter2', 1),
        ("A='b' hunter2", 1),
        ('A="b"hunter2', 1),
        ("\uff21=hunter2", 1),
        ("A\x00=hunter2", 1),
    ],
)
def test_what_is_no_line_is_told_without_its_value(text: str, line: int) -> None:
    """T41, T57: the number of the line, and nothing that may be a piece of a secret."""
    with pytest.raises(UsageError, match=rf"^line {line}\b") as raised:
        parse_dotenv(text)
    assert "hunter2" not in str(raised.value)


VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(VALUES)
def test_what_get_shows_is_what_set_reads(value: str) -> None:
    """Several values are shown as lines that mean the same again."""
    assert parse_dotenv(f"{render_dotenv('KEY', value)}\nB=c\n") == {"KEY": value, "B": "c"}


@given(VALUES.filter(lambda value: "\r\n" not in value))
def test_what_a_shell_would_quote(value: str) -> None:
    """Whatever shlex.quote makes of a value is that value."""
    quoted = shlex.quote(value)
    assert parse_dotenv(f"KEY={quoted}\n") == {"KEY": value}
