"""The Docker Engine goes and comes back, and so does what ran on it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from support.apps import BASE, commit, make_app, web_dockerfile
from support.machine import Machine, traefik_images
from support.net import wait_until
from support.paas import Paas

NAMES = ("first", "second")


@pytest.fixture(scope="module")
def away(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paas]:
    """A server on a machine of its own, with two services whose clones are in its root."""
    with Machine([BASE, *traefik_images()]) as machine:
        paas = Paas(tmp_path_factory.mktemp("away"), machine)
        try:
            paas.init()
            paas.start()
            for name in NAMES:
                dockerfile = web_dockerfile(f"url=http://{name}.test", "scale=2", page=name)
                paas.deploy(make_app(paas.root, dockerfile, name=name), name)
            yield paas
        finally:
            paas.close()


def serving(paas: Paas) -> bool:
    """Whether both services answer; the wrong service's answer fails at once (T72)."""
    for name in NAMES:
        try:
            answer = paas.get(f"http://{name}.test/")
        except OSError:
            return False
        if answer.status != 200:
            return False
        assert answer.text == name, "another service's answer"
    return True


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_it_serves_again(away: Paas, sig: signal.Signals) -> None:
    """Stopped or killed and started again: the right service behind the right host."""
    machine = away.machine
    assert machine is not None
    machine.stop_engine(sig)
    commit(away.root / NAMES[0], {"x": "1"})
    done = away.push(away.root / NAMES[0], NAMES[0])
    assert done.returncode == 1
    assert "(engine-down: the Docker Engine does not answer" in done.stderr
    machine.start_engine()
    wait_until(lambda: serving(away), "both serve again", seconds=30)
    away.deploy(away.root / NAMES[0], NAMES[0])
    assert serving(away)


def test_a_server_that_starts_before_its_engine(away: Paas) -> None:
    """After a reboot the order does not matter: it waits, and then all is as before."""
    machine = away.machine
    assert machine is not None
    away.stop(signal.SIGKILL)
    machine.stop_engine(signal.SIGKILL)
    machine.start_engine()
    away.start()
    wait_until(lambda: serving(away), "both serve again", seconds=30)
    commit(away.root / NAMES[1], {"x": "1"})
    away.deploy(away.root / NAMES[1], NAMES[1])
