"""The least that a deploy can cost: a cached build, a container, its boot.

    deploy_floor.py DIRECTORY TAG

runs in the network namespace of the engine that DOCKER_HOST names, where containers can
be reached, and prints the seconds that each step took as JSON.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from support.machine import Machine

from mypaas_git.runtime.buildclient import BuildClient
from mypaas_git.runtime.client import Client

POLL = 0.005
PATIENCE = 30.0


@dataclass(frozen=True)
class Floor:
    """Seconds of ``docker build``, and from ``docker run`` to the first answer.

    ``pair`` is from two of those at once until both answer: a service of two replicas
    cannot be quicker, since the engine starts its containers one after the other.
    """

    build: float
    run: float
    pair: float

    @property
    def total(self) -> float:
        return self.build + self.run


def on(machine: Machine, directory: Path, tag: str) -> Floor:
    """Measure on a machine, with the docker client that our own server builds with there."""
    done = subprocess.run(
        [*machine.inside, sys.executable, __file__, str(directory), tag],
        env={**os.environ, "DOCKER_HOST": machine.docker_host},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the floor could not be measured:\n{done.stderr}")
    # What the client's search says of itself comes before.
    return Floor(**json.loads(done.stdout.splitlines()[-1]))


def measure(directory: str, tag: str) -> Floor:
    client = BuildClient(Client()).find()
    docker, buildkit = (str(client), "1") if client else ("docker", "0")
    os.environ["DOCKER_BUILDKIT"] = buildkit
    began = time.monotonic()
    _docker(docker, "build", "-q", "-t", tag, directory)
    built = time.monotonic() - began
    return Floor(built, _run(docker, tag, 1), _run(docker, tag, 2))


def _run(docker: str, tag: str, count: int) -> float:
    """Seconds until ``count`` containers, all started at once, answer."""
    with ThreadPoolExecutor(count) as pool:
        began = time.monotonic()
        containers = list(pool.map(lambda _: _start(docker, tag), range(count)))
        took = time.monotonic() - began
    _docker(docker, "rm", "-f", *containers)
    return took


def _start(docker: str, tag: str) -> str:
    """Run a container and wait until it answers; returns its id."""
    container = _docker(docker, "run", "-d", "--pull=never", tag)
    _wait_for(_docker(docker, "inspect", "-f", "{{.NetworkSettings.IPAddress}}", container))
    return container


def _docker(docker: str, *args: str) -> str:
    return subprocess.run(
        [docker, *args], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not _answers(address):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{address} does not answer")
        time.sleep(POLL)


def _answers(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=2)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    print(json.dumps(asdict(measure(sys.argv[1], sys.argv[2]))))
