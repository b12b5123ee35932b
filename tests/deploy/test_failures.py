"""What goes wrong: one clear line, exit 1, branch unmoved, the old release serving."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import engine
from support.apps import BASE, commit, make_app, unique, web_dockerfile
from support.net import free_port, wait_until
from support.paas import Paas
from support.relay import Relay
from support.stockgit import clean_env, git


@pytest.fixture(scope="module")
def hasty(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paas]:
    """A server that gives new releases three seconds only."""
    paas = Paas(tmp_path_factory.mktemp("hasty"))
    paas.init()
    config = paas.home / "config.toml"
    config.write_text(
        re.sub(r"# health_timeout = \S+", 'health_timeout = "3s"', config.read_text())
    )
    paas.start()
    yield paas
    paas.close()


@dataclass
class Bad:
    """One way to fail: the Dockerfile, and what the pusher must read."""

    dockerfile: str | None
    code: str
    said: str
    scale: int = 1


URL = "# mypaas.url=http://{name}.test\n# mypaas.scale={scale}\n"
CASES = {
    "syntax error": Bad(
        URL + f"FROM {BASE}\nRUNN echo\n", "build-failed", r"Dockerfile line 4: unknown instr"
    ),
    "failing RUN": Bad(
        URL + f"FROM {BASE}\nRUN echo why && exit 7\n",
        "build-failed",
        r"Step 2/2 : RUN echo why && exit 7 returned 7 \(why\)",
    ),
    "missing base image": Bad(
        URL + "FROM 127.0.0.1:9/nothing/here:1\n", "build-failed", "127.0.0.1:9"
    ),
    "unknown directive": Bad(
        URL + f"# mypaas.ulr=x\nFROM {BASE}\n",
        "directives-invalid",
        r"line 3: unknown directive 'mypaas.ulr', did you mean 'mypaas.url'",
    ),
    "missing Dockerfile": Bad(None, "dockerfile-missing", "there is no Dockerfile"),
    "missing env key": Bad(
        URL + f"# mypaas.env=NOBODY_SET_THIS\nFROM {BASE}\n",
        "directives-invalid",
        r"line 3: mypaas.env: NOBODY_SET_THIS has no value",
    ),
    "exits": Bad(
        URL + f"FROM {BASE}\nCMD echo my last words; exit 3\n",
        "start-failed",
        r"exited with code 3 after [0-9.]+ s: my last words",
    ),
    "exits, not scaling": Bad(
        URL + f"FROM {BASE}\nCMD echo my last words; exit 3\n",
        "start-failed",
        r"exited with code 3 after [0-9.]+ s: my last words",
        scale=0,
    ),
    "no such command": Bad(
        URL + f'FROM {BASE}\nCMD ["/no/such/program"]\n', "start-failed", "/no/such/program"
    ),
    "never answers": Bad(
        URL + f"FROM {BASE}\nCMD exec sleep 100\n", "unhealthy", "last: connection refused"
    ),
    "bad status": Bad(
        URL + f"FROM {BASE}\nCMD exec httpd -f -p 80 -h /tmp\n", "unhealthy", "last: status 404"
    ),
    "forbidden volume": Bad(
        URL + f"# mypaas.volume=/var/run/docker.sock:/s\nFROM {BASE}\n",
        "host-refused",
        "docker",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_failed_deploy_changes_nothing(hasty: Paas, tmp_path: Path, case: str) -> None:
    """The pusher reads why; the branch, the service and the next good push are fine."""
    bad, name = CASES[case], unique()
    good = web_dockerfile(f"url=http://{name}.test", f"scale={bad.scale}")
    app = make_app(tmp_path, good)
    hasty.deploy(app, name)
    first = git(app, "rev-parse", "HEAD").stdout.strip()

    if bad.dockerfile is None:
        git(app, "rm", "-q", "Dockerfile")
        commit(app, {})
    else:
        commit(app, {"Dockerfile": bad.dockerfile.format(name=name, scale=bad.scale)})
    done = hasty.push(app, name)
    assert done.returncode == 1
    rejected = re.search(r"! \[remote rejected\] main -> main \((.*)\)", done.stderr)
    assert rejected, done.stderr
    assert rejected[1].startswith(f"{bad.code}: ")
    assert rejected[1].endswith("; v1 still live")
    assert re.search(bad.said, rejected[1])
    assert re.findall(r"^remote:  !     (.*?) *$", done.stderr, re.MULTILINE)[-1] == rejected[1]
    assert "Traceback" not in done.stderr

    assert git(
        app, "ls-remote", hasty.url(name), "main", env=hasty.git_env()
    ).stdout.startswith(first)
    assert hasty.get(f"http://{name}.test/").text == "hello\n"
    ours = engine.containers(hasty.namespace, f"label=mypaas.service={name}")
    assert ours == [f"{hasty.namespace}.{name}.v1.1"]

    again = hasty.push(app, name)
    assert again.returncode == 1, "the same commit can be pushed again"
    commit(app, {"Dockerfile": good.replace("hello", "mended")})
    hasty.deploy(app, name)
    assert hasty.get(f"http://{name}.test/").text == "mended\n"


def test_all_faults_of_a_dockerfile_at_once(paas: Paas, tmp_path: Path) -> None:
    """Every faulty line is named before anything is built."""
    name = unique()
    app = make_app(
        tmp_path, f"# mypaas.ulr=x\n# mypaas.port=0\nFROM {BASE}\n# mypaas.scale=x\n"
    )
    done = paas.push(app, name)
    assert done.returncode == 1
    assert all(f"line {number}: " in done.stderr for number in (1, 2, 4))
    assert "Building" not in done.stderr
    assert "nothing is live yet" in done.stderr


def test_a_port_in_use(paas: Paas, tmp_path: Path) -> None:
    """The port's number is named, and the release before gets its own back."""
    name, other, port, taken = unique(), unique(), free_port(), free_port()
    paas.deploy(
        make_app(tmp_path, web_dockerfile(f"publish=127.0.0.1:{taken}:80"), name="o"), other
    )
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", f"publish={port}:80"))
    paas.deploy(app, name)
    commit(
        app,
        {
            "Dockerfile": web_dockerfile(
                f"url=http://{name}.test", f"publish=127.0.0.1:{taken}:80"
            )
        },
    )
    done = paas.push(app, name)
    assert done.returncode == 1
    assert re.search(rf"\(port-in-use: .*{taken}.*; v1 still live\)", done.stderr), done.stderr
    assert paas.get(f"http://{name}.test/").text == "hello\n"


