"""The examples, as they stand, deploy and answer."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.apps import commit
from support.paas import Paas
from support.stockgit import git

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def repository(example: str, directory: Path) -> Path:
    """A fresh git repository of an example."""
    app = directory / example
    shutil.copytree(EXAMPLES / example, app)
    git(app, "init", "-q", "-b", "main")
    commit(app, {})
    return app


def test_a_typical_users_document(paas: Paas, tmp_path: Path) -> None:
    """Two https urls, python:3.8-slim-buster, apt, pip and a shell-form CMD."""
    output = paas.deploy(repository("asgi", tmp_path), "hello-world")
    assert "hello-world v1 is live in" in output
    for host in ("hello.example.com", "www.hello.example.com"):
        answer = paas.get(f"https://{host}/some/path")
        assert answer.status == 200
        assert answer.text == f"Hello from {host}, which was asked for /some/path\n"
        assert paas.get(f"http://{host}/").status in (301, 308)


def test_hello_world(paas: Paas, tmp_path: Path) -> None:
    """The demo's app: two replicas that say who they are, and take turns."""
    # The other example may have been the same service before: its history is replaced.
    app = repository("hello-world", tmp_path)
    assert paas.push(app, "hello-world", "main", "--force").returncode == 0
    seen = {paas.get("http://hello.localhost/").text.split()[-1] for _ in range(8)}
    assert len(seen) == 2
    assert all(each.startswith("hello-world.v") for each in seen)
