"""Every directive, seen on the running container or in the answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import engine
from support.apps import BASE, commit, make_app, unique, web_dockerfile
from support.net import fetch, free_port, wait_until
from support.paas import Paas

# An app whose page is its environment and the names that it can resolve.
ENV_APP = f"""\
FROM {BASE}
CMD env > /tmp/index.html; exec httpd -f -p 80 -h /tmp
"""


def container(paas: Paas, service: str) -> dict[str, Any]:
    """What the engine says of the service's only container."""
    (name,) = engine.containers(paas.namespace, f"label=mypaas.service={service}")
    return engine.inspect(name)


def variables(paas: Paas, host: str) -> dict[str, str]:
    """The environment that an ENV_APP shows."""
    lines = paas.get(f"http://{host}/").text.splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_urls_lead_to_the_service_and_nowhere_else(paas: Paas, tmp_path: Path) -> None:
    """Several hosts and paths of one service answer, and its neighbours do not."""
    name = unique()
    app = make_app(
        tmp_path,
        web_dockerfile(
            f"url=http://{name}.test",
            f"url=http://www.{name}.test/docs",
            page="it is me\n",
            run="mkdir -p /www/docs && echo docs > /www/docs/index.html",
        ),
    )
    output = paas.deploy(app, name)
    assert f"{name} v1 is live in" in output
    assert f"http://{name}.test" in output
    assert paas.get(f"http://{name}.test/").text == "it is me\n"
    assert paas.get(f"http://www.{name}.test/docs/").text == "docs\n"
    assert paas.get(f"http://www.{name}.test/").status == 404
    assert paas.get(f"http://www.{name}.test/docsx").status == 404
    assert paas.get("http://elsewhere.test/").status == 404


def test_https_answers_and_http_redirects(paas: Paas, tmp_path: Path) -> None:
    """An https url is served with TLS at once, and plain http sends there."""
    name = unique()
    paas.deploy(make_app(tmp_path, web_dockerfile(f"url=https://{name}.test")), name)
    assert paas.get(f"https://{name}.test/").status == 200
    redirect = paas.get(f"http://{name}.test/")
    assert redirect.status in (301, 308)
    assert redirect.headers["location"] == f"https://{name}.test:{paas.web_secure}/"


def test_env_comes_from_the_directive_and_the_config(
    new_paas: Callable[[], Paas], tmp_path: Path
) -> None:
    """Literals, [env], [env.<service>] which wins, and what every container is told."""
    paas, name = new_paas(), unique()
    with (paas.home / "config.toml").open("a") as config:
        config.write(f'COMMON = "from env"\nBOTH = "lost"\n[env.{name}]\nBOTH = "won"\n')
    paas.start()
    directives = (
        f"# mypaas.url=http://{name}.test\n"
        "# mypaas.env=LITERAL=a value = with signs\n"
        "# mypaas.env=COMMON\n# mypaas.env=BOTH\n"
        "# mypaas.scale=1\n"
    )
    paas.deploy(make_app(tmp_path, directives + ENV_APP), name)
    env = variables(paas, f"{name}.test")
    assert env["LITERAL"] == "a value = with signs"
    assert env["COMMON"] == "from env"
    assert env["BOTH"] == "won"
    assert env["MYPAAS_SERVICE"] == name
    assert env["MYPAAS_SCALE"] == "1"
    assert env["MYPAAS_PORT"] == "80"
    assert env["MYPAAS_RELEASE"] == "v1"
    assert env["MYPAAS_CONTAINER"] == f"{name}.v1.1"
    # Nothing secret outside the container itself.
    assert "from env" not in paas.log()
    image = engine.inspect(f"{paas.namespace}/{name}:v1")
    assert "from env" not in json.dumps(image)
    assert "from env" not in json.dumps(container(paas, name)["Config"]["Labels"])


def test_port_is_where_traffic_goes(paas: Paas, tmp_path: Path) -> None:
    """The process may listen elsewhere than on 80."""
    name = unique()
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", "port=8123", port=8123))
    paas.deploy(app, name)
    assert paas.get(f"http://{name}.test/").text == "hello\n"


