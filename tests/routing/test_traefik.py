"""Routes in effect, by the word of a real Traefik."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support import engine
from support.apps import BASE, make_app, unique, web_dockerfile
from support.net import wait_until
from support.paas import Paas
from support.traefik import run_traefik, together

from mypaas_git.directives.model import ServiceSpec, Url
from mypaas_git.errors import RouterDown, RouteRefused
from mypaas_git.names import ServiceName
from mypaas_git.routing import rules, traefik
from mypaas_git.routing.rules import Entry
from mypaas_git.routing.traefik import Traefik

NAME = ServiceName.parse("routed")
SPEC = ServiceSpec(NAME, urls=(Url("http", "routed.test"), Url("https", "routed.test", "/x")))


@pytest.fixture
def connected(paas: Paas) -> tuple[str, int]:
    """Where the API of the shared server's Traefik listens."""
    (api,) = engine.inspect(f"{paas.namespace}-traefik")["NetworkSettings"]["Ports"]["8080/tcp"]
    return api["HostIp"], int(api["HostPort"])


def router(
    paas: Paas,
    connected: tuple[str, int],
    directory: Path,
    log: Callable[[float], list[str]] = lambda _: [],
) -> Traefik:
    password = (paas.home / "traefik.password").read_text()
    return Traefik(directory, api=lambda: connected, password=password, log=log)


def test_set_returns_once_it_serves(paas: Paas, connected: tuple[str, int]) -> None:
    """Right after set() the new route answers, right after drop() none does."""
    routes = router(paas, connected, paas.home / "routes")
    assert paas.get("http://routed.test/").status == 404
    routes.set(SPEC, ["nowhere.v1.1"])
    try:
        assert paas.get("http://routed.test/").status == 502
        # The same servers behind other urls are confirmed by their routers.
        routes.set(ServiceSpec(NAME, urls=(Url("http", "moved.test"),)), ["nowhere.v2.1"])
        assert paas.get("http://moved.test/").status == 502
        assert paas.get("http://routed.test/").status == 404
    finally:
        routes.set(ServiceSpec(NAME), [])
    assert paas.get("http://moved.test/").status == 404
    assert paas.route("routed") is None


def test_whatever_config_has_done_is_taken(tmp_path: Path) -> None:
    """One thing that it refuses would keep Traefik from all others, too."""
    with run_traefik(tmp_path) as running:
        for compress, limit, proxies in itertools.product((True, False), (0, 9), (True, False)):
            entry = Entry(compress=compress, max_requests=limit, behind_proxies=proxies)
            spec = ServiceSpec(NAME, urls=SPEC.urls, port=running.backend, scale=1)
            route = rules.route(spec, ["127.0.0.1"], entry=entry)
            running.load(together(rules.shared(entry), route))
            wait_until(
                lambda: running.ask("http", "routed.test", "/").status == 200, "it serves"
            )


def test_a_route_that_is_not_taken_is_taken_back(
    paas: Paas, connected: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Traefik that does not see the file is noticed, and the old file stands again."""
    monkeypatch.setattr(traefik, "CONFIRM_TIMEOUT", 0.3)
    unseen = router(paas, connected, tmp_path)
    before = ServiceSpec(NAME, urls=(Url("http", "before.test"),))
    unseen.write(before, ["nowhere.v1.1"])
    with pytest.raises(RouteRefused, match="did not take the new route of routed"):
        unseen.set(SPEC, ["nowhere.v1.1"])
    assert not unseen.differs(before, ["nowhere.v1.1"])


def test_a_wrong_password_and_a_dead_port(connected: tuple[str, int], tmp_path: Path) -> None:
    """Both are RouterDown with what was answered."""
    wrong = "not the password"
    with pytest.raises(RouterDown, match="answered 401"):
        Traefik(tmp_path, api=lambda: connected, password=wrong).check()
    with pytest.raises(RouterDown, match="does not answer"):
        Traefik(tmp_path, api=lambda: ("127.0.0.1", 9), password=wrong).check()


def test_what_traefik_says_of_the_files_is_told(
    new_paas: Callable[[], Paas], tmp_path: Path
) -> None:
    """A file that somebody has put there keeps Traefik from taking any; the pusher hears it."""
    paas, name = new_paas(), unique()
    paas.start()
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test"))
    foreign = paas.home / "routes" / "foreign.yml"
    foreign.write_text('{"http":\n')
    done = paas.push(app, name)
    assert done.returncode == 1
    assert re.search(r"route-refused: .* it says: .*/foreign\.yml: yaml: ", done.stderr)
    foreign.unlink()
    paas.deploy(app, name)


def test_what_it_says_is_one_line(
    connected: tuple[str, int], paas: Paas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the parser of YAML finds are lines of their own; each would look like a warning."""
    monkeypatch.setattr(traefik, "CONFIRM_TIMEOUT", 0.1)
    said = {"level": "error", "providerName": "file", "error": "yaml: errors:\n  line 1\r\n"}
    unseen = router(paas, connected, tmp_path, log=lambda _: [json.dumps(said)])
    with pytest.raises(RouteRefused, match=r"it says: yaml: errors: line 1$"):
        unseen.set(SPEC, ["nowhere.v1.1"])


def test_a_traefik_that_ends(new_paas: Callable[[], Paas]) -> None:
    """What it said last tells why, such as an argument that an older one does not know.

    The first one, that is: for what becomes of a later one see runtime/test_replacement.py.
    """
    paas, image = new_paas(), f"mypaas-test/{unique('proxy')}"
    engine.docker("rm", "-f", f"{paas.namespace}-traefik")
    ends = f'FROM {BASE}\nENTRYPOINT ["sh", "-c", "echo no such flag; exit 1"]\n'
    engine.docker("build", "--tag", image, "-", stdin=ends.encode())
    try:
        paas.configure("traefik_image", f'"{image}"')
        done = paas.cli("server", "start")
    finally:
        engine.docker("rmi", "--force", image)
    assert done.returncode == 1
    assert "its log ends: no such flag (3.7.12 or newer" in done.stderr
