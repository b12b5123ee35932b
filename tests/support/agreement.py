"""What branch, tags, ledger, containers and images say of a service: one story, or not."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

from support import engine
from support.net import wait_until
from support.paas import Paas
from support.stockgit import git


def releases(paas: Paas, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(paas.cli("releases", name, "--json").stdout)
    return found


def refs(paas: Paas, name: str) -> dict[str, str]:
    """What the server's repository has, by names; tags are peeled."""
    repository = paas.home / "repos" / f"{name}.git"
    listed = git(repository, "for-each-ref", "--format=%(refname) %(*objectname) %(objectname)")
    return {words[0]: words[1] for words in map(str.split, listed.stdout.splitlines())}


def containers(paas: Paas, name: str) -> list[str]:
    return engine.containers(paas.namespace, f"label=mypaas.service={name}")


def images(paas: Paas, name: str) -> set[str]:
    return set(
        engine.docker("images", f"{paas.namespace}/{name}", "--format", "{{.Tag}}").split()
    )


def all_agree(paas: Paas, name: str) -> list[dict[str, Any]]:
    """Fail unless branch, tags, ledger, containers and images tell one story.

    Returns the releases, newest first; old replicas have gone.
    """
    rows = releases(paas, name)
    assert not [row for row in rows if row["state"] not in ("live", "retired", "failed")]
    (live,) = [row for row in rows if row["state"] == "live"]
    known = refs(paas, name)
    assert known["refs/heads/main"] == live["commit"]
    tags = {
        ref.removeprefix("refs/tags/release/"): id_
        for ref, id_ in known.items()
        if ref.startswith("refs/tags/")
    }
    served = [row for row in rows if row["live"]]
    assert tags == {row["release"]: row["commit"] for row in served}
    expected = [f"{paas.namespace}.{name}.{live['release']}.1"]
    wait_until(lambda: containers(paas, name) == expected, f"only {expected} is left")
    wait_until(
        lambda: images(paas, name) <= {row["image"].rpartition(":")[2] for row in served},
        "no image of a failed attempt is left",
    )
    assert engine.inspect(expected[0])["Config"]["Image"] == live["image"]
    return rows


def ended(paas: Paas, name: str, number: int) -> dict[str, Any]:
    """The row of an attempt once it is over."""

    def row() -> dict[str, Any]:
        return next(each for each in releases(paas, name) if each["release"] == f"v{number}")

    wait_until(lambda: row()["state"] in ("live", "retired", "failed"), f"v{number} ends")
    return row()


def page(paas: Paas, name: str, path: str = "") -> str:
    return paas.get(f"http://{name}.test/{path}").text


@contextlib.contextmanager
def connected(paas: Paas, replica: str) -> Iterator[socket.socket]:
    """A visitor of a replica who stays, so that its drain lasts as long as the block."""
    found = engine.inspect(f"{paas.namespace}.{replica}")["NetworkSettings"]["Networks"]
    (network,) = found.values()
    with socket.create_connection((network["IPAddress"], 80)) as connection:
        yield connection
