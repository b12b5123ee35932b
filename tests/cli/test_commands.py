"""services, status, releases, logs and keys: the same in the shell and over ssh."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.apps import BASE, commit, make_app, unique, web_dockerfile
from support.keys import ssh_key
from support.paas import Paas
from support.pushing import pushing
from support.stockgit import ssh_options

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(params=["shell", "ssh"])
def run(request: pytest.FixtureRequest, paas: Paas) -> Run:
    """Runs ``mypaas …`` at one of its entrances."""
    return paas.cli if request.param == "shell" else paas.ssh


@pytest.fixture(scope="module")
def service(paas: Paas, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A service with a live release, a retired one and a failed attempt."""
    name = unique("told")
    directives = (f"url=http://{name}.test", "scale=1")
    app = make_app(tmp_path_factory.mktemp("told"), web_dockerfile(*directives))
    paas.deploy(app, name)
    commit(app, {"Dockerfile": f"FROM {BASE}\nRUN echo broken && exit 1\n"})
    assert paas.push(app, name).returncode == 1
    talks = "CMD echo first; echo second; exec httpd -f -p 80 -h /www\n"
    commit(app, {"Dockerfile": web_dockerfile(*directives).rsplit("CMD", 1)[0] + talks})
    paas.deploy(app, name)
    return name


def test_services(run: Run, service: str) -> None:
    """A line for people, a document for scripts."""
    assert service in run("services").stdout
    found = {each["service"]: each for each in json.loads(run("services", "--json").stdout)}
    told = found[service]
    assert (told["release"], told["replicas"], told["health"]) == ("v3", 1, "healthy")
    assert told["urls"] == [f"http://{service}.test"]


def test_status(run: Run, service: str) -> None:
    """One service in full."""
    text = run("status", service).stdout
    assert f"{service}.v3.1  running" in text
    assert json.loads(run("status", service, "--json").stdout)["service"] == service
    missing = run("status", "no-such-service")
    assert missing.returncode == 1
    assert "there is no service 'no-such-service'" in missing.stderr


def test_a_deploy_in_progress(run: Run, paas: Paas, tmp_path: Path) -> None:
    """Which release is being deployed, by whom and for how long, is told; then it is live."""
    name, gate = unique("slow"), paas.user_home / unique("gate")
    gate.mkdir()
    text = web_dockerfile(f"url=http://{name}.test", "scale=1", f"volume={gate}:/gate:ro")
    wait = "CMD until [ -e /gate/open ]; do sleep 0.1; done; exec httpd -f -p 80 -h /www\n"
    app = make_app(tmp_path, text.rsplit("CMD", 1)[0] + wait)
    with pushing(paas, app, name) as going:
        going.sees("Starting 1 container (v1)")
        assert re.search(
            r"health +not live; deploying v1 for \d+ s", run("status", name).stdout
        )
        assert re.search(rf"{name} .*deploying v1 for \d+ s", run("services").stdout)
        now = json.loads(run("status", name, "--json").stdout)["deploying"]
        assert (now["release"], now["state"], now["who"]) == ("v1", "starting", "admin")
        assert now["seconds"] >= 0
        (gate / "open").touch()
        assert going.end() == 0, going.said
    assert "deploying" not in run("status", name).stdout
    assert json.loads(run("status", name, "--json").stdout)["deploying"] is None


def test_releases(run: Run, service: str) -> None:
    """Newest first, failures with their reason, who and when."""
    lines = run("releases", service).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["v3", "v2", "v1"]
    assert "live" in lines[0]
    assert "failed (build-failed)" in lines[1]
    assert "retired" in lines[2]
    found = json.loads(run("releases", service, "--json").stdout)
    assert [each["state"] for each in found] == ["live", "failed", "retired"]
    assert found[1]["message"].startswith("Step 2/2 : RUN echo broken")
    assert {each["who"] for each in found} == {"admin"}


def test_releases_output(run: Run, service: str) -> None:
    """The build's and deploy's log, of a failure with its reason at the end."""
    live = run("releases", "output", service).stdout
    assert f"{service} v3 is live in" in live
    failed = run("releases:output", service, "v2").stdout
    assert "broken" in failed
    assert failed.splitlines()[-1].startswith(" !     build-failed: Step 2/2")
    missing = run("releases", "output", service, "v99")
    assert missing.returncode == 1
    assert "no release v99" in missing.stderr


def test_logs(run: Run, service: str) -> None:
    """What the app printed, as many lines as asked for."""
    assert run("logs", service).stdout == "first\nsecond\n"
    assert run("logs", service, "-n", "1").stdout == "second\n"


