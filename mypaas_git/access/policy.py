"""Who may do what. Pure: takes values, answers, touches nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mypaas_git.errors import AccessDenied
from mypaas_git.names import ServiceName


@dataclass(frozen=True)
class Identity:
    """Who is asking: the key that proved possession, and the rights on its line.

    ``services`` None means every service. ``fingerprint`` is ``SHA256:…``, or
    empty for somebody at the server's own shell.
    """

    name: str
    fingerprint: str = ""
    admin: bool = False
    services: frozenset[ServiceName] | None = None


class Verb(Enum):
    """Everything that can be asked, with the right that it takes."""

    PUSH = ("push", "deploy")
    FETCH = ("fetch", "deploy")
    READ = ("read", "deploy")
    ROLLBACK = ("rollback", "deploy")
    REDEPLOY = ("redeploy", "deploy")
    RESTART = ("restart", "deploy")
    STOP = ("stop", "deploy")
    START = ("start", "deploy")
    LOGS = ("logs", "deploy")
    RUN = ("run", "deploy")
    CONFIG_READ = ("config-read", "admin")
    CONFIG_WRITE = ("config-write", "admin")
    REMOVE = ("remove", "admin")
    WHOAMI = ("whoami", "anyone")
    KEYS = ("keys", "admin")

    @property
    def right(self) -> str:
        return self.value[1]


def allow(identity: Identity, verb: Verb, service: ServiceName | None = None) -> None:
    """Raise :class:`AccessDenied` unless ``identity`` may do ``verb`` to ``service``."""
    if identity.admin or verb.right == "anyone":
        return
    if verb.right == "admin":
        raise AccessDenied(
            f"the key '{identity.name}' may not do this: it takes an admin's key"
        )
    if service is not None and not may_see(identity, service):
        raise AccessDenied(
            f"the key '{identity.name}' has no right to the service '{service}'; "
            f'an admin can add it to services="…" on its line'
        )


def may_see(identity: Identity, service: ServiceName) -> bool:
    """Whether ``service`` belongs to what this identity may deploy and read."""
    return identity.admin or identity.services is None or service in identity.services
