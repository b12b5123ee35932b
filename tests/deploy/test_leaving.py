"""Whoever leaves in mid-deploy: the pusher by Ctrl-C or for good, the server by SIGTERM."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support import engine
from support.agreement import all_agree, connected, containers, ended, page, refs
from support.apps import commit, files_dockerfile, head, make_app, unique, web_dockerfile
from support.net import wait_until
from support.paas import Paas
from support.pushing import Pushing, pushing


def deployed(paas: Paas, directory: Path) -> tuple[Path, str]:
    """An app whose first version is live, and the name of its service."""
    name = unique()
    app = make_app(directory, files_dockerfile(name), {"index.html": "one\n"}, name=name)
    paas.deploy(app, name)
    return app, name


def second(app: Path, name: str, *, ready_after: float) -> str:
    """Commit a version that takes some seconds to get ready; returns the commit."""
    slow = files_dockerfile(name, ready_after=ready_after)
    return commit(app, {"Dockerfile": slow, "index.html": "two\n"})


def state(paas: Paas, name: str, number: int) -> str:
    """What the ledger says of an attempt at this very moment."""
    with closing(sqlite3.connect(paas.home / "ledger.db", timeout=30)) as db:
        row = db.execute(
            "SELECT state FROM releases WHERE service = ? AND number = ?", (name, number)
        ).fetchone()
    return str(row[0]) if row else ""


def ends_within(paas: Paas, name: str, number: int, seconds: float) -> None:
    underway = ("building", "starting", "switching")
    wait_until(
        lambda: state(paas, name, number) not in underway, "the attempt ends", seconds=seconds
    )


def test_ctrl_c_while_containers_start(paas: Paas, tmp_path: Path) -> None:
    """It is called off at once, nothing of it is left, and the next push works (T63)."""
    app, name = deployed(paas, tmp_path)
    second(app, name, ready_after=8)
    with pushing(paas, app, name) as going:
        going.sees("Starting 1 container (v2)")
        going.interrupt()
        assert going.end() != 0
    ends_within(paas, name, 2, 4)
    row = ended(paas, name, 2)
    assert (row["state"], row["reason"]) == ("failed", "cancelled")
    assert "while the containers started" in row["message"]
    assert page(paas, name) == "one\n"
    all_agree(paas, name)
    commit(app, {"Dockerfile": files_dockerfile(name)})
    assert f"{name} v3 is live" in paas.deploy(app, name)
    assert page(paas, name) == "two\n"


def test_ctrl_c_during_a_build(paas: Paas, tmp_path: Path) -> None:
    """The step that runs is ended, not waited for."""
    app, name = deployed(paas, tmp_path)
    run = f"echo {name} builds; sleep 30"
    url = f"url=http://{name}.test"
    commit(app, {"Dockerfile": web_dockerfile(url, "scale=1", run=run)})
    with pushing(paas, app, name) as going:
        going.sees(f"       {name} builds")
        going.interrupt()
        assert going.end() != 0
    ends_within(paas, name, 2, 5)
    row = ended(paas, name, 2)
    assert (row["state"], row["reason"]) == ("failed", "cancelled")
    wait_until(
        lambda: run not in engine.docker("ps", "-a", "--no-trunc", "--format", "{{.Command}}"),
        "the step's container is gone",
        seconds=5,
    )
    assert page(paas, name) == "one\n"
    all_agree(paas, name)
    commit(app, {"Dockerfile": files_dockerfile(name)})
    paas.deploy(app, name)


def test_ctrl_c_while_it_waits(paas: Paas, tmp_path: Path) -> None:
    """Whoever waited for another's deploy leaves no trace, and the other goes on."""
    app, name = deployed(paas, tmp_path)
    made = second(app, name, ready_after=3)
    with pushing(paas, app, name) as going:
        going.sees("Starting 1 container (v2)")
        with pushing(paas, app, name) as waiting:
            waiting.sees("Waiting for admin (since ")
            waiting.interrupt()
            assert waiting.end() != 0
        assert going.end() == 0, going.said
    rows = all_agree(paas, name)
    assert [row["release"] for row in rows] == ["v2", "v1"]
    assert rows[0]["commit"] == made


def kill_all(going: Pushing) -> None:
    going.interrupt(signal.SIGKILL)


def kill_git_alone(going: Pushing) -> None:
    """Its ssh goes on for a while, and does not know that nobody reads."""
    os.kill(going.process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("moment", "kill"), [("Switching traffic", kill_all), ("healthy after", kill_git_alone)]
)
def test_a_pusher_who_dies_at_the_switch(
    paas: Paas, tmp_path: Path, moment: str, kill: Callable[[Pushing], None]
) -> None:
    """It goes live or it does not, and branch, tags, ledger and page say the same."""
    app, name = deployed(paas, tmp_path)
    second(app, name, ready_after=0.5)
    with pushing(paas, app, name) as going:
        going.sees(moment)
        kill(going)
        going.end()
    ends_within(paas, name, 2, 15)
    wait_until(lambda: len(refs(paas, name)) >= 2, "tags are set")
    time.sleep(0.5)  # what comes after the switch: the branch and the tag
    live = all_agree(paas, name)[0]["state"] == "live"
    assert page(paas, name) == ("two\n" if live else "one\n")
    commit(app, {"Dockerfile": files_dockerfile(name), "index.html": "three\n"})
    paas.deploy(app, name)
    assert page(paas, name) == "three\n"


def test_a_pusher_who_dies_right_after_the_switch(paas: Paas, tmp_path: Path) -> None:
    """What is live stays live, and the branch and its tag follow."""
    app, name = deployed(paas, tmp_path)
    made = second(app, name, ready_after=0.5)
    with pushing(paas, app, name) as going:
        wait_until(lambda: state(paas, name, 2) == "live", "v2 is live", every=0.002)
        kill_all(going)
        going.end()
    wait_until(lambda: refs(paas, name)["refs/heads/main"] == made, "the branch follows")
    wait_until(lambda: "refs/tags/release/v2" in refs(paas, name), "so does the tag")
    all_agree(paas, name)
    assert page(paas, name) == "two\n"


def test_sigterm_lets_deploys_finish(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """The pusher is told ok and the server ends with 0, whenever the signal comes.

    Old replicas that somebody is still connected to are left to the next start.
    """
    paas = new_paas()
    paas.start()
    app, name = deployed(paas, tmp_path)
    for number, moment in ((2, "Starting 1 container"), (3, "Switching traffic")):
        second(app, name, ready_after=2)
        old = f"{name}.v{number - 1}.1"
        with connected(paas, old), pushing(paas, app, name) as going:
            going.sees(moment)
            assert paas.stop(seconds=30) == 0
            assert going.end() == 0, going.said
            assert f"{name} v{number} is live" in going.said
            assert f"{paas.namespace}.{old}" in containers(paas, name)
            paas.start()
            assert f"{paas.namespace}.{old}" in containers(paas, name)
        assert all_agree(paas, name)[0]["release"] == f"v{number}"
        assert refs(paas, name)["refs/heads/main"] == head(app)
        assert page(paas, name) == "two\n"
    assert "Traceback" not in paas.log()
