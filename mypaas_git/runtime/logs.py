"""What a container has printed, as a stream that can be ended from outside."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from typing import Any

from docker.errors import NotFound
from docker.types import CancellableStream

from mypaas_git.runtime.base import LogStream
from mypaas_git.runtime.client import Client, engine_errors


def open_logs(
    client: Client, container: str, *, tail: int | None, follow: bool, since: float | None
) -> LogStream:
    """Begin to read; there is nothing in a container that is gone. Raises EngineDown."""
    with engine_errors():
        try:
            found = client.api.logs(
                container,
                stream=True,
                follow=follow,
                tail="all" if tail is None else tail,
                since=since,
            )
        except NotFound:
            return _Nothing()
    return _Stream(found)


class _Nothing:
    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    def close(self) -> None:
        pass


class _Stream:
    """The SDK's stream, which leaves its connection to the garbage collector."""

    def __init__(self, found: CancellableStream[bytes]) -> None:
        self._found: Any = found

    def __iter__(self) -> Iterator[bytes]:
        try:
            with engine_errors(), contextlib.suppress(struct.error):  # closed in a header
                yield from self._found
        finally:
            self._found._response.close()

    def close(self) -> None:
        # Only now its end may have come, and have taken all that this would close.
        with contextlib.suppress(OSError, AttributeError):
            self._found.close()
