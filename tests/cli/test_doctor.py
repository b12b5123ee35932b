"""mypaas server doctor: what is wrong, and what helps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from support import engine
from support.apps import make_app, unique, web_dockerfile
from support.paas import Paas


def wrong(paas: Paas) -> dict[str, str]:
    """What the doctor finds, and its exit code agrees."""
    done = paas.cli("server", "doctor", "--json")
    found = {each["check"]: each["wrong"] for each in json.loads(done.stdout) if not each["ok"]}
    assert done.returncode == (1 if found else 0), done.stderr
    return found


def test_a_good_server_is_fine(new_paas: Callable[[], Paas]) -> None:
    """Nothing is wrong, and every line says so."""
    paas = new_paas()
    paas.start()
    done = paas.cli("server", "doctor")
    assert done.returncode == 0, done.stdout
    assert all(line.startswith("ok ") for line in done.stdout.splitlines())


def test_each_fault_is_named(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """A stopped server, a stopped Traefik, an exposed file, a broken key, a dead service."""
    paas, name = new_paas(), unique()
    paas.start()
    paas.deploy(make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", "scale=1")), name)
    assert wrong(paas) == {}
    with (paas.home / "authorized_keys").open("a") as keys:
        keys.write("this is no key\n")
    (paas.home / "config.toml").chmod(0o644)
    paas.stop()  # while it runs, it brings back whatever stops
    engine.docker("stop", "-t", "0", f"{paas.namespace}.{name}.v1.1")
    engine.docker("stop", "-t", "1", f"{paas.namespace}-traefik")
    found = wrong(paas)
    assert set(found) == {
        "server",
        "Traefik",
        "private files",
        "authorized_keys line 2",
        name,
    }
    assert "config.toml" in found["private files"]
    (paas.home / "config.toml").write_text("[dokcer]\n")
    done = paas.cli("server", "doctor")
    assert done.returncode == 1
    assert "did you mean 'docker'" in done.stderr


def test_server_status(paas: Paas) -> None:
    """What it is and how it is, the same in the shell and over ssh."""
    shell, remote = (
        paas.cli("server", "status", "--json"),
        paas.ssh("server", "status", "--json"),
    )
    told, heard = json.loads(shell.stdout), json.loads(remote.stdout)
    del told["disk_free"], heard["disk_free"]
    assert told == heard
    assert told["ssh"] == f"127.0.0.1:{paas.ssh_port}"
    assert (told["running"], told["engine"], told["traefik"]) == (True, "", "")
    shown = paas.ssh("server", "status").stdout
    assert f"namespace   {paas.namespace}\n" in shown
    assert "engine      answers\n" in shown
