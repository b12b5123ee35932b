from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.apps import unique, web_dockerfile
from support.keys import ssh_key
from support.net import free_port, wait_until
from support.paas import Paas
from support.sshd import Sshd
from support.stockgit import git

CLI = [sys.executable, "-m", "mypaas_git.cli"]
HOOK = "#!/bin/sh\necho '-----> Building hello-world' >&2\n"


class Client:
    """Runs ``mypaas push`` where neither git nor ssh can be found."""

    def __init__(self, root: Path, sshd: Sshd) -> None:
        self.app = root / "app"
        self.home = root / "home"
        self.sshd = sshd
        self.server = f"root@127.0.0.1:{sshd.port}"
        self.key = sshd.root / "alice"
        self.known_hosts = self.home / ".ssh" / "known_hosts"
        self.known_hosts.parent.mkdir(parents=True, mode=0o700)
        self.known_hosts.write_text(sshd.known_hosts_line)
        self.app.mkdir()
        self.write("Dockerfile", "# mypaas.service=hello-world\nFROM scratch\n")
        self.write("server.py", "print(1)\n")

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": "/nonexistent", "HOME": str(self.home), "LC_ALL": "C.UTF-8"}

    def command(self, *args: str | Path) -> list[str]:
        return [*CLI, "push", *map(str, args)]

    def write(self, name: str, text: str) -> None:
        (self.app / name).write_text(text)

    def push(self, *options: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return self.run(*options, "-i", self.key, self.server, self.app, stdin=stdin)

    def run(
        self, *args: str | Path, stdin: str = "", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*args),
            env={**self.env, **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    server.authorize(ssh_key(server.root, "alice"))
    with server.running():
        yield server


@pytest.fixture
def repo(sshd: Sshd) -> Iterator[Path]:
    path = sshd.repo("hello-world", pre_receive=HOOK)
    yield path
    subprocess.run(["rm", "-rf", str(path)], check=True)


@pytest.fixture
def client(tmp_path: Path, sshd: Sshd) -> Client:
    return Client(tmp_path, sshd)


def test_a_directory_is_deployed(client: Client, repo: Path) -> None:
    """First push, unchanged, changed file: what the user sees, and what arrives."""
    done = client.push()
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("Sending 4 objects (")
    assert done.stderr.endswith(" B)\n-----> Building hello-world\n")
    tip = git(repo, "rev-parse", "main").stdout.strip()
    done = client.push()
    assert done.returncode == 0
    assert done.stderr == f"Nothing changed since {tip[:7]}: hello-world is up to date\n"
    client.write("server.py", "print(2)\n")
    (client.app / "server.py").chmod(0o755)
    (client.app / "link").symlink_to("server.py")
    assert client.push().returncode == 0
    assert git(repo, "show", "main:server.py").stdout == "print(2)\n"
    assert git(repo, "ls-tree", "--format=%(objectmode) %(path)", "main").stdout == (
        "100644 Dockerfile\n120000 link\n100755 server.py\n"
    )
    assert git(repo, "rev-parse", "main^").stdout.strip() == tip


def test_ignored_files_stay_at_home(client: Client, repo: Path) -> None:
    """Both ignore files are honoured."""
    client.write(".gitignore", ".env\n")
    client.write(".dockerignore", "*.md\n")
    client.write(".env", "SECRET=1\n")
    client.write("README.md", "x\n")
    assert client.push().returncode == 0
    listed = git(repo, "ls-tree", "-r", "--name-only", "main").stdout.split()
    assert listed == [".dockerignore", ".gitignore", "Dockerfile", "server.py"]


def test_a_failing_deploy_exits_1_with_the_reason(client: Client, repo: Path) -> None:
    """The server's lines, then its reason, as git words it; pushing again is possible."""
    client.push()
    (repo / "hooks" / "pre-receive").write_text(HOOK + "exit 1\n")
    client.write("server.py", "print(2)\n")
    done = client.push()
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        "-----> Building hello-world",
        " ! [remote rejected] main (pre-receive hook declined)",
    ]
    assert git(repo, "show", "main:server.py").stdout == "print(1)\n"
    (repo / "hooks" / "pre-receive").write_text(HOOK)
    assert client.push().returncode == 0


def test_a_missing_service_is_one_line(client: Client) -> None:
    """The server's refusal is shown as it is."""
    done = client.push()
    assert done.returncode == 1
    assert "does not appear to be a git repository" in done.stderr


def test_faults_of_the_directory_are_told_before_connecting(client: Client) -> None:
    """A missing directory or Dockerfile, and all directive faults, need no server."""
    nowhere = f"127.0.0.1:{free_port()}"
    done = client.run(nowhere, client.app / "missing")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"there is no directory {client.app / 'missing'}" in done.stderr
    client.write("Dockerfile", "# mypaas.servce=x\n# mypaas.port=0\nFROM scratch\n")
    done = client.run(nowhere, client.app)
    assert done.returncode == 1
    assert "mypaas.servce" in done.stderr
    assert "mypaas.port" in done.stderr
    client.write("Dockerfile", "FROM scratch\n")
    done = client.run(nowhere, client.app)
    assert done.returncode == 1
    assert "mypaas.service" in done.stderr
    (client.app / "Dockerfile").unlink()
    done = client.run(nowhere, client.app)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"there is no Dockerfile in {client.app}" in done.stderr


def test_usage(client: Client) -> None:
    """Exit code 2 for a command line that makes no sense, 0 for --help."""
    assert client.run("::1", client.app).returncode == 2
    assert client.run(client.server).returncode == 2
    assert client.run("--wat").returncode == 2
    shown = client.run("--help")
    assert shown.returncode == 0
    for option in ("SERVER", "DIRECTORY", "--identity", "--host-key"):
        assert option in shown.stdout


def test_a_server_that_is_not_there(client: Client) -> None:
    """One line, exit 1."""
    port = free_port()
    done = client.run("-i", client.key, f"127.0.0.1:{port}", client.app)
    assert done.returncode == 1
    assert done.stderr == (
        f"mypaas: connection-failed: cannot reach 127.0.0.1:{port}: Connection refused\n"
    )


def test_an_unknown_host_asks(client: Client, repo: Path, sshd: Sshd) -> None:
    """No answer says how to answer in advance; no is no; yes is remembered."""
    client.known_hosts.unlink()
    done = client.push()
    assert done.returncode == 1
    assert f"add --host-key {sshd.fingerprint}" in done.stderr.splitlines()[-1]
    assert client.push(stdin="\n").returncode == 1
    assert client.push(stdin="n\n").returncode == 1
    assert not client.known_hosts.exists()
    done = client.push(stdin="y\n")
    assert done.returncode == 0
    assert f"{sshd.fingerprint}. Trust it? [y/N]" in done.stderr
    assert client.push().returncode == 0


def test_a_fingerprint_answers_in_advance(client: Client, repo: Path, sshd: Sshd) -> None:
    """For scripts."""
    client.known_hosts.unlink()
    assert client.push("--host-key", sshd.fingerprint).returncode == 0
    assert client.known_hosts.read_text() == sshd.known_hosts_line


def test_a_changed_host_key_is_refused(client: Client, tmp_path: Path) -> None:
    """Whatever is answered; the line is named."""
    other = ssh_key(tmp_path, "other").with_suffix(".pub").read_text().split()[1]
    client.known_hosts.write_text(f"[127.0.0.1]:{client.sshd.port} ssh-ed25519 {other}\n")
    done = client.push(stdin="y\n")
    assert done.returncode == 1
    assert "HAS CHANGED" in done.stderr
    assert f"{client.known_hosts}:1" in done.stderr


def test_an_unknown_key_is_refused(client: Client, tmp_path: Path) -> None:
    """One line that says how to have it added."""
    client.key = ssh_key(tmp_path, "mallory")
    done = client.push()
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "mypaas keys add" in done.stderr


def test_a_passphrase_is_asked_on_stdin(client: Client, repo: Path, tmp_path: Path) -> None:
    """A script can hand it over, and without one the agent is named."""
    client.key = ssh_key(tmp_path, "locked")
    client.sshd.authorize(client.key)
    change = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "sesame", "-f", str(client.key)]
    subprocess.run(change, check=True, capture_output=True)
    assert "ssh-add" in client.push().stderr
    assert client.push(stdin="sesame\n").returncode == 0


