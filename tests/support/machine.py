"""A host of the test's own: a network namespace with a Docker Engine of its own.

The engine that the tests share cannot be stopped for one of them, and programs that
prune must not be let near it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from support.engine import docker
from support.net import wait_until

ROOTS = Path("/var/lib")
PREFIX = "mypaas-m-"
"""Machines are called ``mypaas-m-<pid>-<n>``: scripts/test sweeps those of the dead."""

_numbers = itertools.count(1)


class Machine:
    """Use as a context manager: entering brings the engine up, leaving removes everything.

    ``address`` is where this host reaches it, ``docker_host`` its engine's socket.
    """

    def __init__(self, images: Sequence[str] = ()) -> None:
        number = next(_numbers)
        self.name = f"{PREFIX}{os.getpid()}-{number}"
        # Each gets a network of four addresses; the pid keeps runs side by side apart.
        block = (os.getpid() * 8 + number) % (1 << 14) * 4
        self.address = f"198.18.{block >> 8}.{(block & 255) + 2}"
        self._gateway = f"198.18.{block >> 8}.{(block & 255) + 1}"
        self._link = f"mp{os.getpid()}-{number}"
        self._images = images
        # Sockets have short names, and a temporary directory may be in memory.
        self._root = ROOTS / self.name
        self._socket = self._root / "docker.sock"
        self._engine: subprocess.Popen[bytes] | None = None

    @property
    def docker_host(self) -> str:
        return f"unix://{self._socket}"

    @property
    def inside(self) -> list[str]:
        """The words in front of a command that is to run there."""
        return ["nsenter", f"--net=/run/netns/{self.name}"]

    def __enter__(self) -> Machine:
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            self._root.mkdir(mode=0o700)
            self._make_network()
            self.start_engine()
            self.load(*self._images)
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the engine with all that runs on it, and remove network and files."""
        if self._engine is not None:
            running = self._docker("ps", "-q").stdout.split()
            if running:
                self._docker("rm", "-f", *running)
            self.stop_engine()
        _clear_away(self.name)

    def start_engine(self) -> None:
        """Start dockerd and wait until it answers."""
        with (self._root / "log").open("ab") as log:
            self._engine = subprocess.Popen(
                [
                    *self.inside,
                    "dockerd",
                    f"--data-root={self._root}/data",
                    f"--exec-root={self._root}/exec",
                    f"--host={self.docker_host}",
                    f"--pidfile={self._root}/pid",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is for the tests, which then end it
            )
        engine = self._engine

        def answers() -> bool:
            if engine.poll() is not None:
                raise AssertionError((self._root / "log").read_text()[-3000:])
            done = self._docker("version", "-f", "{{.Server.Version}}")
            return done.returncode == 0

        wait_until(answers, f"the engine of {self.name} answers", seconds=60, every=0.1)

    def stop_engine(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """End dockerd; its containers end with SIGTERM, and go on with SIGKILL."""
        assert self._engine is not None, "it does not run"
        engine, self._engine = self._engine, None
        engine.send_signal(sig)
        engine.wait(60)
        # A killed dockerd cannot remove what keeps the next one from starting. Its
        # containerd dies with it; containers and their shims live on.
        for name in ("pid", "exec/containerd/containerd.pid"):
            (self._root / name).unlink(missing_ok=True)

    def load(self, *images: str) -> None:
        """Bring images over from the engine that the tests share."""
        if images:
            with subprocess.Popen(
                ["docker", "save", *images], stdout=subprocess.PIPE
            ) as saving:
                subprocess.run(
                    ["docker", "load"],
                    env={**os.environ, "DOCKER_HOST": self.docker_host},
                    stdin=saving.stdout,
                    stdout=subprocess.DEVNULL,
                    check=True,
                )

    def docker(self, *args: str) -> str:
        """Run ``docker args`` against this engine and return what it prints."""
        done = self._docker(*args)
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n")

    def _docker(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", *args],
            env={**os.environ, "DOCKER_HOST": self.docker_host},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def _make_network(self) -> None:
        _ip("netns", "add", self.name)
        _ip(
            "link",
            "add",
            self._link,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            self.name,
        )
        _ip("addr", "add", f"{self._gateway}/30", "dev", self._link)
        _ip("link", "set", self._link, "up")
        for command in (
            ("addr", "add", f"{self.address}/30", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
            ("route", "add", "default", "via", self._gateway),
        ):
            _ip("-n", self.name, *command)


def traefik_images() -> list[str]:
    """Traefik's image, where the shared engine has it already: building it takes a while."""
    return docker(
        "images", "mypaas-embedded/traefik", "--format", "{{.Repository}}:{{.Tag}}"
    ).split()


def sweep_dead() -> None:
    """Remove what machines have left whose tests were killed."""
    for root in ROOTS.glob(f"{PREFIX}*"):
        pid = root.name.removeprefix(PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            _clear_away(root.name)


def _clear_away(name: str) -> None:
    """End whatever runs with files of this machine, and remove its network and files."""
    root = ROOTS / name
    for pid in processes(name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not list(processes(name)), f"what ran on {name} has ended")
    for mount in sorted(_mounts(root), reverse=True):
        subprocess.run(["umount", "-l", mount], check=False)
    # Its end of the pair of interfaces goes with the namespace, and takes ours along.
    _ip("netns", "del", name, check=False)
    shutil.rmtree(root, ignore_errors=True)


def _ip(*args: str, check: bool = True) -> None:
    done = subprocess.run(["ip", *args], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"ip {' '.join(args)}: {done.stderr}"


def processes(name: str) -> Iterator[int]:
    """Whatever runs with files of the machine ``name``: its engine, shims and containers.

    An engine that was killed leaves containers behind whose command lines tell nothing:
    their root does. Zombies are left out.
    """
    path = f"{ROOTS / name}/".encode()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (
                path in (entry / "cmdline").read_bytes() or path in _root_mount(entry)
            ):
                yield int(entry.name)


def _root_mount(process: Path) -> bytes:
    """What a process has for ``/``: its line of proc(5)'s mountinfo."""
    lines = (process / "mountinfo").read_bytes().splitlines()
    return b"".join(line for line in lines if line.split(b" ")[4] == b"/")


def _mounts(root: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines if line.split()[1].startswith(f"{root}/")]


if __name__ == "__main__":
    sweep_dead()
