"""What Traefik is told about certificates, and what is made of its log."""

from __future__ import annotations

import dataclasses
import json

import pytest

from mypaas_git.routing.acme import LETS_ENCRYPT, Acme, advice, failure_in

ACME = Acme("a@b.test")
LIMITED = (
    "unable to generate a certificate for the domains [a.test]: acme: error: 429 :: POST :: "
    "https://acme.test/new-order :: urn:ietf:params:acme:error:rateLimited :: too many failed "
    "authorizations (5) for a.test, retry after 2026-11-27 12:34:59 UTC"
)
AWAY = (
    "cannot get ACME client get directory at 'https://acme.test/dir': unable to communicate "
    'with the API server: error: Get "https://acme.test/dir": dial tcp 192.0.2.1:443: timeout'
)
NO_ENTRY = (
    "unable to generate a certificate for the domains [a.test]: resolver: one or more domains "
    "had a problem: [a.test: invalid authorization: acme: error: 400 :: "
    'urn:ietf:params:acme:error:dns :: Get "http://a.test/.well-known/acme-challenge/s-3_": '
    "no such host]"
)


def line(**told: object) -> str:
    """A line of Traefik's log about a certificate that it did not get."""
    always = {"level": "error", "domains": ["a.test"], "time": "1970-01-01T00:01:00Z"}
    return json.dumps({**always, **told})


@pytest.mark.parametrize(
    ("error", "kind", "answer"),
    [
        (LIMITED, "rateLimited", "too many failed authorizations (5) for a.test, retry after"),
        (AWAY, "", 'Get "https://acme.test/dir": dial tcp 192.0.2.1:443: timeout'),
        (NO_ENTRY, "dns", 'Get "http://a.test/.well-known/acme-challenge/…": no such host'),
        ("x" * 5000, "", "xxx"),
        ("a\x1b[31m\r\nb\u202ec\x00", "", "a [31m b c"),
    ],
)
def test_failures_are_understood(error: str, kind: str, answer: str) -> None:
    """The error's name, and a line without what leads up to it."""
    failure = failure_in(line(error=error))
    assert failure is not None
    assert (failure.hosts, failure.at, failure.kind) == (("a.test",), 60.0, kind)
    assert failure.answer.startswith(answer)
    assert len(failure.answer) <= 300


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "3",
        line(level="warn", error="x"),
        line(domains=None, error="x"),
        line(),
        line(error="x", time="soon"),
        line(error="x", time=3),
    ],
)
def test_other_lines_mean_nothing(text: str) -> None:
    """Whatever stands in the log."""
    assert failure_in(text) is None


@pytest.mark.parametrize(
    ("kind", "challenge", "said"),
    [
        ("connection", "http", "port 80 is open to the internet for http"),
        ("unauthorized", "tls-alpn", "port 443 is open to the internet for https"),
        ("unauthorized", "dns", "check acme_dns_provider"),
        ("", "http", "check that this server reaches acme_server"),
        ("", "dns", "check acme_dns_provider"),
        ("rejectedIdentifier", "http", "no certificates for a.test"),
        ("somethingNew", "http", "see Traefik's log"),
    ],
)
def test_there_is_something_to_check(kind: str, challenge: str, said: str) -> None:
    """For each error, by the challenge that is in use."""
    assert said in advice(kind, "a.test", challenge)


def test_the_certificates_of_one_server_are_not_anothers() -> None:
    """Nobody keeps a test server's when he goes over to the real one."""
    other = dataclasses.replace(ACME, server="https://acme.test/dir")
    assert ACME.server == LETS_ENCRYPT
    assert ACME.storage == "acme.json"
    assert other.storage != ACME.storage


def test_no_secret_is_an_argument_or_shown() -> None:
    """Variables of the DNS go another way."""
    acme = dataclasses.replace(
        ACME, challenge="dns", dns_provider="route53", dns_env={"TOKEN": "hunter2"}
    )
    assert "hunter2" not in f"{acme}{acme.arguments()}"
    assert "--certificatesResolvers.acme.acme.dnsChallenge.provider=route53" in acme.arguments()
