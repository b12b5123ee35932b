"""A server of the test's own: home, namespace, ports and keys, with stock clients."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from mypaas_git.names import ServiceName
from mypaas_git.routing.routes import Routes
from support.engine import sweep
from support.keys import public_keys, ssh_key
from support.machine import Machine
from support.net import Answer, fetch, free_port, wait_until
from support.stockgit import clean_env, git, ssh_command, ssh_options

MYPAAS = str(Path(sys.executable).parent / "mypaas")
PREFIX = "mypaas-test"
"""Namespaces are ``mypaas-test-<pid of pytest>-<n>``: scripts/test sweeps those of the dead."""

_numbers = itertools.count(1)


class Paas:
    """``mypaas server start`` as a process, and the ways in which people reach it.

    ``root`` is an empty directory; it gets ``home`` (MYPAAS_HOME), ``user`` (the
    server's ``~``), the admin's key ``admin`` and the server's output.
    """

    domain = "paas.test"
    running: ClassVar[set[Paas]] = set()
    """Those that are not closed yet, for the report of a test that fails."""

    def __init__(self, root: Path, machine: Machine | None = None) -> None:
        """With a ``machine`` it runs there, on that machine's engine."""
        self.root = root
        self.machine = machine
        self.address = machine.address if machine else "127.0.0.1"
        self.namespace = f"{PREFIX}-{os.getpid()}-{next(_numbers)}"
        self.home = root / "home"
        self.user_home = root / "user"
        self.known_hosts = root / "known_hosts"
        self.ssh_port, self.web, self.web_secure = free_port(), free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.before: list[str] = []
        """Words in front of the server's command, such as of a program that starts it."""
        self.user_home.mkdir(parents=True)
        self.admin = ssh_key(root, "admin")
        self.running.add(self)

    # The server's life.

    def init(self) -> None:
        """``mypaas server init`` with everything that it would ask."""
        listens = {
            "--ssh-listen": self.ssh_port,
            "--web-listen": self.web,
            "--web-secure-listen": self.web_secure,
        }
        ports = [
            part for name, port in listens.items() for part in (name, f"{self.address}:{port}")
        ]
        done = self.cli(
            # No email: nobody is to ask the real Let's Encrypt for a certificate.
            *("server", "init", "--domain", self.domain),
            *("--admin-key", f"{self.admin}.pub", *ports),
            *("--namespace", self.namespace, "--yes"),
        )
        assert done.returncode == 0, done.stderr + done.stdout

    def route(self, name: str) -> dict[str, Any] | None:
        """What Traefik is told of a service."""
        return Routes(self.home / "routes").read(ServiceName(name))

    def configure(self, key: str, value: str) -> None:
        """Give a setting that config.toml only shows, as in ``health_timeout``, ``"3s"``."""
        config = self.home / "config.toml"
        text, count = re.subn(rf"(?m)^# {key} = .*$", f"{key} = {value}", config.read_text())
        assert count == 1, f"no setting {key} to change"
        config.write_text(text)

    def start(self, *, env: Mapping[str, str] | None = None, seconds: float = 120) -> None:
        """Start the server and wait for its ready line."""
        self.launch(env=env)
        self.wait_ready(seconds=seconds)

    def launch(self, *, env: Mapping[str, str] | None = None) -> None:
        """Start the server; it is not ready yet."""
        assert self.process is None, "it runs already"
        with (self.root / "out").open("wb") as out, (self.root / "err").open("ab") as err:
            self.process = subprocess.Popen(
                [*self._inside, *self.before, MYPAAS, "server", "start"],
                env=self.env(env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def wait_ready(self, *, seconds: float = 120) -> None:
        """Return once the server has printed its ready line."""
        process = self.process
        assert process is not None, "it does not run"
        wait_until(
            lambda: self.ready_line() or process.poll() is not None,
            "the server is ready",
            seconds=seconds,
        )
        if process.poll() is not None and not self.ready_line():
            self.process = None
            raise AssertionError(f"server start ended with {process.returncode}:\n{self.log()}")
        lines = [f"[{self.address}]:{self.ssh_port} {key}" for key in public_keys(self.home)]
        self.known_hosts.write_text("".join(lines))

    def stop(self, sig: signal.Signals = signal.SIGTERM, *, seconds: float = 60) -> int:
        """Send ``sig``, wait for the end, return the exit code."""
        assert self.process is not None, "it does not run"
        process, self.process = self.process, None
        process.send_signal(sig)
        try:
            return process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"did not end within {seconds} s:\n{self.log()}") from None

    def wait_killed(self, *, seconds: float = 60) -> None:
        """Return once the server has died of SIGKILL, as by a failpoint."""
        assert self.process is not None, "it does not run"
        process, self.process = self.process, None
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"nothing killed it:\n{self.log()}") from None
        assert code == -signal.SIGKILL, f"it ended with {code}:\n{self.log()}"

    def restart(self) -> None:
        """End the server by SIGTERM and start it again."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the server and remove whatever it made in the engine."""
        self.running.discard(self)
        try:
            if self.process is not None:
                self.stop()
        finally:
            if self.machine is None:
                sweep(self.namespace)

    def ready_line(self) -> str:
        """``ready ssh=… web=… web_secure=…`` once it was printed, else nothing."""
        found = re.search(r"^ready .*$", (self.root / "out").read_text(), re.MULTILINE)
        return found[0] if found else ""

    def usage(self) -> tuple[int, int]:
        """How many threads and descriptors the server has at the moment."""
        assert self.process is not None, "it does not run"
        proc = Path(f"/proc/{self.process.pid}")
        return len(list((proc / "task").iterdir())), len(list((proc / "fd").iterdir()))

    def log(self) -> str:
        """What the server has printed, and the log that it keeps in its home."""
        files = [self.root / "out", self.root / "err", *sorted(self.home.glob("logs/*"))]
        return "".join(path.read_text("utf-8", "replace") for path in files if path.is_file())

    # The people who use it.

    def env(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of the server and of its shell."""
        ours = {"MYPAAS_HOME": str(self.home), "HOME": str(self.user_home)}
        if self.machine:
            ours["DOCKER_HOST"] = self.machine.docker_host
        return clean_env({**ours, **(env or {})})

    @property
    def _inside(self) -> list[str]:
        return self.machine.inside if self.machine else []

    def cli(
        self,
        *argv: str,
        stdin: str = "",
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        seconds: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """``mypaas argv`` in the server's shell."""
        return _run(
            [*self._inside, MYPAAS, *argv], self.env(env), stdin, cwd or self.root, seconds
        )

    def ssh(
        self, *argv: str, key: Path | None = None, stdin: str = "", seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """``ssh mypaas@server argv`` with the admin's key, or another."""
        options = ssh_options(key or self.admin, self.known_hosts)
        where = ["-p", str(self.ssh_port), f"mypaas@{self.address}"]
        return _run(["ssh", *options, *where, *argv], clean_env(), stdin, self.root, seconds)

    def url(self, service: str) -> str:
        """The git remote of a service."""
        return f"ssh://mypaas@{self.address}:{self.ssh_port}/{service}"

    def git_env(self, key: Path | None = None) -> dict[str, str]:
        """What git needs in its environment to reach this server."""
        return ssh_command(ssh_options(key or self.admin, self.known_hosts))

    def push(
        self,
        app: Path,
        service: str,
        branch: str = "main",
        *options: str,
        key: Path | None = None,
        seconds: float = 240,
    ) -> subprocess.CompletedProcess[str]:
        """``git push options REMOTE branch``; ``branch`` may be any refspec."""
        argv = ["push", *options, self.url(service), branch]
        return git(app, *argv, env=self.git_env(key), check=False, seconds=seconds)

    def deploy(self, app: Path, service: str, *, key: Path | None = None) -> str:
        """Push ``main``, which must succeed; returns what the pusher saw."""
        done = self.push(app, service, key=key)
        assert done.returncode == 0, f"{done.stderr}\n--- server:\n{self.log()[-5000:]}"
        return done.stderr

    def get(
        self, url: str, *, host: str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """GET ``url`` through Traefik, whatever its host's name resolves to."""
        ports = {"web": self.web, "web_secure": self.web_secure}
        return fetch(url, host=host, headers=headers, address=self.address, **ports)


def _run(
    argv: list[str], env: dict[str, str], stdin: str, cwd: Path, seconds: float
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        cwd=cwd,
        env=env,
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=seconds,
        check=False,
    )
