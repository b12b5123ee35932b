"""From urls to Traefik's configuration."""

from __future__ import annotations

from dataclasses import replace

from mypaas_git.directives.model import Healthcheck, ServiceSpec, Url
from mypaas_git.names import ServiceName
from mypaas_git.routing import rules
from mypaas_git.routing.pages import Page
from mypaas_git.routing.rules import Entry, Secured

HELLO = ServiceName.parse("hello")


def spec(*urls: Url, scale: int = 0, healthcheck: Healthcheck | None = None) -> ServiceSpec:
    return ServiceSpec(HELLO, urls=urls, port=8000, scale=scale, healthcheck=healthcheck)


def test_a_service_without_urls_has_no_route() -> None:
    """None means that there is nothing to write."""
    assert rules.route(spec(), ["hello.v1.1"]) is None


def test_an_http_url_is_one_router() -> None:
    """The whole configuration, as Traefik reads it."""
    assert rules.route(spec(Url("http", "a.example")), ["hello.v1.1", "hello.v1.2"]) == {
        "http": {
            "routers": {
                "hello.1": {
                    "rule": "Host(`a.example`)",
                    "priority": 2001,
                    "service": "hello",
                    "entryPoints": ["web"],
                    "middlewares": ["_forged", "_retry"],
                }
            },
            "services": {
                "hello": {
                    "loadBalancer": {
                        "servers": [
                            {"url": "http://hello.v1.1:8000"},
                            {"url": "http://hello.v1.2:8000"},
                        ],
                        "serversTransport": "_transport",
                    }
                }
            },
            "middlewares": {},
        }
    }


def test_what_all_routes_share() -> None:
    """A proxy in front may say who a visitor is; nobody else may."""
    http = rules.shared(Entry(max_requests=9))["http"]
    assert http["serversTransports"]["_transport"]["forwardingTimeouts"] == {
        "dialTimeout": "3s",
        "idleConnTimeout": "500ms",
    }
    assert http["middlewares"]["_retry"]["retry"]["attempts"] == 3
    assert http["middlewares"]["_limit"]["inFlightReq"]["amount"] == 9
    dropped = {"Forwarded": "", "X-Forwarded-User": ""}
    assert http["middlewares"]["_forged"]["headers"]["customRequestHeaders"] == dropped
    http = rules.shared(Entry(behind_proxies=True))["http"]
    del dropped["X-Forwarded-User"]
    assert http["middlewares"]["_forged"]["headers"]["customRequestHeaders"] == dropped
    assert "_limit" not in http["middlewares"]


def test_an_https_url_redirects_from_http() -> None:
    """One router terminates TLS, another sends http there, to the port clients use."""
    entry = Entry(80, 8443, (Secured("a.example", "acme"),))
    config = rules.route(spec(Url("https", "a.example")), ["r"], entry=entry)
    assert config is not None
    routers = config["http"]["routers"]
    assert routers["hello.1"]["entryPoints"] == ["websecure"]
    assert routers["hello.1"]["tls"] == {"certResolver": "acme"}
    assert routers["hello.1.redirect"]["entryPoints"] == ["web"]
    assert routers["hello.1.redirect"]["middlewares"] == ["_https"]
    assert rules.shared(entry)["http"]["middlewares"]["_https"]["redirectScheme"] == {
        "scheme": "https",
        "permanent": True,
        "port": "8443",
    }


def test_each_host_has_its_own_certificate_and_policy() -> None:
    """Who certifies a host, and whether browsers insist on https, is asked for each."""
    secured = Secured("a.example", "acme", 60), Secured("b.example", None, 60)
    config = rules.route(
        spec(Url("https", "a.example"), Url("https", "b.example"), Url("https", "c.example")),
        ["r"],
        entry=Entry(secured=secured),
    )
    assert config is not None
    routers = config["http"]["routers"]
    assert [routers[f"hello.{n}"]["tls"] for n in (1, 2, 3)] == [
        {"certResolver": "acme"},
        {},
        {},
    ]
    strict = ["hello.hsts" in routers[f"hello.{n}"]["middlewares"] for n in (1, 2, 3)]
    assert strict == [True, True, False]
    assert config["http"]["middlewares"]["hello.hsts"] == {"headers": {"stsSeconds": 60}}


def test_a_wildcard_names_what_is_to_be_certified() -> None:
    """Its rule is a pattern of one label, behind every host that is named."""
    entry = Entry(secured=(Secured("*.a.example", "acme"),))
    config = rules.route(spec(Url("https", "*.a.example"), scale=1), ["r"], entry=entry)
    assert config is not None
    router = config["http"]["routers"]["hello.1"]
    assert router["rule"] == r"HostRegexp(`^[^.]+\.a\.example$`)"
    assert router["tls"] == {"certResolver": "acme", "domains": [{"main": "*.a.example"}]}
    longest = rules.route(spec(Url("https", "*.a.example", "/" + "a" * 999)), ["r"])
    shortest = rules.route(spec(Url("https", "a.a.example")), ["r"])
    assert longest is not None
    assert shortest is not None
    priorities = [
        each["http"]["routers"]["hello.1"]["priority"] for each in (longest, shortest)
    ]
    assert priorities[0] < priorities[1]
    balancer = config["http"]["services"]["hello"]["loadBalancer"]
    assert balancer["healthCheck"]["hostname"] == "any.a.example"


