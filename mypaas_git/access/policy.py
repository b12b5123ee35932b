"""Who may do what. Pure: takes values, answers, touches nothing.

The one table of rights: every entrance (push, fetch, each command in the shell and over
ssh) names its :class:`Verb` and asks :func:`allow`. What a verb takes stands beside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from mypaas_git.errors import AccessDenied
from mypaas_git.names import ServiceName


@dataclass(frozen=True)
class Identity:
    """Who is asking: the key that proved possession, and the rights on its line.

    ``services`` None means every service, ``branches`` None every branch; else these are
    patterns, whose ``*`` stands for anything but a slash. ``fingerprint`` is ``SHA256:…``
    and ``address`` where they come from; both are empty for somebody at the server's own
    shell.
    """

    name: str
    fingerprint: str = ""
    admin: bool = False
    services: frozenset[ServiceName] | None = None
    branches: tuple[str, ...] | None = None
    address: str = ""


class Right(Enum):
    """What a verb takes of a key's line."""

    LOGIN = "any key"
    SERVICE = "a key for the service"
    CREATION = "a key whose line names the service, or a free hand with [access] create"
    ADMIN = "an admin's key"


class Verb(Enum):
    """Everything that can be asked, and the right that it takes."""

    PUSH = ("push", Right.SERVICE)
    FETCH = ("fetch", Right.SERVICE)
    CREATE = ("create", Right.CREATION)

    SERVICES = ("services", Right.LOGIN)  # which of them are shown is up to STATUS
    STATUS = ("status", Right.SERVICE)
    RELEASES = ("releases", Right.SERVICE)
    OUTPUT = ("output", Right.SERVICE)
    LOGS = ("logs", Right.SERVICE)

    ROLLBACK = ("rollback", Right.SERVICE)
    REDEPLOY = ("redeploy", Right.SERVICE)
    RESTART = ("restart", Right.SERVICE)
    STOP = ("stop", Right.SERVICE)
    START = ("start", Right.SERVICE)
    MAINTENANCE = ("maintenance", Right.SERVICE)
    RUN = ("run", Right.SERVICE)  # whoever may push can have the containers do anything
    REMOVE = ("remove", Right.ADMIN)

    CONFIG_READ = ("config-read", Right.ADMIN)
    CONFIG_WRITE = ("config-write", Right.ADMIN)

    WHOAMI = ("whoami", Right.LOGIN)
    KEYS = ("keys", Right.ADMIN)
    AUDIT = ("audit", Right.ADMIN)
    SERVER = ("server", Right.ADMIN)

    @property
    def right(self) -> Right:
        return self.value[1]


def allow(
    identity: Identity,
    verb: Verb,
    service: ServiceName | None = None,
    *,
    create: bool = True,
) -> None:
    """Raise :class:`AccessDenied` unless ``identity`` may do ``verb`` to ``service``.

    ``create`` is ``[access] create`` of config.toml. Whether the service exists does not
    matter, and is therefore not given away.
    """
    if identity.admin or verb.right is Right.LOGIN:
        return
    if verb.right is Right.ADMIN:
        raise AccessDenied(
            f"the key '{identity.name}' may not do this: it takes an admin's key"
        )
    if service is not None and not _has(identity, service):
        raise AccessDenied(
            f"the key '{identity.name}' has no right to the service '{service}'; "
            f'an admin can add it to services="…" on its line'
        )
    if verb.right is Right.CREATION and identity.services is None and not create:
        raise AccessDenied(
            f"there is no service '{service}', and the key '{identity.name}' may not create "
            f'one; an admin can push it first, or name it in services="…" on the key\'s line'
        )


def allow_ref(identity: Identity, ref: str) -> None:
    """Raise :class:`AccessDenied` unless ``identity`` may push to ``ref``.

    A key that is for some branches is for no tag either.
    """
    if identity.admin or identity.branches is None:
        return
    branch = ref.removeprefix("refs/heads/")
    if branch == ref or not any(_matches(each, branch) for each in identity.branches):
        raise AccessDenied(
            f"the key '{identity.name}' may push to {' and '.join(identity.branches)} only"
        )


def may(identity: Identity, verb: Verb, service: ServiceName) -> bool:
    """Whether :func:`allow` lets it pass."""
    try:
        allow(identity, verb, service)
    except AccessDenied:
        return False
    return True


def _has(identity: Identity, service: ServiceName) -> bool:
    return identity.services is None or service in identity.services


def _matches(pattern: str, branch: str) -> bool:
    parts = map(re.escape, pattern.split("*"))
    return re.fullmatch("[^/]*".join(parts), branch) is not None
