"""What ``git push -o plan`` shows, from specs alone and from a real server."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from support import engine
from support.apps import commit, make_app, unique, web_dockerfile
from support.paas import Paas

from mypaas_git.deploy.preview import expected_downtime, preview
from mypaas_git.directives.model import ServiceSpec
from mypaas_git.directives.parse import parse_dockerfile
from mypaas_git.ledger.model import Release, State
from mypaas_git.names import ServiceName

EVERYTHING = """\
# mypaas.service=app
# mypaas.url=https://a.test
# mypaas.url=https://a.test/path
# mypaas.volume=~/data:/data
# mypaas.volume=cache:/cache
# mypaas.env=A=1
# mypaas.env=B=2
# mypaas.port=8080
# mypaas.publish=53/udp
# mypaas.scale=2
# mypaas.healthcheck=/up 5s 1s
# mypaas.maxcpu=1.5
# mypaas.maxmem=512m
"""


def spec_of(text: str) -> ServiceSpec:
    return parse_dockerfile(text.encode(), default_service=None)


SPEC = spec_of(EVERYTHING)
ENV = {"A": "1", "B": "2"}
LIVE = Release(
    ServiceName("app"), 3, State.LIVE, "c" * 40, "main", "alice", "", "image", SPEC, 0.0,
    down=1.25, env=ENV,
)  # fmt: skip


def test_first_release() -> None:
    """Without a release before, everything that is asked for is shown."""
    assert preview(SPEC, ENV, None) == [
        "urls        + https://a.test",
        "urls        + https://a.test/path",
        "env         + A",
        "env         + B",
        "volumes     + ~/data:/data",
        "volumes     + cache:/cache",
        "publish     + 53/udp",
        "port        8080",
        "scale       2 roll",
        "healthcheck /up 5s 1s",
        "maxcpu      1.5",
        "maxmem      512m",
    ]


def test_differences() -> None:
    """Of an update only what differs is shown, and no variable's value."""
    text = EVERYTHING.replace("/path", "/other").replace("cache:/cache", "cache:/cache:ro")
    text = text.replace("env=B=2", "env=C=secret").replace("512m", "1g")
    text = text.replace("53/udp", "54").replace("maxcpu=1.5", "scale=1")
    text = text.replace("# mypaas.scale=2\n", "").replace(
        "# mypaas.healthcheck=/up 5s 1s\n", ""
    )
    spec = spec_of(text)
    assert preview(spec, {"A": "changed", "C": "secret"}, LIVE) == [
        "urls        + https://a.test/other",
        "urls        - https://a.test/path",
        "env         + C",
        "env         - B",
        "env         ~ A has another value",
        "volumes     + cache:/cache:ro",
        "volumes     - cache:/cache",
        "publish     + 54/tcp",
        "publish     - 53/udp",
        "scale       2 roll → 1 roll",
        "healthcheck /up 5s 1s → none",
        "maxcpu      1.5 → none",
        "maxmem      512m → 1g",
    ]
    assert preview(SPEC, ENV, LIVE) == ["everything but the image stays as it is"]


def test_published_ports() -> None:
    """They are shown the way that they are written."""
    text = EVERYTHING.replace("scale=2", "scale=0")
    for written in ("80/tcp", "2000-2010:80/udp", "127.0.0.1:2000:80/tcp", "[::1]:2000:80/tcp"):
        spec = spec_of(text.replace("53/udp", written))
        assert f"publish     + {written}" in preview(spec, ENV, LIVE)


def test_expected_downtime() -> None:
    """It follows from the scale, and from whether anything serves."""
    cold = dataclasses.replace(SPEC, scale=0)
    assert expected_downtime(SPEC, LIVE, False).startswith("none: the new containers are ready")
    assert expected_downtime(cold, None, False) == "none: nothing serves at the moment"
    assert expected_downtime(cold, LIVE, True) == "none: nothing serves at the moment"
    while_it_starts = "for as long as its container takes to start, as scale is 0"
    last = "; the deploy of v3 took 1.2 s"
    assert expected_downtime(cold, LIVE, False) == while_it_starts + last
    safe = dataclasses.replace(SPEC, scale_mode="safe")
    assert "answered by 503" in expected_downtime(safe, LIVE, False)


def test_on_a_server(paas: Paas, tmp_path: Path) -> None:
    """A plan is told and refused like a deploy, and leaves no trace of itself."""
    name = unique()
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", "env=SECRET=x"))
    done = paas.push(app, name, "main", "-o", "plan")
    assert done.returncode == 1
    assert f"remote: -----> {name} would go live for the first time" in done.stderr
    assert f"remote:        urls        + http://{name}.test" in done.stderr
    assert "remote:        env         + SECRET" in done.stderr
    assert "(plan-only: nothing was changed)" in done.stderr
    assert paas.ssh("releases", name).returncode == 1
    assert not (paas.home / f"repos/{name}.git").exists()

    paas.deploy(app, name)
    live = commit(app, {"Dockerfile": web_dockerfile(f"url=http://{name}.test", "scale=1")})
    done = paas.push(app, name, "main", "-o", "plan")
    assert f"remote: -----> Plan for {live[:7]} (main)" in done.stderr
    assert f"remote: -----> {name} would replace v1 (" in done.stderr
    assert "remote:        scale       0 → 1 roll" in done.stderr
    assert "remote: -----> Expected downtime: none: the new containers" in done.stderr
    assert len(paas.ssh("releases", name).stdout.splitlines()) == 1
    ours = f"label=mypaas.service={name}"
    assert engine.containers(paas.namespace, ours) == [f"{paas.namespace}.{name}.v1.1"]

    commit(app, {"Dockerfile": web_dockerfile("volume=/etc:/etc", "env=MISSING")})
    done = paas.push(app, name, "main", "-o", "plan")
    assert "directives-invalid: " in done.stderr
    assert "v1 still live)" in done.stderr
    other = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test"), name="other")
    done = paas.push(other, unique(), "main", "-o", "plan")
    assert "route-refused: Dockerfile line 2: mypaas.url: " in done.stderr
    assert f"http://{name}.test belongs to the service '{name}'" in done.stderr


def test_of_what_no_builder_can_be_given(paas: Paas, tmp_path: Path) -> None:
    """A submodule, say, is refused by the plan as it would be by the deploy."""
    name = unique()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n"
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test"), {"big.bin": pointer})
    planned = paas.push(app, name, "main", "-o", "plan").stderr
    deployed = paas.push(app, name).stderr
    for told in planned, deployed:
        assert "(tree-refused: big.bin is a pointer of Git LFS" in told

    commit(app, {".dockerignore": "big.bin\n"})
    assert "(plan-only: " in paas.push(app, name, "main", "-o", "plan").stderr
