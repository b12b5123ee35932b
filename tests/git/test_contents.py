"""Deltas, carried out quickly and as strictly as one instruction after the other."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mypaas_git.errors import PackRefused
from mypaas_git.git.contents import _patched_strictly, _sizes, patch

BASE = bytes(range(1, 100))

copies = st.tuples(st.integers(0, 120), st.integers(0, 40)).map(
    lambda it: bytes((0x80 | 0x01 | 0x10, it[0], it[1]))
)
additions = st.binary(min_size=1, max_size=127).map(lambda it: bytes([len(it)]) + it)
instructions = st.lists(st.one_of(copies, additions, st.binary(max_size=3)), max_size=5)


def outcome(made: object, delta: bytes) -> bytes | str:
    assert callable(made)
    try:
        result = made(delta)
    except PackRefused as error:
        return error.message
    assert isinstance(result, bytes)
    return result


def length(body: bytes) -> int:
    """How long the result of a delta's instructions is, as far as they are any good."""
    at = total = 0
    while at < len(body):
        if body[at] & 0x80:
            total += (body[at + 2 : at + 3] or b"\0")[0]
            at += 3
        else:
            total += body[at]
            at += 1 + body[at]
    return total


@given(instructions, st.integers(0, 12), st.integers(-9, 9))
@example([b"\x0c\x01\x02\x03"], 0, 0)
@example([b"\x91\xf0\x05"], 0, -5)
@example([b"\x0a\x01"], 0, -1)
def test_as_strict_as_step_by_step(parts: list[bytes], cut: int, off: int) -> None:
    """Whole, cut off anywhere and with a wrong length, it is taken or refused alike."""
    body = b"".join(parts)
    declared = min(max(0, length(body) + off), 0x3FFF)
    start = bytes((len(BASE), declared & 0x7F | 0x80, declared >> 7))
    delta = start + body[: len(body) - cut]
    strict = outcome(lambda d: _patched_strictly(BASE, d, _sizes(d)), delta)
    assert outcome(lambda d: patch(BASE, d), delta) == strict


@pytest.mark.parametrize("zeros", [0, 1, 9])
def test_a_size_may_be_given_at_length(zeros: int) -> None:
    """git reads it so: a number may have more digits than it needs."""
    size = bytes((len(BASE) | 0x80, *b"\x80" * zeros, 0))
    whole = bytes((len(BASE), 0x90, len(BASE)))
    assert patch(BASE, size + whole) == BASE


def test_a_delta_of_another_base() -> None:
    """It might be carried out all the same, and git would not be able to read it."""
    delta = bytes((len(BASE), 3, 0x90, 3))
    assert patch(BASE, delta) == BASE[:3]
    for base in (BASE[:-1], BASE + b"x"):
        with pytest.raises(PackRefused, match="it was made for another base"):
            patch(base, delta)
