"""``mypaas server doctor``: is everything as it should be, and if not, what helps."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from mypaas_git.access.policy import Verb
from mypaas_git.app import App
from mypaas_git.cli.command import Command
from mypaas_git.cli.context import Context, pass_context
from mypaas_git.cli.kept import listed
from mypaas_git.cli.services import NEW, doing, summary
from mypaas_git.deploy.certificates import secure_hosts
from mypaas_git.errors import MypaasError
from mypaas_git.names import ServiceName

LOW_DISK = 2 << 30
"""Bytes that a build should find free."""


@dataclass(frozen=True)
class Finding:
    """What was looked at, what is wrong with it if anything is, and what else is to know."""

    check: str
    wrong: str = ""
    note: str = ""


@click.command("doctor", cls=Command, verb=Verb.SERVER)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@pass_context
def doctor(context: Context, as_json: bool) -> None:
    """Check everything and say how to mend what is wrong; exit 1 if anything is."""
    found = list(_examine(context))
    if as_json:
        context.json([{**asdict(each), "ok": not each.wrong} for each in found])
    else:
        context.table([_row(each) for each in found])
    if any(each.wrong for each in found):
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
    yield Finding("config.toml")
    yield Finding("server", "" if server_runs(app) else "it does not run; mypaas server start")
    yield Finding("Docker Engine", refusal(app.runtime.check))
    yield Finding("Traefik", traefik_fault(app))
    yield Finding("disk", _disk(app.home.path))
    yield Finding("private files", _exposed(app.home.path))
    yield from _keys(app)
    urls = [url for live in app.ledger.live_releases() for url in live.spec.addresses]
    for what, wrong in app.certificates.faults(secure_hosts(urls)).items():
        yield Finding(what, wrong)
    for service in listed(context):
        yield _service(service, summary(context, service))


def _service(service: ServiceName, told: dict[str, Any]) -> Finding:
    """What is to be said of a service; what somebody meant to be is not wrong."""
    if told["maintenance"] and told["health"] in ("healthy", "stopped"):
        return Finding(service, note=f"in maintenance; mypaas maintenance off {service}")
    if told["health"] == "healthy" and not told["deploying"]:
        return Finding(service)
    if told["health"] == "stopped":
        return Finding(service, note=f"stopped; mypaas start {service}")
    if told["health"] == NEW:
        return Finding(service, note="not deployed yet; variables are kept for its first push")
    if told["deploying"] or not told["release"]:
        return Finding(service, note=doing(told))
    return Finding(service, f"{told['health']}; see: mypaas logs {service}")


def _row(found: Finding) -> tuple[str, ...]:
    return "WRONG" if found.wrong else "ok", found.check, found.wrong or found.note


def refusal(check: Callable[[], None]) -> str:
    """Why ``check`` fails, in a line; empty when it does not."""
    try:
        check()
    except MypaasError as error:
        return error.message
    return ""


def traefik_fault(app: App) -> str:
    """Why Traefik does not answer, or runs otherwise than config.toml says; else empty."""
    fault = refusal(app.router.check)
    with contextlib.suppress(FileNotFoundError):
        return fault or app.home.proxy_fault.read_text("utf-8")
    return fault


def _disk(path: Path) -> str:
    free = shutil.disk_usage(path).free
    return "" if free >= LOW_DISK else f"only {free >> 20} MiB are free at {path}"


def _exposed(home: Path) -> str:
    inside = (*home.iterdir(), *home.glob("config/*"), *home.glob("acme/*"))
    files = [path for path in inside if not path.is_dir()]
    open_to_others = [
        path.name
        for path in (home, home / "acme", *files)
        if stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    if not open_to_others:
        return ""
    return f"others may read {', '.join(open_to_others)}; chmod go= them"


def _keys(app: App) -> Iterator[Finding]:
    entries, broken = app.keys.entries(), app.keys.broken()
    admins = [entry for entry in entries if entry.rights.admin]
    hint = "nobody is an admin; mypaas keys add NAME FILE.pub --admin"
    yield Finding("authorized_keys", "" if admins else hint)
    for line in broken:
        yield Finding(f"authorized_keys line {line.line_number}", line.reason)
