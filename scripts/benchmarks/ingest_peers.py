"""Who receives: our server, and OpenSSH's with stock git behind it, both on loopback."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from support.keys import public_keys, ssh_key
from support.net import free_port, listening, wait_until
from support.stockgit import clean_env, git, ssh_command, ssh_options

SERVED = Path(__file__).with_name("ingest_served.py")

_SSHD = """\
ListenAddress 127.0.0.1:{port}
HostKey {root}/host_key
AuthorizedKeysFile {root}/client.pub
AuthenticationMethods publickey
PermitRootLogin yes
UsePAM no
UseDNS no
StrictModes no
PidFile none
PrintLastLog no
PrintMotd no
# The default turns clients away when many arrive at once.
MaxStartups 200
LogLevel ERROR
PermitUserRC no
# bash would read ~/.bashrc for each command, which here may take longer than a push.
SetEnv HOME={root} GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
"""


class Peer(Protocol):
    """A server with empty repositories to push to, and a client's key that it knows."""

    pid: int
    """The process that all others of the server descend from."""

    @property
    def env(self) -> Mapping[str, str]:
        """What git needs in its environment to log in."""

    @property
    def login(self) -> list[str]:
        """The command line of an ssh that logs in; options may be appended."""

    def url(self, name: str) -> str:
        """Where a client pushes the repository ``name``."""

    def path(self, name: str) -> Path:
        """Where it is stored."""

    def prepare(self, name: str, config: Mapping[str, str], base: str | None) -> None:
        """Have a repository like the one called ``base``, or one that was never pushed to."""


class Mypaas:
    """Our own server, in a process of its own."""

    def __init__(self, root: Path, key: Path) -> None:
        self._root, self._key, self._port = root, key, free_port()
        self.pid = 0

    @property
    def env(self) -> Mapping[str, str]:
        return ssh_command(ssh_options(self._key, self._known_hosts))

    @property
    def login(self) -> list[str]:
        return _login(self._key, self._known_hosts, self._port, "bench")

    def url(self, name: str) -> str:
        return f"ssh://bench@127.0.0.1:{self._port}/{name}"

    def path(self, name: str) -> Path:
        return self._root / "home" / "repos" / f"{name}.git"

    def prepare(self, name: str, config: Mapping[str, str], base: str | None) -> None:
        if config:
            raise ValueError("git's settings are not ours")
        if base:  # else the first push makes it
            shutil.copytree(self.path(base), self.path(name))

    @contextmanager
    def running(self) -> Iterator[None]:
        argv = [str(SERVED), str(self._root / "home"), str(self._port), f"{self._key}.pub"]
        with (self._root / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *argv],
                env=clean_env({"HOME": str(self._root)}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        with _until_left(process, self._port):
            self.pid = process.pid
            keys = public_keys(self._root / "home")
            self._known_hosts.write_text(
                "".join(f"[127.0.0.1]:{self._port} {key}" for key in keys)
            )
            yield

    @property
    def _known_hosts(self) -> Path:
        return self._root / "known_hosts"


class Sshd:
    """OpenSSH's server, run as the documentation of git has it, without a wrapper."""

    def __init__(self, root: Path, key: Path) -> None:
        self._root, self._key, self._port = root, key, free_port()
        self._user = pwd.getpwuid(os.getuid()).pw_name
        self.pid = 0

    @property
    def env(self) -> Mapping[str, str]:
        return ssh_command(ssh_options(self._key, self._known_hosts))

    @property
    def login(self) -> list[str]:
        return _login(self._key, self._known_hosts, self._port, self._user)

    def url(self, name: str) -> str:
        return f"ssh://{self._user}@127.0.0.1:{self._port}{self.path(name)}"

    def path(self, name: str) -> Path:
        return self._root / "repos" / f"{name}.git"

    def prepare(self, name: str, config: Mapping[str, str], base: str | None) -> None:
        path = self.path(name)
        if base:
            shutil.copytree(self.path(base), path)
        else:
            path.mkdir(parents=True)
            git(path, "init", "-q", "--bare", "-b", "main")
        for key, value in config.items():
            git(path, "config", key, value)

    @contextmanager
    def running(self) -> Iterator[None]:
        if not (self._root / "host_key").exists():
            ssh_key(self._root, "host_key")
        shutil.copy(f"{self._key}.pub", self._root / "client.pub")
        config = self._root / "sshd_config"
        config.write_text(_SSHD.format(port=self._port, root=self._root))
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd gives up its rights
        # sshd wants to be called by its whole path.
        program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin") or "/usr/sbin/sshd"
        with (self._root / "log").open("ab") as log:
            process = subprocess.Popen(
                [program, "-D", "-e", "-f", str(config)], env=clean_env(), stderr=log
            )
        with _until_left(process, self._port):
            self.pid = process.pid
            public = (self._root / "host_key.pub").read_text()
            self._known_hosts.write_text(f"[127.0.0.1]:{self._port} {public}")
            yield

    @property
    def _known_hosts(self) -> Path:
        return self._root / "known_hosts"


@contextmanager
def peers(root: Path) -> Iterator[dict[str, Peer]]:
    """Both servers, running and new, with their repositories below ``root``."""
    key = root / "client"
    if not key.exists():
        ssh_key(root, "client")
    for name in ("mypaas", "sshd"):
        (root / name).mkdir(exist_ok=True)
    ours, theirs = Mypaas(root / "mypaas", key), Sshd(root / "sshd", key)
    with ours.running(), theirs.running():
        yield {"mypaas": ours, "git": theirs}


@contextmanager
def _until_left(process: subprocess.Popen[bytes], port: int) -> Iterator[None]:
    try:
        wait_until(
            lambda: listening(port) or process.poll() is not None, "a server accepts clients"
        )
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        yield
    finally:
        process.terminate()
        process.wait(30)


def _login(key: Path, known_hosts: Path, port: int, user: str) -> list[str]:
    return ["ssh", *ssh_options(key, known_hosts), "-p", str(port), f"{user}@127.0.0.1"]