def test_volumes_are_mounted(paas: Paas, tmp_path: Path) -> None:
    """A directory below ~, read-only where asked, and a named volume that survives."""
    name = unique()
    shared = paas.user_home / name
    shared.mkdir()
    (shared / "note").write_text("from the host\n")
    directives = "".join(
        f"# mypaas.{each}\n"
        for each in (
            f"url=http://{name}.test",
            f"volume=~/{name}:/www",
            f"volume=~/{name}:/read:ro",
            f"volume={name}-data:/data",
        )
    )
    run = "echo $MYPAAS_RELEASE >> /data/releases; cp /data/releases /www; touch /read/x"
    app = make_app(
        tmp_path, f"{directives}FROM {BASE}\nCMD {run}; exec httpd -f -p 80 -h /www\n"
    )
    paas.deploy(app, name)
    assert paas.get(f"http://{name}.test/note").text == "from the host\n"
    assert not (shared / "x").exists()
    commit(app, {"change": "1"})
    paas.deploy(app, name)
    assert paas.get(f"http://{name}.test/releases").text == "v1\nv2\n"


def test_publish_opens_a_port_of_the_host(paas: Paas, tmp_path: Path) -> None:
    """As docker run --publish does, also from one release to the next."""
    name, port = unique(), free_port()
    app = make_app(tmp_path, web_dockerfile(f"publish=127.0.0.1:{port}:80"))
    paas.deploy(app, name)
    commit(app, {"Dockerfile": web_dockerfile(f"publish=127.0.0.1:{port}:80", page="two\n")})
    output = paas.deploy(app, name)
    assert "Stopping" in output
    assert fetch(f"http://{name}.test/", web=port).text == "two\n"


def test_scale_runs_replicas_and_rolls(paas: Paas, tmp_path: Path) -> None:
    """scale=2 runs two containers, and the next release replaces them without downtime."""
    name = unique()
    directives = (f"url=http://{name}.test", "scale=2", "healthcheck=/ 5s 1s")
    app = make_app(tmp_path, web_dockerfile(*directives, page="one\n"))
    output = paas.deploy(app, name)
    assert "Starting 2 containers (v1)" in output
    assert f"{name}.v1.2 healthy after" in output
    commit(app, {"Dockerfile": web_dockerfile(*directives, page="two\n")})
    output = paas.deploy(app, name)
    assert "0 s down" in output
    assert paas.get(f"http://{name}.test/").text == "two\n"
    ours = f"label=mypaas.service={name}"
    expected = [f"{paas.namespace}.{name}.v2.{n}" for n in (1, 2)]
    wait_until(lambda: engine.containers(paas.namespace, ours) == expected, "v1 is gone")
    for each in expected:
        policy = engine.inspect(each)["HostConfig"]["RestartPolicy"]["Name"]
        assert policy == "unless-stopped"


def test_healthcheck_is_what_gets_asked(paas: Paas, tmp_path: Path) -> None:
    """The path counts, not /, and it reaches Traefik with its interval."""
    name = unique()
    app = make_app(
        tmp_path,
        web_dockerfile(
            f"url=http://{name}.test",
            "scale=1",
            "healthcheck=/up 3s 500ms",
            run="mkdir -p /www && touch /www/up",
        ).replace("/www/index.html", "/www/other"),
    )
    paas.deploy(app, name)
    assert paas.get(f"http://{name}.test/up").status == 200
    assert paas.get(f"http://{name}.test/").status == 404
    route = paas.route(name)
    assert route is not None
    assert route["http"]["services"][name]["loadBalancer"]["healthCheck"] == {
        "path": "/up",
        "hostname": f"{name}.test",
        "followRedirects": False,
        "interval": "3s",
        "timeout": "0.5s",
    }


def test_safe_never_mixes_old_and_new(paas: Paas, tmp_path: Path) -> None:
    """In safe mode the old replicas have ended all requests before the new ones get any."""
    name = unique()
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", "scale=1 safe"))
    paas.deploy(app, name)
    commit(app, {"x": "1"})
    output = paas.deploy(app, name)
    assert output.index("healthy after") < output.index("Draining") < output.index("Switching")


def test_limits_reach_the_container(paas: Paas, tmp_path: Path) -> None:
    """maxcpu is Docker's --cpus, maxmem its --memory."""
    name = unique()
    app = make_app(
        tmp_path, web_dockerfile(f"url=http://{name}.test", "maxcpu=0.5", "maxmem=64m")
    )
    paas.deploy(app, name)
    host = container(paas, name)["HostConfig"]
    assert host["NanoCpus"] == 500_000_000
    assert host["Memory"] == 64 << 20


