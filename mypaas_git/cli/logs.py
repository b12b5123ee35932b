"""``mypaas logs``: what the containers of a service print."""

from __future__ import annotations

from collections.abc import Callable

import click

from mypaas_git.access.policy import Verb
from mypaas_git.cli.command import Command
from mypaas_git.cli.context import SERVICE, Context, Terminal, known_service, pass_context
from mypaas_git.cli.follow import Follower
from mypaas_git.errors import ServiceMissing
from mypaas_git.names import ServiceName
from mypaas_git.progress import coloured

LONGEST = 1 << 20
"""Bytes of a line that are kept until its end comes."""


@click.command("logs", cls=Command, verb=Verb.LOGS)
@click.argument("service", type=SERVICE)
@click.option("-f", "--follow", is_flag=True, help="Go on as more is printed.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0, 1_000_000),
    default=100,
    show_default=True,
    help="How many lines of each container to begin with.",
)
@click.option("--raw", is_flag=True, help="Control characters and all.")
@pass_context
def logs(
    context: Context, *, service: ServiceName, follow: bool, lines: int, raw: bool
) -> None:
    """Show what the containers of SERVICE print.

    With -f those of later releases join, until you leave.
    """
    live = context.app.ledger.live_release(known_service(context, service))
    replicas = context.app.runtime.replicas(service)
    names = [each.name for each in replicas if live and each.release == live.number]
    context.terminal.be_patient()
    printer = Printer(context.terminal, raw=raw)
    if follow:
        gone = context.app.ledger.wanted
        Follower(
            context.app.runtime,
            service,
            printer,
            over=lambda: context.terminal.gone or gone(service).gone,
        ).run(names, lines)
        return
    if not names:
        raise ServiceMissing(f"no container of {service} runs; see: mypaas status {service}")
    for name in names:
        printer.joined(name)
    for name in names:
        for chunk in context.app.runtime.logs(name, tail=lines):
            printer.take(name, chunk)
        printer.ended(name)


class Printer:
    """Shows whole lines, behind their container's name once there are several containers."""

    def __init__(self, terminal: Terminal, *, raw: bool) -> None:
        self._write = terminal.write
        self._show: Callable[[bytes], bytes] = bytes if raw else _shown
        self._partial: dict[str, bytes] = {}
        self._seen: set[str] = set()

    def joined(self, name: str) -> None:
        """From now on there is another container."""
        self._seen.add(name)

    def take(self, name: str, chunk: bytes) -> None:
        """Show the lines that end in ``chunk``, and keep what is left of it."""
        text = self._partial.pop(name, b"") + chunk
        *lines, rest = text.split(b"\n")
        if len(rest) > LONGEST:
            lines, rest = [*lines, rest], b""
        self._print(name, lines)
        if rest:
            self._partial[name] = rest

    def ended(self, name: str) -> None:
        """Show what has no newline and will not get one any more."""
        rest = self._partial.pop(name, b"")
        if rest:
            self._print(name, [rest])

    def _print(self, name: str, lines: list[bytes]) -> None:
        prefix = f"{name} | ".encode() if len(self._seen) > 1 else b""
        shown = b"".join(prefix + self._show(line) + b"\n" for line in lines)
        if shown:
            self._write(shown)


def _shown(line: bytes) -> bytes:
    return coloured(line.decode("utf-8", "replace")).encode()
