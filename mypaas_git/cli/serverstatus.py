"""``mypaas server status``: what this server is, and how it is. Over ssh, too."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import Any

import click

from mypaas_git import __version__
from mypaas_git.access.policy import Verb
from mypaas_git.cli.command import Command, Group
from mypaas_git.cli.context import Context, pass_context
from mypaas_git.cli.doctor import refusal, server_runs, traefik_fault
from mypaas_git.cli.kept import listed
from mypaas_git.cli.services import summary


@click.command("status", cls=Command, verb=Verb.SERVER)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@pass_context
def server_status(context: Context, as_json: bool) -> None:
    """Show what this server is and how it is; `server doctor` says what to mend."""
    found = _found(context)
    if as_json:
        context.json(found)
        return
    services = ", ".join(f"{count} {health}" for health, count in found["services"].items())
    shown = {
        **found,
        "running": "yes" if found["running"] else "no; mypaas server start",
        "engine": found["engine"] or "answers",
        "traefik": found["traefik"] or "answers",
        "dashboard": _dashboard(context, found["dashboard"]),
        "services": services or "none",
        "disk_free": f"{found['disk_free'] >> 20} MiB",
    }
    context.table([(key.replace("_", " "), str(value)) for key, value in shown.items()])


@click.group("server", cls=Group)
def remote_server() -> None:
    """Look at this server."""


remote_server.add_command(server_status)


def _found(context: Context) -> dict[str, Any]:
    """What ``--json`` promises; ``engine`` and ``traefik`` are what is wrong with them."""
    app = context.app
    settings, engine = app.settings, refusal(app.runtime.check)
    return {
        "version": __version__,
        "running": server_runs(app),
        "domain": settings.init.domain,
        "ssh": str(settings.ssh.listen),
        "web": str(settings.http.web),
        "web_secure": str(settings.http.web_secure),
        "dashboard": app.dashboard_url,
        "namespace": settings.docker.namespace,
        "engine": engine,
        "traefik": traefik_fault(app),
        "services": {} if engine else _healths(context),
        "disk_free": shutil.disk_usage(app.home.path).free,
    }


def _dashboard(context: Context, url: str) -> str:
    """Where it is, and who gets in."""
    return f"{url} (user mypaas, password in {context.app.home.api_password})" if url else "off"


def _healths(context: Context) -> dict[str, int]:
    """How many services there are of each health."""
    healths = Counter(summary(context, each)["health"] for each in listed(context))
    return dict(sorted(healths.items()))
