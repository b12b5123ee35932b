"""Redirects, basic authentication, stripped prefixes and sticky sessions: what visitors see."""

from __future__ import annotations

import base64
import hashlib
import http.client
import itertools
import json
import re
import threading
from pathlib import Path

from support import engine
from support.apps import BASE, commit, make_app, unique, web_dockerfile
from support.net import Answer, wait_until
from support.paas import Paas

APACHE = "$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/"
"""What htpasswd makes of ``myPassword``: the example of Apache's documentation."""


def echo_dockerfile(*directives: str) -> str:
    """An app that answers every path below ``/cgi-bin/`` with what it was asked."""
    return (
        f"FROM {BASE}\n"
        + "".join(f"# mypaas.{each}\n" for each in directives)
        + "COPY echo /www/cgi-bin/\nRUN chmod +x /www/cgi-bin/echo; touch /www/index.html\n"
        'CMD ["httpd", "-f", "-p", "80", "-h", "/www"]\n'
    )


ECHO = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "$REQUEST_URI|$HTTP_X_FORWARDED_PREFIX|$HTTP_AUTHORIZATION|$HTTP_X_FORWARDED_USER|$USERS"
"""


def asked(paas: Paas, url: str, user: str = "") -> Answer:
    headers = {"X-Forwarded-User": "forged"}
    if user:
        token = base64.b64encode(user.encode()).decode()
        headers["Authorization"] = f"Basic {token}"
    return paas.get(url, headers=headers)


def test_redirects(paas: Paas, tmp_path: Path) -> None:
    """In one step from http and https, with path and query, and whatever the method."""
    name = unique()
    app = make_app(
        tmp_path,
        web_dockerfile(
            f"url=https://{name}.test",
            f"redirect=https://www.{name}.test -> https://{name}.test",
            page="here",
        ),
    )
    told = paas.deploy(app, name)
    assert f"https://www.{name}.test -> https://{name}.test" in told
    target = f"https://{name}.test:{paas.web_secure}"
    for scheme in ("http", "https"):
        answer = paas.get(f"{scheme}://www.{name}.test/a/b?c=d%20e")
        assert (answer.status, answer.headers["location"]) == (301, f"{target}/a/b?c=d%20e")
    connection = http.client.HTTPConnection("127.0.0.1", paas.web, timeout=10)
    connection.request("POST", "/x", body="y", headers={"Host": f"www.{name}.test"})
    assert connection.getresponse().status == 308
    connection.close()
    assert json.loads(paas.ssh("status", name, "--json").stdout)["redirects"]


def test_a_redirect_is_refused_beside_its_owner(paas: Paas, tmp_path: Path) -> None:
    """Where one comes from, nobody else has a url; the line and the owner are told."""
    name, other = unique(), unique()
    from_old = f"redirect=http://old-{name}.test -> http://{name}.test"
    paas.deploy(make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", from_old)), name)
    for number, directive in enumerate(
        (
            f"url=http://old-{name}.test",
            f"redirect=https://old-{name}.test -> http://{other}.test",
            f"redirect=https://{paas.domain} -> http://{other}.test",
        )
    ):
        text = web_dockerfile(f"url=http://{other}.test", directive)
        app = make_app(tmp_path, text, name=f"other{number}")
        done = paas.push(app, other, "main", "-o", "plan")
        refused = paas.push(app, other)
        why = "the server's own name" if number == 2 else f"belongs to the service '{name}'"
        for each in (done.stderr, refused.stderr):
            assert "Dockerfile line 3: mypaas." in each
            assert why in each


def test_a_stripped_prefix(paas: Paas, tmp_path: Path) -> None:
    """The app sees what is behind its url's path, and what that was."""
    name = unique()
    dockerfile = echo_dockerfile(f"url=http://{name}.test/app", "stripprefix=true", "scale=1")
    paas.deploy(make_app(tmp_path, dockerfile, {"echo": ECHO}), name)
    assert paas.get(f"http://{name}.test/app").status == 200
    answer = paas.get(f"http://{name}.test/app/cgi-bin/echo?a=b")
    assert answer.text.startswith("/cgi-bin/echo?a=b|/app|")


