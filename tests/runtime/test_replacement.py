"""Traefik's container: where its image comes from, and how it is replaced by another."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import engine
from support.apps import BASE, make_app, unique, web_dockerfile
from support.net import wait_until
from support.paas import Paas

from mypaas_git.failpoints import POINTS, VARIABLE
from mypaas_git.runtime.client import Client
from mypaas_git.runtime.proxy import ProxyContainer

WAYS = [point for point in POINTS if point.startswith("proxy.")]
WAITS = "trap 'echo reopened' USR1; echo ready; while :; do sleep 0.1; done"
ENDS = f'FROM {BASE}\nENTRYPOINT ["sh", "-c", "echo no such flag; exit 1"]\n'


def proxy_of(paas: Paas) -> str:
    """The name of its container."""
    return f"{paas.namespace}-traefik"


def image_of(container: str) -> str:
    return str(engine.inspect(container)["Config"]["Image"])


def test_an_image_that_was_built_stands_in_for_no_other(
    new_paas: Callable[[], Paas], registry: str
) -> None:
    """Once built for one that could not be pulled, it kept all others from being pulled."""
    paas = new_paas()
    built = image_of(proxy_of(paas))
    assert built.startswith("mypaas-embedded/traefik:")
    wanted = f"{registry}/traefik:wanted"
    engine.docker("tag", built, wanted)
    try:
        engine.docker("push", wanted)
        engine.docker("rmi", wanted)
        paas.configure("traefik_image", f'"{wanted}"')
        paas.start()
        assert image_of(proxy_of(paas)) == wanted
    finally:
        paas.close()
        engine.docker("rmi", "--force", wanted, check=False)


@pytest.fixture
def bad_image(new_paas: object) -> Iterator[str]:
    """An image of a Traefik that ends at once."""
    image = f"mypaas-test/{unique('proxy')}"
    engine.docker("build", "--tag", image, "-", stdin=ENDS.encode())
    yield image
    engine.docker("rmi", "--force", image)


def proxies(paas: Paas) -> dict[str, bool]:
    """The containers of Traefik, and whether they run."""
    names = engine.containers(paas.namespace, "label=mypaas.role=proxy")
    return {name: engine.inspect(name)["State"]["Running"] for name in names}


def serves(paas: Paas, name: str) -> bool:
    try:
        return paas.get(f"http://{name}.test/").status == 200
    except OSError:
        return False


@pytest.fixture
def serving(new_paas: Callable[[], Paas], tmp_path: Path) -> tuple[Paas, str]:
    """A server that was stopped, and its service."""
    paas, name = new_paas(), unique()
    paas.start()
    paas.deploy(make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", "scale=1")), name)
    paas.stop()
    return paas, name


def test_a_changed_plan(serving: tuple[Paas, str]) -> None:
    """Another container serves, and nothing is left of the one before."""
    paas, name = serving
    before = engine.inspect(proxy_of(paas))["Id"]
    paas.configure("compress", "true")  # which is the routes' affair
    paas.start()
    assert engine.inspect(proxy_of(paas))["Id"] == before
    paas.stop()
    paas.configure("http3", "true")
    paas.start()
    assert engine.inspect(proxy_of(paas))["Id"] != before
    assert proxies(paas) == {proxy_of(paas): True}
    assert serves(paas, name)


def test_one_that_cannot_start(serving: tuple[Paas, str], bad_image: str) -> None:
    """The one before goes on, the admin is told in one line, and nothing is tried again."""
    paas, name = serving
    config = paas.home / "config.toml"
    was = config.read_text()
    before = engine.inspect(proxy_of(paas))["Id"]
    paas.configure("traefik_image", f'"{bad_image}"')
    paas.start()
    assert engine.inspect(proxy_of(paas))["Id"] == before
    assert proxies(paas) == {proxy_of(paas): True}
    assert serves(paas, name)
    (told,) = [line for line in paas.log().splitlines() if "traefik-not-replaced" in line]
    assert "Traefik ended when it was started; its log ends: no such flag" in told
    fault = json.loads(paas.cli("server", "status", "--json").stdout)["traefik"]
    assert fault.startswith("Traefik goes on as it was before")
    assert fault in paas.cli("server", "doctor").stdout

    engine.docker("kill", proxy_of(paas))
    wait_until(lambda: proxies(paas) == {proxy_of(paas): True}, "it is started again")
    wait_until(lambda: serves(paas, name), "it serves again")
    assert engine.inspect(proxy_of(paas))["Id"] == before
    paas.stop()
    config.write_text(was)
    paas.start()
    assert json.loads(paas.cli("server", "status", "--json").stdout)["traefik"] == ""


def test_ports_of_somebody_else(serving: tuple[Paas, str]) -> None:
    """The one before keeps its own."""
    paas, name = serving
    config = paas.home / "config.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(config.read_text().replace(f':{paas.web}"', f':{port}"'))
        paas.start()
    assert f"Traefik's ports are in use (127.0.0.1:{port}" in paas.log()
    assert proxies(paas) == {proxy_of(paas): True}
    assert serves(paas, name)


def test_one_that_cannot_be_made(serving: tuple[Paas, str]) -> None:
    """A file that it needs is missing: the one before is not even stopped."""
    paas, name = serving
    began = engine.inspect(proxy_of(paas))["State"]["StartedAt"]
    config = paas.home / "config.toml"
    config.write_text(config.read_text().replace('email = ""', 'email = "a@b.test"'))
    paas.configure("acme_ca", '"/nowhere.pem"')
    paas.start()
    assert "Traefik cannot be set up: " in paas.log()
    assert "/nowhere.pem" in paas.log()
    assert proxies(paas) == {proxy_of(paas): True}
    assert engine.inspect(proxy_of(paas))["State"]["StartedAt"] == began
    assert serves(paas, name)


def test_a_stranger_of_its_name(serving: tuple[Paas, str]) -> None:
    """A container that none of ours has made is neither removed nor stopped."""
    paas, _ = serving
    for suffix in ("", ".old", ".next"):
        name = f"{proxy_of(paas)}{suffix}"
        engine.docker("rm", "--force", name, check=False)
        engine.docker("run", "-d", "--name", name, BASE, "sleep", "600")
        try:
            done = paas.cli("server", "start")
            assert done.returncode == 1
            assert f"a container named {name} is there that no server" in done.stderr
            assert engine.inspect(name)["State"]["Running"]
        finally:
            engine.docker("rm", "--force", name)
    paas.start()


@pytest.mark.parametrize("point", WAYS)
def test_killed_on_the_way(serving: tuple[Paas, str], point: str) -> None:
    """The next start replaces it, or has the one before go on, whatever was done by then."""
    paas, name = serving
    before = engine.inspect(proxy_of(paas))["Id"]
    paas.configure("http3", "true")
    paas.launch(env={VARIABLE: point})
    paas.wait_killed()
    paas.start()
    assert proxies(paas) == {proxy_of(paas): True}
    assert engine.inspect(proxy_of(paas))["Id"] != before
    assert serves(paas, name)


@pytest.mark.parametrize("point", WAYS)
def test_killed_on_the_way_and_not_wanted_any_more(
    serving: tuple[Paas, str], point: str
) -> None:
    """With config.toml as it was before, so is Traefik."""
    paas, name = serving
    config = paas.home / "config.toml"
    was = config.read_text()
    before = engine.inspect(proxy_of(paas))["Id"]
    paas.configure("http3", "true")
    paas.launch(env={VARIABLE: point})
    paas.wait_killed()
    config.write_text(was)
    paas.start()
    assert proxies(paas) == {proxy_of(paas): True}
    assert engine.inspect(proxy_of(paas))["Id"] == before
    assert serves(paas, name)


def test_killed_before_one_that_cannot_start(serving: tuple[Paas, str], bad_image: str) -> None:
    """The next start finds out, and has the one before go on."""
    paas, name = serving
    before = engine.inspect(proxy_of(paas))["Id"]
    paas.configure("traefik_image", f'"{bad_image}"')
    paas.launch(env={VARIABLE: "proxy.succeeded"})
    paas.wait_killed()
    paas.start()
    assert proxies(paas) == {proxy_of(paas): True}
    assert engine.inspect(proxy_of(paas))["Id"] == before
    assert serves(paas, name)


def test_uninstalled_on_the_way(serving: tuple[Paas, str]) -> None:
    """What is left of a replacement goes, too."""
    paas, _ = serving
    paas.configure("http3", "true")
    paas.launch(env={VARIABLE: "proxy.renamed"})
    paas.wait_killed()
    assert len(proxies(paas)) == 2
    done = paas.cli("server", "uninstall", "--yes")
    assert done.returncode == 0, done.stderr
    assert engine.containers(paas.namespace) == []


@pytest.fixture
def client(engine: None) -> Iterator[Client]:
    made = Client()
    yield made
    made.close()


def test_only_one_that_runs_reopens_its_logs(client: Client) -> None:
    """One that is missing or does not run is no fault of the engine's: it is to be revived."""
    name = unique("proxy")
    proxy = ProxyContainer(client, name=name, namespace=name, network=name, home="/nowhere")
    proxy.reopen_logs()
    engine.docker("create", "--name", name, BASE, "sh", "-c", WAITS)
    try:
        proxy.reopen_logs()
        engine.docker("start", name)
        wait_until(lambda: "ready" in engine.docker("logs", name), "it runs")
        proxy.reopen_logs()
        wait_until(lambda: "reopened" in engine.docker("logs", name), "it is told")
    finally:
        engine.docker("rm", "-f", name)
