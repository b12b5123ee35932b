"""click's commands and groups: each asks whether it may, and writes to its context."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from mypaas_git.access.policy import Verb
from mypaas_git.cli.context import Context


class _OwnHelp(click.Command):
    """``--help`` goes where the command's answer goes: a session of many over ssh."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        option = super().get_help_option(ctx)
        if option is not None:
            option.callback = _show_help
        return option


class Command(_OwnHelp):
    """A command that begins once the table of rights lets whoever asks do its ``verb``.

    Whether it did, and how it ended, is in the audit trail, unless it is a part of something
    else that is ``recorded`` there.

    An argument named ``service`` is the service that it is about.
    """

    def __init__(self, *args: Any, verb: Verb, recorded: bool = True, **attrs: Any) -> None:
        super().__init__(*args, **attrs)
        self.verb = verb
        self.recorded = recorded

    def invoke(self, ctx: click.Context) -> Any:
        context = ctx.ensure_object(Context)
        context.service = ctx.params.get("service")
        did = ctx.command_path.partition(" ")[2]
        with context.audited(did) if self.recorded else contextlib.nullcontext():
            context.allow(self.verb, context.service)
            return super().invoke(ctx)


class Group(_OwnHelp, click.Group):
    command_class = Command
    group_class = type

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Accept ``keys:add`` for ``keys add``."""
        first, colon, rest = args[0].partition(":")
        if colon and first in self.commands and rest:
            args = [first, rest, *args[1:]]
        return super().resolve_command(ctx, args)


def _show_help(ctx: click.Context, _: click.Parameter, value: Any) -> None:
    if value and not ctx.resilient_parsing:
        context = ctx.find_object(Context)
        if context is not None:
            context.say(ctx.get_help())
        ctx.exit()
