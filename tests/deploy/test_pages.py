"""What visitors see when no service answers them, with real services and a real Traefik."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support import engine
from support.apps import BASE, commit, make_app, unique, web_dockerfile
from support.invariants import ledger_of
from support.net import Answer, wait_until
from support.paas import Paas

from mypaas_git.names import ServiceName

MAINTENANCE = "<title>Under maintenance</title>"
DOWN = "<title>Back in a moment</title>"
STOPPED = "<title>Switched off</title>"
NOTHING = "<title>Nothing is here</title>"


def is_page(answer: Answer, title: str) -> bool:
    """Whether it is this page, whole, with the status and the headers that belong to it."""
    if title not in answer.text:
        return False
    status, after = {NOTHING: (404, None), DOWN: (503, "10")}.get(title, (503, "300"))
    assert answer.status == status
    assert answer.headers.get("retry-after") == after
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert int(answer.headers["content-length"]) == len(answer.text.encode()) < 2000
    assert "<script" not in answer.text
    assert "http" not in answer.text, "something from elsewhere"
    return True


def is_shown(paas: Paas, url: str, title: str) -> bool:
    """Whether visitors get this page by now; whoever came before may wait for nothing."""
    try:
        return is_page(paas.get(url), title)
    except OSError:
        return False


def is_back(paas: Paas, url: str) -> bool:
    """Whether the service answers again."""
    try:
        return paas.get(url).text.strip() == "here"
    except OSError:
        return False


def deploy(
    paas: Paas, tmp_path: Path, *directives: str, page: str = "here"
) -> tuple[str, Path]:
    """A service that answers ``page``, and its repository."""
    name = unique()
    dockerfile = web_dockerfile(f"url=http://{name}.test", *directives, page=page)
    app = make_app(tmp_path, dockerfile, name=name)
    paas.deploy(app, name)
    return name, app


def crash(paas: Paas, name: str) -> None:
    """Kill what runs in a container, so that the engine takes it for a crash."""
    os.kill(engine.inspect(f"{paas.namespace}.{name}")["State"]["Pid"], signal.SIGKILL)


def test_an_unknown_address(paas: Paas, tmp_path: Path) -> None:
    """404 in plain words, on http and https, that says nothing of what is here."""
    name, _ = deploy(paas, tmp_path)
    for url in ("http://nobody.test/", "https://nobody.test/a?b=c", "http://127.0.0.1/x"):
        assert is_page(paas.get(url), NOTHING)
    evil = paas.get("http://nobody.test/%3Cscript%3Ealert(1)", host="<script>.test")
    assert evil.status in (400, 404)
    assert "alert" not in evil.text
    assert name not in paas.get("http://nobody.test/").text


def test_other_methods(paas: Paas) -> None:
    """Whatever is asked, the answer is the page; HEAD gets its headers alone."""
    for method in ("HEAD", "POST", "DELETE", "OPTIONS"):
        connection = http.client.HTTPConnection("127.0.0.1", paas.web, timeout=10)
        connection.request(method, "/", body="x" * 100, headers={"Host": "nobody.test"})
        reply = connection.getresponse()
        body = reply.read().decode()
        connection.close()
        assert reply.status == 404
        assert (NOTHING in body) is (method != "HEAD")


def test_stopped_and_started(paas: Paas, tmp_path: Path) -> None:
    """Who comes meanwhile is told that it was switched off."""
    name, _ = deploy(paas, tmp_path)
    assert paas.ssh("stop", name).returncode == 0
    assert is_page(paas.get(f"http://{name}.test/"), STOPPED)
    assert paas.ssh("start", name).returncode == 0
    assert paas.get(f"http://{name}.test/").text == "here"


def test_maintenance_outlives_everything(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """Deploys, a restart of the server, the loss of Traefik and of its routes."""
    paas = new_paas()
    paas.start()
    name, app = deploy(paas, tmp_path, "scale=1")
    url = f"http://{name}.test/"

    def closed() -> bool:
        return is_page(paas.get(url), MAINTENANCE)

    done = paas.ssh("maintenance", "on", name)
    assert done.returncode == 0, done.stderr
    assert closed()
    assert "healthy; in maintenance" in paas.ssh("services").stdout
    told = json.loads(paas.ssh("status", name, "--json").stdout)
    assert (told["health"], told["maintenance"]["who"]) == ("healthy", "admin")
    assert f"mypaas maintenance off {name}" in paas.cli("server", "doctor").stdout

    commit(app, {"Dockerfile": web_dockerfile(f"url=http://{name}.test", page="new")})
    assert f"{name} stays in maintenance, as admin wants it" in paas.deploy(app, name)
    assert closed()
    assert paas.ssh("restart", name).returncode == 0
    assert closed()

    paas.stop()
    engine.docker("rm", "-f", f"{paas.namespace}-traefik")
    for path in (paas.home / "routes").glob("*.yml"):
        path.unlink()
    paas.start()
    assert closed()

    assert paas.cli("maintenance", "off", name).returncode == 0
    assert paas.get(url).text == "new"
    assert json.loads(paas.ssh("status", name, "--json").stdout)["maintenance"] is None


def test_maintenance_ends_with_the_service(paas: Paas, tmp_path: Path) -> None:
    """A removed service that is pushed again is open."""
    name, app = deploy(paas, tmp_path)
    assert paas.ssh("maintenance", "on", name).returncode == 0
    assert paas.ssh("remove", name, "--yes").returncode == 0
    assert is_page(paas.get(f"http://{name}.test/"), NOTHING)
    commit(app, {"more": "x"})
    paas.deploy(app, name)
    assert paas.get(f"http://{name}.test/").text == "here"


def test_maintenance_does_not_wait_for_a_deploy(paas: Paas, tmp_path: Path) -> None:
    """It counts at once, and the deploy that goes on finds the service closed."""
    name, app = deploy(paas, tmp_path, "scale=1", page="one")
    slow = web_dockerfile(f"url=http://{name}.test", "scale=1", page="two", run="sleep 3")
    commit(app, {"Dockerfile": slow})
    pushing = threading.Thread(target=paas.deploy, args=(app, name))
    pushing.start()
    try:
        wait_until(lambda: ledger_of(paas).underway(ServiceName(name)), "it builds")
        assert paas.ssh("maintenance", "on", name).returncode == 0
        assert is_page(paas.get(f"http://{name}.test/"), MAINTENANCE)
    finally:
        pushing.join()
    assert is_page(paas.get(f"http://{name}.test/"), MAINTENANCE)
    assert paas.ssh("maintenance", "off", name).returncode == 0
    assert paas.get(f"http://{name}.test/").text == "two"


def test_a_service_that_crashes_again_and_again(paas: Paas, tmp_path: Path) -> None:
    """Visitors get the page until it can be reached, and then the service, unaided."""
    name = unique()
    app = make_app(
        tmp_path,
        f"FROM {BASE}\n# mypaas.url=http://{name}.test\n"
        "RUN mkdir /www && echo here > /www/index.html && touch /good\n"
        'CMD ["sh", "-c", "test -e /good || exit 1; exec httpd -f -p 80 -h /www"]\n',
    )
    paas.deploy(app, name)
    url = f"http://{name}.test/"
    engine.docker("exec", f"{paas.namespace}.{name}.v1.1", "rm", "/good")
    crash(paas, f"{name}.v1.1")
    wait_until(lambda: is_shown(paas, url, DOWN), "visitors get the page", seconds=60)
    assert all(is_page(paas.get(url), DOWN) for _ in range(20)), "and nothing else"

    good = tmp_path / "good"
    good.touch()
    engine.docker("cp", str(good), f"{paas.namespace}.{name}.v1.1:/good")
    wait_until(lambda: is_back(paas, url), "it is back", seconds=90)


def test_one_crash_is_over_soon(paas: Paas, tmp_path: Path) -> None:
    """The engine starts it again, and visitors need not be told for longer than that."""
    name, _ = deploy(paas, tmp_path)
    crash(paas, f"{name}.v1.1")
    wait_until(lambda: is_back(paas, f"http://{name}.test/"), "it is back", seconds=60)


def test_all_replicas_are_unwell(paas: Paas, tmp_path: Path) -> None:
    """When Traefik's check finds none, visitors get the page."""
    name, _ = deploy(paas, tmp_path, "scale=2", "healthcheck=/index.html 1s 500ms")
    for number in (1, 2):
        replica = f"{paas.namespace}.{name}.v1.{number}"
        engine.docker("exec", replica, "mv", "/www/index.html", "/www/away")
    wait_until(lambda: is_page(paas.get(f"http://{name}.test/"), DOWN), "visitors are told")
    engine.docker("exec", replica, "mv", "/www/away", "/www/index.html")
    wait_until(lambda: is_back(paas, f"http://{name}.test/"), "it is back", seconds=60)


