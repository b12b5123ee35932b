"""T14: a peer that vanishes, whose cable somebody has pulled: nothing comes any more."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from served import Served, serving
from support.engine import NAMESPACE_LABEL, docker, inspect, sweep
from support.net import wait_until
from support.stockgit import clean_env

from mypaas_git.ssh import patience

NAMESPACE = f"mypaas-test-{os.getpid()}-vanished"
LABEL = f"{NAMESPACE_LABEL}={NAMESPACE}"


@pytest.fixture
def network(engine: None) -> Iterator[str]:
    """The address of this host on a network of the test's own, named ``NAMESPACE``."""
    docker("network", "create", "--label", LABEL, NAMESPACE)
    try:
        yield inspect(NAMESPACE)["IPAM"]["Config"][0]["Gateway"]
    finally:
        sweep(NAMESPACE)


@contextmanager
def remote_ssh(served: Served, host: str, command: str) -> Iterator[None]:
    """Stock ssh, whose packets come from a container on the network."""
    key = served.new_key("alice")
    proxy = (
        f"docker run -i --rm --name {NAMESPACE} --network {NAMESPACE} --label {LABEL} "
        f"mypaas-test/busybox nc {host} {served.port}"
    )
    process = subprocess.Popen(
        ["ssh", *served.options(key), "-o", f"ProxyCommand={proxy}", "127.0.0.1", command],
        env=clean_env(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        assert served.backend.running.wait(30)
        yield
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("command", ["follow", "flood"])
def test_vanished(
    tmp_path: Path, network: str, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """A command notices it, whether it waits or writes, and the connection is given up."""
    monkeypatch.setattr(patience, "VANISHED_SECONDS", 6)
    with (
        serving(tmp_path, host="0.0.0.0") as served,  # noqa: S104 - the test's own network
        remote_ssh(served, network, command),
    ):
        docker("network", "disconnect", "-f", NAMESPACE, NAMESPACE)
        assert served.backend.saw_gone.wait(30)
        wait_until(lambda: served.logged("disconnected"), "the connection is given up")
