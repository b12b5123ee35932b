"""Many at once, and people who change their minds: everybody is told the truth."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.agreement import all_agree, connected, containers, page
from support.apps import commit, files_dockerfile, head, make_app, unique, web_dockerfile
from support.keys import ssh_key
from support.paas import Paas
from support.pushing import Pushing, pushing
from support.stockgit import git, ssh_options


def clones(app: Path, count: int) -> list[Path]:
    """Copies with one commit each on top of what ``app`` has, a file of their own in it."""
    made = []
    for number in range(count):
        copy = app.with_name(f"{app.name}-{number}")
        git(app.parent, "clone", "-q", str(app), str(copy))
        commit(copy, {f"c{number}": f"of {number}\n"}, f"Of {number}")
        made.append(copy)
    return made


def all_at_once(paas: Paas, apps: list[Path], name: str, *options: str) -> list[Pushing]:
    """Have everybody push at the same time; returns when all have ended."""
    with ExitStack() as stack:
        going = [stack.enter_context(pushing(paas, app, name, *options)) for app in apps]
        for each in going:
            each.end()
    return going


def learn(paas: Paas, name: str, apps: list[Path]) -> None:
    """Have everybody rebase onto what is live, and add something new."""
    for app in apps:
        git(app, "pull", "-q", "--rebase", paas.url(name), "main", env=paas.git_env())
        commit(app, {f"again-{app.name}": head(app)})


def live_page_is_of_the_tip(paas: Paas, name: str, apps: list[Path]) -> None:
    """What is served is exactly the files of the commit that the branch names."""
    repository = paas.home / "repos" / f"{name}.git"
    listed = git(repository, "ls-tree", "--name-only", "main").stdout.split()
    for number in range(len(apps)):
        found = paas.get(f"http://{name}.test/c{number}").status
        assert found == (200 if f"c{number}" in listed else 404), (number, listed)


@contextlib.contextmanager
def asking(paas: Paas, *argv: str) -> Iterator[subprocess.Popen[str]]:
    """``ssh … argv``, begun."""
    options = ssh_options(paas.admin, paas.known_hosts)
    with subprocess.Popen(
        ["ssh", *options, "-p", str(paas.ssh_port), "mypaas@127.0.0.1", *argv],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def says(process: subprocess.Popen[str], text: str) -> None:
    """Read what a command says up to the line that has ``text``."""
    assert process.stderr is not None
    while text not in (line := process.stderr.readline()):
        assert line, f"it ended without {text!r}"


@contextlib.contextmanager
def people(paas: Paas, directory: Path, *names: str) -> Iterator[dict[str, Path]]:
    """Keys that may push, by their owners' names."""
    keys = {name: ssh_key(directory, name) for name in names}
    for name, key in keys.items():
        assert paas.cli("keys", "add", name, f"{key}.pub").returncode == 0
    try:
        yield keys
    finally:
        for name in names:
            paas.cli("keys", "remove", name)


@pytest.fixture
def app(tmp_path: Path) -> tuple[Path, str]:
    """An app and the name of its service; nothing is pushed yet."""
    name = unique()
    files = {"index.html": "one\n"}
    return make_app(tmp_path, files_dockerfile(name), files, name=name), name


def test_eight_push_to_one_service_at_once(paas: Paas, app: tuple[Path, str]) -> None:
    """Whoever is told ok was live, whoever is not is told why, and all records agree (T60).

    The losers fetch and rebase, and in the end force what they have.
    """
    origin, name = app
    paas.deploy(origin, name)
    apps = clones(origin, 8)
    accepted = [head(origin)]
    for options in ((), (), ("--force",)):
        if len(accepted) > 1:
            learn(paas, name, apps)
        before = paas.log().count("Traceback")
        pushed = all_at_once(paas, apps, name, *options)
        won = [each.process.returncode == 0 for each in pushed]
        assert any(won), [each.said for each in pushed]
        accepted += [head(each) for each, ok in zip(apps, won, strict=True) if ok]
        for each in (each for each, ok in zip(pushed, won, strict=True) if not ok):
            assert re.search(
                r"\(superseded: a newer push by admin came while this one waited; v\d+ still"
                r" live\)|\(ref-refused: .*moved.*push again.*\)|\(fetch first\)",
                each.refused,
            ), each.said
        rows = all_agree(paas, name)
        assert sorted(row["commit"] for row in rows if row["live"]) == sorted(accepted)
        live_page_is_of_the_tip(paas, name, apps)
        assert paas.log().count("Traceback") == before


def test_eight_services_at_once(paas: Paas, tmp_path: Path) -> None:
    """All go live, side by side, and two at a time are built."""
    names = [unique() for _ in range(8)]
    now = "$(cut -d' ' -f1 /proc/uptime)"
    apps = [
        make_app(
            tmp_path,
            web_dockerfile(
                f"url=http://{name}.test",
                "scale=1",
                page=name,
                run=f"echo {name} begins {now}; sleep 0.5; echo {name} ends {now}",
            ),
            name=name,
        )
        for name in names
    ]
    with ExitStack() as stack:
        going = [
            stack.enter_context(pushing(paas, app, name))
            for app, name in zip(apps, names, strict=True)
        ]
        codes = [each.end() for each in going]
    assert codes == [0] * 8, [each.said for each in going]
    spans = []
    for name, each in zip(names, going, strict=True):
        assert page(paas, name) == name
        found = re.findall(rf"remote: +{name} (?:begins|ends) ([0-9.]+) ", each.said)
        begin, end = map(float, found)
        spans.append((begin, end))
    at_once = [sum(begin <= moment < end for begin, end in spans) for moment, _ in spans]
    assert max(at_once) == 2, spans
    assert any("Waiting to build: 2 builds run already" in each.said for each in going)