def test_a_url_that_another_service_has(paas: Paas, tmp_path: Path) -> None:
    """The owner is named, and keeps its address."""
    owner, rival = unique("owner"), unique("rival")
    dockerfile = web_dockerfile(f"url=http://{owner}.test")
    paas.deploy(make_app(tmp_path, dockerfile, name="a"), owner)
    done = paas.push(make_app(tmp_path, dockerfile.replace("hello", "stolen"), name="b"), rival)
    assert done.returncode == 1
    assert f"belongs to the service '{owner}'" in done.stderr
    assert paas.get(f"http://{owner}.test/").text == "hello\n"


def test_a_directive_for_another_service(paas: Paas, tmp_path: Path) -> None:
    """mypaas.service must be the remote's name (T50)."""
    name = unique()
    done = paas.push(make_app(tmp_path, web_dockerfile("service=other")), name)
    assert done.returncode == 1
    assert "mypaas.service is 'other'" in done.stderr


def test_traefik_down(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """A push waits for it, as the server starts it again; without a server it is refused."""
    paas, name = new_paas(), unique()
    paas.start()
    dockerfile = web_dockerfile(f"service={name}", f"url=http://{name}.test", "scale=1")
    app = make_app(tmp_path, dockerfile)
    paas.deploy(app, name)
    traefik = f"{paas.namespace}-traefik"
    engine.docker("stop", "-t", "1", traefik)
    commit(app, {"x": "1"})
    paas.deploy(app, name)
    assert paas.get(f"http://{name}.test/").text == "hello\n"
    paas.stop()
    engine.docker("stop", "-t", "1", traefik)
    commit(app, {"x": "2"})
    done = paas.cli("server", "deploy", str(app))
    assert done.returncode == 1
    assert re.search(r"router-down: .*exited.*; v2 still live", done.stderr), done.stderr
    paas.start()
    assert paas.cli("server", "deploy", str(app)).returncode == 0


def test_the_engine_is_down(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """A server that cannot reach its engine says so, and works once it can."""
    paas, name = new_paas(), unique()
    relay = Relay(tmp_path / "docker.sock")
    relay.open()
    paas.start(env={"DOCKER_HOST": f"unix://{relay.path}"})
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", "scale=1"))
    paas.deploy(app, name)
    relay.close()
    commit(app, {"x": "1"})
    done = paas.push(app, name)
    assert done.returncode == 1
    assert re.search(r"\(engine-down: the Docker Engine does not answer.*; v1", done.stderr)
    assert paas.get(f"http://{name}.test/").text == "hello\n"
    relay.open()
    paas.deploy(app, name)
    paas.stop()
    relay.close()


def test_a_killed_server_recovers(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """After kill -9 in the middle of a build the next start clears up and the push works."""
    paas, name = new_paas(), unique()
    paas.start()
    directives = (f"url=http://{name}.test", "scale=1")
    app = make_app(tmp_path, web_dockerfile(*directives))
    paas.deploy(app, name)
    slow = web_dockerfile(*directives, page="two\n", run="sleep 2")
    commit(app, {"Dockerfile": slow})
    pushing = subprocess.Popen(
        ["git", "-C", str(app), "push", paas.url(name), "main"],
        env=clean_env(paas.git_env()),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert pushing.stderr is not None
    while "RUN sleep 2" not in (line := pushing.stderr.readline()):
        assert line, "the build never began"
    paas.stop(signal.SIGKILL)
    pushing.communicate(timeout=30)
    assert pushing.returncode != 0
    assert paas.get(f"http://{name}.test/").text == "hello\n"
    paas.start()
    assert "interrupted" in paas.cli("releases", name).stdout
    paas.deploy(app, name)
    assert paas.get(f"http://{name}.test/").text == "two\n"


def test_what_was_killed_or_lost_comes_back(
    new_paas: Callable[[], Paas], tmp_path: Path
) -> None:
    """A start brings back containers and routes that are gone, and removes strays."""
    paas, name = new_paas(), unique()
    paas.start()
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", "scale=2"))
    paas.deploy(app, name)
    paas.stop()
    engine.docker("rm", "-f", f"{paas.namespace}.{name}.v1.1")
    engine.docker("stop", "-t", "0", f"{paas.namespace}.{name}.v1.2")
    (paas.home / "routes" / "_services.yml").unlink()
    paas.start()
    wait_until(lambda: paas.get(f"http://{name}.test/").status == 200, "it serves again")
    assert engine.containers(paas.namespace, f"label=mypaas.service={name}") == [
        f"{paas.namespace}.{name}.v1.{n}" for n in (1, 2)
    ]


def test_a_lost_ledger_costs_no_service(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """Without its ledger a server takes nothing that runs for a leftover (T70)."""
    paas, name = new_paas(), unique()
    paas.start()
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", "scale=1"))
    paas.deploy(app, name)
    paas.stop()
    for path in paas.home.glob("ledger.db*"):
        path.unlink()
    paas.start()
    assert "unknown-replica" in paas.log()
    assert paas.get(f"http://{name}.test/").text == "hello\n"


def test_a_secret_that_went_away_stops_nothing(
    new_paas: Callable[[], Paas], tmp_path: Path
) -> None:
    """A running release needs no config to go on; a restart of the server leaves it be."""
    paas, name = new_paas(), unique()
    config = paas.home / "config.toml"
    before = config.read_text()
    config.write_text(before + 'TOKEN = "x"\n')
    paas.start()
    directives = (f"url=http://{name}.test", "scale=1", "env=TOKEN")
    paas.deploy(make_app(tmp_path, web_dockerfile(*directives)), name)
    config.write_text(before)
    paas.restart()
    assert paas.get(f"http://{name}.test/").text == "hello\n"
    assert "not-reconciled" not in paas.log()
