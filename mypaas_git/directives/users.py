"""Who is let into a service: ``user:password`` lines, or those of an htpasswd file. Pure.

Of the hashes that htpasswd makes Traefik knows bcrypt, apr1 and SHA-1.
"""

from __future__ import annotations

import re

from mypaas_git.directives.values import BadValue

MAX_USERS = 256
MAX_PASSWORD = 72
"""Bytes; bcrypt takes no more."""

HASH = re.compile(
    r"\$2[abxy]\$[0-9]{2}\$[./A-Za-z0-9]{53}"
    r"|\$apr1\$[./A-Za-z0-9]{1,8}\$[./A-Za-z0-9]{22}"
    r"|\{SHA\}[A-Za-z0-9+/]{27}="
)
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f:]{1,255}")


def read_users(value: str) -> list[tuple[str, str]]:
    """The users and their passwords, some of which are hashes already (:data:`HASH`).

    Raises BadValue, whose text holds nothing of ``value``.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(value.splitlines(), 1):
        if not line.strip():
            continue
        name, colon, password = line.strip().partition(":")
        if not colon or not password or not _NAME.fullmatch(name):
            raise BadValue(f"line {number} of its value is not user:password")
        if name in found:
            raise BadValue(f"line {number} of its value names a user for the second time")
        if not HASH.fullmatch(password) and len(password.encode()) > MAX_PASSWORD:
            raise BadValue(
                f"the password on line {number} of its value is longer than "
                f"{MAX_PASSWORD} bytes"
            )
        found[name] = password
    if not found:
        raise BadValue("its value holds no user:password")
    if len(found) > MAX_USERS:
        raise BadValue(f"its value holds more than {MAX_USERS} users")
    return list(found.items())