def test_a_terminal_sees_a_bar_and_is_asked(client: Client, repo: Path) -> None:
    """On a terminal: the question, the answer typed, a bar of objects and bytes."""
    client.known_hosts.unlink()
    client.write("large", "x" * 3_000_000)
    controller, terminal = pty.openpty()
    command = client.command("-i", client.key, client.server, client.app)
    with subprocess.Popen(
        command, env={**client.env, "TERM": "xterm"}, stdin=terminal, stderr=terminal
    ) as process:
        os.close(terminal)
        shown = b""
        try:
            while b"[y/N]" not in shown:
                shown += os.read(controller, 4096)
            os.write(controller, b"y\n")
            while data := _read(controller):
                shown += data
            assert process.wait(30) == 0
        finally:
            process.kill()
            os.close(controller)
    text = shown.decode()
    assert "Sending 5 objects (2.9 MiB)  [" in text
    assert "100%" in text
    assert "5/5, 2.9 MiB" in text
    assert "-----> Building hello-world" in text


def _read(controller: int) -> bytes:
    try:
        return os.read(controller, 4096)
    except OSError:  # how Linux says that the terminal's other side is closed
        return b""


def test_an_interrupt_is_one_line(client: Client, repo: Path) -> None:
    """Ctrl-C while the server works: exit 130, no traceback."""
    started = repo / "started"
    (repo / "hooks" / "pre-receive").write_text(f"#!/bin/sh\n: > {started}\nexec sleep 5\n")
    command = client.command("-i", client.key, client.server, client.app)
    with subprocess.Popen(
        command, env=client.env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            wait_until(started.exists, "the hook runs")
            process.send_signal(signal.SIGINT)
            _, shown = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 130
    assert shown.split("\n")[1:] == ["", "mypaas: interrupted", ""]


def test_our_own_server_deploys(paas: Paas, tmp_path: Path) -> None:
    """Against the real thing: a deploy, a changed file, no change, and a failing one."""
    service = unique("pushed")
    app = tmp_path / "app"
    app.mkdir()
    (app / "notes").write_text("always the same\n")

    def push(page: str, run: str = "") -> subprocess.CompletedProcess[str]:
        directives = (f"service={service}", f"url=http://{service}.test")
        (app / "Dockerfile").write_text(web_dockerfile(*directives, page=page, run=run))
        return subprocess.run(
            [*CLI, "push", "-i", str(paas.admin), f"127.0.0.1:{paas.ssh_port}", str(app)],
            env={"PATH": "/nonexistent", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    (tmp_path / ".ssh").mkdir(mode=0o700)
    (tmp_path / ".ssh" / "known_hosts").write_text(paas.known_hosts.read_text())
    done = push("one\n")
    assert done.returncode == 0, done.stderr
    assert f"=====> {service} v1 is live" in done.stderr
    assert paas.get(f"http://{service}.test/").text == "one\n"
    assert push("one\n").stderr.endswith(f": {service} is up to date\n")
    assert push("two\n").returncode == 0
    assert paas.get(f"http://{service}.test/").text == "two\n"
    done = push("three\n", run="false")
    assert done.returncode == 1
    assert " ! [remote rejected] main (build-failed: " in done.stderr.splitlines()[-1]
    assert paas.get(f"http://{service}.test/").text == "two\n"
    assert push("three\n").returncode == 0
    assert paas.get(f"http://{service}.test/").text == "three\n"
