"""``scripts/demo``, as somebody would run it who has just cloned the project."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from support.engine import docker

ROOT = Path(__file__).resolve().parent.parent


def run(states: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "scripts" / "demo"), *args],
        # A demo that the developer has kept is none of the tests' business.
        env={**os.environ, "MYPAAS_DEMO_STATES": str(states)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )


def is_gone(output: str) -> bool:
    """Whether nothing remains of the demo that said this."""
    found = re.search(r"Starting the server (\S+) in (\S+)/home", output)
    assert found, output
    kinds = (("ps", "-a"), ("network", "ls"), ("volume", "ls"), ("images",))
    return not Path(found[2]).exists() and not any(found[1] in docker(*kind) for kind in kinds)


def test_two_answers_and_nothing_left(engine: None, tmp_path: Path) -> None:
    """Both versions answer through Traefik; afterwards everything is gone."""
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "Hello, world! This is v1" in done.stdout
    assert "Hello again! This is v2" in done.stdout
    assert is_gone(done.stdout)


def test_kept_until_stopped(engine: None, tmp_path: Path) -> None:
    """--keep leaves a server that answers and says how; --stop ends it."""
    done = run(tmp_path, "--keep")
    try:
        assert done.returncode == 0, done.stdout
        command = re.search(r"curl -H 'Host: (\S+)' (\S+)", done.stdout)
        assert command, done.stdout
        curl = ["curl", "-s", "-H", f"Host: {command[1]}", command[2]]
        assert "Hello again! This is v2" in subprocess.check_output(curl, text=True)
    finally:
        stopped = run(tmp_path, "--stop")
    assert stopped.returncode == 0, stopped.stdout
    assert is_gone(done.stdout)
