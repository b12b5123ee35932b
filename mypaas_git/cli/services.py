"""``mypaas services`` and ``status``: what serves."""

from __future__ import annotations

import datetime
from typing import Any

import click

from mypaas_git.access.policy import Verb, may
from mypaas_git.cli.command import Command
from mypaas_git.cli.context import SERVICE, Context, known_service, pass_context
from mypaas_git.deploy.plan import replica_names
from mypaas_git.errors import EngineDown, RouterDown
from mypaas_git.ledger.model import Release, State, Wanted
from mypaas_git.names import ServiceName
from mypaas_git.progress import clean
from mypaas_git.runtime.base import Replica


@click.command("services", cls=Command, verb=Verb.SERVICES)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@pass_context
def services(context: Context, as_json: bool) -> None:
    """List the services: release, replicas, urls, health."""
    found = [
        summary(context, name)
        for name in context.app.ledger.services()
        if may(context.identity, Verb.STATUS, name)
    ]
    if as_json:
        context.json(found)
    elif not found:
        context.note("no service yet; push one: git push mypaas main")
    else:
        context.table(
            [
                ("SERVICE", "RELEASE", "REPLICAS", "HEALTH", "URLS"),
                *(_row(each) for each in found),
            ]
        )


@click.command("status", cls=Command, verb=Verb.STATUS)
@click.argument("service", type=SERVICE)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@pass_context
def status(context: Context, service: ServiceName, as_json: bool) -> None:
    """Show one SERVICE in full."""
    found = summary(context, known_service(context, service))
    if as_json:
        context.json(found)
        return
    lines = {
        "service": found["service"],
        "release": found["release"] or "none is live",
        "commit": found["commit"] or "",
        "deployed": f"by {found['who']} at {found['since']}" if found["release"] else "",
        "health": found["health"],
        "scale": str(found["scale"]) if found["release"] else "",
        "urls": " ".join(found["urls"]),
    }
    context.table([(name, value) for name, value in lines.items() if value])
    for replica in found["containers"]:
        context.say(f"  {replica['name']}  {replica['state']}")
    last = found["last_attempt"]
    if last and last["state"] == State.FAILED.value:
        why = f"{last['reason']}: {last['message']}"
        context.say(clean(f"last attempt {last['release']} failed: {why}"))


def summary(context: Context, service: ServiceName) -> dict[str, Any]:
    """What is known of a service, with the keys that ``--json`` promises."""
    releases = context.app.ledger.releases(service)
    live = next((each for each in releases if each.state is State.LIVE), None)
    replicas, health = _replicas(context, live)
    return {
        "service": service,
        "release": live.label if live else None,
        "commit": live.commit if live else None,
        "branch": live.branch if live else None,
        "who": live.who if live else None,
        "since": when(live.live_at) if live else None,
        "scale": live.spec.scale if live else None,
        "replicas": sum(each.running for each in replicas),
        "urls": [str(url) for url in live.spec.urls] if live else [],
        "health": health,
        "containers": [{"name": each.name, "state": each.state} for each in replicas],
        "last_attempt": {
            "release": releases[0].label,
            "state": releases[0].state.value,
            "reason": releases[0].reason,
            "message": releases[0].message,
        }
        if releases
        else None,
    }


def when(seconds: float | None) -> str | None:
    """A time of the ledger, seconds since the epoch, as ISO 8601 in UTC."""
    if seconds is None:
        return None
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.isoformat(timespec="seconds")


def _replicas(context: Context, live: Release | None) -> tuple[list[Replica], str]:
    """The containers of what is live, and how it does in a word."""
    if live is None:
        return [], "not live"
    try:
        found = context.app.runtime.replicas(live.service)
    except EngineDown:
        return [], "unknown: the Docker Engine does not answer"
    own = [each for each in found if each.release == live.number]
    if context.app.ledger.wanted(live.service) is Wanted.STOPPED:
        return own, "stopped"
    bad = _left_out(context, live)
    good = sum(
        each.running and each.health != "unhealthy" and each.name not in bad for each in own
    )
    if good == live.spec.replicas:
        return own, "healthy"
    return own, "degraded" if good else "down"


def _left_out(context: Context, live: Release) -> list[str]:
    """The replicas that get no requests since they fail the proxy's health check."""
    names = replica_names(live.spec, live.number)
    try:
        return context.app.router.unhealthy(live.spec, names) if live.spec.urls else []
    except RouterDown:
        return names


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    return (
        found["service"],
        found["release"] or "-",
        str(found["replicas"]),
        found["health"],
        " ".join(found["urls"]),
    )
