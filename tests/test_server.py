"""The server as a whole: its start, its end, and what it refuses at the door."""

from __future__ import annotations

import re
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import engine
from support.apps import make_app, unique, web_dockerfile
from support.keys import ssh_key
from support.net import fetch, wait_until
from support.paas import Paas
from support.stockgit import git, ssh_options

from mypaas_git.errors import NameRefused
from mypaas_git.server import service_of


def test_ready_line_and_clean_end(new_paas: Callable[[], Paas]) -> None:
    """One line on stdout once pushes are accepted; SIGTERM ends it with 0."""
    paas = new_paas()
    paas.start()
    assert paas.ready_line() == (
        f"ready ssh=127.0.0.1:{paas.ssh_port} web=127.0.0.1:{paas.web} "
        f"web_secure=127.0.0.1:{paas.web_secure}"
    )
    assert paas.stop() == 0
    assert (paas.root / "out").read_text() == "ready" + paas.ready_line()[5:] + "\n"


def test_sigterm_behind_a_pause(new_paas: Callable[[], Paas]) -> None:
    """It ends a server that goes on after SIGSTOP, where any thread may get the signal.

    In every other round it was another than the main thread.
    """
    paas = new_paas()
    for _ in range(3):
        paas.start()
        assert paas.process is not None
        paas.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: _state(paas) == "T", "it is paused")
        paas.process.send_signal(signal.SIGCONT)
        assert paas.stop() == 0


def test_two_servers_on_one_home(paas: Paas) -> None:
    """The second is refused with one line (T69)."""
    done = paas.cli("server", "start")
    assert done.returncode == 1
    assert "another server runs on" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_homes_with_one_namespace(paas: Paas, new_paas: Callable[[], Paas]) -> None:
    """A home that would take another's containers for leftovers does not start."""
    rival = new_paas()
    config = rival.home / "config.toml"
    config.write_text(config.read_text().replace(rival.namespace, paas.namespace))
    done = rival.cli("server", "start")
    assert done.returncode == 1
    assert f"belongs to the server at {paas.home}" in done.stderr


