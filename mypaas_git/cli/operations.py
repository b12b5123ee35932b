"""``mypaas rollback``, ``restart`` and the like: what is done to a service that is there."""

from __future__ import annotations

import click

from mypaas_git.access.policy import Verb, allow
from mypaas_git.cli.command import Command
from mypaas_git.cli.context import (
    RELEASE,
    SERVICE,
    Context,
    how_back,
    known_service,
    pass_context,
    told_already,
)
from mypaas_git.cli.kept import kept, kept_service
from mypaas_git.errors import UsageError
from mypaas_git.names import ServiceName


@click.command("rollback", cls=Command, verb=Verb.ROLLBACK)
@click.argument("service", type=SERVICE)
@click.argument("release", type=RELEASE, required=False)
@pass_context
def rollback(context: Context, service: ServiceName, release: int | None) -> None:
    """Serve again what RELEASE (v13) of SERVICE did, by default the one before the live one.

    Its image, directives and variables become a new release; nothing is built.
    """
    known_service(context, service)
    with context.asking() as asker:
        context.tell_release(context.app.operations.rollback(service, release, asker))


@click.command("redeploy", cls=Command, verb=Verb.REDEPLOY)
@click.argument("service", type=SERVICE)
@pass_context
def redeploy(context: Context, service: ServiceName) -> None:
    """Build and deploy the live commit of SERVICE afresh, with the variables of today.

    A removed SERVICE comes back with the commit that was live last.
    """
    kept_service(context, service)
    if not context.app.ledger.has(service):  # as for a push that would bring it back
        allow(context.identity, Verb.CREATE, service, create=context.app.may_create())
    with context.asking() as asker, told_already():
        context.tell_release(context.app.operations.redeploy(service, asker))


@click.command("restart", cls=Command, verb=Verb.RESTART)
@click.argument("service", type=SERVICE)
@pass_context
def restart(context: Context, service: ServiceName) -> None:
    """Replace the containers of SERVICE by new ones of the same image.

    With a scale of 1 or more the old ones serve until the new ones are healthy.
    """
    known_service(context, service)
    with context.asking() as asker:
        context.tell_release(context.app.operations.restart(service, asker))


@click.command("stop", cls=Command, verb=Verb.STOP)
@click.argument("service", type=SERVICE)
@pass_context
def stop(context: Context, service: ServiceName) -> None:
    """Stop SERVICE until it is started or pushed to; visitors get a page that says so."""
    known_service(context, service)
    with context.asking() as asker:
        context.app.operations.stop(service, asker)


@click.command("start", cls=Command, verb=Verb.START)
@click.argument("service", type=SERVICE)
@pass_context
def start(context: Context, service: ServiceName) -> None:
    """Start SERVICE again, and return when it is healthy."""
    known_service(context, service)
    with context.asking() as asker:
        context.app.operations.start(service, asker)


@click.command("remove", cls=Command, verb=Verb.REMOVE)
@click.argument("service", type=SERVICE)
@click.option("--yes", is_flag=True, help="Really.")
@click.option(
    "--with-repo", is_flag=True, help="The repository, variables, logs and history as well."
)
@pass_context
def remove(context: Context, service: ServiceName, yes: bool, with_repo: bool) -> None:
    """Remove SERVICE: its containers, images and routes. Volumes are never removed.

    What is kept of a removed one goes with --with-repo, at once or later.
    """
    kept_service(context, service)
    if with_repo:
        context.detail["with"] = "repository"
    if not yes:
        raise UsageError(f"this ends {service}; say --yes if you mean it")
    if not with_repo and not context.app.ledger.has(service):
        words = ", ".join(kept(context, service))
        context.note(
            f"nothing of {service} is deployed; --with-repo removes what is kept: {words}"
        )
        return
    with context.asking() as asker:
        context.app.operations.remove(service, asker, with_repository=with_repo)
        left = "volumes stay"
        if not with_repo:
            left = f"repository, variables and volumes stay; {how_back(service)}"
        asker.progress.done(f"{service} is removed; its {left}")