def test_a_service_is_reached_by_its_name(paas: Paas, tmp_path: Path) -> None:
    """Other services find it on their network under its name."""
    name, caller = unique(), unique("caller")
    paas.deploy(make_app(tmp_path, web_dockerfile(page="inside\n"), name="a"), name)
    run = f"wget -q -O /tmp/index.html http://{name}/; exec httpd -f -p 80 -h /tmp"
    dockerfile = f"# mypaas.url=http://{caller}.test\nFROM {BASE}\nCMD {run}\n"
    paas.deploy(make_app(tmp_path, dockerfile, name="b"), caller)
    assert paas.get(f"http://{caller}.test/").text == "inside\n"


def test_labels_of_the_image_do_not_route(paas: Paas, tmp_path: Path) -> None:
    """A base image that speaks Traefik's or our language is not listened to (T49).

    Neither here nor by another Traefik of the host, which may read labels.
    """
    name = unique()
    base = f"mypaas-test/labelled:{name}"
    labels = (
        'LABEL traefik.enable=true "traefik.http.routers.x.rule"="Host(`stolen.test`)" '
        "mypaas.namespace=other mypaas.service=other mypaas.home=/ kept=yes\n"
    )
    text = f"FROM {BASE}\n{labels}"
    engine.docker("build", "-t", base, "-", stdin=text.encode())
    try:
        app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test").replace(BASE, base))
        paas.deploy(app, name)
        found = container(paas, name)["Config"]["Labels"]
    finally:
        engine.docker("rmi", "-f", base)
    assert found["mypaas.namespace"] == paas.namespace
    assert found["mypaas.service"] == name
    assert found["traefik.enable"] == "false"
    assert found["traefik.http.routers.x.rule"] == found["mypaas.home"] == ""
    assert found["kept"] == "yes"
    assert paas.get("http://stolen.test/").status == 404


def test_a_service_without_urls_stays_up(paas: Paas, tmp_path: Path) -> None:
    """A worker is ready when it has stayed up, or when its HEALTHCHECK says so."""
    name = unique()
    app = make_app(tmp_path, f"FROM {BASE}\nCMD exec sleep 1000\n")
    assert "healthy after 2." in paas.deploy(app, name)
    # With `HEALTHCHECK` it is Docker that says so; a file appears after a moment.
    check = "HEALTHCHECK --interval=1s --retries=20 CMD test -e /tmp/up\n"
    commit(
        app,
        {"Dockerfile": f"FROM {BASE}\n{check}CMD sleep 0.1; touch /tmp/up; exec sleep 99\n"},
    )
    assert "healthy after" in paas.deploy(app, name)


def test_the_context_honours_dockerignore_and_modes(paas: Paas, tmp_path: Path) -> None:
    """What .dockerignore leaves out is not sent; executables stay so, links too."""
    name = unique()
    app = make_app(
        tmp_path,
        f"# mypaas.url=http://{name}.test\nFROM {BASE}\nCOPY . /www\n"
        "RUN cd /www && ls -A > index.html && test -x tool && test -L link\n"
        'CMD ["httpd", "-f", "-p", "80", "-h", "/www"]\n',
        {".dockerignore": "secret\n", "secret": "x", "kept": "y", "tool": "#!/bin/sh\n"},
    )
    (app / "tool").chmod(0o755)
    (app / "link").symlink_to("kept")
    commit(app, {})
    paas.deploy(app, name)
    listing = paas.get(f"http://{name}.test/").text.split()
    assert "secret" not in listing
    assert {"kept", "tool", "link"} <= set(listing)


def test_a_prebuilt_image_from_a_registry(paas: Paas, registry: str, tmp_path: Path) -> None:
    """A Dockerfile that only says FROM deploys that image."""
    name = unique()
    image = f"{registry}/{name}:1.0"
    engine.docker("build", "-t", image, "-", stdin=web_dockerfile(page="prebuilt\n").encode())
    engine.docker("push", image)
    engine.docker("rmi", image)
    try:
        app = make_app(tmp_path, f"# mypaas.url=http://{name}.test\nFROM {image}\n")
        paas.deploy(app, name)
        assert paas.get(f"http://{name}.test/").text == "prebuilt\n"
    finally:
        engine.docker("rmi", "-f", image, check=False)
