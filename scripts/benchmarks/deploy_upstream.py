"""Upstream mypaas, on a machine of its own since it prunes containers and images.

It runs as ``mypaas server init`` and ``server restart router`` would have set it up, less
what needs the internet (Let's Encrypt) and what newer Traefiks no longer know (its old
metrics), with the same Traefik as ours.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import toml
from support import rolling
from support.load import Load
from support.machine import Machine

PROGRAM = Path(__file__).resolve().parents[2] / ".cache" / "upstream" / "bin"
"""Where scripts/bench has put it."""

CONFIG = """\
[init]
domain = "paas.test"
email = ""
web_credentials = "nobody:nothing"

[env]
"""


class Upstream:
    """``mypaas server deploy`` on ``machine``, of one service with its version 1 live."""

    def __init__(self, machine: Machine, root: Path, name: str, traefik: str) -> None:
        self._machine = machine
        self._root = root
        self._name = name
        self._files = root / "app"
        self._files.mkdir(parents=True)
        self._home = root / "_mypaas"
        self._home.mkdir()
        self.number = 0
        self._init()
        self._start_traefik(traefik)

    @property
    def version(self) -> str:
        return f"v{self.number}"

    def load(self) -> Load:
        return Load((self._machine.address, 80), f"{self._name}.test", self._root)

    def change(self, *, deaf: bool = False) -> None:
        """Write a new version."""
        self.number += 1
        rolling.write(self._files, rolling.version(self._name, self.number, deaf=deaf))

    def deploy(self) -> None:
        """Deploy what was written."""
        self._run("mypaas", "server", "deploy", str(self._files))

    def _init(self) -> None:
        (self._home / "config.toml").write_text(CONFIG)
        self._run("python", "-c", "import mypaas.server; mypaas.server.init_router()")
        path = self._home / "traefik.toml"
        config = toml.loads(path.read_text())
        del config["certificatesResolvers"], config["metrics"]
        path.write_text(toml.dumps(config))
        self._machine.docker("network", "create", "mypaas-net")

    def _start_traefik(self, image: str) -> None:
        names = ("traefik.toml", "staticroutes.toml", "acme.json")
        mounts = [f"--volume={self._home}/{name}:/{name}" for name in names]
        socket = self._machine.docker_host.removeprefix("unix://")
        self._machine.docker(
            *("run", "-d", "--restart=always", "--network=host", "--name=traefik", *mounts),
            *(f"--volume={socket}:/var/run/docker.sock", image, "--configFile=/traefik.toml"),
        )

    def _run(self, program: str, *args: str) -> None:
        done = subprocess.run(
            [*self._machine.inside, str(PROGRAM / program), *args],
            env={
                **os.environ,
                "HOME": str(self._root),
                "DOCKER_HOST": self._machine.docker_host,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"upstream's {program} failed:\n{done.stdout}{done.stderr}")
