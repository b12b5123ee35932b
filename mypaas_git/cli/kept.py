"""What is kept of a service, whether it serves, was removed, or was never deployed."""

from __future__ import annotations

from mypaas_git.access.policy import Verb, may
from mypaas_git.cli.context import Context
from mypaas_git.errors import ServiceMissing
from mypaas_git.names import ServiceName


def kept(context: Context, service: ServiceName) -> list[str]:
    """``history``, ``repository`` and ``variables``, as far as whoever asks may know."""
    app = context.app
    there = {
        "history": bool(app.ledger.releases(service)),
        "repository": app.repositories.exists(service),
        "variables": may(context.identity, Verb.CONFIG_READ, service)
        and service in app.variables.services(),
    }
    return [what for what, is_there in there.items() if is_there]


def kept_service(context: Context, service: ServiceName) -> ServiceName:
    """Return ``service`` when anything of it is kept. Raises ServiceMissing."""
    if not kept(context, service):
        raise ServiceMissing(f"there is no service '{service}'; see: mypaas services")
    return service


def how_back(service: ServiceName) -> str:
    """What deploys a removed service again, with the same commit or with another."""
    return f"a push deploys it again, or: mypaas redeploy {service}"


def listed(context: Context, *, everything: bool = False) -> list[ServiceName]:
    """The services that whoever asks may know of, sorted.

    Those are what was deployed, or tried to be, and what has variables for a first push;
    with ``everything`` whatever else there is something of, such as removed ones.
    """
    app = context.app
    wanted = app.ledger.all_services()
    found = {name for name, want in wanted.items() if everything or not want.gone}
    found |= {name for name in app.variables.services() if everything or name not in wanted}
    if everything:
        found |= set(app.repositories.names())
    return [name for name in sorted(found) if _may_know(context, name)]


def _may_know(context: Context, service: ServiceName) -> bool:
    return may(context.identity, Verb.STATUS, service) and bool(kept(context, service))
