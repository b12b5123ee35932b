"""While the server runs, what should run and be routed does, whatever happens to it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from support import engine
from support.apps import commit, make_app, slow_files, unique, web_dockerfile
from support.net import being_answered, wait_until
from support.paas import Paas


def two_services(paas: Paas, tmp_path: Path) -> list[str]:
    """Two services that answer with their own names."""
    names = [unique(), unique()]
    for name in names:
        dockerfile = web_dockerfile(f"url=http://{name}.test", "scale=1", page=name)
        paas.deploy(make_app(tmp_path, dockerfile, name=name), name)
    return names


def all_right(paas: Paas, names: list[str]) -> bool:
    """Whether each answers behind its own host; the wrong answer fails at once."""
    try:
        answers = {name: paas.get(f"http://{name}.test/") for name in names}
    except OSError:
        return False
    for name, answer in answers.items():
        assert answer.status != 200 or answer.text == name, "another service's answer"
    return all(answer.status == 200 for answer in answers.values())


def health(paas: Paas, name: str) -> str:
    return str(json.loads(paas.cli("status", name, "--json").stdout)["health"])


def test_everything_of_the_host_is_killed(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """`docker kill` of every container, Traefik too: all serve again, unaided."""
    paas = new_paas()
    paas.start()
    names = two_services(paas, tmp_path)
    engine.docker("kill", *engine.containers(paas.namespace))
    wait_until(lambda: all_right(paas, names), "all serve again", seconds=15)
    assert {health(paas, name) for name in names} == {"healthy"}


def test_every_container_is_removed(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """What is gone is made anew, from the images that are kept."""
    paas = new_paas()
    paas.start()
    names = two_services(paas, tmp_path)
    engine.docker("rm", "-f", *engine.containers(paas.namespace))
    wait_until(lambda: all_right(paas, names), "all serve again", seconds=15)


def test_the_routes_are_lost(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """Traefik's directory is emptied, or a file of it is overwritten: it is as it was."""
    paas = new_paas()
    paas.start()
    names = two_services(paas, tmp_path)
    routes = paas.home / "routes"
    before = files_in(routes)
    for path in routes.iterdir():
        path.rmdir() if path.is_dir() else path.unlink()
    wait_until(lambda: files_in(routes) == before, "the files are back", seconds=15)
    wait_until(lambda: all_right(paas, names), "all serve again", seconds=15)
    file = routes / "_services.yml"
    for damage in (b"", file.read_bytes().replace(names[0].encode(), names[1].encode())):
        file.write_bytes(damage)
        wait_until(lambda: files_in(routes) == before, "it is written again", seconds=15)
        wait_until(lambda: all_right(paas, names), "all serve again", seconds=15)


def files_in(routes: Path) -> dict[str, list[bytes]]:
    """Their lines, since services stand in any order."""
    return {
        path.name: sorted(path.read_bytes().replace(b",\n", b"\n").splitlines())
        for path in routes.glob("*.yml")
    }


def test_a_removed_route_of_a_stranger_stays(paas: Paas, tmp_path: Path) -> None:
    """A file that an admin has put beside ours is nobody's to remove."""
    name = unique()
    paas.deploy(make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", "scale=1")), name)
    own = paas.home / "routes" / "zz-mine.yaml"
    own.write_text("http: {}\n")
    try:
        engine.docker("kill", f"{paas.namespace}.{name}.v1.1")
        wait_until(lambda: all_up(paas, name), "it serves again")
        assert own.exists()
    finally:
        own.unlink()


def all_up(paas: Paas, name: str) -> bool:
    return paas.get(f"http://{name}.test/").status == 200


def test_a_replica_that_stays_unhealthy(paas: Paas, tmp_path: Path) -> None:
    """It gets no requests, the service's state says so, and it comes back when it is well."""
    name = unique()
    directives = (f"url=http://{name}.test", "scale=2", "healthcheck=/ 1s 500ms")
    paas.deploy(make_app(tmp_path, web_dockerfile(*directives)), name)
    sick = f"{paas.namespace}.{name}.v1.2"
    engine.docker("exec", sick, "mv", "/www/index.html", "/www/away")
    wait_until(lambda: health(paas, name) == "degraded", "its state says so")
    statuses = {paas.get(f"http://{name}.test/").status for _ in range(10)}
    assert statuses == {200}
    engine.docker("exec", sick, "mv", "/www/away", "/www/index.html")
    wait_until(lambda: health(paas, name) == "healthy", "it is well again")


def test_a_replica_that_dies_is_not_noticed(paas: Paas, tmp_path: Path) -> None:
    """The other one takes its requests until Docker has started it again."""
    name = unique()
    paas.deploy(make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", "scale=2")), name)
    engine.docker("kill", f"{paas.namespace}.{name}.v1.1")
    statuses = [paas.get(f"http://{name}.test/").status for _ in range(50)]
    assert set(statuses) == {200}
    wait_until(lambda: health(paas, name) == "healthy", "both run")


def test_what_drains_is_not_repaired(paas: Paas, tmp_path: Path) -> None:
    """Old replicas that end what they serve are on their way already."""
    name = unique()
    app = make_app(tmp_path, None, slow_files(name, "one"))
    paas.deploy(app, name)
    old = f"{paas.namespace}.{name}.v1.1"
    with being_answered(paas.web, name, "/cgi-bin/slow"):
        commit(app, slow_files(name, "two"))
        paas.deploy(app, name)
        time.sleep(3)
        assert engine.inspect(old)["State"]["Running"]
    wait_until(lambda: old not in engine.containers(paas.namespace), "it is gone")
    assert f"event=repairing service={name}" not in paas.log()
