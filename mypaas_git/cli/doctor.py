"""``mypaas server doctor``: is everything as it should be, and if not, what helps."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from mypaas_git.access.policy import Verb
from mypaas_git.app import App
from mypaas_git.cli.command import Command
from mypaas_git.cli.context import Context, pass_context
from mypaas_git.cli.services import summary
from mypaas_git.errors import MypaasError

LOW_DISK = 2 << 30
"""Bytes that a build should find free."""

Finding = tuple[str, str]
"""What was looked at, and what is wrong with it: empty when nothing is."""


@click.command("doctor", cls=Command, verb=Verb.SERVER)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@pass_context
def doctor(context: Context, as_json: bool) -> None:
    """Check everything and say how to mend what is wrong; exit 1 if anything is."""
    found = list(_examine(context))
    if as_json:
        context.json(
            [{"check": what, "ok": not wrong, "wrong": wrong} for what, wrong in found]
        )
    else:
        context.table([("WRONG" if wrong else "ok", what, wrong) for what, wrong in found])
    if any(wrong for _, wrong in found):
        raise click.exceptions.Exit(1)


def server_runs(app: App) -> bool:
    """Whether a server holds this home."""
    try:
        descriptor = os.open(app.home.server_lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _examine(context: Context) -> Iterator[Finding]:
    app = context.app  # reads config.toml, whose faults end the command with their own line
    yield "config.toml", ""
    yield "server", "" if server_runs(app) else "it does not run; mypaas server start"
    yield "Docker Engine", refusal(app.runtime.check)
    yield "Traefik", refusal(app.router.check)
    yield "disk", _disk(app.home.path)
    yield "private files", _exposed(app.home.path)
    yield from _keys(app)
    for service in app.ledger.services():
        told = summary(context, service)
        if told["release"] and told["health"] != "healthy":
            yield service, f"{told['health']}; see: mypaas logs {service}"
        else:
            yield service, ""


def refusal(check: Callable[[], None]) -> str:
    """Why ``check`` fails, in a line; empty when it does not."""
    try:
        check()
    except MypaasError as error:
        return error.message
    return ""


def _disk(path: Path) -> str:
    free = shutil.disk_usage(path).free
    return "" if free >= LOW_DISK else f"only {free >> 20} MiB are free at {path}"


def _exposed(home: Path) -> str:
    open_to_others = [
        path.name
        for path in (home, *home.iterdir(), *home.glob("config/*"))
        if path.is_dir() is (path == home) and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    if not open_to_others:
        return ""
    return f"others may read {', '.join(open_to_others)}; chmod go= them"


def _keys(app: App) -> Iterator[Finding]:
    entries, broken = app.keys.entries(), app.keys.broken()
    admins = [entry for entry in entries if entry.rights.admin]
    hint = "nobody is an admin; mypaas keys add NAME FILE.pub --admin"
    yield "authorized_keys", "" if admins else hint
    for line in broken:
        yield f"authorized_keys line {line.line_number}", line.reason
