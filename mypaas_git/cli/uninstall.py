"""``mypaas server uninstall``: nothing of a server is left in the engine but its data."""

from __future__ import annotations

from collections.abc import Iterator

import click

from mypaas_git.access.policy import Verb
from mypaas_git.app import App
from mypaas_git.cli.command import Command
from mypaas_git.cli.context import Context, pass_context
from mypaas_git.errors import UsageError
from mypaas_git.names import ServiceName
from mypaas_git.server import alone


@click.command("uninstall", cls=Command, verb=Verb.SERVER)
@click.option("--yes", is_flag=True, help="Really.")
@pass_context
def uninstall(context: Context, yes: bool) -> None:
    """Remove every service, Traefik and the network from Docker; stop the server before.

    The home and the volumes stay: started again, the server deploys what is pushed.
    """
    app = context.app
    if not yes:
        raise UsageError(
            f"this ends every service of the server at {app.home.path}; "
            f"say --yes if you mean it"
        )
    with alone(app.home.server_lock):
        app.proxy.check_home()
        with context.asking() as asker:
            for service in _deployed(app):
                app.operations.remove(service, asker, with_repository=False)
                app.retirer.prune(service)
            asker.progress.step("Removing Traefik and the network")
            app.proxy.remove()
            app.runtime.remove_network()
            asker.progress.done(f"nothing of {app.settings.docker.namespace} runs any more")
    for line in _left(app):
        context.say(line)


def _deployed(app: App) -> list[ServiceName]:
    """The services that the engine has anything of, or may have."""
    return [
        service
        for service, wanted in app.ledger.all_services().items()
        if not wanted.gone or app.runtime.replicas(service) or app.runtime.images(service)
    ]


def _left(app: App) -> Iterator[str]:
    """What stays, and what would remove it."""
    yield f"left: {app.home.path}, with repositories, history, variables and keys"
    for volume in app.runtime.volumes():
        yield f"left: the volume {volume}; docker volume rm {volume}"
    yield "left: images that were pulled, Traefik's among them; docker image ls"