def test_sigterm_ends_a_follower(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """Whoever follows a log does not keep the server from stopping."""
    paas, name = new_paas(), unique()
    paas.start()
    paas.deploy(make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", "scale=1")), name)
    options = ssh_options(paas.admin, paas.known_hosts)
    with subprocess.Popen(
        ["ssh", *options, "-p", str(paas.ssh_port), "x@127.0.0.1", "logs", name, "-f"],
        stdin=subprocess.DEVNULL,
    ) as following:
        wait_until(lambda: "logs" in paas.log(), "the follower has come")
        assert paas.stop(seconds=15) == 0
        assert following.wait(5) == 0


def _state(paas: Paas) -> str:
    """``T`` of a process that is paused."""
    assert paas.process is not None
    return Path(f"/proc/{paas.process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_init_keeps_what_is_there(new_paas: Callable[[], Paas]) -> None:
    """A second init changes neither config nor keys, and says what it kept."""
    paas = new_paas()
    files = [
        "config.toml",
        "authorized_keys",
        *sorted(p.name for p in paas.home.glob("host*/*")),
    ]
    paths = [p for name in files for p in paas.home.rglob(name)]
    before = [path.read_bytes() for path in paths]
    done = paas.cli("server", "init", "--domain", "other.test", "--yes")
    assert done.returncode == 0, done.stderr
    assert "[init] domain stays 'paas.test'" in done.stderr
    assert [path.read_bytes() for path in paths] == before
    for path in paas.home.glob("host_keys/*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((paas.home / "config.toml").stat().st_mode) == 0o600


def test_init_asks_what_it_was_not_told(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """Without --yes the questions come on stderr and Enter takes the default."""
    paas = new_paas()
    paas.home = tmp_path / "asked"
    engine.docker("rm", "-f", f"{paas.namespace}-traefik")  # it belongs to the other home
    ports = [f"127.0.0.1:{port}" for port in (paas.ssh_port, paas.web, paas.web_secure)]
    answers = ["asked.test", "", *ports, paas.namespace, f"{paas.admin}.pub"]
    done = paas.cli("server", "init", stdin="\n".join(answers) + "\n")
    assert done.returncode == 0, done.stderr
    assert 'domain = "asked.test"' in (paas.home / "config.toml").read_text()
    assert "The server's own name" in done.stderr


def test_init_checks_before_it_writes(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """A wrong answer is asked again; a wrong key, or nobody to ask, leaves no config."""
    paas = new_paas()
    paas.home = tmp_path / "checked"
    done = paas.cli("server", "init", "--yes", "--admin-key", "/nowhere.pub")
    assert done.returncode == 1
    assert done.stderr == (
        "mypaas: key-refused: /nowhere.pub cannot be read: No such file or directory\n"
    )
    done = paas.cli("server", "init", stdin="not a domain\ngood.test\n")
    assert done.returncode == 2
    assert "'not a domain' is not a host name" in done.stderr
    assert "nobody answered" in done.stderr
    assert not (paas.home / "config.toml").exists()


def test_traefiks_api_takes_the_password(paas: Paas) -> None:
    """Nobody reads the API without it, and it listens on loopback only (T52)."""
    ports = engine.inspect(f"{paas.namespace}-traefik")["NetworkSettings"]["Ports"]
    (api,) = ports["8080/tcp"]
    assert api["HostIp"] == "127.0.0.1"
    assert fetch("http://x/api/rawdata", web=int(api["HostPort"])).status == 401
    command = engine.inspect(f"{paas.namespace}-traefik")["Config"]["Cmd"]
    assert not any("insecure" in each for each in command)
    password = (paas.home / "traefik.password").read_text()
    assert password not in str(engine.inspect(f"{paas.namespace}-traefik"))


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The only line that a refused client reads."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode != 0
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def test_plain_ssh_is_refused(paas: Paas) -> None:
    """There is no shell, no scp, no port forwarding."""
    assert "no shell here" in one_line(paas.ssh())
    assert "No such command 'ls'" in one_line(paas.ssh("ls", "-l"))
    assert "git-upload-archive" in one_line(paas.ssh("git-upload-archive '/x'"))


def test_a_hostile_path_is_refused(paas: Paas, tmp_path: Path) -> None:
    """../x and the like are no services' names (T15)."""
    app = make_app(tmp_path, "FROM scratch\n")
    for path in ("../x", "..%2fx", "a/b", "~root", "x;id", "UPPER"):
        url = f"mypaas@127.0.0.1:{path}"
        env = {**paas.git_env()}
        env["GIT_SSH_COMMAND"] += f" -p {paas.ssh_port}"
        done = git(app, "push", url, "main", env=env, check=False)
        assert "fatal: remote error: name-invalid: " in one_line(done)
    assert sorted(p.name for p in paas.home.glob("repos/*")) == sorted(
        p.name for p in paas.home.glob("repos/*.git")
    )


@pytest.mark.parametrize(
    ("path", "service"), [("/hello", "hello"), ("hello.git", "hello"), ("/hello.git/", "hello")]
)
def test_paths_that_name_a_service(path: str, service: str) -> None:
    """With and without the slash and the ending, as git's users write them."""
    assert service_of(path) == service


@pytest.mark.parametrize(
    "path", ["", "/", "../x", "x/../y", "//x", "~root", "x\0y", "é", "a.b"]
)
def test_paths_that_name_none(path: str) -> None:
    """Everything else is refused."""
    with pytest.raises(NameRefused):
        service_of(path)


def test_a_wrong_branch_is_refused_with_the_right_command(paas: Paas, tmp_path: Path) -> None:
    """The line can be copied, and tags are stored."""
    name = unique()
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test"))
    git(app, "branch", "feature")
    done = paas.push(app, name, "feature")
    assert done.returncode == 1
    assert "git push mypaas feature:main" in done.stderr
    paas.deploy(app, name)
    git(app, "tag", "v1.0")
    assert paas.push(app, name, "v1.0").returncode == 0
    listed = git(app, "ls-remote", paas.url(name), env=paas.git_env()).stdout
    assert "refs/tags/v1.0" in listed
    assert "feature" not in listed


def test_an_unknown_key_is_refused(paas: Paas, tmp_path: Path) -> None:
    """OpenSSH's own line, and nothing is made."""
    name = unique()
    stranger = ssh_key(tmp_path, "stranger")
    done = paas.push(make_app(tmp_path, web_dockerfile()), name, key=stranger)
    assert done.returncode != 0
    assert "Permission denied (publickey)" in done.stderr
    assert not (paas.home / "repos" / f"{name}.git").exists()


def test_clone_and_fetch_back(paas: Paas, tmp_path: Path) -> None:
    """What was pushed can be had again."""
    name = unique()
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test"))
    paas.deploy(app, name)
    git(tmp_path, "clone", "-q", paas.url(name), "copy", env=paas.git_env())
    head = git(app, "rev-parse", "HEAD").stdout
    assert git(tmp_path / "copy", "rev-parse", "HEAD").stdout == head
    url, env = paas.url("missing"), paas.git_env()
    refused = one_line(git(tmp_path, "clone", "-q", url, "no", env=env, check=False))
    assert "fatal: remote error: repository-missing: there is no repository" in refused


def test_a_key_for_some_services(paas: Paas, tmp_path: Path) -> None:
    """services="…" lets it deploy those and see no other."""
    mine, other = unique("mine"), unique("other")
    key = ssh_key(tmp_path, mine)
    public = Path(f"{key}.pub").read_text()
    added = paas.ssh("keys", "add", mine, "-", "--service", mine, stdin=public)
    assert added.returncode == 0, added.stderr
    app = make_app(tmp_path, web_dockerfile(f"url=http://{mine}.test"))
    paas.deploy(app, mine, key=key)
    refused = one_line(paas.push(app, other, key=key))
    assert f"access-denied: the key '{mine}' has no right to the service '{other}'" in refused
    assert "access-denied" in one_line(paas.ssh("keys", "list", key=key))
    assert "access-denied" in one_line(paas.ssh("status", other, key=key))
    listed = paas.ssh("services", key=key).stdout
    assert mine in listed
    assert len(listed.splitlines()) == 2
    whoami = paas.ssh("whoami", key=key).stdout
    assert re.fullmatch(rf"{mine}  SHA256:\S+  deploys {mine}\n", whoami)


def test_a_key_for_some_branches(paas: Paas, tmp_path: Path) -> None:
    """What is live of a branch that is not the key's is not the key's to act upon."""
    name = unique()
    key = ssh_key(tmp_path, name)
    paas.cli("keys", "add", name, f"{key}.pub", "--branch", "wip/*")
    paas.deploy(make_app(tmp_path, web_dockerfile(f"url=http://{name}.test")), name)
    for words in (
        *(("restart", name), ("redeploy", name), ("stop", name), ("start", name)),
        *(("rollback", name), ("run", name, "--", "env")),
    ):
        done = paas.ssh(*words, key=key)
        assert done.returncode == 1, words
        assert "may push to wip/* only" in done.stderr
    assert paas.ssh("status", name, key=key).returncode == 0


def test_progress_is_live(paas: Paas, tmp_path: Path) -> None:
    """A line of the build reaches the pusher while the build goes on."""
    name = unique()
    # The time keeps the step from coming from the builder's cache. It lasts as long as a
    # command may take on a machine that is busy with other tests.
    run = f"echo early && sleep 10 && : {time.time()}"
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", run=run))
    with subprocess.Popen(
        ["git", "-C", str(app), "push", paas.url(name), "main"],
        env=paas.env(paas.git_env()),
        stderr=subprocess.PIPE,
        text=True,
    ) as pushing:
        assert pushing.stderr is not None
        for line in pushing.stderr:
            if line.startswith("remote:        early"):
                break
        assert pushing.poll() is None
        listed = paas.cli("releases", name).stdout
        assert "building" in listed
        rest = pushing.stderr.read()
    assert pushing.returncode == 0
    assert "is live in" in rest
