"""From urls to Traefik's configuration."""

from __future__ import annotations

from dataclasses import replace

from mypaas_git.directives.model import Healthcheck, ServiceSpec, Url
from mypaas_git.names import ServiceName
from mypaas_git.routing import rules

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
                    "priority": 1001,
                    "service": "hello",
                    "entryPoints": ["web"],
                    "middlewares": ["hello.retry"],
                }
            },
            "services": {
                "hello": {
                    "loadBalancer": {
                        "servers": [
                            {"url": "http://hello.v1.1:8000"},
                            {"url": "http://hello.v1.2:8000"},
                        ],
                        "serversTransport": "hello",
                    }
                }
            },
            "serversTransports": {
                "hello": {"forwardingTimeouts": {"idleConnTimeout": "500ms"}}
            },
            "middlewares": {
                "hello.retry": {"retry": {"attempts": 3, "initialInterval": "20ms"}}
            },
        }
    }


def test_an_https_url_redirects_from_http() -> None:
    """One router terminates TLS, another sends http there, to the port clients use."""
    config = rules.route(
        spec(Url("https", "a.example")), ["r"], cert_resolver="acme", secure_port=8443
    )
    assert config is not None
    routers = config["http"]["routers"]
    assert routers["hello.1"]["entryPoints"] == ["websecure"]
    assert routers["hello.1"]["tls"] == {"certResolver": "acme"}
    assert routers["hello.1.redirect"]["entryPoints"] == ["web"]
    assert routers["hello.1.redirect"]["middlewares"] == ["hello.https"]
    assert config["http"]["middlewares"]["hello.https"]["redirectScheme"] == {
        "scheme": "https",
        "permanent": True,
        "port": "8443",
    }


def test_http_beside_https_is_served_not_redirected() -> None:
    """Who asks for both schemes of a host gets both."""
    config = rules.route(spec(Url("http", "a.example"), Url("https", "a.example")), ["r"])
    assert config is not None
    assert set(config["http"]["routers"]) == {"hello.1", "hello.2"}


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
