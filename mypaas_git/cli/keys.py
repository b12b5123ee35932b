"""``mypaas keys`` and ``whoami``: who may come in, and with which rights."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from mypaas_git.access.expiry import parse_expiry
from mypaas_git.access.keyline import KeyEntry, Rights, check_name
from mypaas_git.access.policy import Identity, Verb
from mypaas_git.cli.command import Command, Group
from mypaas_git.cli.context import SERVICE, Context, pass_context
from mypaas_git.errors import KeyRefused, UsageError
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
@click.option(
    "--branch",
    "branches",
    metavar="BRANCH",
    multiple=True,
    help="May push this one only, as main or release/*; can be given again.",
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
    branches: Sequence[str],
    expires: str | None,
) -> None:
    """Let the key in FILE.pub (`-`: standard input) in as NAME."""
    granted = Rights(
        admin=admin,
        services=frozenset(services) or None,
        branches=tuple(branches) or None,
        expires=parse_expiry(expires) if expires is not None else None,
    )
    _check_words(name, granted)
    context.detail["key"] = name
    entry = context.app.keys.add(name, _key_text(context, file), granted)
    context.detail.update(fingerprint=entry.fingerprint, rights=rights(entry.identity))
    words = (f"added {entry.name}", entry.fingerprint, rights(entry.identity), _until(entry))
    context.say("  ".join(filter(None, words)))
    context.say(f"known_hosts: {context.app.known_hosts_line}")


@keys.command("list", cls=Command, verb=Verb.KEYS)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@pass_context
def list_keys(context: Context, as_json: bool) -> None:
    """List the keys and what each may do."""
    entries = context.app.keys.entries()
    if as_json:
        context.json([_document(context, each) for each in entries])
    elif entries:
        context.table([_row(context, each) for each in entries])
    else:
        context.note("no key yet; add one: mypaas keys add NAME FILE.pub --admin")
    for broken in context.app.keys.broken():
        context.note(f"line {broken.line_number} of authorized_keys is broken: {broken.reason}")


@keys.command("remove", cls=Command, verb=Verb.KEYS)
@click.argument("name")
@pass_context
def remove(context: Context, name: str) -> None:
    """Let the key NAME in no more."""
    context.detail["key"] = name
    entry = context.app.keys.remove(name)
    context.detail["fingerprint"] = entry.fingerprint
    context.say(f"removed {entry.name}  {entry.fingerprint}")


@click.command("whoami", cls=Command, verb=Verb.WHOAMI)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@pass_context
def whoami(context: Context, as_json: bool) -> None:
    """Show whose key this is and what it may do."""
    who = context.identity
    entry = _own_entry(context)
    if as_json:
        context.json(
            {
                "name": who.name,
                "fingerprint": who.fingerprint,
                "admin": who.admin,
                "services": None if who.services is None else sorted(who.services),
                "branches": None if who.branches is None else list(who.branches),
                "expires": _shown(entry.rights.expires) if entry else None,
            }
        )
    else:
        until = _until(entry) if entry else ""
        context.say("  ".join(filter(None, (who.name, who.fingerprint, rights(who), until))))


def _own_entry(context: Context) -> KeyEntry | None:
    """The line of the key that whoever asks came in with; a shell's user has none."""
    entries = context.app.keys.entries() if context.identity.fingerprint else []
    own = (each for each in entries if each.fingerprint == context.identity.fingerprint)
    return next(own, None)


def rights(identity: Identity) -> str:
    """What an identity may do, in words."""
    if identity.admin:
        return "admin"
    services = "every service"
    if identity.services is not None:
        services = ", ".join(sorted(identity.services))
    branches = f" from {', '.join(identity.branches)}" if identity.branches else ""
    return f"deploys {services}{branches}"


def _check_words(name: str, granted: Rights) -> None:
    """Raise UsageError for a name that is none, and rights that do not go together."""
    try:
        check_name(name)
        granted.checked()
    except KeyRefused as error:
        raise UsageError(error.message) from None


def _key_text(context: Context, file: str) -> str:
    """The public key: from a file in the server's shell, over ssh from standard input only."""
    if file == "-":
        content = context.read_all(MAX_KEY_FILE)
        if not content.strip():
            raise KeyRefused(
                "one public key was expected on standard input, and there is nothing: "
                "… keys add NAME - < FILE.pub"
            )
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


def _row(context: Context, entry: KeyEntry) -> tuple[str, ...]:
    used = _shown(context.app.keys.last_used(entry))
    return (
        entry.name,
        entry.fingerprint,
        rights(entry.identity),
        _until(entry),
        f"used {used}" if used else "never used",
    )


def _until(entry: KeyEntry) -> str:
    if entry.rights.expires is None:
        return ""
    expired = entry.expired(datetime.now(timezone.utc))
    return f"{'expired' if expired else 'until'} {_shown(entry.rights.expires)}"


def _shown(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(timezone.utc).isoformat(timespec="seconds")


def _document(context: Context, entry: KeyEntry) -> dict[str, Any]:
    """The keys that ``--json`` promises."""
    granted = entry.rights
    return {
        "name": entry.name,
        "fingerprint": entry.fingerprint,
        "algorithm": entry.algorithm,
        "admin": granted.admin,
        "services": None if granted.services is None else sorted(granted.services),
        "branches": None if granted.branches is None else list(granted.branches),
        "expires": _shown(granted.expires),
        "last_used": _shown(context.app.keys.last_used(entry)),
    }
