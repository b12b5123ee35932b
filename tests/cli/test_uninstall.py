"""mypaas server uninstall: what it removes, what it leaves, and what is not its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support import engine
from support.apps import commit, make_app, unique, web_dockerfile
from support.paas import Paas


def ours(paas: Paas) -> dict[str, list[str]]:
    """What the engine has of the server, by its kind."""
    label = ("--filter", f"label={engine.NAMESPACE_LABEL}={paas.namespace}")
    return {
        "containers": engine.containers(paas.namespace),
        "networks": engine.docker("network", "ls", "-q", *label).split(),
        "images": engine.docker("images", "-q", f"{paas.namespace}/*").split(),
        "volumes": engine.docker("volume", "ls", "-q", *label).split(),
    }


def test_uninstall(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """Nothing but home and volumes is left, another server is untouched, and a push works."""
    paas, other, name = new_paas(), new_paas(), unique()
    paas.start()
    directives = (f"url=http://{name}.test", "scale=1", f"volume={name}:/data")
    app = make_app(tmp_path, web_dockerfile(*directives))
    paas.deploy(app, name)
    others = ours(other)
    assert others["containers"], "its Traefik"

    running = paas.cli("server", "uninstall", "--yes")
    assert running.returncode == 1
    assert "server-running" in running.stderr
    paas.stop()
    unmeant = paas.cli("server", "uninstall")
    assert unmeant.returncode == 2
    assert "say --yes" in unmeant.stderr
    assert paas.get(f"http://{name}.test/").text == "hello\n", "it goes on without its server"

    done = paas.cli("server", "uninstall", "--yes")
    assert done.returncode == 0, done.stderr
    volume = f"{paas.namespace}-{name}"
    assert f"left: the volume {volume}" in done.stdout
    assert f"left: {paas.home}" in done.stdout
    assert ours(paas) == {"containers": [], "networks": [], "images": [], "volumes": [volume]}
    assert ours(other) == others
    assert (paas.home / "repos" / f"{name}.git").is_dir()
    assert paas.cli("server", "uninstall", "--yes").returncode == 0, "again, to no effect"

    paas.start()
    assert "removed" in paas.ssh("status", name).stdout
    commit(app, {"x": "1"})
    paas.deploy(app, name)
    assert paas.get(f"http://{name}.test/").text == "hello\n"


def test_the_namespace_of_another_home(new_paas: Callable[[], Paas]) -> None:
    """A home that was copied takes nothing from the one that serves."""
    paas, copy = new_paas(), new_paas()
    config = copy.home / "config.toml"
    config.write_text(config.read_text().replace(copy.namespace, paas.namespace))
    before = ours(paas)
    done = copy.cli("server", "uninstall", "--yes")
    assert done.returncode == 1
    assert f"belongs to the server at {paas.home}" in done.stderr
    assert ours(paas) == before
