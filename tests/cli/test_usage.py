"""Words that make no sense, at every command: exit code 2, one line, and nothing was done."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import click
import pytest
from support.paas import MYPAAS
from support.stockgit import clean_env

from mypaas_git import __version__
from mypaas_git.access.policy import Identity
from mypaas_git.app import App
from mypaas_git.cli.context import Context
from mypaas_git.cli.push import push
from mypaas_git.cli.server import server
from mypaas_git.cli.serverstatus import remote_server
from mypaas_git.cli.tree import run, tree
from mypaas_git.runtime.base import Operator
from mypaas_git.settings import Settings

SHELL = tree(server, push)
NO_LIMIT = {"run", "config get", "config set", "config unset", "server retire"}
"""Those that take any number of words."""


class Paper:
    """A terminal with an empty input, that keeps what is written."""

    gone = left = False

    def __init__(self) -> None:
        self.answer = self.notes = ""

    def read(self, n: int) -> bytes:  # noqa: ARG002
        return b""

    def write(self, data: bytes) -> None:
        self.answer += data.decode()

    def write_error(self, data: bytes) -> None:
        self.notes += data.decode()

    def be_patient(self) -> None: ...

    def operator(self) -> AbstractContextManager[Operator]:
        raise AssertionError("nothing is to be run")


def commands(group: click.Group, *above: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *above, name)
        else:
            yield " ".join((*above, name)), command


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a server would be, if ``server init`` made one."""
    path = tmp_path / "home"
    monkeypatch.setenv("MYPAAS_HOME", str(path))
    return path


def ask(tmp_path: Path, *argv: str, group: click.Group = SHELL) -> tuple[int, Paper]:
    """Run a command beside a home of its own; no server runs, and no engine is asked."""
    paper = Paper()
    apps: list[App] = []

    def make_app() -> App:
        apps.append(App(Settings(home=tmp_path / "used")))
        return apps[0]

    try:
        code = run(group, argv, Context(make_app, Identity("me", admin=True), paper))  # type: ignore[arg-type]
    finally:
        for app in apps:
            app.close()
    return code, paper


def refused(tmp_path: Path, *argv: str) -> str:
    """What is said of a command line that makes no sense."""
    code, paper = ask(tmp_path, *argv)
    assert (code, paper.answer) == (2, ""), (argv, paper.notes)
    assert paper.notes.startswith("mypaas: ")
    assert len(paper.notes.splitlines()) == 1
    return paper.notes


@pytest.mark.parametrize(("words", "command"), [*commands(SHELL)], ids=str)
def test_every_command(home: Path, tmp_path: Path, words: str, command: click.Command) -> None:
    """Unknown options, too many words, too few, and a service's name that is none."""
    argv = words.split()
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    assert "--no-such" in refused(tmp_path, *argv, "--no-such")
    if words not in NO_LIMIT:
        refused(tmp_path, *argv, *["x"] * (len(arguments) + 1))
    if any(each.required for each in arguments):
        assert "Missing argument" in refused(tmp_path, *argv)
    if arguments and arguments[0].name == "service":
        said = refused(tmp_path, *argv, "Not_Good", *["x"] * (len(arguments) - 1))
        assert "'not-good' would do" in said
    assert not home.exists()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nosuch", "No such command 'nosuch'"),
        ("keys", "a command is missing: add, list, remove"),
        ("keys nosuch", "No such command 'nosuch'. See: mypaas keys --help"),
        ("releases x v3", "extra argument (v3). See: mypaas releases list --help"),
        ("rollback x latest", "'latest' is not the name of a release; they look like v13"),
        ("rollback x v0", "'v0' is not the name of a release"),
        ("releases output x v", "'v' is not the name of a release"),
        ("logs x -n many", "'many' is not a valid integer"),
        ("logs x -n -1", "-1 is not in the range"),
        ("audit -n -1", "-1 is not in the range"),
        ("audit --service Web", "'web' would do"),
        ("config set x word", "word 1 behind the service is not KEY=value, as in LOG_LEVEL"),
        ("config set x A=1 1B=2", "word 2 behind the service is not KEY=value"),
        ("config set x -", "there is no KEY=VALUE on standard input, one a line"),
        ("config unset x 1A", "word 1 behind the service is not a variable's name"),
        ("keys add 'a b' -", "'a b' is not a name for a key"),
        ("keys add n - --expires soon", "'soon' is not an expiry"),
        ("keys add n - --expires ''", "'' is not an expiry"),
        ("keys add n - --branch a:b", "'a:b' is not a branch"),
        ("keys add n - --admin --service x", "give one or the other"),
        ("keys add n - --service X", "'x' would do"),
        ("run x", "Missing argument"),
        ("run x --", "a command is missing"),
        ("push a:b:c .", "a:b:c"),
        ("server uninstall", "say --yes if you mean it"),
        ("server init --yes --ssh-listen nowhere", "--ssh-listen: [ssh] listen"),
        ("server init --yes --namespace 'No!'", "--namespace: [docker] namespace"),
    ],
)
def test_what_makes_no_sense(home: Path, tmp_path: Path, line: str, says: str) -> None:
    """Each is told in one line what is wrong with it."""
    assert says in refused(tmp_path, *shlex.split(line))
    assert not home.exists()


@pytest.mark.parametrize("text", [None, "no key", "ssh-ed25519 AAAA me"])
def test_a_bad_admin_key(home: Path, tmp_path: Path, text: str | None) -> None:
    """It is refused before there is anything of a home."""
    file = tmp_path / "me.pub"
    if text is not None:
        file.write_text(text)
    code, paper = ask(tmp_path, "server", "init", "--yes", "--admin-key", str(file))
    assert code == 1
    assert "key-refused" in paper.notes
    assert not home.exists()


def test_no_key_on_standard_input(tmp_path: Path) -> None:
    """Whoever names no file learns where the key was looked for."""
    code, paper = ask(tmp_path, "keys", "add", "me")
    assert code == 1
    assert "expected on standard input, and there is nothing: … keys add" in paper.notes


def test_nobody_answers(tmp_path: Path) -> None:
    """``server init`` whose questions nobody answers has made nothing."""
    home = tmp_path / "home"
    for answers in ("", "\n" * 5, "\n" * 6):
        done = subprocess.run(
            [MYPAAS, "server", "init"],
            env=clean_env({"MYPAAS_HOME": str(home), "HOME": str(tmp_path)}),
            input=answers,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert "nobody answered" in done.stderr
        assert not home.exists()


def test_version(tmp_path: Path) -> None:
    """The same at either entrance."""
    for group in (SHELL, tree(remote_server)):
        code, paper = ask(tmp_path, "--version", group=group)
        assert (code, paper.answer) == (0, f"mypaas-git {__version__}\n")


def test_audit_of_nothing(tmp_path: Path) -> None:
    """None asked for is none; none there is told, and of which service."""
    assert "nothing is recorded yet" in ask(tmp_path, "audit")[1].notes
    assert (
        "nothing is recorded of web yet" in ask(tmp_path, "audit", "--service", "web")[1].notes
    )
    code, paper = ask(tmp_path, "audit", "-n", "0")
    assert (code, paper.answer, paper.notes) == (0, "", "")


def test_services_that_are_called_like_commands(tmp_path: Path) -> None:
    """`releases list` takes a service whose name would be taken for a command."""
    for name in ("output", "list"):
        code, paper = ask(tmp_path, "releases", "list", name)
        assert code == 1
        assert f"there is no service '{name}'" in paper.notes
        assert "there is no service" in ask(tmp_path, "releases", "output", name)[1].notes
