"""Traefik's dashboard at the server's own name: whom it is for, and what stays a service's."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

from support import engine
from support.apps import commit, make_app, unique, web_dockerfile
from support.net import Answer, fetch
from support.paas import Paas


def configured(paas: Paas, on: str = "true") -> Paas:
    paas.configure("dashboard", on)
    return paas


def asked(paas: Paas, path: str, password: str = "", host: str = "") -> Answer:
    """What is answered over https, to the admin if there is a password."""
    token = base64.b64encode(f"mypaas:{password}".encode()).decode()
    headers = {"Authorization": f"Basic {token}"} if password else {}
    return paas.get(f"https://{host or paas.domain}{path}", headers=headers)


def password_of(paas: Paas) -> str:
    return (paas.home / "traefik.password").read_text().strip()


def test_the_admin_gets_it(new_paas: Callable[[], Paas]) -> None:
    """With the password and over https only, at no other host; status tells where it is."""
    paas = configured(new_paas())
    paas.start()
    password = password_of(paas)
    for path in ("/dashboard/", "/dashboard", "/api/rawdata", "/api"):
        assert asked(paas, path).status == 401
        assert asked(paas, path, "wrong").status == 401
        moved = paas.get(f"http://{paas.domain}{path}")
        assert moved.status in (301, 308)
        assert moved.headers["location"] == f"https://{paas.domain}:{paas.web_secure}{path}"
        assert asked(paas, path, password, host="other.test").status == 404
    page = asked(paas, "/dashboard/", password)
    assert (page.status, "<title>" in page.text) == (200, True)
    assert "traefik.io/" not in page.text
    slash = asked(paas, "/dashboard", password)
    assert slash.headers["location"].endswith("/dashboard/")
    overview = asked(paas, "/api/overview", password)
    assert "routers" in json.loads(overview.text)["http"]
    assert password not in asked(paas, "/api/rawdata", password).text
    assert "Nothing is here" in asked(paas, "/", password).text
    assert asked(paas, "/apis", password).status == 404

    told = json.loads(paas.cli("server", "status", "--json").stdout)
    assert told["dashboard"] == f"https://{paas.domain}:{paas.web_secure}/dashboard/"
    assert "(user mypaas, password in " in paas.ssh("server", "status").stdout
    (api,) = engine.inspect(f"{paas.namespace}-traefik")["NetworkSettings"]["Ports"]["8080/tcp"]
    assert api["HostIp"] == "127.0.0.1"
    assert fetch("http://x/dashboard/", web=int(api["HostPort"])).status == 401


def test_it_is_off(new_paas: Callable[[], Paas]) -> None:
    """As it is at first, and when it was on: nothing of it is routed."""
    paas = configured(new_paas())
    paas.start()
    assert asked(paas, "/api/overview", password_of(paas)).status == 200
    paas.stop()
    config = paas.home / "config.toml"
    config.write_text(config.read_text().replace("dashboard = true", "dashboard = false"))
    paas.start()
    for path in ("/dashboard/", "/api/overview"):
        assert "Nothing is here" in asked(paas, path, password_of(paas)).text
        assert paas.get(f"http://{paas.domain}{path}").status == 404
    assert json.loads(paas.cli("server", "status", "--json").stdout)["dashboard"] == ""


def test_a_service_at_the_same_host(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """It has all other paths; those of the dashboard it cannot take, or loses (T47)."""
    paas, name = new_paas(), unique()
    config = paas.home / "config.toml"
    reserved = f'[host.urls]\n"{paas.domain}" = ["{name}"]\n'
    config.write_text(config.read_text().replace("[host.urls]", reserved))
    paas.start()
    urls = [f"url=https://{paas.domain}{path}" for path in ("", "/api/deep")]
    app = make_app(tmp_path, web_dockerfile(*urls, page="app"))
    paas.deploy(app, name)
    paas.stop()
    configured(paas).start()
    assert asked(paas, "/").text == "app"
    assert "Nothing is here" not in asked(paas, "/apis").text
    assert asked(paas, "/api/deep").status == 401
    assert asked(paas, "/dashboard/", password_of(paas)).status == 200

    commit(app, {"changed": "yes"})
    done = paas.push(app, name)
    assert done.returncode == 1
    assert f"https://{paas.domain}/api/deep cannot be used: /api belongs to" in done.stderr
    commit(app, {"Dockerfile": web_dockerfile(urls[0], page="new")})
    paas.deploy(app, name)
    assert asked(paas, "/").text == "new"
