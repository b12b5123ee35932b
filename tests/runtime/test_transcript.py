"""Lines for people: clean, without secrets, and not without end."""

from __future__ import annotations

import pytest

from mypaas_git.runtime.transcript import LONGEST, Flood, Lines, Transcript, step_failed


def test_lines_are_shown_clean_and_blank_ones_are_not() -> None:
    """Control characters go, and what is left of a line that had nothing else."""
    shown: list[str] = []
    transcript = Transcript(shown.append, {}, Flood())
    for line in ("\x1b[31mred\x1b[0m", "", "  \x07", "10%\r20%", "  indented"):
        transcript.show(line)
    assert shown == ["red", "20%", "  indented"]


@pytest.mark.parametrize("flood", [Flood(lines=3), Flood(size=14)])
def test_too_much_output_ends_with_one_note(flood: Flood) -> None:
    """Neither many lines nor long ones go on for ever; what a step is goes on to be known."""
    shown: list[str] = []
    transcript = Transcript(shown.append, {}, flood)
    for number in range(10):
        assert transcript.show(f"line{number}") == f"line{number}"
    transcript.begin("Step 2/2 : RUN x")
    assert shown[-1] == "… more output is not shown"
    assert shown.count(shown[-1]) == 1
    assert len(shown) in (3, 4)
    assert transcript.step == "Step 2/2 : RUN x"


def test_the_longest_secret_is_hidden_first() -> None:
    """One that holds another is hidden whole; those of a few characters are left."""
    secrets = {"A": "abcdef", "B": "abcdefgh", "C": "x", "D": "", "E": "a.cdef"}
    transcript = Transcript(lambda _: None, secrets, Flood())
    assert transcript.show("abcdefgh abcdef x a.cdef") == "[B] [A] x [E]"
    assert transcript.tell("in\n  abcdefgh" + "y" * 500, 20) == "in [B]yyyyyyyyyyyyy…"


def test_lines_come_as_they_end() -> None:
    """However the stream is cut; the last one needs no newline."""
    taken: list[str] = []
    lines = Lines(taken.append)
    for piece in ("one\ntw", "o\n\nth", "ree"):
        lines.feed(piece)
    assert taken == ["one", "two", ""]
    lines.end()
    assert taken[-1] == "three"


def test_a_line_without_end_needs_no_memory() -> None:
    """What is too long is dropped up to the next line."""
    taken: list[str] = []
    lines = Lines(taken.append)
    for _ in range(100):
        lines.feed("x" * LONGEST)
    lines.feed("\nnext\n")
    assert [len(line) for line in taken] == [LONGEST, 4]


def test_a_failed_step_is_one_line() -> None:
    """Its code and, if it printed anything, its last line."""
    assert step_failed("Step 1/1 : RUN x", "7", "why") == "Step 1/1 : RUN x returned 7 (why)"
    assert step_failed("Step 1/1 : RUN x", "7", " ") == "Step 1/1 : RUN x returned 7"
    assert len(step_failed("s" * 999, "7", "w" * 999)) < 330
