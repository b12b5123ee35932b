"""An answer of the engine that takes its time, and that another thread may end."""

from __future__ import annotations

import contextlib
from email.utils import parsedate_to_datetime

from docker.errors import DockerException
from docker.types import CancellableStream
from requests import Response


class Answer:
    """The engine's answer, which another thread may end at any time.

    Before it begins, the context is on its way, whose chunks look at the watch themselves.
    """

    def __init__(self) -> None:
        self._response: Response | None = None
        self._ended = False
        self.began = ""
        """The engine's time when it began to build, to the second, as it writes times."""

    def begins(self, response: Response, **_: object) -> None:
        self._response = response
        with contextlib.suppress(KeyError, ValueError):
            date = parsedate_to_datetime(response.headers["Date"])
            self.began = date.strftime("%Y-%m-%dT%H:%M:%S")
        if self._ended:
            self.end()

    def end(self) -> None:
        """Hang up, which is how the engine is told to end a build and its container."""
        self._ended = True
        if self._response is not None:
            with contextlib.suppress(OSError, DockerException, AttributeError):
                CancellableStream(iter(()), self._response).close()

    def close(self) -> None:
        """Give back the connection, whatever has not been read."""
        if self._response is not None:
            self._response.close()
