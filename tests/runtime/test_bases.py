"""Builds that would take another service's image in ways that no Dockerfile shows (T51)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import engine
from support.apps import BASE, unique
from support.builds import NAMESPACE, Bench

from mypaas_git.errors import BuildFailed, HostRefused

CODE = "the-code-of-the-victim"


@pytest.fixture
def victim(bench: Bench) -> str:
    """The image of another service."""
    return bench.build(f"FROM {BASE}\nRUN echo {CODE} > /code\n", service=unique("victim"))


@pytest.fixture
def trap(victim: str, registry: str) -> Iterator[str]:
    """A base image of a registry, not on this host, that copies from the victim's."""
    name = f"{registry}/{unique('trap')}:1"
    text = f"FROM {BASE}\nONBUILD COPY\t--from={victim} /code /stolen\n"
    engine.docker("build", "-t", name, "-", stdin=text.encode())
    engine.docker("push", name)
    engine.docker("rmi", name)
    yield name
    engine.docker("rmi", "-f", name, check=False)


def test_by_the_name_of_its_image(bench: Bench, victim: str) -> None:
    """Whoever comes this far is refused here as well."""
    with pytest.raises(
        HostRefused, match=r"^Dockerfile line 2: .* is the image of the service"
    ):
        bench.build(f"FROM {BASE}\nCOPY --from={victim} /code /\n")
    assert bench.lines == []


def test_by_the_id_of_its_image(bench: Bench, victim: str) -> None:
    """An id says nothing of whose it is, however little of it is given."""
    found = bench.client.image(victim)
    assert found is not None
    for length in (12, 40, 64):
        with pytest.raises(HostRefused, match="is the id of an image"):
            bench.build(f"FROM {found['Id'].removeprefix('sha256:')[:length]}\n")


def test_by_an_instruction_of_a_base_image(bench: Bench, trap: str) -> None:
    """It is found before the builder sees it, whether or not the image is here already."""
    for _ in range(2):
        with pytest.raises(HostRefused, match=f"the base image '{trap}' has an ONBUILD"):
            bench.build(f"FROM {trap}\nRUN cat /stolen\n")
        assert CODE not in "".join(bench.lines)
    assert bench.client.image(trap) is not None


def test_of_another_server(bench: Bench) -> None:
    """Two servers share an engine: neither builds upon the other's services."""
    name = unique("theirs")
    text = f"FROM {BASE}\nLABEL mypaas.namespace={name}\n"
    engine.docker("build", "-t", f"{name}/web:v1", "-", stdin=text.encode())
    try:
        with pytest.raises(HostRefused, match="of a service of another server"):
            bench.build(f"FROM {name}/web:v1\n")
    finally:
        engine.docker("rmi", "-f", f"{name}/web:v1")


def test_its_own_image_and_a_stage_of_a_like_name(bench: Bench, victim: str) -> None:
    """A service may build upon what it was, and call its stages what it likes."""
    own = victim.removeprefix(f"{NAMESPACE}/").partition(":")[0]
    bench.build(
        f"FROM {victim} AS cafe\nFROM {BASE}\n"
        "COPY --from=cafe /code /\nCOPY --from=0 /code /x\n",
        service=own,
        release=2,
    )


def test_a_base_image_that_cannot_be_had(bench: Bench) -> None:
    """It is named with its line; so is one for another kind of machine."""
    with pytest.raises(
        BuildFailed, match=r"^Dockerfile line 1: 127.0.0.1:9/x cannot be pulled"
    ):
        bench.build("FROM 127.0.0.1:9/x\n")
    with pytest.raises(HostRefused, match=r"line 1: this host runs linux/\w+, not linux/s390x"):
        bench.build(f"FROM --platform=linux/s390x {BASE}\n")
