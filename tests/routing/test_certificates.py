"""Certificates by ACME, from a real Traefik and Let's Encrypt's own test server."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from support import engine
from support.apps import commit, make_app, unique, web_dockerfile
from support.net import wait_until, with_hosts
from support.paas import Paas
from support.pebble import ELSEWHERE, Pebble, run_pebble

REFUSED = "refused.test"


@contextlib.contextmanager
def certified(
    paas: Paas, root: Path, *, validity: int = 90 * 86400, http: bool = True, **told: str
) -> Iterator[Pebble]:
    """``paas``, started with the settings in ``told``, and a pebble for it."""
    with run_pebble(root, paas, validity=validity, refused=(REFUSED,), http=http) as pebble:
        config = paas.home / "config.toml"
        config.write_text(config.read_text().replace('email = ""', 'email = "a@b.test"'))
        paas.configure("acme_server", f'"{pebble.directory}"')
        paas.configure("acme_ca", f'"{pebble.ca}"')
        # Far more than it takes, so that a busy machine is no failure.
        for key, value in {"acme_wait": '"90s"', **told}.items():
            paas.configure(key, value)
        paas.start()
        yield pebble


def app_at(root: Path, name: str, *hosts: str) -> Path:
    """An app that is reached over https at each of ``hosts``."""
    urls = [f"url=https://{host}" for host in hosts]
    return make_app(root, web_dockerfile(*urls), name=name)


def shown(paas: Paas, pebble: Pebble, host: str) -> tuple[int, list[str]]:
    """The serial number and the hosts of a certificate that pebble's root vouches for."""
    with (
        socket.create_connection(("127.0.0.1", paas.web_secure), 10) as plain,
        pebble.trusting().wrap_socket(plain, server_hostname=host) as secured,
    ):
        found = secured.getpeercert()
    assert found is not None
    names: Any = found["subjectAltName"]
    return int(str(found["serialNumber"]), 16), [name for _, name in names]


def is_certified(paas: Paas, pebble: Pebble, host: str) -> bool:
    with contextlib.suppress(OSError):
        return shown(paas, pebble, host)[1] == [host]
    return False


def secure_get(paas: Paas, pebble: Pebble, host: str) -> tuple[int, str]:
    """The status and the HSTS header of / over https, for who trusts pebble's root alone."""
    with socket.create_connection(("127.0.0.1", paas.web_secure), 10) as plain:
        connection = http.client.HTTPConnection(host)
        connection.sock = pebble.trusting().wrap_socket(plain, server_hostname=host)
        connection.request("GET", "/")
        reply = connection.getresponse()
        reply.read()
        connection.close()
    return reply.status, reply.getheader("Strict-Transport-Security", "")


def holds_of(paas: Paas) -> Path:
    return paas.home / "certificates.json"


def hold_all_until(paas: Paas, moment: float) -> None:
    """Have every host that failed be asked for again at another time."""
    text = re.sub(r'"until": [0-9.]+', f'"until": {moment}', holds_of(paas).read_text())
    new = paas.root / "holds.new"
    new.write_text(text)
    new.replace(holds_of(paas))