def test_what_the_app_answers_is_its_own(paas: Paas, tmp_path: Path) -> None:
    """A status of 5xx that an app gives reaches the visitor, with its words."""
    for scale in ("0", "1"):
        name = unique()
        dockerfile = (
            f"FROM {BASE}\n# mypaas.url=http://{name}.test\n# mypaas.scale={scale}\n"
            "COPY fails /www/cgi-bin/\nRUN chmod +x /www/cgi-bin/fails; touch /www/index.html\n"
            'CMD ["httpd", "-f", "-p", "80", "-h", "/www"]\n'
        )
        said = "Status: $QUERY_STRING\\r\\nRetry-After: 7\\r\\n\\r\\nmy own words"
        script = f'#!/bin/sh\nprintf "{said}"\n'
        app = make_app(tmp_path, dockerfile, {"fails": script}, name=name)
        paas.deploy(app, name)
        for status in (404, 500, 502, 503, 504):
            answer = paas.get(f"http://{name}.test/cgi-bin/fails?{status}")
            assert (answer.status, answer.text) == (status, "my own words")
            assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize("scale", ["0", "2 safe"])
def test_the_gap_of_a_deploy(paas: Paas, tmp_path: Path, scale: str) -> None:
    """Where nobody can answer for a while, visitors are told so."""
    name = unique()
    url = f"http://{name}.test/"

    def dockerfile(page: str) -> str:
        return (
            f"FROM {BASE}\n# mypaas.url={url}\n# mypaas.scale={scale}\n"
            f"RUN mkdir /www && echo {page} > /www/index.html\n"
            "COPY slow /www/cgi-bin/\nRUN chmod +x /www/cgi-bin/slow\n"
            "CMD sleep 1; exec httpd -f -p 80 -h /www\n"
        )

    slow = "#!/bin/sh\necho; echo; sleep 2\n"
    app = make_app(tmp_path, dockerfile("one"), {"slow": slow})
    paas.deploy(app, name)
    commit(app, {"Dockerfile": dockerfile("two")})
    seen: list[Answer] = []
    over = threading.Event()

    def visit() -> None:
        while not over.wait(0.02):
            try:
                seen.append(paas.get(url))
            except OSError:
                seen.append(Answer(0, {}, ""))

    visitor = threading.Thread(target=visit)
    waiting = threading.Thread(target=paas.get, args=(f"{url}cgi-bin/slow",))
    visitor.start()
    if scale != "0":
        waiting.start()  # a safe switch takes as long as this request
    try:
        paas.deploy(app, name)
    finally:
        over.set()
        visitor.join()
    pages = [each for each in seen if each.status != 200]
    told = [each for each in pages if is_page(each, DOWN)]
    assert told
    if scale != "0":
        waiting.join()
    # With scale=0 whoever is being served when the container stops is cut off.
    assert len(pages) - len(told) <= (1 if scale == "0" else 0), pages
    assert seen[-1].text == "two\n"
