"""``mypaas keys`` and ``whoami``: who may come in, and with which rights."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mypaas_git.access.keys import KeyEntry, parse_expiry
from mypaas_git.access.policy import Identity, Verb
from mypaas_git.cli.command import Command, Group
from mypaas_git.cli.context import SERVICE, Context, pass_context
from mypaas_git.errors import KeyRefused
from mypaas_git.names import ServiceName

MAX_KEY_FILE = 64 << 10


@click.group("keys", cls=Group)
def keys() -> None:
    """Manage the ssh keys that may deploy."""


@keys.command("add", cls=Command, verb=Verb.KEYS)
@click.argument("name")
@click.argument("file", default="-")
@click.option("--admin", is_flag=True, help="May manage keys and every service.")
@click.option(
    "--service",
    "services",
    type=SERVICE,
    multiple=True,
    help="Only this one; can be given again.",
)
@click.option("--expires", help="When it ends: 90d, 12h or 2027-12-31.")
@pass_context
def add(
    context: Context,
    *,
    name: str,
    file: str,
    admin: bool,
    services: Sequence[ServiceName],
    expires: str | None,
) -> None:
    """Let the key in FILE.pub (`-`: standard input) in as NAME."""
    entry = context.app.keys.add(
        name,
        _key_text(context, file),
        admin=admin,
        services=list(services) or None,
        expires=parse_expiry(expires) if expires else None,
    )
    words = (f"added {entry.name}", entry.fingerprint, rights(entry.identity), _until(entry))
    context.say("  ".join(filter(None, words)))


@keys.command("list", cls=Command, verb=Verb.KEYS)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@pass_context
def list_keys(context: Context, as_json: bool) -> None:
    """List the keys and what each may do."""
    entries = context.app.keys.entries()
    if as_json:
        context.json([_document(each) for each in entries])
    elif entries:
        context.table([_row(each) for each in entries])
    else:
        context.note("no key yet; add one: mypaas keys add NAME FILE.pub --admin")
    for broken in context.app.keys.broken():
        context.note(f"line {broken.line_number} of authorized_keys is broken: {broken.reason}")


@keys.command("remove", cls=Command, verb=Verb.KEYS)
@click.argument("name")
@pass_context
def remove(context: Context, name: str) -> None:
    """Let the key NAME in no more."""
    entry = context.app.keys.remove(name)
    context.say(f"removed {entry.name}  {entry.fingerprint}")


@click.command("whoami", cls=Command, verb=Verb.WHOAMI)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@pass_context
def whoami(context: Context, as_json: bool) -> None:
    """Show whose key this is and what it may do."""
    who = context.identity
    if as_json:
        context.json(
            {
                "name": who.name,
                "fingerprint": who.fingerprint,
                "admin": who.admin,
                "services": None if who.services is None else sorted(who.services),
            }
        )
    else:
        context.say("  ".join(filter(None, (who.name, who.fingerprint, rights(who)))))


def rights(identity: Identity) -> str:
    """What an identity may do, in words."""
    if identity.admin:
        return "admin"
    if identity.services is None:
        return "deploys every service"
    return f"deploys {', '.join(sorted(identity.services)) or 'nothing'}"


def _key_text(context: Context, file: str) -> str:
    """The public key: from a file in the server's shell, over ssh from standard input only."""
    if file == "-":
        content = context.read_all(MAX_KEY_FILE)
    elif context.identity.fingerprint:
        raise KeyRefused(
            f"over ssh the key is read from standard input: … keys add NAME - < {file}"
        )
    else:
        try:
            content = Path(file).expanduser().read_bytes()[:MAX_KEY_FILE]
        except OSError as error:
            raise KeyRefused(f"{file} cannot be read: {error.strerror}") from None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise KeyRefused("this is not a public key: it is not even text") from None


def _row(entry: KeyEntry) -> tuple[str, ...]:
    return (entry.name, entry.fingerprint, rights(entry.identity), _until(entry))


def _until(entry: KeyEntry) -> str:
    if entry.expires is None:
        return ""
    expired = entry.expired(datetime.datetime.now(datetime.timezone.utc))
    return f"expired {_expiry(entry)}" if expired else f"until {_expiry(entry)}"


def _expiry(entry: KeyEntry) -> str | None:
    if entry.expires is None:
        return None
    return entry.expires.astimezone(datetime.timezone.utc).isoformat(timespec="seconds")


def _document(entry: KeyEntry) -> dict[str, Any]:
    """The keys that ``--json`` promises."""
    return {
        "name": entry.name,
        "fingerprint": entry.fingerprint,
        "algorithm": entry.algorithm,
        "admin": entry.admin,
        "services": None if entry.services is None else sorted(entry.services),
        "expires": _expiry(entry),
    }
