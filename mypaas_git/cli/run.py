"""``mypaas run``: a one-off command with what the live release has."""

from __future__ import annotations

from collections.abc import Sequence

import click

from mypaas_git.access.policy import Verb
from mypaas_git.cli.command import Command
from mypaas_git.cli.context import SERVICE, Context, known_service, pass_context
from mypaas_git.errors import UsageError
from mypaas_git.names import ServiceName


@click.command(
    "run",
    cls=Command,
    verb=Verb.RUN,
    context_settings={"allow_interspersed_args": False},
)
@click.argument("service", type=SERVICE)
@click.argument(
    "command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND..."
)
@pass_context
def run_command(context: Context, service: ServiceName, command: Sequence[str]) -> int:
    """Run COMMAND in a new container of SERVICE's live release, and return its exit code.

    It has the release's variables and volumes, none of its ports, and ends with whoever
    runs it. Use `ssh -t` for a terminal.
    """
    words = command[1:] if command[0] == "--" else command
    if not words:
        raise UsageError("a command is missing: mypaas run SERVICE -- COMMAND…")
    known_service(context, service)
    with context.terminal.operator() as operator:
        return context.app.operations.run(service, words, operator, context.identity)