def test_http_beside_https_is_served_not_redirected() -> None:
    """Who asks for both schemes of a host gets both."""
    both = spec(Url("http", "a.example"), Url("https", "a.example"))
    config = rules.route(both, ["r"], entry=Entry(secured=(Secured("a.example", hsts=60),)))
    assert config is not None
    assert set(config["http"]["routers"]) == {"hello.1", "hello.2"}
    assert "hello.hsts" not in config["http"]["middlewares"]


def test_a_path_matches_itself_and_below_only() -> None:
    """/api is not /apix, and the longer path comes first."""
    assert rules.rule(Url("http", "a.example", "/api")) == (
        "Host(`a.example`) && (Path(`/api`) || PathPrefix(`/api/`))"
    )
    config = rules.route(
        spec(Url("http", "a.example", "/api"), Url("http", "b.a.example")), ["r"]
    )
    assert config is not None
    routers = config["http"]["routers"]
    assert routers["hello.1"]["priority"] > routers["hello.2"]["priority"]


def test_a_named_healthcheck_reaches_the_balancer() -> None:
    """mypaas.healthcheck keeps replicas out of rotation when scaling."""
    check = Healthcheck("/up", 5, 0.5)
    config = rules.route(spec(Url("http", "a"), scale=2, healthcheck=check), ["r"])
    assert config is not None
    assert config["http"]["services"]["hello"]["loadBalancer"]["healthCheck"] == {
        "path": "/up",
        "hostname": "a",
        "followRedirects": False,
        "interval": "5s",
        "timeout": "0.5s",
    }


def test_h2c_reaches_the_servers() -> None:
    """HTTP/2 without TLS is spoken to the replicas, which are asked for no path."""
    speaks = replace(spec(Url("https", "a"), scale=2), protocol="h2c")
    config = rules.route(speaks, ["r"])
    assert config is not None
    balancer = config["http"]["services"]["hello"]["loadBalancer"]
    assert balancer["servers"] == [{"url": "h2c://r:8000"}]
    assert "healthCheck" not in balancer


def test_a_scaled_service_is_checked_whether_or_not_it_says_how() -> None:
    """From scale 1 on a replica that stays unhealthy leaves the rotation."""
    checks = []
    for scale in (0, 1):
        config = rules.route(spec(Url("http", "a"), scale=scale), ["r"])
        assert config is not None
        checks.append(config["http"]["services"]["hello"]["loadBalancer"].get("healthCheck"))
    assert checks[0] is None
    assert checks[1]["path"] == "/"


def test_a_page_takes_the_place_of_the_service() -> None:
    """Its replicas stay known, and nobody is led to them; redirects go on."""
    closed = rules.route(spec(Url("https", "a"), scale=1), ["r"], page=Page.MAINTENANCE)
    assert closed is not None
    routers = closed["http"]["routers"]
    assert routers["hello.1"]["service"] == "noop@internal"
    assert routers["hello.1"]["middlewares"] == ["_pages.maintenance"]
    assert routers["hello.1.redirect"]["middlewares"] == ["_https"]
    empty = rules.route(spec(Url("http", "a")), [])
    assert empty is not None
    assert empty["http"]["routers"]["hello.1"]["middlewares"] == ["_pages.down"]


def test_auth_without_users_lets_nobody_in() -> None:
    """Should they be missing for whatever reason, the guard is there all the same."""
    guarded = ServiceSpec(HELLO, urls=(Url("http", "a"),), auth="USERS")
    config = rules.route(guarded, ["r"])
    assert config is not None
    assert config["http"]["routers"]["hello.1"]["middlewares"] == [
        "_forged",
        "hello.auth",
        "_retry",
    ]
    assert config["http"]["middlewares"]["hello.auth"]["basicAuth"]["users"] == []


def test_a_sticky_cookie() -> None:
    """No script reads it; over http it could not be a secure one."""
    for url, secure in ((Url("https", "a"), True), (Url("http", "a"), False)):
        config = rules.route(ServiceSpec(HELLO, urls=(url,), sticky=True), ["r"])
        assert config is not None
        balancer = config["http"]["services"]["hello"]["loadBalancer"]
        assert balancer["sticky"]["cookie"] == {
            "secure": secure,
            "httpOnly": True,
            "sameSite": "lax",
        }
