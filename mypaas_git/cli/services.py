"""``mypaas services`` and ``status``: what serves."""

from __future__ import annotations

import datetime
import time
from typing import Any

import click

from mypaas_git.access.policy import Verb, may
from mypaas_git.cli.command import Command
from mypaas_git.cli.context import SERVICE, Context, how_back, pass_context
from mypaas_git.cli.kept import kept, kept_service, listed
from mypaas_git.deploy.certificates import secure_hosts
from mypaas_git.deploy.plan import replica_names
from mypaas_git.errors import EngineDown, RouterDown
from mypaas_git.ledger.model import Release, State, Wanted
from mypaas_git.names import ServiceName
from mypaas_git.progress import clean
from mypaas_git.runtime.base import Replica

REMOVED, NEW = "removed", "not deployed yet"
"""The health of what is not there any more, and of what has variables for a first push."""


@click.command("services", cls=Command, verb=Verb.SERVICES)
@click.option("--all", "everything", is_flag=True, help="What is kept of removed ones, too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@pass_context
def services(context: Context, everything: bool, as_json: bool) -> None:
    """List the services: release, replicas, urls, health."""
    found = [summary(context, name) for name in listed(context, everything=everything)]
    if as_json:
        context.json(found)
    elif not found:
        removed = listed(context, everything=True)
        hint = "; removed ones: mypaas services --all" if removed else ""
        context.note(f"no service yet; push one: git push mypaas main{hint}")
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
    found = summary(context, kept_service(context, service))
    found["certificates"] = _certificates(context, service)
    if as_json:
        context.json(found)
        return
    closed = found["maintenance"]
    lines = {
        "service": found["service"],
        "release": found["release"] or "none is live",
        "commit": found["commit"] or "",
        "deployed": f"by {found['who']} at {found['since']}" if found["release"] else "",
        "health": doing(found),
        "kept": ", ".join(found["kept"]) if not found["release"] else "",
        "maintenance": f"since {closed['since']} by {closed['who']}" if closed else "",
        "scale": str(found["scale"]) if found["release"] else "",
        "urls": " ".join(found["urls"]),
        "redirects": ", ".join(found["redirects"]),
    }
    context.table([(name, value) for name, value in lines.items() if value])
    for replica in found["containers"]:
        context.say(f"  {replica['name']}  {replica['state']}")
    for host, lack in found["certificates"].items():
        context.say(clean(f"  https://{host}  {lack or 'has a certificate'}"))
    last = found["last_attempt"]
    if last and last["state"] == State.FAILED.value:
        why = f"{last['reason']}: {last['message']}"
        context.say(clean(f"last attempt {last['release']} failed: {why}"))
    if found["health"] == REMOVED:
        context.note(how_back(service))
        if may(context.identity, Verb.REMOVE, service):
            context.note(f"what is kept goes with: mypaas remove {service} --yes --with-repo")


def summary(context: Context, service: ServiceName) -> dict[str, Any]:
    """What is known of a service, with the keys that ``--json`` promises."""
    releases = context.app.ledger.releases(service)
    live = next((each for each in releases if each.state is State.LIVE), None)
    wanted = context.app.ledger.wanted(service)
    replicas, health = _replicas(context, live, wanted)
    if live is None:
        health = REMOVED if wanted.gone else "not live" if releases else NEW
    closed = context.app.ledger.maintenance(service)
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
        "redirects": [str(each) for each in live.spec.redirects] if live else [],
        "health": health,
        "maintenance": {"who": closed.who, "since": when(closed.since)} if closed else None,
        "containers": [{"name": each.name, "state": each.state} for each in replicas],
        "kept": kept(context, service),
        "deploying": _deploying(releases[0]) if releases else None,
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


def _certificates(context: Context, service: ServiceName) -> dict[str, str]:
    """Why each https host of a service has no certificate; empty where it has one."""
    live = context.app.ledger.live_release(service)
    hosts = secure_hosts(live.spec.addresses) if live else []
    return {host: context.app.certificates.lack(host) for host in hosts}


def doing(found: dict[str, Any]) -> str:
    """How the service of a summary does, and what is being done to it."""
    now = found["deploying"]
    under_way = f"deploying {now['release']} for {now['seconds']:.0f} s" if now else ""
    closed = "in maintenance" if found["maintenance"] else ""
    return "; ".join(filter(None, (found["health"], closed, under_way)))


def _deploying(newest: Release) -> dict[str, Any] | None:
    """The attempt that is underway, which is the newest if there is one."""
    if not newest.state.underway:
        return None
    return {
        "release": newest.label,
        "state": newest.state.value,
        "who": newest.who,
        "seconds": round(max(0.0, time.time() - newest.started_at), 1),
    }


def _replicas(
    context: Context, live: Release | None, wanted: Wanted
) -> tuple[list[Replica], str]:
    """The containers of what is live, and how it does in a word."""
    if live is None:
        return [], ""
    try:
        found = context.app.runtime.replicas(live.service)
    except EngineDown:
        return [], "unknown: the Docker Engine does not answer"
    own = [each for each in found if each.release == live.number]
    if wanted is Wanted.STOPPED:
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
        doing(found),
        " ".join(found["urls"]),
    )
