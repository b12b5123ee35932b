"""Whatever url the grammar takes leads to its own host and path only, by Traefik's word.

Nothing here reads a rule: hundreds of urls are routed at once, and a real Traefik is asked.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.traefik import MARK, Router, run_traefik, together

from mypaas_git.directives.model import ServiceSpec, Url, wildcard_over
from mypaas_git.directives.values import BadValue, url
from mypaas_git.names import ServiceName
from mypaas_git.routing import rules

# Pieces that mean something to a rule, to a regular expression or to a request.
ODD = [*"`'\"\\|&!(){}[]*?#%^$;, \t<>", "`)||Host(`b.test", ".*", "{a:.*}", "%2f", ".."]
LABELS = st.sampled_from(["a", "b", "c", "x-y", "xn--bcher-kva", "0", "A"])
HOSTS = st.builds(
    lambda star, parts: ".".join([*star, *parts, "test"]),
    st.sampled_from([[], [], ["*"]]),
    st.lists(LABELS, max_size=2),
)
SEGMENTS = st.sampled_from(["a", "b", "ab", "A", "a.b", ".a", "~", "@", "a:b", "a=b", "+", ","])
PATHS = st.lists(SEGMENTS, max_size=3).map(lambda parts: "/".join(["", *parts]))
PLAIN = st.builds(
    lambda scheme, host, path, end: f"{scheme}://{host}{path}{end}",
    st.sampled_from(["http", "https", "HTTP"]),
    HOSTS,
    PATHS,
    st.sampled_from(["", "/"]),
)
SPOILT = st.builds(
    lambda text, at, piece: (
        f"{text[: at % (len(text) + 1)]}{piece}{text[at % (len(text) + 1) :]}"
    ),
    PLAIN,
    st.integers(0, 200),
    st.sampled_from(ODD),
)
# Each example is hundreds of requests: one that fails is shown as it is.
BOUNDED: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "phases": [Phase.generate],
    "suppress_health_check": [HealthCheck.too_slow],
}


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    """One Traefik for all examples."""
    with run_traefik(tmp_path_factory.mktemp("traefik")) as running:
        yield running


def taken(texts: list[str]) -> dict[str, Url]:
    """The urls that the grammar takes, each for a service of its own."""
    found: dict[tuple[str, str], Url] = {}
    for text in texts:
        try:
            each = url(text)
        except BadValue:
            continue
        found.setdefault((each.host, each.path), each)
    return {f"s{number}": each for number, each in enumerate(found.values())}


def load(router: Router, owned: dict[str, Url]) -> None:
    """Have Traefik serve the routes of all, marked with the name of the service."""
    routes = []
    for name, each in owned.items():
        spec = ServiceSpec(ServiceName.parse(name), urls=(each,), port=router.backend)
        config = rules.route(spec, ["127.0.0.1"])
        assert config is not None
        http = config["http"]
        http["middlewares"][f"{name}.mark"] = {
            "headers": {"customRequestHeaders": {MARK: name}}
        }
        http["routers"][f"{name}.1"]["middlewares"].append(f"{name}.mark")
        routes.append(config)
    router.load(together(rules.shared(rules.USUAL), *routes))


def owner(owned: dict[str, Url], host: str, path: str) -> str:
    """Who has a plain path of a host, as docs/directives.rst says it.

    A host wins over a wildcard, which stands for a label that is one, then the longest path.
    """
    wildcard = "" if host.startswith(".") else wildcard_over(host)
    found = [
        (each.host == host, len(each.path), name)
        for name, each in owned.items()
        if each.host in (host, wildcard) and is_at_or_below(path, each.path)
    ]
    return max(found)[2] if found else ""


def is_at_or_below(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")


def neighbours(each: Url) -> list[tuple[str, str]]:
    """Requests to a url, and to what an imprecise rule would take for it."""
    host, path = each.sample, each.path
    base = path.rstrip("/")
    hosts = [f"x.{host}", f"{host}.x", f"x{host}", host.replace(".", "x"), host[1:] or "x"]
    paths = [path, f"{base}/", f"{base}/x/y", f"{base}x", f"{base}.x", f"{base}/../x", "/"]
    paths += [path.upper(), path.replace(".", "x"), f"/x{path}", posixpath.dirname(path)]
    paths = [each for each in paths if each.startswith("/")]
    return [*((host, each) for each in paths), *((each, path) for each in hosts)]


def tricks(path: str) -> list[str]:
    """Spellings of a path that a proxy and an app may read in different ways."""
    base = path.rstrip("/")
    return [
        f"{base}/../../x",
        f"{base}/%2e%2e/x",
        f"{base}/..%2fx",
        f"{base}%2f..%2fx",
        f"{base}%2fx",
        f"{base};/../x",
        f"/{path}",
        f"/./{path}",
        f"/x/..{path}",
        f"/x/%2e%2e{path}",
        "".join(f"%{ord(each):02x}" if each != "/" else each for each in path),
        f"{path}?/../x",
        f"{base}\\..\\x",
        f"{base}%00x",
    ]


@given(st.lists(st.one_of(PLAIN, SPOILT), min_size=20, max_size=40))
@settings(max_examples=8, **BOUNDED)
def test_urls_lead_to_their_own_host_and_path_only(router: Router, texts: list[str]) -> None:
    """T45 to T48: whatever was taken is a good rule, and gets what is its own, no more."""
    owned = taken(texts)
    if not owned:
        return
    load(router, owned)
    asked = {pair for each in owned.values() for pair in neighbours(each)}
    for host, path in sorted(asked):
        plain = posixpath.normpath(path) + ("/" if path.endswith("/") and path != "/" else "")
        expected = owner(owned, host, plain)
        scheme = owned[expected].scheme if expected else "http"
        answer = router.ask(scheme, host, path)
        assert answer.service == expected, (scheme, host, path, answer, owned)
        if not expected:
            assert answer.status == 404, (host, path, answer)


def resolved(path: str) -> str:
    """A path as an app should read it: an encoded slash separates nothing (RFC 3986)."""
    found: list[str] = []
    for part in path.partition("?")[0].split("/"):
        plain = unquote(part)
        if plain == "..":
            found = found[:-1]
        elif plain not in {"", "."}:
            found.append(plain)
    return "/" + "/".join(found)


@given(st.lists(PLAIN, min_size=6, max_size=9))
@settings(max_examples=4, **BOUNDED)
def test_no_spelling_gets_elsewhere(router: Router, texts: list[str]) -> None:
    """T45: what a service is handed, its dots resolved, is at or below its url."""
    owned = taken(texts)
    load(router, owned)
    for each in owned.values():
        for path in tricks(each.path):
            name = each.sample
            for host in (name, name.upper(), f"{name}:80", f"{name}."):
                answer = router.ask(each.scheme, host, path)
                if answer.status != 200:
                    assert answer.status in (301, 308, 400, 404), answer
                    continue
                reached = owned[answer.service]
                assert reached.host == each.host
                assert is_at_or_below(resolved(answer.path), reached.path), (host, path, answer)
