"""The command tree: one part for everybody, one for the server's own shell."""

from __future__ import annotations

from collections.abc import Sequence

import click

from mypaas_git import __version__
from mypaas_git.access.policy import Identity
from mypaas_git.app import App
from mypaas_git.cli.audit import audit
from mypaas_git.cli.command import Group
from mypaas_git.cli.config import config
from mypaas_git.cli.context import Context, Terminal
from mypaas_git.cli.keys import keys, whoami
from mypaas_git.cli.logs import logs
from mypaas_git.cli.maintenance import maintenance
from mypaas_git.cli.operations import redeploy, remove, restart, rollback, start, stop
from mypaas_git.cli.releases import releases
from mypaas_git.cli.run import run_command
from mypaas_git.cli.serverstatus import remote_server
from mypaas_git.cli.services import services, status
from mypaas_git.errors import MypaasError, UsageError
from mypaas_git.progress import clean, clean_lines

SHARED = (
    *(services, status, releases, logs, run_command, config, keys, whoami, audit),
    *(rollback, redeploy, restart, stop, start, maintenance, remove),
)


def tree(*own: click.Command) -> Group:
    """The tree that starts with ``mypaas``: the shared commands and ``own``."""
    group = Group(
        "mypaas",
        help="git-push deployments on your own server.",
        no_args_is_help=False,
        params=[_VERSION],
        invoke_without_command=True,
        callback=_without_command,
    )
    for command in (*own, *SHARED):
        group.add_command(command)
    return group


def run_remote(app: App, identity: Identity, argv: Sequence[str], terminal: Terminal) -> int:
    """Run one command that came over ssh and return its exit code."""
    return run(tree(remote_server), argv, Context(lambda: app, identity, terminal))


def run(group: Group, argv: Sequence[str], context: Context) -> int:
    """Run one command: 0 is done, 1 refused or failed in one line, 2 a wrong usage.

    Only an unforeseen error is raised.
    """
    if argv and argv[0] == "help":
        argv = [*argv[1:], "--help"]
    try:
        code = group.main(list(argv), prog_name="mypaas", standalone_mode=False, obj=context)
    except click.exceptions.NoArgsIsHelpError as error:
        commands = ", ".join(sorted(getattr(error.ctx.command, "commands", {})))
        where = error.ctx.command_path
        context.note(f"mypaas: a command is missing: {commands}. See: {where} --help")
        return 2
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "mypaas"
        said = clean(error.format_message())
        end = "" if said.endswith((".", "?")) else "."
        context.note(f"mypaas: {said}{end} See: {where} --help")
        return 2
    except click.Abort:
        context.note("mypaas: interrupted")
        return 130
    except MypaasError as error:
        for detail in error.details:
            for line in clean_lines(detail):
                context.note(f"  {line}")
        context.note(f"mypaas: {error.code}: {clean(error.message)}")
        return 2 if isinstance(error, UsageError) else 1
    return code if isinstance(code, int) else 0


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    context = ctx.find_object(Context)
    if value and context is not None and not ctx.resilient_parsing:
        context.say(f"mypaas-git {__version__}")
        ctx.exit()


_VERSION = click.Option(
    ["--version"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)


@click.pass_context
def _without_command(ctx: click.Context) -> None:
    """``mypaas`` alone shows what there is."""
    context = ctx.find_object(Context)
    if ctx.invoked_subcommand is None and context is not None:
        context.say(ctx.get_help())
