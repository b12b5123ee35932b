"""``kill -9`` at every named place: visitors notice nothing, the next start repairs it all.

A server is started with one failpoint, dies there in mid-push, mid-rollback or in
mid-removal, and is started again without; what must hold then is in
``support/invariants.py`` (T62).
"""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import engine
from support.apps import commit, make_app, page_files, slow_files, unique
from support.invariants import live_of, settled
from support.kills import Kills
from support.net import being_answered, wait_until
from support.paas import Paas
from support.stockgit import clean_env, git
from support.visitors import Visitors

from mypaas_git.failpoints import POINTS, VARIABLE

SCALES = {"create.created": "2", "start.started": "2", "stop.stopped": "0"}
OF_A_REMOVAL = ("remove.recorded", "remove.removed")
OF_A_ROLLBACK = ("switch.confirmed", "ledger.live", "ref.unmoved", "ref.moved", "tag.set")
OF_THE_PROXY = tuple(point for point in POINTS if point.startswith("proxy."))
"""test_replacement.py has those."""
OF_A_SHELL = ("build.built", "create.created", "switch.confirmed", "ledger.live", "ref.moved")
PUSHED = [point for point in POINTS if point not in (*OF_A_REMOVAL, *OF_THE_PROXY)]
LIVE = POINTS.index("ledger.live")
"""From this one on it is the new release that is live."""


@pytest.fixture(scope="module")
def mortal(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paas]:
    """A server that is killed and started again by every test, and runs between them."""
    paas = Paas(tmp_path_factory.mktemp("mortal"))
    try:
        paas.init()
        config = paas.home / "config.toml"
        text = config.read_text()
        for key, value in (("drain", "2s"), ("stop", "2s"), ("health", "10s")):
            text = text.replace(f"# {key}_timeout = ", f'{key}_timeout = "{value}" # ')
        config.write_text(text)
        paas.start()
        yield paas
    finally:
        paas.close()


@dataclass
class Service:
    """A service with its repository, and who is killed while something is done to it."""

    paas: Paas
    app: Path
    name: str

    def version(self, number: int, scale: str = "1") -> str:
        """Commit a version that answers ``v<number>``, and return the commit's id."""
        return commit(self.app, page_files(self.name, f"v{number}", scale))

    def deploy(self, number: int, scale: str = "1") -> None:
        self.version(number, scale)
        self.paas.deploy(self.app, self.name)
        wait_until(lambda: self.page() == f"v{number}", f"v{number} answers")

    def page(self) -> str:
        return self.paas.get(f"http://{self.name}.test/").text

    def armed(self, point: str) -> None:
        """Have the server run with a failpoint; what runs is killed for it."""
        self.paas.stop(signal.SIGKILL)
        self.paas.start(env={VARIABLE: point})

    def recovered(self) -> None:
        """Start the server again, after which nothing is left to be desired."""
        self.paas.wait_killed()
        self.paas.start()
        _, wrong = settled(self.paas, self.name)
        assert wrong == [], self.paas.log()[-5000:]

    def containers(self) -> list[str]:
        return engine.containers(self.paas.namespace, f"label=mypaas.service={self.name}")

    def live_page(self) -> str:
        """What the live release answers, by the ledger."""
        live = live_of(self.paas, self.name)
        assert live is not None
        return git(self.app, "show", f"{live.commit}:index.html").stdout

    def check_tip(self) -> None:
        """The branch that people see is at the live commit."""
        live = live_of(self.paas, self.name)
        listed = git(
            self.app,
            *("ls-remote", self.paas.url(self.name), "refs/heads/*"),
            env=self.paas.git_env(),
        )
        assert live is not None
        assert listed.stdout.split() == [live.commit, f"refs/heads/{live.branch}"]

    def check_next_push(self, number: int) -> None:
        """Pushing on works, and then too nothing is left over."""
        self.deploy(number)
        _, wrong = settled(self.paas, self.name)
        assert wrong == [], self.paas.log()[-5000:]
        self.check_tip()


@pytest.fixture
def service(mortal: Paas, tmp_path: Path) -> Iterator[Service]:
    """A service of which nothing is deployed yet."""
    yield Service(mortal, make_app(tmp_path), unique())
    if mortal.process is None:  # the test has failed, which is no reason for the others to
        mortal.start()


