"""Who is let into a service."""

from __future__ import annotations

import pytest

from mypaas_git.directives.users import MAX_USERS, read_users
from mypaas_git.directives.values import BadValue

HASHES = [
    "$2y$05$" + "a" * 53,
    "$apr1$salt1234$" + "b" * 22,
    "{SHA}" + "c" * 27 + "=",
]


def test_lines() -> None:
    """A user a line; passwords may hold colons and spaces, empty lines count for nothing."""
    assert read_users("alice:a b:c\n\n bob:x \r\n") == [("alice", "a b:c"), ("bob", "x")]


@pytest.mark.parametrize("hashed", HASHES)
def test_hashes(hashed: str) -> None:
    """They may be longer than a password may be."""
    assert read_users(f"alice:{hashed}{''}") == [("alice", hashed)]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "no user:password"),
        ("alice", "line 1 .* is not user:password"),
        ("alice:", "line 1 .* is not user:password"),
        (":secret", "line 1 .* is not user:password"),
        ("a\tb:secret", "line 1 .* is not user:password"),
        ("alice:secret\nalice:other", "line 2 .* for the second time"),
        (f"alice:{'é' * 37}", "longer than 72 bytes"),
        ("\n".join(f"u{n}:x" for n in range(MAX_USERS + 1)), "more than 256 users"),
    ],
)
def test_faults(value: str, why: str) -> None:
    """Each says which line, and shows nothing of it."""
    with pytest.raises(BadValue, match=why) as caught:
        read_users(value)
    assert "secret" not in str(caught.value)
