"""What is kept of a service, whether it serves, was removed, or was never deployed."""

from __future__ import annotations

from mypaas_git.access.policy import Verb, may
from mypaas_git.cli.context import Context, no_service
from mypaas_git.names import ServiceName


def kept(context: Context, service: ServiceName) -> list[str]:
    """``history``, ``repository`` and ``variables``, as far as whoever asks may know."""
    app = context.app
    there = {
        "history": bool(app.ledger.releases(service)),
        "repository": app.repositories.exists(service),
        "variables": may(context.identity, Verb.CONFIG_READ, service)
        and app.variables.has(service),
    }
    return [what for what, is_there in there.items() if is_there]


def kept_service(context: Context, service: ServiceName) -> ServiceName:
    """Return ``service`` when anything of it is kept. Raises ServiceMissing."""
    if not kept(context, service):
        raise no_service(service)
    return service


def listed(context: Context, *, everything: bool = False) -> list[ServiceName]:
    """The services that whoever asks may know of, sorted.

    Those are what was deployed, or tried to be, and what has variables for a first push;
    with ``everything`` whatever else there is something of, such as removed ones.
    """
    app, identity = context.app, context.identity
    wanted = app.ledger.all_services()
    there = {name for name, want in wanted.items() if everything or not want.gone}
    if everything:
        there.update(app.repositories.names())
    found = {name for name in there if may(identity, Verb.STATUS, name)}
    for name in app.variables.services():
        if (everything or name not in wanted) and may(identity, Verb.CONFIG_READ, name):
            found.add(name)
    return sorted(found)