def test_following_logs_ends_with_the_client(paas: Paas, service: str) -> None:
    """logs -f shows what is there, goes on, and ends when the client leaves."""
    options = ssh_options(paas.admin, paas.known_hosts)
    with subprocess.Popen(
        ["ssh", *options, "-p", str(paas.ssh_port), "mypaas@127.0.0.1", "logs", service, "-f"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "first\n"
        assert following.poll() is None
        following.terminate()
    assert paas.ssh("whoami").returncode == 0


def test_keys(run: Run, paas: Paas, tmp_path: Path) -> None:
    """Added from standard input, listed, removed; the last admin stays."""
    name = unique("key")
    public = Path(f"{ssh_key(tmp_path, name)}.pub").read_text()
    added = run("keys:add", name, "-", "--service", "a", "--service", "b", stdin=public)
    assert added.returncode == 0, added.stderr
    assert "deploys a, b" in added.stdout
    listed = {each["name"]: each for each in json.loads(run("keys", "list", "--json").stdout)}
    assert listed[name]["services"] == ["a", "b"]
    assert listed["admin"]["admin"] is True
    again = run("keys", "add", "other", "-", stdin=public)
    assert again.returncode == 1
    assert name in again.stderr
    assert run("keys", "remove", name).returncode == 0
    assert name not in run("keys", "list").stdout
    last = run("keys", "remove", "admin")
    assert last.returncode == 1
    assert "last admin" in last.stderr


def test_whoami(paas: Paas, tmp_path: Path) -> None:
    """The key's name, fingerprint, rights and end; in the shell the user's."""
    assert paas.ssh("whoami").stdout.startswith("admin  SHA256:")
    assert paas.cli("whoami").stdout == "root  admin\n"
    key, name = ssh_key(tmp_path, "eu"), unique("eu")
    public = key.with_suffix(".pub").read_text()
    options = ("--service", "web", "--branch", "release/*", "--expires", "2099-12-31")
    assert paas.ssh("keys", "add", name, "-", *options, stdin=public).returncode == 0
    try:
        told = paas.ssh("whoami", key=key).stdout
        assert "deploys web from release/*  until 2099-12-3" in told
        found = json.loads(paas.ssh("whoami", "--json", key=key).stdout)
        assert found["branches"] == ["release/*"]
        assert found["expires"].startswith("2099-12-3")
    finally:
        paas.ssh("keys", "remove", name)


def test_help_and_wrong_usage(run: Run) -> None:
    """--help everywhere with 0; a wrong usage is one line with 2."""
    for argv in (["help"], ["keys", "--help"], ["keys", "add", "--help"], ["logs", "--help"]):
        done = run(*argv)
        assert done.returncode == 0
        assert done.stdout.startswith("Usage: mypaas")
    assert "add, list, remove" in run("keys").stderr
    for argv in (
        ["nosuch"],
        ["status"],
        ["keys"],
        ["keys", "nosuch"],
        ["logs", "x", "-n", "many"],
    ):
        done = run(*argv)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


def test_server_commands_are_not_served_over_ssh(paas: Paas) -> None:
    """What belongs to the server's shell does not exist over ssh."""
    for argv in (["server", "start"], ["server", "init", "--yes"], ["push", "x", "."]):
        done = paas.ssh(*argv)
        assert done.returncode == 2
        assert "No such command" in done.stderr


def test_server_deploy(paas: Paas, tmp_path: Path) -> None:
    """A directory on the server is deployed as if pushed, and can be cloned."""
    name = unique("direct")
    directory = tmp_path / "files"
    directory.mkdir()
    dockerfile = directory / "Dockerfile"
    dockerfile.write_text(web_dockerfile(f"service={name}", f"url=http://{name}.test"))
    done = paas.cli("server", "deploy", str(directory))
    assert done.returncode == 0, done.stderr
    assert f"=====> {name} v1 is live" in done.stderr
    assert paas.get(f"http://{name}.test/").text == "hello\n"
    dockerfile.write_text(dockerfile.read_text().replace("FROM", "FORM"))
    done = paas.cli("server", "deploy", str(directory))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("; v1 still live")
    assert paas.get(f"http://{name}.test/").text == "hello\n"
    audited = json.loads(paas.cli("audit", "--json", "--service", name).stdout)
    found = [(each["verb"], each["service"], each["code"]) for each in audited]
    assert found == [("server deploy", name, ""), ("server deploy", name, "build-failed")]
    assert "server retire" not in paas.cli("audit").stdout, "it is a part of the deploy"
    missing = paas.cli("server", "deploy", str(tmp_path / "nowhere"))
    assert missing.returncode == 1
    assert "there is no directory" in missing.stderr
