"""``mypaas releases``: what was deployed, by whom, with which outcome."""

from __future__ import annotations

from typing import Any

import click

from mypaas_git.access.policy import Verb
from mypaas_git.cli.command import Command, Group
from mypaas_git.cli.context import RELEASE, SERVICE, Context, how_back, pass_context
from mypaas_git.cli.kept import kept_service
from mypaas_git.cli.services import when
from mypaas_git.errors import ReleaseMissing
from mypaas_git.ledger.model import Release, State
from mypaas_git.names import ServiceName, release_label


class ReleasesGroup(Group):
    """``releases SERVICE`` lists, ``releases output SERVICE`` shows a log."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands:
            args = ["list", *args]
        return super().resolve_command(ctx, args)


@click.group("releases", cls=ReleasesGroup)
def releases() -> None:
    """List a service's releases, or show the output of one.

    `releases SERVICE` is short for `releases list SERVICE`, which a service takes that is
    called output or list.
    """


@releases.command("list", cls=Command, verb=Verb.RELEASES)
@click.argument("service", type=SERVICE)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@pass_context
def list_releases(context: Context, service: ServiceName, as_json: bool) -> None:
    """List the releases and failed attempts of SERVICE, newest first."""
    found = context.app.ledger.releases(kept_service(context, service))
    if as_json:
        context.json([_document(each) for each in found])
    elif not found:
        context.note(f"nothing of {service} was deployed yet")
    else:
        context.table([_row(each) for each in found])
        if context.app.ledger.wanted(service).gone:
            context.note(f"{service} is removed; {how_back(service)}")


@releases.command("output", cls=Command, verb=Verb.OUTPUT)
@click.argument("service", type=SERVICE)
@click.argument("release", type=RELEASE, required=False)
@pass_context
def output(context: Context, service: ServiceName, release: int | None) -> None:
    """Show the build and deploy log of a RELEASE (v13), or of the newest."""
    found = _find(context, kept_service(context, service), release)
    path = context.app.engine.output(found)
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 16):
                context.terminal.write(chunk)
    except FileNotFoundError:
        raise ReleaseMissing(f"the log of {service} {found.label} is gone") from None
    except OSError as error:
        raise ReleaseMissing(f"the log {path} cannot be read: {error.strerror}") from None


def _find(context: Context, service: ServiceName, number: int | None) -> Release:
    if number is not None:
        return context.app.ledger.release(service, number)
    newest = context.app.ledger.releases(service)[:1]
    if not newest:
        raise ReleaseMissing(f"nothing of {service} was deployed yet")
    return newest[0]


def _row(release: Release) -> tuple[str, ...]:
    seconds = "" if release.seconds is None else f"{release.seconds:.1f} s"
    outcome = release.state.value
    if release.state is State.FAILED:
        outcome += f" ({release.reason})"
    elif release.restores:
        outcome += f" ({release.action.value} of {release_label(release.restores)})"
    return (
        release.label,
        release.commit[:7],
        release.who,
        seconds,
        outcome,
        when(release.started_at) or "",
    )


def _document(release: Release) -> dict[str, Any]:
    """The keys that ``--json`` promises."""
    return {
        "service": release.service,
        "release": release.label,
        "state": release.state.value,
        "commit": release.commit,
        "branch": release.branch,
        "who": release.who,
        "fingerprint": release.fingerprint,
        "image": release.image,
        "started": when(release.started_at),
        "live": when(release.live_at),
        "ended": when(release.ended_at),
        "seconds": None if release.seconds is None else round(release.seconds, 3),
        "down": round(release.down, 3),
        "probes": release.probes,
        "probes_failed": release.probes_failed,
        "action": release.action.value,
        "restores": release_label(release.restores) if release.restores else None,
        "reason": release.reason,
        "message": release.message,
    }
