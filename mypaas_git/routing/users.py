"""Passwords as Traefik is given them: hashed."""

from __future__ import annotations

import bcrypt

from mypaas_git.directives.users import HASH, read_users

ROUNDS = 6
"""Of bcrypt, as a power of two. The proxy pays for them at every request, some milliseconds,
and whoever could read the hash can read the secret beside it: more would protect nothing."""


def hashed(value: str) -> tuple[str, ...]:
    """The ``user:hash`` lines for the users that a secret's value names. Raises BadValue."""
    return tuple(f"{name}:{_hash(password)}" for name, password in read_users(value))


def _hash(password: str) -> str:
    if HASH.fullmatch(password):
        return password
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(ROUNDS)).decode("ascii")
