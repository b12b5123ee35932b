"""Deploys under a constant load: not one request fails, whether the deploy is good or bad."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import engine as docker_engine
from support import rolling
from support.apps import commit, make_app, unique
from support.load import Load
from support.net import wait_until
from support.paas import Paas
from support.stockgit import git

BOOT = 0.3
ROUNDS = 4


@pytest.fixture(scope="module")
def hasty(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paas]:
    """A server that gives new releases ten seconds only."""
    paas = Paas(tmp_path_factory.mktemp("hasty"))
    try:
        paas.init()
        paas.configure("health_timeout", '"10s"')
        paas.start()
        yield paas
    finally:
        paas.close()


def live(paas: Paas, root: Path) -> Path:
    """A clone named as its service, whose version 1 is live."""
    name = unique()
    made = make_app(root, None, rolling.version(name, 1, boot=BOOT), name=name)
    paas.deploy(made, name)
    return made


def branch(paas: Paas, app: Path) -> str:
    """The commit that the service's branch names."""
    listed = git(app, "ls-remote", paas.url(app.name), "main", env=paas.git_env())
    return listed.stdout[:40]


def test_good_deploys(paas: Paas, tmp_path: Path) -> None:
    """Slow answers, uploads, streams, connections kept and fresh: all are answered."""
    app = live(paas, tmp_path)
    with Load((paas.address, paas.web), f"{app.name}.test", app.parent) as load:
        for number in range(2, 2 + ROUNDS):
            commit(app, rolling.version(app.name, number, boot=BOOT))
            paas.deploy(app, app.name)
    report = load.so_far()
    assert not report.failed, str(report)
    assert report.versions() == {f"v{number}" for number in range(1, 2 + ROUNDS)}


def test_bad_deploys(hasty: Paas, tmp_path: Path) -> None:
    """Of each kind: the version before answers every request, and the branch stays."""
    app = live(hasty, tmp_path)
    first = branch(hasty, app)
    with Load((hasty.address, hasty.web), f"{app.name}.test", app.parent) as load:
        for number, (kind, (_, code)) in enumerate(rolling.KINDS.items(), 2):
            commit(app, rolling.bad(app.name, number, kind, boot=BOOT))
            done = hasty.push(app, app.name)
            assert done.returncode == 1, kind
            assert f"({code}: " in done.stderr, done.stderr
            assert branch(hasty, app) == first, kind
    report = load.so_far()
    assert not report.failed, str(report)
    assert report.versions() == {"v1"}


def test_a_load_that_notices(paas: Paas, tmp_path: Path) -> None:
    """Without a drain it would fail: replicas that are killed take their requests along."""
    app = live(paas, tmp_path)
    replicas = docker_engine.containers(paas.namespace, f"label=mypaas.service={app.name}")
    with Load((paas.address, paas.web), f"{app.name}.test", app.parent) as load:
        wait_until(lambda: len(load.so_far().counts()) == 5, "all kinds of requests ended")
        assert not load.so_far().failed
        docker_engine.docker("kill", *replicas)
        wait_until(lambda: load.so_far().failed, "a request failed")
    assert {each.kind for each in load.so_far().failed} >= {"slow", "stream"}
