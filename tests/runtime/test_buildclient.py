"""Which docker client drives BuildKit."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import engine as docker_engine
from support.net import wait_until
from support.relay import Relay

from mypaas_git.errors import Cancelled, EngineDown
from mypaas_git.runtime.buildclient import BuildClient, clients, environment
from mypaas_git.runtime.client import Client


@pytest.fixture
def client(engine: None) -> Iterator[Client]:
    made = Client()
    yield made
    made.close()


def fake(directory: Path, script: str) -> Path:
    """A docker client that only does ``script``."""
    directory.mkdir()
    path = directory / "docker"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def empty_images() -> set[str]:
    """Nameless images without a layer, as a trial might leave one."""
    listed = docker_engine.docker("images", "-q", "--no-trunc", "-f", "dangling=true")
    return {
        each
        for each in listed.split()
        if not docker_engine.inspect(each)["RootFS"].get("Layers")
    }


def test_a_client_that_cannot_is_passed_over(client: Client, tmp_path: Path) -> None:
    """The first on PATH fails; the one behind it is found, once, and nothing is left."""
    tried = tmp_path / "tried"
    broken = fake(tmp_path / "bin", f"echo x >> {tried}; echo no buildx; exit 1")
    before = empty_images()
    path = os.pathsep.join([str(broken.parent), os.environ["PATH"]])
    finder = BuildClient(client, lambda: path)
    found = finder.find()
    assert found is not None
    assert found != broken
    assert empty_images() == before
    assert [finder.find(), finder.find()] == [found, found]
    assert tried.read_text() == "x\n"


def test_where_none_works_none_is_found(client: Client, tmp_path: Path) -> None:
    """That is remembered for a while."""
    count = tmp_path / "tried"
    broken = fake(tmp_path / "bin", f"echo x >> {count}; exit 1")
    finder = BuildClient(client, lambda: str(broken.parent))
    assert [finder.find(), finder.find()] == [None, None]
    assert count.read_text() == "x\n"


# The SDK forgets to close a socket that could not be connected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_nothing_is_learned_of_an_engine_that_is_down(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is up, the client is found."""
    relay = Relay(tmp_path / "docker.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{relay.path}")
    relay.open()
    away = Client()
    finder = BuildClient(away)
    away.api.ping()
    relay.close()
    with pytest.raises(EngineDown):
        finder.find()
    relay.open()
    assert finder.find() is not None
    away.close()
    relay.close()
    gc.collect()


def test_a_client_that_hangs_can_be_cancelled(client: Client, tmp_path: Path) -> None:
    """Who left waits for no trial, and the next one tries anew."""
    hanging = fake(tmp_path / "bin", "exec sleep 300")
    finder = BuildClient(client, lambda: str(hanging.parent))
    began = time.monotonic()
    with pytest.raises(Cancelled):
        finder.find(lambda: time.monotonic() > began + 0.3)
    assert time.monotonic() - began < 30
    hanging.write_text("#!/bin/sh\nexit 0\n")
    wait_until(lambda: finder.find() == hanging, "it is found")


def test_links_to_one_client_are_one_client(tmp_path: Path) -> None:
    """Files that cannot be run, and what is no directory, are none."""
    real = fake(tmp_path / "a", "exit 0")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "docker").symlink_to(real)
    fake(tmp_path / "c", "").chmod(0o644)
    path = os.pathsep.join(str(tmp_path / name) for name in ("a", "b", "c", "d", "a"))
    assert clients(f"{path}{os.pathsep}") == [real]


def test_the_client_gets_only_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the server's environment steers it by chance, and no context does."""
    monkeypatch.setenv("DOCKER_CONTEXT", "elsewhere")
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("DOCKER_CONFIG", "/etc/docker-config")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    env = environment({"MYPAAS_SECRET_0": "x=y"})
    assert env["DOCKER_BUILDKIT"] == "1"
    assert env["DOCKER_HOST"] == "unix:///var/run/docker.sock"
    assert env["DOCKER_CONFIG"] == "/etc/docker-config"
    assert "x=y" in env.values()
    assert not {"DOCKER_CONTEXT", "AWS_SECRET_ACCESS_KEY"} & set(env)
