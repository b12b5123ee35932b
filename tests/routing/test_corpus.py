"""docs/routing.rst, walked: (host, path) for many services, asked of a real Traefik.

What is expected is worked out here from the words of that page, not from the rules.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest
from support.traefik import MARK, Answer, Router, run_traefik, together

from mypaas_git.directives.model import Redirect, ServiceSpec, Url
from mypaas_git.directives.values import redirect, url
from mypaas_git.names import ServiceName
from mypaas_git.routing import rules

Services = dict[str, tuple[list[str], list[str], bool]]
"""By name: urls, redirects, and whether prefixes are stripped."""

SERVICES: Services = {
    "shop": (
        ["https://shop.test", "http://shop.test/plain"],
        [
            "https://www.shop.test -> https://shop.test",
            "http://old.test/a -> https://shop.test",
        ],
        False,
    ),
    "api": (["https://shop.test/api", "http://api.test"], [], False),
    "v2": (
        ["https://shop.test/api/v2", "http://api.test/v2.0/x"],
        ["http://api.test/v2 -> http://api.test/v2.0/x"],
        True,
    ),
    "app": (["http://many.test/app", "https://many.test/app"], [], True),
    "root": (
        ["http://many.test"],
        [
            "http://many.test/moved/twice -> http://many.test",
            "http://x.test -> http://many.test",
        ],
        False,
    ),
    "deep": (["http://deep.test/a/b"], ["http://deep.test -> http://deep.test/a/b"], False),
    "lone": (["http://a.shop.test"], [], False),
}
HOSTS = [
    *("shop.test", "www.shop.test", "old.test", "api.test", "many.test", "x.test", "deep.test"),
    *("a.shop.test", "b.shop.test", "test", "nobody.test"),
]
PATHS = [
    *("/", "/api", "/api/v2", "/apix", "/app", "/plain", "/a", "/a/b", "/v2", "/v2.0/x"),
    *("/v2x0/x", "/moved/twice", "/moved", "/API", "/v20"),
]


def spellings(path: str) -> Iterator[str]:
    """A path, what lies at and below it, and other ways to write these."""
    base = path.rstrip("/")
    yield from (path, f"{base}/", f"{base}/x", f"{base}/x/y/", f"{base}x", f"{base}?q=/api")
    yield from (f"{base}/x?a=b&c=%2F", f"/{path}", f"{base}//x", f"{base}/./x")
    yield from (f"{base}/../x", f"/x/..{path}", f"{base}/%2e%2e/x", f"{base}%2Fx")
    yield from (f"{base}/a%2Fb", f"{base}/%20", f"{base}/%C3%A9")
    if len(path) > 1:
        yield f"/%{ord(path[1]):02x}{path[2:]}"
        yield f"/%{ord(path[1]):02x}{path[2:]}/x"


def others(host: str) -> list[str]:
    """Other ways to write a host, that mean the same."""
    return [host.upper(), f"{host}:80", f"{host.title()}:8443"]


def tidied(path: str) -> str:
    """A path without what is idle in it; escaped letters and dots are as if not escaped."""
    plain = re.sub(
        r"%([0-9A-Fa-f]{2})",
        lambda code: (
            unquote(code[0]) if re.match(r"[A-Za-z0-9._~-]", unquote(code[0])) else code[0]
        ),
        path,
    )
    found: list[str] = []
    for part in plain.split("/")[1:]:
        if part == "..":
            found = found[:-1]
        elif part not in {"", "."}:
            found.append(part)
    is_directory = plain.endswith(("/", "/.", "/..")) and found
    return "/" + "/".join(found) + ("/" if is_directory else "")


class Place(NamedTuple):
    """An address of a service, with where it redirects to, if it does."""

    url: Url
    service: str
    target: Url | None = None


def place(scheme: str, host: str, path: str) -> Place | None:
    """Of the addresses that a path is at or below, the longest."""
    places = [
        each
        for name, (urls, redirects, _) in SERVICES.items()
        for each in (
            *(Place(url(text), name) for text in urls),
            *(Place(it.source, name, it.target) for it in map(redirect, redirects)),
        )
        if (each.url.scheme, each.url.host) == (scheme, host)
        and f"{path}/".startswith(each.url.path.rstrip("/") + "/")
    ]
    return max(places, key=lambda each: len(each.url.path), default=None)


def expected(router: Router, scheme: str, host: str, asked: str) -> Answer:
    """What docs/routing.rst says of a request."""
    path, mark, query = asked.partition("?")
    path = tidied(path)
    found = place(scheme, host, path)
    secure = place("https", host, path) if scheme == "http" else None
    if secure and (found is None or len(secure.url.path) > len(found.url.path)):
        if secure.target is None:
            return moved(f"https://{host}:{router.secure}{path}{mark}{query}")
        found = secure
    if found is None:
        return Answer(404)
    top = found.url.path.rstrip("/")
    rest = path.removeprefix(top)
    if found.target is not None:
        to = found.target
        port = router.secure if to.scheme == "https" else router.web
        return moved(f"{to.scheme}://{to.host}:{port}{to.path.rstrip('/')}{rest}{mark}{query}")
    if SERVICES[found.service][2] and top:
        return Answer(200, found.service, f"{rest or '/'}{mark}{query}", top)
    return Answer(200, found.service, f"{path}{mark}{query}")


def moved(location: str) -> Answer:
    return Answer(301, location=location)


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    """A Traefik with all the services, each a route of its own as the server makes it."""
    with run_traefik(tmp_path_factory.mktemp("corpus")) as running:
        routes = (route_of(running, name) for name in SERVICES)
        running.load(together(rules.shared(entry_of(running)), *routes))
        yield running


def entry_of(router: Router) -> rules.Entry:
    return rules.Entry(router.web, router.secure)


def route_of(router: Router, name: str) -> dict[str, Any]:
    """The route of a service, that marks what it lets pass."""
    urls, redirects, strip = SERVICES[name]
    spec = ServiceSpec(
        ServiceName.parse(name),
        urls=tuple(map(url, urls)),
        redirects=tuple(map(redirect, redirects)),
        stripprefix=strip,
        port=router.backend,
    )
    config = rules.route(spec, ["127.0.0.1"], entry=entry_of(router))
    assert config is not None
    http: dict[str, Any] = config["http"]
    http["middlewares"]["mark." + name] = {"headers": {"customRequestHeaders": {MARK: name}}}
    for each in http["routers"].values():
        if each["service"] == name:
            each["middlewares"].append("mark." + name)
    return config


def test_every_request_reaches_its_service(router: Router) -> None:
    """T45: hosts, paths, redirects and prefixes, in every spelling, on http and https."""
    wrong, asked, seen = [], 0, set()
    for host, path, scheme in itertools.product(HOSTS, PATHS, ("http", "https")):
        for spelling in (each for each in spellings(path) if each.startswith("/")):
            answer = router.ask(scheme, host, spelling)
            wanted = expected(router, scheme, host, spelling)
            asked += 1
            seen.add((answer.status, answer.service))
            if answer != wanted:
                wrong.append(f"{scheme} {host} {spelling}: {answer}, not {wanted}")
    assert not wrong, f"{len(wrong)} of {asked}:\n" + "\n".join(wrong[:40])
    assert seen == {(200, name) for name in SERVICES} | {(301, ""), (404, "")}


def test_every_spelling_of_a_host(router: Router) -> None:
    """Upper case and ports make no other host; a redirect leads to the one that is meant."""
    for host, scheme, path in itertools.product(HOSTS, ("http", "https"), ("/", "/api/v2/x")):
        wanted = expected(router, scheme, host, path)
        for spelling in others(host):
            answer = router.ask(scheme, spelling, path)
            assert (answer.status, answer.service) == (wanted.status, wanted.service)
            assert answer.location.lower() == wanted.location, (scheme, spelling, path)


def test_a_request_that_names_its_host_twice(router: Router) -> None:
    """Of a url in the request's first line its host counts, as HTTP has it."""
    answer = router.ask("http", "nobody.test", "http://x.test/evil.test?q")
    assert answer == moved(f"http://many.test:{router.web}/evil.test?q")
    assert router.ask("http", "many.test", "http://nobody.test/app").status == 404


@pytest.mark.parametrize(
    "rest", ["//evil.test/x", "/\\evil.test", "/@evil.test", "/.evil.test"]
)
def test_a_redirect_leads_to_no_stranger(router: Router, rest: str) -> None:
    """Whatever follows in the url, the host is that of the target."""
    for host in ("x.test", "old.test"):
        path = rest if host == "x.test" else f"/a{rest}"
        answer = router.ask("http", host, path)
        assert answer.status == 301
        assert re.match(r"https?://(many|shop)\.test:[0-9]+/", answer.location)


def test_redirects_of_the_model() -> None:
    """The directive's text and the value are one."""
    each = redirect("https://www.A.test/x/ -> http://b.test")
    assert each == Redirect(url("https://www.a.test/x"), url("http://b.test"))
    assert str(each) == "https://www.a.test/x -> http://b.test"