def test_a_newer_push_supersedes_one_that_waits(
    paas: Paas, app: tuple[Path, str], tmp_path: Path
) -> None:
    """Who waits is told for whom and since when; a newer push takes their place.

    It may go live, since what was deployed meanwhile is part of it.
    """
    alices, name = app
    paas.deploy(alices, name)
    commit(alices, {"Dockerfile": files_dockerfile(name, ready_after=3)})
    bobs, carols = clones(alices, 2)
    git(bobs, "reset", "-q", "--hard", "HEAD~2")
    commit(bobs, {"index.html": "bob's\n"})
    commit(carols, {"Dockerfile": files_dockerfile(name), "index.html": "carol's\n"})
    with people(paas, tmp_path, "alice", "bob", "carol") as keys, ExitStack() as stack:

        def push(app: Path, who: str) -> Pushing:
            return stack.enter_context(pushing(paas, app, name, key=keys[who]))

        first = push(alices, "alice")
        first.sees("Starting 1 container (v2)")
        second = push(bobs, "bob")
        second.sees("Waiting for alice (since ")
        third = push(carols, "carol")
        assert second.end() == 1
        why = "superseded: a newer push by carol came while this one waited; v1 still live"
        assert second.refused == f" ! [remote rejected] main -> main ({why})"
        assert f"remote:  !     {why}" in second.said
        assert first.process.poll() is None, "the first was to take longer"
        assert first.end() == 0, first.said
        assert third.end() == 0, third.said
    told = r"Waiting for alice \(since \d\d:\d\d:\d\d UTC, \d+ s so far\) to finish with "
    assert re.search(told + name, third.said)
    newest, before = all_agree(paas, name)[:2]
    assert (newest["release"], newest["who"]) == ("v3", "carol")
    assert (before["release"], before["who"]) == ("v2", "alice")
    assert page(paas, name) == "carol's\n"


def test_a_push_that_waits_for_a_rollback(paas: Paas, app: tuple[Path, str]) -> None:
    """It stands on what is taken back just now, so it is refused, not waved through (T61)."""
    origin, name = app
    commit(origin, {"Dockerfile": files_dockerfile(name, ready_after=1.5)})
    paas.deploy(origin, name)
    commit(origin, {"Dockerfile": files_dockerfile(name), "index.html": "two\n"})
    paas.deploy(origin, name)
    commit(origin, {"index.html": "three\n"})
    with asking(paas, "rollback", name) as rolling:
        says(rolling, "Starting 1 container (v3)")
        done = paas.push(origin, name)
        assert rolling.wait(30) == 0
    assert done.returncode == 1
    assert "Waiting for admin (since " in done.stderr
    why = r"\(ref-refused: main moved to \w{7} in the meantime; fetch, .*; v3 still live\)"
    assert re.search(why, done.stderr)
    assert page(paas, name) == "one\n"
    all_agree(paas, name)
    assert "was rolled back by admin" in paas.deploy(origin, name)
    assert page(paas, name) == "three\n"


def test_a_rollback_that_waits_for_a_push(paas: Paas, app: tuple[Path, str]) -> None:
    """It goes back from what the push has made live."""
    origin, name = app
    paas.deploy(origin, name)
    slow = files_dockerfile(name, ready_after=2)
    commit(origin, {"Dockerfile": slow, "index.html": "two\n"})
    with pushing(paas, origin, name) as going:
        going.sees("Starting 1 container (v2)")
        done = paas.ssh("rollback", name)
        assert going.end() == 0, going.said
    assert done.returncode == 0, done.stderr
    assert "Waiting for admin (since " in done.stderr
    assert f"Rolling {name} back from v2 to v1" in done.stderr
    assert page(paas, name) == "one\n"
    assert all_agree(paas, name)[0]["restores"] == "v1"


@pytest.mark.parametrize("verb", ["stop", "remove"])
def test_a_push_that_waits_for_the_end(paas: Paas, app: tuple[Path, str], verb: str) -> None:
    """Whoever pushes to what is being stopped or removed wants it to serve (T61)."""
    origin, name = app
    paas.deploy(origin, name)
    commit(origin, {"index.html": "two\n"})
    yes = ["--yes"] if verb == "remove" else []
    with connected(paas, f"{name}.v1.1") as visitor, asking(paas, verb, name, *yes) as ending:
        says(ending, name)
        with pushing(paas, origin, name) as going:
            going.sees("Waiting for admin (since ")
            visitor.close()
            assert going.end() == 0, going.said
        assert ending.wait(30) == 0
    assert page(paas, name) == "two\n"
    all_agree(paas, name)
    assert json.loads(paas.cli("status", name, "--json").stdout)["health"] == "healthy"


def test_a_push_whose_repository_is_removed(paas: Paas, app: tuple[Path, str]) -> None:
    """Nothing goes live that no branch could name; the next push makes all of it anew."""
    origin, name = app
    paas.deploy(origin, name)
    # Whoever pushes another branch for the first time expects it not to be there.
    commit(origin, {"index.html": "two\n"})
    argv = ("remove", name, "--yes", "--with-repo")
    with connected(paas, f"{name}.v1.1") as visitor, asking(paas, *argv) as ending:
        says(ending, "Removing")
        with pushing(paas, origin, name, branch="HEAD:master") as going:
            going.sees("Waiting for admin (since ")
            visitor.close()
            assert going.end() == 1
        assert ending.wait(30) == 0
    why = "repository-missing: the repository was removed in the meantime; push again to"
    assert f"({why}" in going.refused
    assert paas.cli("releases", name).returncode == 1
    assert containers(paas, name) == []
    assert f"{name} v1 is live" in paas.deploy(origin, name)
    all_agree(paas, name)
