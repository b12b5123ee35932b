"""``mypaas audit``: who did what, and what was refused to whom."""

from __future__ import annotations

from dataclasses import asdict

import click

from mypaas_git.access.audit import Outcome, Record
from mypaas_git.access.policy import Verb
from mypaas_git.cli.command import Command
from mypaas_git.cli.context import SERVICE, Context, pass_context
from mypaas_git.cli.services import when
from mypaas_git.names import ServiceName


@click.command("audit", cls=Command, verb=Verb.AUDIT)
@click.option("--service", type=SERVICE, help="What concerns this one only.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0, 1_000_000),
    default=50,
    show_default=True,
    help="How many of the newest records.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@pass_context
def audit(context: Context, service: ServiceName | None, lines: int, as_json: bool) -> None:
    """Show who did what, when, from where and with which outcome, the newest last."""
    found = context.app.audit.last(lines, service)
    if as_json:
        context.json([{**asdict(each), "at": when(each.at)} for each in found])
    elif found:
        context.table([_row(each) for each in found])
    elif lines:
        context.note(f"nothing is recorded{f' of {service}' if service else ''} yet")


def _row(found: Record) -> tuple[str, ...]:
    outcome = found.outcome.value
    if found.outcome is Outcome.REFUSED:
        outcome += f": {found.why}"
    elif found.code:
        outcome += f" ({found.code})"
    return (
        when(found.at) or "",
        found.who or "a stranger",
        found.address or "shell",
        " ".join(filter(None, (found.verb, found.service))),
        outcome,
        " ".join(f"{key}={value}" for key, value in found.detail.items()),
    )
