"""Fixtures for every room. Only those that need Docker ask for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator

import pytest
from support import engine as docker_engine
from support.builds import Bench
from support.paas import Paas
from support.registry import run_registry


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows the end of what its servers have logged."""
    report = yield
    if report.failed and report.when == "call":
        logs = ((each.namespace, each.log()[-6000:]) for each in Paas.running)
        report.sections.extend((f"server {name}", log) for name, log in logs)
    return report


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker Engine that answers, with the images that tests build upon."""
    if not docker_engine.answers():
        pytest.fail("the Docker Engine does not answer: run the tests with scripts/test")
    if not docker_engine.docker("images", "-q", "mypaas-test/busybox"):
        pytest.fail("no image mypaas-test/busybox: run the tests with scripts/test")


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``127.0.0.1:PORT`` of a real image registry."""
    with run_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def new_paas(
    engine: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Paas]]:
    """Makes servers of a test's own, initialised and not yet started."""
    made: list[Paas] = []

    def make() -> Paas:
        made.append(Paas(tmp_path_factory.mktemp("paas")))
        made[-1].init()
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def paas(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paas]:
    """One running server for all tests that leave it as they found it.

    Services need names of their own: see ``support.apps.unique``.
    """
    shared = Paas(tmp_path_factory.mktemp("shared-paas"))
    try:
        shared.init()
        shared.start()
        yield shared
    finally:
        shared.close()


@pytest.fixture(params=["classic", "buildkit"])
def bench(engine: None, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Either builder, as everything that they share must hold for both."""
    with contextlib.closing(Bench(str(request.param))) as made:
        yield made


@pytest.fixture
def classic(engine: None) -> Iterator[Bench]:
    """The engine's classic builder."""
    with contextlib.closing(Bench("classic")) as made:
        yield made


@pytest.fixture
def buildkit(engine: None) -> Iterator[Bench]:
    """BuildKit through a docker client."""
    with contextlib.closing(Bench("buildkit")) as made:
        yield made
