"""Names that reach rules, labels, paths and commands, as validated types.

They lie at the bottom, like the errors, because every room speaks of them.
"""

from __future__ import annotations

import re

from mypaas_git.errors import NameRefused

# Names that would be confusing, or that resolve to something else, on the
# services' network.
RESERVED = frozenset({"localhost", "traefik"})


class ServiceName(str):
    """A service's name: ``[a-z0-9][a-z0-9-]{0,62}``, made by :meth:`parse` only."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> ServiceName:
        """Return ``text`` as a name.

        Raises :class:`NameRefused` naming, where there is one, a name that would do.
        """
        if re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", text) is None:
            raise NameRefused(_why_refused(text))
        if text in RESERVED:
            raise NameRefused(f"the service name '{text}' is reserved; try '{text}-app'")
        return cls(text)


def _why_refused(text: str) -> str:
    shown = ascii(text if len(text) <= 80 else text[:77] + "...")
    rule = "a service name is 1 to 63 of a-z, 0-9 and '-', starting with a letter or digit"
    near = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].rstrip("-")
    if near and near not in RESERVED and text.isascii():
        return f"{shown} is not a service name ({rule}); '{near}' would do"
    return f"{shown} is not a service name: {rule}"


class VariableName(str):
    """The name of a variable that a container gets, made by :meth:`parse` only (T41)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> VariableName:
        """Return ``text`` as a name. Raises :class:`NameRefused`."""
        if len(text) > 255 or re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) is None:
            shown = ascii(text if len(text) <= 80 else text[:77] + "...")
            raise NameRefused(
                f"{shown} is not a variable's name; write KEY=value or KEY, "
                "with letters, digits and '_', no digit first"
            )
        if text.startswith("MYPAAS_"):
            raise NameRefused(
                f"{text} is reserved: the server sets the MYPAAS_ variables itself"
            )
        return cls(text)


def release_label(number: int) -> str:
    """The name of a service's release: ``v13``."""
    return f"v{number}"


def replica_name(service: ServiceName, release: int, index: int) -> str:
    """The name of a replica, ``hello-world.v13.1``; ``index`` counts from 1.

    A service name has no dot, so the three parts can always be told apart.
    """
    return f"{service}.{release_label(release)}.{index}"
