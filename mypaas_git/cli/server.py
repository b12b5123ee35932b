"""``mypaas server``: make a home, serve it, deploy into it. For the server's own shell."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from mypaas_git.access.keyline import Rights, check_name
from mypaas_git.access.keys import KeyFile
from mypaas_git.access.policy import Verb
from mypaas_git.access.publickey import parse_public_key
from mypaas_git.app import App, Home
from mypaas_git.cli.command import Command, Group
from mypaas_git.cli.context import SERVICE, Context, pass_context, told_already
from mypaas_git.cli.directory import service_of
from mypaas_git.cli.doctor import doctor, server_runs
from mypaas_git.cli.serverstatus import server_status
from mypaas_git.cli.uninstall import uninstall
from mypaas_git.errors import (
    EngineDown,
    KeyRefused,
    MypaasError,
    NameRefused,
    SettingsError,
    UsageError,
)
from mypaas_git.files import write_atomically
from mypaas_git.git.receive import RefUpdate
from mypaas_git.git.repository import Repository
from mypaas_git.git.snapshot import snapshot
from mypaas_git.hook import Push, put_back
from mypaas_git.names import ServiceName
from mypaas_git.server import Server, start_proxy
from mypaas_git.settings import (
    Settings,
    from_dict,
    home_from_environment,
    load,
    render,
)

T = TypeVar("T")


@click.group("server", cls=Group)
def server() -> None:
    """Run this server."""


server.add_command(doctor)
server.add_command(server_status)
server.add_command(uninstall)


@dataclass(frozen=True)
class Answer:
    """A question of ``init`` and where its answer goes in the config."""

    option: str
    section: str
    key: str
    question: str


QUESTIONS = (
    Answer("domain", "init", "domain", "The server's own name, such as paas.example.com"),
    Answer("email", "init", "email", "Your email address, for Let's Encrypt"),
    Answer("ssh_listen", "ssh", "listen", "Where git pushes arrive"),
    Answer("web_listen", "http", "web", "Where http arrives"),
    Answer("web_secure_listen", "http", "web_secure", "Where https arrives"),
    Answer("namespace", "docker", "namespace", "The prefix of everything made in Docker"),
)


@server.command("init", cls=Command, verb=Verb.SERVER)
@click.option("--domain", help="The server's own name.")
@click.option("--email", help="For Let's Encrypt; none: self-signed certificates.")
@click.option("--admin-key", metavar="FILE.pub", help="The first admin's public key.")
@click.option("--ssh-listen", metavar="A:P", help="Where git pushes arrive.")
@click.option("--web-listen", metavar="A:P", help="Where http arrives.")
@click.option("--web-secure-listen", metavar="A:P", help="Where https arrives.")
@click.option("--namespace", help="The prefix of everything made in Docker.")
@click.option("--yes", is_flag=True, help="Ask nothing: take the defaults.")
@pass_context
def init(context: Context, /, *, admin_key: str | None, yes: bool, **told: str | None) -> None:
    """Make the home: config, host keys, the first admin's key, network, Traefik.

    Can be run again: what is there is kept.
    """
    home = Home(home_from_environment())
    # Whatever may be refused comes before anything is written.
    public_key = _public_key(admin_key) if admin_key else None
    settings = _settings(context, home, told, ask=not yes)
    if public_key is None and not yes and not KeyFile(home.authorized_keys).entries():
        public_key = _public_key(_ask("The first admin's public key", "~/.ssh/id_ed25519.pub"))
    home.make()
    if not home.config.exists():
        write_atomically(home.config, render(settings).encode())
    app = App(settings)
    try:
        known_hosts_line = app.known_hosts_line  # makes the host keys
        _admit(context, app, public_key)
        _prepare_proxy(context, app)
        context.say(f"home: {home.path}")
        context.say(f"known_hosts: {known_hosts_line}")
        context.say("next: mypaas server start")
    finally:
        app.close()


@server.command("start", cls=Command, verb=Verb.SERVER)
@pass_context
def start(context: Context) -> None:
    """Serve in the foreground until SIGTERM."""
    # Handlers run in the main thread, which does not wake when another thread gets the signal,
    # as happens behind a SIGCONT; this pipe is written to by whichever gets it.
    asked, ask = os.pipe()
    os.set_blocking(ask, False)
    signal.set_wakeup_fd(ask)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    with Server(context.app) as running:
        context.say(running.ready_line)
        os.read(asked, 1)


@server.command("deploy", cls=Command, verb=Verb.SERVER)
@click.argument("directory", type=click.Path(path_type=Path))
@pass_context
def deploy(context: Context, directory: Path) -> None:
    """Deploy a DIRECTORY of this server, as if it had been pushed."""
    app = context.app
    service = context.service = service_of(directory)
    taken = snapshot(directory)
    with app.repositories.open_or_create(service) as repository:
        ref = _branch(repository, app.settings)
        old = repository.ref(ref)
        author = f"{context.identity.name} <{context.identity.name}@{os.uname().nodename}>"
        commit = taken.write_to(
            repository.path, old, author, f"Deploy of {directory.absolute().name}"
        )
        with context.asking() as asker, told_already():
            push = Push(
                repository,
                RefUpdate(ref, old, commit),
                asker.identity,
                asker.progress,
                asker.cancelled,
            )
            release = app.hook.deploy(
                push, service, lambda now=None: repository.move_ref(ref, now or old, commit)
            )
            context.tell_release(release)


@server.command("retire", cls=Command, verb=Verb.SERVER, recorded=False, hidden=True)
@click.argument("service", type=SERVICE)
@click.argument("replicas", nargs=-1)
@pass_context
def retire(context: Context, service: ServiceName, replicas: tuple[str, ...]) -> None:
    """Stop and remove old REPLICAS: what a deploy from a shell leaves running behind it."""
    context.app.retirer.retire_now(service, replicas)


def retire_elsewhere(service: ServiceName, replicas: Sequence[str]) -> None:
    """Retire in a process of its own, so that the command need not wait for it."""
    subprocess.Popen(
        [sys.executable, "-m", "mypaas_git.cli", "server", "retire", service, *replicas],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # git waits as long as anybody holds its pipes
        start_new_session=True,
    )


@server.command("post-receive", cls=Command, verb=Verb.SERVER, hidden=True)
@pass_context
def post_receive(context: Context) -> None:
    """Deploy what another git server received: for hooks/post-receive.

    Reads git's `old new ref` lines from standard input, in the repository's directory.
    """
    path = Path(os.environ.get("GIT_DIR", ".")).resolve()
    context.detail["repository"] = path.name
    failed = False
    with Repository.at(path) as repository, context.asking() as asker:
        for update in _ref_updates(context.read_all(1 << 20)):
            push = Push(repository, update, asker.identity, asker.progress, asker.cancelled)
            try:
                app = context.app
            except MypaasError as error:
                if not update.ref.startswith("refs/heads/"):
                    continue  # a tag is stored, whatever state our home is in
                # Nothing can be deployed, so nothing may seem to be.
                put_back(push)
                push.progress.warning(f"{error.code}: {error.message}; nothing was deployed")
                failed = True
                continue
            try:
                _deploy_moved(app, push, path)
            except MypaasError:  # told already, and the branch is back
                failed = True
    if failed:
        raise click.exceptions.Exit(1)


def _ref_updates(text: bytes) -> list[RefUpdate]:
    """What git tells a post-receive hook (githooks(5)): ``old new ref`` lines."""
    updates = []
    for line in text.decode("utf-8", "replace").splitlines():
        match = re.fullmatch(r"([0-9a-f]{40}) ([0-9a-f]{40}) (refs/\S+)", line)
        if match is None:
            raise UsageError(f"{line!a} is not a line that git gives to post-receive")
        old, new = (None if set(each) == {"0"} else each for each in match.group(1, 2))
        updates.append(RefUpdate(match[3], old, new))
    return updates


def _deploy_moved(app: App, push: Push, path: Path) -> None:
    """Deploy one ref of a repository that belongs to another git server."""
    if push.branch not in app.settings.git.branches:
        if push.update.ref.startswith("refs/heads/"):
            deploys = " or ".join(app.settings.git.branches)
            push.progress.detail(f"{push.branch} is stored; a push to {deploys} deploys")
        return
    try:
        default = ServiceName.parse(path.name.removesuffix(".git"))
    except NameRefused:
        default = None  # the Dockerfile has to say it
    app.hook.deploy_moved(push, default)


def _settings(
    context: Context, home: Home, told: dict[str, str | None], *, ask: bool
) -> Settings:
    """The settings of the home, or what they are to be. Raises UsageError for bad options."""
    for answer in QUESTIONS:
        value = told[answer.option]
        if value is not None:
            _check_option(answer, value)
    if home.config.exists():
        settings = load(home.path)
        for answer in QUESTIONS:
            now = str(getattr(getattr(settings, answer.section), answer.key))
            if told[answer.option] not in (None, now):
                context.note(
                    f"{home.config} is there and kept: [{answer.section}] {answer.key} stays "
                    f"{now!r}; edit the file to change it"
                )
        return settings
    sections: dict[str, dict[str, Any]] = {}
    defaults = Settings(home=home.path)
    for answer in QUESTIONS:
        default = str(getattr(getattr(defaults, answer.section), answer.key))
        value = told[answer.option]
        if value is None:
            value = _answer(context, answer, default) if ask else default
        sections.setdefault(answer.section, {})[answer.key] = value
    return from_dict(home.path, sections)


def _check_option(answer: Answer, value: str) -> None:
    try:
        from_dict(Path(), {answer.section: {answer.key: value}})
    except SettingsError as error:
        raise UsageError(f"--{answer.option.replace('_', '-')}: {error.message}") from None


def _answer(context: Context, answer: Answer, default: str) -> str:
    """Ask until the answer makes sense."""
    while True:
        value = _ask(answer.question, default)
        try:
            from_dict(Path(), {answer.section: {answer.key: value}})
        except SettingsError as error:
            context.note(error.message)
        else:
            return value


def _ask(question: str, default: str) -> str:
    """The answer, or ``default`` for none. Raises UsageError when nobody is there to ask."""
    try:
        return str(
            click.prompt(question, default=default, show_default=bool(default), err=True)
        )
    except click.Abort:
        raise UsageError(
            "nobody answered; give the options (mypaas server init --help), or --yes for the "
            "defaults"
        ) from None


def _admit(context: Context, app: App, text: str | None) -> None:
    """Let the first admin in, unless somebody is already."""
    if text is None:
        if not app.keys.entries():
            context.note(
                "nobody may push yet; add a key: mypaas keys add NAME FILE.pub --admin"
            )
        return
    _, blob = parse_public_key(text)
    if any(entry.blob == blob for entry in app.keys.entries()):
        return
    entry = app.keys.add(_name_of(text), text, Rights(admin=True))
    context.say(f"admin: {entry.name}  {entry.fingerprint}")


def _public_key(file: str) -> str:
    """The text of a public key's file, which is known to hold one."""
    try:
        text = Path(file).expanduser().read_text("utf-8")
    except OSError as error:
        raise KeyRefused(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KeyRefused(f"{file} is not a public key: it is not even text") from None
    parse_public_key(text)
    return text


def _name_of(public_key: str) -> str:
    """The key's comment, where it can serve as a name."""
    words = public_key.split()
    try:
        return check_name(words[2])
    except (IndexError, KeyRefused):
        return "admin"


def _prepare_proxy(context: Context, app: App) -> None:
    """Bring Traefik up now, so that the first start is quick; a server that runs has it up."""
    if server_runs(app):
        return
    try:
        if fault := start_proxy(app, context.note):
            context.note(fault)
    except EngineDown:
        context.note("the Docker Engine does not answer; start it before: mypaas server start")


def _branch(repository: Repository, settings: Settings) -> str:
    """The deploy branch that is in use, or the first one."""
    refs = [f"refs/heads/{name}" for name in settings.git.branches]
    return next((ref for ref in refs if repository.ref(ref)), refs[0])
