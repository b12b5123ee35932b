"""Traefik's container: where its image comes from, and how it is replaced by another."""

from __future__ import annotations

from collections.abc import Callable

from support import engine
from support.paas import Paas


def proxy_of(paas: Paas) -> str:
    """The name of its container."""
    return f"{paas.namespace}-traefik"


def image_of(container: str) -> str:
    return str(engine.inspect(container)["Config"]["Image"])


def test_an_image_that_was_built_stands_in_for_no_other(
    new_paas: Callable[[], Paas], registry: str
) -> None:
    """Once built for one that could not be pulled, it kept all others from being pulled."""
    paas = new_paas()
    built = image_of(proxy_of(paas))
    assert built.startswith("mypaas-embedded/traefik:")
    wanted = f"{registry}/traefik:wanted"
    engine.docker("tag", built, wanted)
    try:
        engine.docker("push", wanted)
        engine.docker("rmi", wanted)
        paas.configure("traefik_image", f'"{wanted}"')
        paas.start()
        assert image_of(proxy_of(paas)) == wanted
    finally:
        paas.close()
        engine.docker("rmi", "--force", wanted, check=False)