def check_visitors(visitors: Visitors) -> None:
    assert visitors.failures == []
    assert visitors.answered > 20


def test_every_point_has_a_scenario() -> None:
    """A new failpoint is not forgotten here."""
    assert {*PUSHED, *OF_A_REMOVAL, *OF_THE_PROXY} == set(POINTS)
    assert {*OF_A_ROLLBACK, *OF_A_SHELL} <= set(PUSHED)


@pytest.mark.parametrize("point", PUSHED)
def test_killed_in_a_push(service: Service, point: str) -> None:
    """The service answers all along, what was acknowledged is live, nothing is left over."""
    paas, name, scale = service.paas, service.name, SCALES.get(point, "1")
    service.deploy(1, scale)
    service.armed(point)
    service.version(2, scale)
    with Visitors(paas, name, "v1", "v2") as visitors:
        pushed = paas.push(service.app, name)
        service.recovered()
        wait_until(lambda: service.page() == service.live_page(), "what is live answers")
    if scale != "0":
        check_visitors(visitors)
    assert service.page() == ("v2" if POINTS.index(point) >= LIVE else "v1")
    assert pushed.returncode or service.page() == "v2", "what was acknowledged is lost"
    service.check_tip()
    service.check_next_push(3)


@pytest.mark.parametrize("point", OF_A_ROLLBACK)
def test_killed_in_a_rollback(service: Service, point: str) -> None:
    """The same of a release that is restored; the branch goes back with it."""
    paas, name = service.paas, service.name
    service.deploy(1)
    service.deploy(2)
    service.armed(point)
    with Visitors(paas, name, "v1", "v2") as visitors:
        assert paas.ssh("rollback", name).returncode != 0
        service.recovered()
    check_visitors(visitors)
    assert service.page() == ("v1" if POINTS.index(point) >= LIVE else "v2")
    service.check_tip()
    if service.page() == "v1":
        git(service.app, "reset", "-q", "--hard", "HEAD^")
    service.check_next_push(3)


@pytest.mark.parametrize("point", OF_A_REMOVAL)
@pytest.mark.parametrize("options", [["--yes"], ["--yes", "--with-repo"]])
def test_killed_in_a_removal(service: Service, point: str, options: Sequence[str]) -> None:
    """What was to go is gone after the next start, and can be pushed anew."""
    paas, name = service.paas, service.name
    service.deploy(1)
    service.armed(point)
    assert paas.ssh("remove", name, *options).returncode != 0
    service.recovered()
    wait_until(lambda: paas.get(f"http://{name}.test/").status == 404, "nobody answers")
    assert (paas.home / "repos" / f"{name}.git").exists() == ("--with-repo" not in options)
    service.check_next_push(2)


@pytest.mark.parametrize("point", ["build.built", "start.healthy", "switch.confirmed"])
def test_killed_in_a_first_push(service: Service, point: str) -> None:
    """Nothing was acknowledged, so nothing is there, and the same commit can be pushed."""
    service.armed(point)
    service.version(1)
    assert service.paas.push(service.app, service.name).returncode != 0
    service.recovered()
    assert live_of(service.paas, service.name) is None
    assert (
        engine.containers(service.paas.namespace, f"label=mypaas.service={service.name}") == []
    )
    wait_until(
        lambda: service.paas.get(f"http://{service.name}.test/").status == 404, "nobody answers"
    )
    service.check_next_push(1)


def test_killed_in_a_first_push_to_another_branch(service: Service) -> None:
    """A clone of what recovered has files: the repository's HEAD leads to its branch."""
    paas, name = service.paas, service.name
    service.armed("ref.unmoved")
    service.version(1)
    assert paas.push(service.app, name, "main:master").returncode != 0
    service.recovered()
    service.check_tip()
    head = git(service.app, "ls-remote", paas.url(name), "HEAD", env=paas.git_env()).stdout
    assert head.split()[:1] == [git(service.app, "rev-parse", "HEAD").stdout.strip()]


@pytest.mark.parametrize("point", ["route.written", "switch.confirmed", "ledger.live"])
def test_killed_when_the_scale_changes(service: Service, point: str) -> None:
    """A service that did not scale and now does was not stopped, so it answers all along."""
    paas, name = service.paas, service.name
    service.deploy(1, "0")
    service.armed(point)
    service.version(2, "1")
    with Visitors(paas, name, "v1", "v2") as visitors:
        assert paas.push(service.app, name).returncode != 0
        service.recovered()
    check_visitors(visitors)
    service.check_next_push(3)