def test_basic_authentication(paas: Paas, tmp_path: Path) -> None:
    """Only who is named by the secret gets in; nobody else sees it, not even the app."""
    name = unique()
    dockerfile = echo_dockerfile(f"url=http://{name}.test", "auth=USERS", "scale=1")
    app = make_app(tmp_path, dockerfile, {"echo": ECHO})
    refused = paas.push(app, name)
    assert "Dockerfile line 3: mypaas.auth: USERS has no value" in refused.stderr
    sha = base64.b64encode(hashlib.sha1(b"old", usedforsecurity=False).digest()).decode()
    value = f'USERS="alice:open sesame\nmy:{APACHE}\nolaf:{{SHA}}{sha}"\n'
    assert paas.ssh("config", "set", name, "-", stdin=value).returncode == 0
    planned = paas.push(app, name, "main", "-o", "plan")
    assert re.search(r"auth +USERS", planned.stderr)
    paas.deploy(app, name)
    url = f"http://{name}.test/cgi-bin/echo"
    for user in ("", "alice:wrong", "alice:open sesame2", f"my:{APACHE}", "forged:"):
        answer = asked(paas, url, user)
        assert answer.status == 401
        assert name not in answer.headers["www-authenticate"]
    assert asked(paas, url, "alice:open sesame").text == "/cgi-bin/echo|||alice|\n"
    assert asked(paas, url, "olaf:old").status == 200
    assert asked(paas, url, "my:myPassword").text == "/cgi-bin/echo|||my|\n"

    one_off = paas.ssh("run", name, "--", "env")
    assert f"MYPAAS_SERVICE={name}" in one_off.stdout
    route = paas.home / "routes" / "_services.yml"
    assert route.stat().st_mode & 0o077 == 0
    seen = [
        route.read_text(),
        paas.log(),
        json.dumps(engine.inspect(f"{paas.namespace}.{name}.v1.1")),
        one_off.stdout,
        planned.stderr,
    ]
    assert not any("sesame" in each for each in seen)

    changed = paas.ssh("config", "set", name, "USERS=alice:other")
    assert changed.returncode == 0, changed.stderr
    assert asked(paas, url, "alice:open sesame").status == 401
    assert asked(paas, url, "alice:other").status == 200
    bad = paas.ssh("config", "set", name, "USERS=alice")
    assert "USERS: line 1 of its value is not user:password" in bad.stderr
    assert asked(paas, url, "alice:other").status == 200
    assert paas.ssh("rollback", name).returncode == 0
    assert asked(paas, url, "alice:open sesame").status == 200
    assert asked(paas, url, "alice:other").status == 401


class Sticky:
    """A visitor who keeps the cookie, from entering to leaving."""

    def __init__(self, paas: Paas, url: str) -> None:
        self._paas = paas
        self._url = url
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.cookie = ""
        self.answers: list[str] = []
        self.failed: list[str] = []

    def ask(self) -> str:
        headers = {"Cookie": self.cookie} if self.cookie else {}
        answer = self._paas.get(self._url, headers=headers)
        given = answer.headers.get("set-cookie", "")
        if given:
            self.cookie = given.partition(";")[0]
            if not {"httponly", "samesite=lax"} <= set(given.lower().split("; ")):
                self.failed.append(given)
        if answer.status != 200:
            self.failed.append(f"{answer.status} {answer.text}")
        return answer.text

    def _run(self) -> None:
        while not self._leaving.wait(0.01):
            try:
                self.answers.append(self.ask())
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))

    def __enter__(self) -> Sticky:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._thread.join()


def test_sticky_visitors(paas: Paas, tmp_path: Path) -> None:
    """Each stays with one container; a rolling deploy fails none of their requests."""
    name = unique()
    text = (
        f"FROM {BASE}\n# mypaas.url=http://{name}.test\n# mypaas.scale=3\n"
        "# mypaas.sticky=true\nENV VERSION=%s\n"
        "CMD mkdir -p /www && echo $VERSION $MYPAAS_CONTAINER > /www/index.html && "
        "exec httpd -f -p 80 -h /www\n"
    )
    app = make_app(tmp_path, text % "one")
    paas.deploy(app, name)
    url = f"http://{name}.test/"
    fresh = {Sticky(paas, url).ask() for _ in range(30)}
    assert len(fresh) == 3
    with Sticky(paas, url) as one, Sticky(paas, url) as two:
        wait_until(lambda: one.answers and two.answers, "both are there")
        commit(app, {"Dockerfile": text % "two"})
        paas.deploy(app, name)
        assert paas.ssh("restart", name).returncode == 0
        before = len(one.answers), len(two.answers)
        wait_until(
            lambda: len(one.answers) > before[0] + 20 and len(two.answers) > before[1] + 20,
            "both go on",
        )
    for each in (one, two):
        assert each.failed == []
        moves = sum(a != b for a, b in itertools.pairwise(each.answers))
        # Once for each new release; with chance alone it would be most of the time.
        assert 2 <= moves <= 4, each.answers
