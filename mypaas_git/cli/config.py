"""``mypaas config``: the variables of a service, its secrets among them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click

from mypaas_git.access.policy import Verb
from mypaas_git.cli.command import Command, Group
from mypaas_git.cli.context import SERVICE, Context, pass_context
from mypaas_git.cli.kept import kept_service
from mypaas_git.config.dotenv import parse_dotenv, parse_key, render_dotenv
from mypaas_git.config.store import MAX_TOTAL
from mypaas_git.errors import UsageError, VariableMissing
from mypaas_git.ledger.model import Release, Wanted
from mypaas_git.names import ServiceName

NO_RESTART = click.option(
    "--no-restart", is_flag=True, help="Keep it for the next push, redeploy or config set."
)


@dataclass(frozen=True)
class Variable:
    """A variable that containers have, or are going to have.

    ``value`` is what the next release gets, None for nothing; ``live`` tells whether the
    live one has the same. ``source`` is where the value stands.
    """

    key: str
    value: str | None
    source: str
    live: bool


@click.group("config", cls=Group)
def config() -> None:
    """Manage the variables and secrets of a service; admins only."""


@config.command("list", cls=Command, verb=Verb.CONFIG_READ)
@click.argument("service", type=SERVICE)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@pass_context
def list_config(context: Context, service: ServiceName, as_json: bool) -> None:
    """List the variables of SERVICE by name; `config get` shows a value."""
    kept_service(context, service)
    found = list(_variables(context, service))
    if as_json:
        context.json([{"key": v.key, "source": v.source, "live": v.live} for v in found])
    elif not found:
        context.note(f"{service} has no variable; set one: mypaas config set {service} KEY=…")
    else:
        context.table([(v.key, v.source, "" if v.live else _pending(v)) for v in found])
        if context.app.ledger.live_release(service) is None:
            context.note(_waiting(context, service))


@config.command("get", cls=Command, verb=Verb.CONFIG_READ)
@click.argument("service", type=SERVICE)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@pass_context
def get(context: Context, service: ServiceName, keys: Sequence[str], as_json: bool) -> None:
    """Show the values of KEYs of SERVICE.

    One KEY is shown as it is, several as lines that `config set SERVICE -` reads.
    """
    known = {each.key: each.value for each in _variables(context, service)}
    found = {key: value for key in keys if (value := known.get(key)) is not None}
    missing = ", ".join(key for key in keys if key not in found)
    if missing:
        raise VariableMissing(f"{missing} is not set; see: mypaas config list {service}")
    if as_json:
        context.json(found)
    elif len(keys) == 1:
        context.say(found[keys[0]])
    else:
        for key, value in found.items():
            context.say(render_dotenv(key, value))


@config.command("set", cls=Command, verb=Verb.CONFIG_WRITE)
@click.argument("service", type=SERVICE)
@click.argument("assignments", nargs=-1, required=True, metavar="KEY=VALUE...|-")
@NO_RESTART
@pass_context
def set_config(
    context: Context, service: ServiceName, assignments: Sequence[str], no_restart: bool
) -> None:
    """Set variables of SERVICE, which restarts with all of them as one new release.

    `-` reads KEY=VALUE lines from standard input, quoted as in a dotenv file; other
    users of a machine may see what stands on a command line.
    """
    changes: dict[str, str | None] = {}
    for place, word in enumerate(assignments, 1):
        if word == "-":
            changes.update(parse_dotenv(_input(context)))
        else:
            key, equals, value = word.partition("=")
            changes[parse_key(key if equals else "", _where(place))] = value
    if not changes:
        raise UsageError("there is no KEY=VALUE on standard input, one a line")
    _change(context, service, changes, restart=not no_restart)


@config.command("unset", cls=Command, verb=Verb.CONFIG_WRITE)
@click.argument("service", type=SERVICE)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@NO_RESTART
@pass_context
def unset(
    context: Context, service: ServiceName, keys: Sequence[str], no_restart: bool
) -> None:
    """Take variables of SERVICE away, which restarts without them as one new release."""
    stored = context.app.variables.read(service)
    for place, key in enumerate(keys, 1):
        if parse_key(key, _where(place), "a variable's name") not in stored:
            context.note(f"{key} was not set by mypaas config")
    changes: dict[str, str | None] = {key: None for key in keys if key in stored}
    if changes:
        _change(context, service, changes, restart=not no_restart)


def _where(place: int) -> str:
    return f"word {place} behind the service"


def _change(
    context: Context, service: ServiceName, changes: dict[str, str | None], *, restart: bool
) -> None:
    did = "set" if any(value is not None for value in changes.values()) else "unset"
    keys = ", ".join(changes)
    with context.asking() as asker:
        release = context.app.operations.configure(service, changes, asker, restart=restart)
        if release is None:
            effect = _effect(context, service, did)
            asker.progress.done(f"{did} {keys} of {service}{effect}")


def _effect(context: Context, service: ServiceName, did: str) -> str:
    """What becomes of variables that no release was made for."""
    standing = context.app.ledger.standing(service)
    if standing.live is None:  # what was unset waits for nothing
        return f"; {_waiting(context, service)}" if did == "set" else ""
    if all(each.live for each in _variables(context, service)):
        return f"; {standing.live.label} has it already"
    if standing.wanted is Wanted.STOPPED:
        return f" for its next push or redeploy; {standing.live.label} is stopped"
    return " for its next push, redeploy or config set"


def _waiting(context: Context, service: ServiceName) -> str:
    """Where variables go of a service of which nothing is live; a name may be mistyped."""
    ledger = context.app.ledger
    if not ledger.releases(service):
        near = difflib.get_close_matches(service, ledger.services(), 1, 0.8)
        hint = f"; is it '{near[0]}'?" if near else ""
        return (
            f"kept for the first push of {service}: no service of that name is deployed yet"
            f"{hint}"
        )
    removed = ", which was removed" if ledger.wanted(service).gone else ""
    return f"kept for the next push of {service}{removed}"


def _variables(context: Context, service: ServiceName) -> Iterator[Variable]:
    """The variables of the live release and of the next one."""
    stored = context.app.variables.read(service)
    live = context.app.ledger.live_release(service)
    today: dict[str, str | None] = dict(stored)
    if live is not None:
        today = context.app.hook.values_of(live.spec, stored)
    now = live.env if live is not None else {}
    for key in sorted({*today, *now}):
        value = today.get(key)
        source = "config set" if key in stored else _source(live, key)
        yield Variable(key, value, source, key in now and now[key] == value)


def _source(live: Release | None, key: str) -> str:
    literal = {each.key for each in live.spec.env if each.value is not None} if live else set()
    sampled = {each.key for each in live.spec.env if each.value is None} if live else set()
    return "Dockerfile" if key in literal else "config.toml" if key in sampled else "nowhere"


def _pending(variable: Variable) -> str:
    return "from the next release" if variable.value is not None else "until the next release"


def _input(context: Context) -> str:
    content = context.read_all(2 * MAX_TOTAL + 1)
    if len(content) > 2 * MAX_TOTAL:
        raise UsageError("standard input is longer than 2 MiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError("standard input is not UTF-8 text") from None