def test_killed_with_a_stopped_service(service: Service) -> None:
    """What was stopped stays so, and the half-made release does not stay."""
    paas, name = service.paas, service.name
    service.deploy(1)
    assert paas.ssh("stop", name).returncode == 0
    service.armed("create.created")
    service.version(2)
    assert paas.push(service.app, name).returncode != 0
    service.recovered()
    assert json.loads(paas.ssh("status", name, "--json").stdout)["health"] == "stopped"
    service.check_next_push(3)


@pytest.mark.parametrize("point", OF_A_SHELL)
def test_a_killed_deploy_of_a_shell(service: Service, point: str) -> None:
    """The server, which runs on, sees that nobody finishes it, and does."""
    paas, name, shell = service.paas, service.name, service.app
    # Not deployed from a repository: the server makes the commit.
    files = page_files(name, "v1")
    commit(shell, {**files, "Dockerfile": f"# mypaas.service={name}\n{files['Dockerfile']}"})
    assert paas.cli("server", "deploy", str(shell)).returncode == 0
    settled(paas, name)
    commit(shell, {"index.html": "v2"})
    with Visitors(paas, name, "v1", "v2") as visitors:
        killed = paas.cli("server", "deploy", str(shell), env={VARIABLE: point})
        assert killed.returncode == -signal.SIGKILL
        _, wrong = settled(paas, name)
    assert wrong == [], paas.log()[-5000:]
    check_visitors(visitors)
    assert service.page() == ("v2" if POINTS.index(point) >= LIVE else "v1")


def test_a_killed_build_ends(service: Service) -> None:
    """The step that was underway makes no image when everybody has forgotten about it."""
    paas, name = service.paas, service.name
    service.deploy(1)
    files = page_files(name, "v2")
    slow = f"{files['Dockerfile']}RUN echo {name}; sleep 4\n"
    commit(service.app, {**files, "Dockerfile": slow})
    with subprocess.Popen(
        ["git", "-C", str(service.app), "push", paas.url(name), "main"],
        env=clean_env(paas.git_env()),
        stderr=subprocess.PIPE,
        text=True,
    ) as pushing:
        assert pushing.stderr is not None
        for line in pushing.stderr:
            if "sleep 4" in line:
                break
        paas.stop(signal.SIGKILL)
        pushing.stderr.read()
    paas.start()
    time.sleep(5)
    # An image that was made all the same is found by the server after a minute.
    assert settled(paas, name, seconds=90)[1] == []
    assert engine.docker("images", "-q", f"{paas.namespace}/{name}:v2") == ""


@pytest.mark.parametrize(("what", "status"), [(["remove", "--yes"], 404), (["stop"], 503)])
def test_a_start_does_not_wait_for_drains(
    new_paas: Callable[[], Paas], tmp_path: Path, what: Sequence[str], status: int
) -> None:
    """Whoever is being served by what is to go is still, while others can push already."""
    paas, name = new_paas(), unique()
    paas.start()
    paas.deploy(make_app(tmp_path, None, slow_files(name, "v1")), name)
    running = (f"label=mypaas.service={name}", "status=running")
    with being_answered(paas.web, name, "/cgi-bin/slow"):
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(paas.ssh, what[0], name, *what[1:])
            wait_until(lambda: paas.get(f"http://{name}.test/").status == status, "it drains")
            paas.stop(signal.SIGKILL)
            assert asked.result().returncode != 0
        began = time.monotonic()
        paas.start()
        assert time.monotonic() - began < 10, "it waited for the drain"
        assert len(engine.containers(paas.namespace, *running)) == 1
    _, wrong = settled(paas, name)
    assert wrong == []


def test_killed_at_random_moments(mortal: Paas, tmp_path: Path) -> None:
    """Also where no failpoint is; `scripts/benchmarks/kills.py` does the same for longer."""
    if mortal.process is None:
        mortal.start()
    seed = secrets.randbelow(1 << 32)
    done = list(Kills(mortal, tmp_path, seed).rounds(3))
    bad = [f"{each} {each.failures}" for each in done if not each.fine]
    assert bad == [], f"with seed {seed}"
