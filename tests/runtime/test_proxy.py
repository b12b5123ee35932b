"""The proxy's container, on a real engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import engine as docker
from support.apps import BASE, unique
from support.net import wait_until

from mypaas_git.runtime.client import Client
from mypaas_git.runtime.proxy import ProxyContainer

WAITS = "trap 'echo reopened' USR1; echo ready; while :; do sleep 0.1; done"


@pytest.fixture
def client(engine: None) -> Iterator[Client]:
    made = Client()
    yield made
    made.close()


def test_only_one_that_runs_reopens_its_logs(client: Client) -> None:
    """One that is missing or does not run is no fault of the engine's: it is to be revived."""
    name = unique("proxy")
    proxy = ProxyContainer(client, name=name, namespace=name, network=name, home="/nowhere")
    proxy.reopen_logs()
    docker.docker("create", "--name", name, BASE, "sh", "-c", WAITS)
    try:
        proxy.reopen_logs()
        docker.docker("start", name)
        wait_until(lambda: "ready" in docker.docker("logs", name), "it runs")
        proxy.reopen_logs()
        wait_until(lambda: "reopened" in docker.docker("logs", name), "it is told")
    finally:
        docker.docker("rm", "-f", name)
