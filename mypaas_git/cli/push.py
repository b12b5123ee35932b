"""``mypaas push SERVER DIRECTORY``: deploy a directory from a machine without git."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from mypaas_git.cli.directory import service_of
from mypaas_git.git.send import Outcome, send
from mypaas_git.git.snapshot import Pack, snapshot
from mypaas_git.names import ServiceName
from mypaas_git.ssh.client import Address, connect


@click.command("push")
@click.argument("server")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "-i",
    "--identity",
    "key",
    metavar="KEY",
    type=click.Path(path_type=Path),
    help="The private key to log in with; else the agent's and ~/.ssh/id_* are tried.",
)
@click.option(
    "--host-key",
    metavar="SHA256:…",
    help="The fingerprint to expect of a server that known_hosts does not list.",
)
@click.pass_context
def push(
    ctx: click.Context, server: str, directory: Path, key: Path | None, host_key: str | None
) -> None:
    """Deploy DIRECTORY to the service that its Dockerfile names, without git.

    SERVER is [user@]host[:port]; the port is 2222 unless given. What .gitignore
    and .dockerignore leave out is not sent.
    """
    address = Address.parse(server)
    service = service_of(directory)
    outcome = _send(address, directory, service, key, host_key)
    if outcome.refused is not None:
        click.echo(f" ! [remote rejected] {outcome.branch} ({outcome.refused})", err=True)
        ctx.exit(1)
    if outcome.unchanged:
        click.echo(
            f"Nothing changed since {outcome.commit[:7]}: {service} is up to date", err=True
        )


def _send(
    address: Address,
    directory: Path,
    service: ServiceName,
    key: Path | None,
    host_key: str | None,
) -> Outcome:
    files = snapshot(directory)
    with connect(address, _Terminal(), key=key, host_key=host_key) as server:
        return send(files, f"/{service}", server.run, show=_show, watch=_with_bar)


def _show(line: str) -> None:
    click.echo(line, err=True)


def _with_bar(pack: Pack) -> Iterator[bytes]:
    """Pass the pack on, with a bar on a terminal and one plain line elsewhere."""
    what = f"Sending {len(pack)} objects ({_size(pack.size)})"
    if not sys.stderr.isatty():
        _show(what)
        yield from pack
        return

    def where(_: int | None) -> str:
        return f"{pack.written}/{len(pack)}, {_size(pack.read)}"

    with click.progressbar(
        length=pack.size,
        label=what,
        file=sys.stderr,
        item_show_func=where,
    ) as bar:
        shown = 0
        for piece in pack:
            yield piece
            bar.update(pack.read - shown)
            shown = pack.read


def _size(count: float) -> str:
    """Bytes for people: ``1.4 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


class _Terminal:
    """Whoever sits at the keyboard, or has prepared the answers on stdin."""

    def agrees(self, question: str) -> bool | None:
        click.echo(f"{question} [y/N] ", err=True, nl=False)
        answer = sys.stdin.readline() if sys.stdin else ""
        if not answer.endswith("\n") or not sys.stdin.isatty():
            click.echo(err=True)  # nobody's Enter ended the line
        return answer.strip().lower() in ("y", "yes") if answer else None

    def passphrase(self, key: str) -> str | None:
        if not sys.stdin or not sys.stdin.isatty():
            answer = sys.stdin.readline() if sys.stdin else ""
            return answer.rstrip("\r\n") if answer else None
        return str(click.prompt(f"Passphrase of {key}", hide_input=True, err=True))
