"""The connection to the Docker Engine, and its faults in our words."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException, NotFound

from mypaas_git.errors import EngineDown

TIMEOUT = 60
"""Seconds that the engine may take to answer one request."""


# What the SDK lets through when the engine is away, goes away or is silent.
_LOST = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    DockerException,
    ConnectionError,
)


class Client:
    """Connects when first needed, so that a server can start before its engine."""

    def __init__(self) -> None:
        self._api: docker.APIClient | None = None
        self._lock = threading.Lock()

    @property
    def api(self) -> docker.APIClient:
        """The engine's API, in the newest version that both sides speak."""
        with self._lock:
            if self._api is None:
                with engine_errors():
                    self._api = _connect("auto")
            return self._api

    def another(self) -> docker.APIClient:
        """A connection of the caller's own, to be closed by it."""
        version = self.api.api_version
        with engine_errors():
            return _connect(version)

    def image(self, name: str) -> dict[str, Any] | None:
        """What the engine knows of an image, by its name or id; None if there is none."""
        api: Any = self.api  # the stubs leave this call's types out
        with engine_errors(), contextlib.suppress(NotFound):
            found: dict[str, Any] = api.inspect_image(name)
            return found
        return None

    def close(self) -> None:
        with self._lock:
            if self._api is not None:
                self._api.close()
                self._api = None


def _connect(version: str) -> docker.APIClient:
    client = docker.from_env(version=version, timeout=TIMEOUT, max_pool_size=64)
    return client.api


@contextlib.contextmanager
def engine_errors() -> Iterator[None]:
    """Turn whatever the engine does not do into EngineDown.

    A refusal that means something is handled inside, where its meaning is known.
    """
    try:
        yield
    except APIError as error:
        raise EngineDown(f"the Docker Engine failed: {explanation(error)}") from error
    except _LOST as error:
        raise EngineDown(
            "the Docker Engine does not answer; start it with: systemctl start docker"
        ) from error


def explanation(error: APIError) -> str:
    """What the engine said, on one line."""
    return " ".join(str(error.explanation or error).split())
