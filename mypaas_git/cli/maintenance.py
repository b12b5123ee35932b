"""``mypaas maintenance``: a page for visitors while a service is worked on."""

from __future__ import annotations

import click

from mypaas_git.access.policy import Verb
from mypaas_git.cli.command import Command, Group
from mypaas_git.cli.context import SERVICE, Context, known_service, pass_context
from mypaas_git.names import ServiceName


@click.group("maintenance", cls=Group)
def maintenance() -> None:
    """Close a service to visitors for a while; its containers go on."""


@maintenance.command("on", cls=Command, verb=Verb.MAINTENANCE)
@click.argument("service", type=SERVICE)
@pass_context
def on(context: Context, service: ServiceName) -> None:
    """Show visitors of SERVICE a page instead, with status 503.

    It lasts until it is switched off: over deploys, rollbacks and restarts.
    """
    known_service(context, service)
    with context.asking() as asker:
        context.app.operations.close(service, asker)
        asker.progress.done(f"{service} is in maintenance")


@maintenance.command("off", cls=Command, verb=Verb.MAINTENANCE)
@click.argument("service", type=SERVICE)
@pass_context
def off(context: Context, service: ServiceName) -> None:
    """Let visitors get to SERVICE again."""
    known_service(context, service)
    with context.asking() as asker:
        context.app.operations.open(service, asker)
        asker.progress.done(f"{service} is open to visitors")