def test_first_certificates_come_once(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """By HTTP-01, one for each host, and nothing that restarts asks for another."""
    paas, name = new_paas(), unique("sure")
    hosts = [f"{name}.test", f"www.{name}.test"]
    app = app_at(tmp_path, "app", *hosts)
    with certified(paas, tmp_path) as pebble:
        told = paas.deploy(app, name)
        for host in hosts:
            assert re.search(rf"  https://{host}  certificate ready in [0-9.]+ s", told), told
            assert secure_get(paas, pebble, host) == (200, "max-age=15552000")
            moved = paas.get(f"http://{host}/path")
            assert moved.status in (301, 308)
            assert moved.headers["location"] == f"https://{host}:{paas.web_secure}/path"
        first = [shown(paas, pebble, host) for host in hosts]
        assert [names for _, names in first] == [[host] for host in hosts]
        issued = pebble.orders

        commit(app, {"changed": "yes"})
        told = paas.deploy(app, name)
        assert "certificate" not in told
        assert f"  https://{hosts[0]}" in told
        kept = {file.name: file.stat() for file in (paas.home / "acme").iterdir()}
        assert len(kept) == 2
        assert "self-signed.pem" in kept
        assert {stat.S_IMODE(each.st_mode) for each in kept.values()} == {0o600}
        engine.docker("restart", "-t", "0", f"{paas.namespace}-traefik")
        wait_until(lambda: is_certified(paas, pebble, hosts[0]), "Traefik is back")
        before = engine.inspect(f"{paas.namespace}-traefik")["Id"]
        paas.stop()
        paas.configure("http3", "true")
        paas.start()
        assert engine.inspect(f"{paas.namespace}-traefik")["Id"] != before
        wait_until(
            lambda: all(is_certified(paas, pebble, each) for each in hosts), "it is kept"
        )
        assert [shown(paas, pebble, host) for host in hosts] == first
        assert paas.deploy(app, name)
        assert pebble.orders == issued


def test_what_fails_is_told_and_not_asked_for_again_and_again(
    new_paas: Callable[[], Paas], tmp_path: Path
) -> None:
    """T71: a deploy does not fail with its certificate, whose next try waits for its time."""
    paas, name = new_paas(), unique("lost")
    lost = f"{name}.test"
    names = f"203.0.113.9 {lost}\n198.51.100.2 {paas.domain}\n"
    paas.before = with_hosts(tmp_path, hosts=names)
    with certified(paas, tmp_path) as pebble:
        pebble.lead(lost, ELSEWHERE)
        told = paas.deploy(app_at(tmp_path, "app", lost, REFUSED), name)
        assert f"https://{lost}  no certificate yet" in told
        assert f" !     {lost} leads to 203.0.113.9, which is not this server" in told
        assert "198.51.100.2" in told
        assert "connection refused); check that" in told
        assert "port 80 is open" in told
        assert "forbidden by policy" in told
        assert "choose another host" in told
        assert "the next is at" in told
        assert paas.get(f"https://{lost}/").text == "hello\n"

        wait_until(lambda: "certResolver" not in str(paas.route(name)), "the host is held back")
        hold_all_until(paas, time.time() + 3600)  # however long this takes
        tried = pebble.tries(lost)
        for other in ("one", "two"):
            page = web_dockerfile(f"url=http://{other}.test")
            paas.deploy(make_app(tmp_path, page, name=other), unique(other))
        paas.restart()
        assert pebble.tries(lost) == tried
        status = paas.cli("status", name)
        assert "failed (Get " in status.stdout, status.stdout
        doctor = json.loads(paas.cli("server", "doctor", "--json").stdout)
        wrong = {each["check"]: each["wrong"] for each in doctor}
        assert "connection refused" in wrong[f"https://{lost}"]

        pebble.lead(lost, "127.0.0.1")
        hold_all_until(paas, time.time())
        wait_until(lambda: is_certified(paas, pebble, lost), "it is asked again", seconds=90)
        wait_until(lambda: lost not in holds_of(paas).read_text(), "the failures are forgotten")


def test_by_tls_alpn_and_renewed(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """By TLS-ALPN-01, without port 80; what is about to expire is renewed; no ACME server."""
    paas, name = new_paas(), unique("brief")
    host = f"{name}.test"
    settings = {"acme_challenge": '"tls-alpn"', "acme_lifetime": '"1h"'}
    with certified(paas, tmp_path, validity=900, http=False, **settings) as pebble:
        assert "certificate ready in" in paas.deploy(app_at(tmp_path, "app", host), name)
        first, _ = shown(paas, pebble, host)
        # It looks for what to renew when it starts, and then each minute.
        engine.docker("restart", "-t", "0", f"{paas.namespace}-traefik")
        wait_until(
            lambda: is_certified(paas, pebble, host) and shown(paas, pebble, host)[0] != first,
            "the certificate is renewed",
            seconds=120,
        )

        pebble.stop()
        other = unique("alone")
        told = paas.deploy(app_at(tmp_path, "other", f"{other}.test"), other)
        assert f"https://{other}.test  no certificate yet" in told
        assert "check that this server reaches acme_server" in told
        assert paas.get(f"https://{other}.test/").text == "hello\n"


def test_a_wildcard_by_dns(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """By DNS-01, whose provider's secrets are told to Traefik alone."""
    paas, name = new_paas(), unique("wild")
    with certified(paas, tmp_path) as pebble, pebble.dns_provider() as provider:
        refused = paas.push(app_at(tmp_path, "app", f"*.{name}.test"), name)
        assert 'before an admin sets acme_challenge = "dns"' in refused.stderr
        paas.stop()
        paas.configure("acme_challenge", '"dns"')
        paas.configure("acme_dns_provider", '"httpreq"')
        paas.configure("acme_dns_resolvers", f'["{pebble.name_server}"]')
        with (paas.home / "config.toml").open("a") as config:
            config.write(f'[http.acme_dns_env]\nHTTPREQ_ENDPOINT = "{provider}"\n')
            config.write('HTTPREQ_PASSWORD = "a secret"\nHTTPREQ_POLLING_INTERVAL = "1"\n')
        paas.start()

        told = paas.deploy(tmp_path / "app", name)
        assert f"https://*.{name}.test  certificate ready in" in told
        issued = pebble.orders
        for label in ("any", "www"):
            host = f"{label}.{name}.test"
            assert shown(paas, pebble, host)[1] == [f"*.{name}.test"]
            assert secure_get(paas, pebble, host)[0] == 200
        assert paas.get(f"http://a.b.{name}.test/").status == 404
        proxy = engine.inspect(f"{paas.namespace}-traefik")
        assert "a secret" not in json.dumps([proxy["Args"], proxy["Config"]["Labels"]])
        assert "a secret" not in paas.log()

        exact = unique("exact")
        page = web_dockerfile(f"url=https://{exact}.{name}.test", page="exact\n")
        paas.deploy(make_app(tmp_path, page, name=exact), exact)
        assert paas.get(f"https://{exact}.{name}.test/").text == "exact\n"
        assert paas.get(f"https://other.{name}.test/").text == "hello\n"
        # The wildcard's certificate is for it, too.
        assert pebble.orders == issued


def test_the_servers_own_name(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """With the dashboard it has a certificate, or doctor says why not, as of any host."""
    paas = new_paas()
    with certified(paas, tmp_path, dashboard="true") as pebble:
        wait_until(lambda: is_certified(paas, pebble, paas.domain), "it has one", seconds=90)
        assert secure_get(paas, pebble, paas.domain)[0] == 404
        assert f"https://{paas.domain}" in paas.cli("server", "doctor").stdout
        paas.stop()
        config = paas.home / "config.toml"
        config.write_text(config.read_text().replace(f'"{paas.domain}"', f'"{REFUSED}"'))
        paas.start()
        route = paas.home / "routes" / "_dashboard.yml"
        wait_until(lambda: "certResolver" not in route.read_text(), "it is held back")
        doctor = json.loads(paas.cli("server", "doctor", "--json").stdout)
        wrong = {each["check"]: each["wrong"] for each in doctor}
        assert "forbidden by policy" in wrong[f"https://{REFUSED}"]
