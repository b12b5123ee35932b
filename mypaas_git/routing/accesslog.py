"""The proxy's log of requests, kept from growing without end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

NAME = "access.log"
INSIDE = "/access-log"
"""The directory of the log, inside the container."""
MAX_BYTES = 50 << 20
KEPT = 4
"""How many full files are kept beside the one that is written: ``access.log.1`` and so on."""


class AccessLog:
    """The files in ``directory``; ``reopen`` has the proxy write to a new one."""

    def __init__(self, directory: Path, reopen: Callable[[], None]) -> None:
        self.directory = directory
        self._reopen = reopen

    def make(self) -> None:
        self.directory.mkdir(mode=0o700, exist_ok=True)

    def rotate(self) -> None:
        """Begin a new file when the last one is full, or gone. Raises EngineDown.

        It is gone where a server was killed before the proxy heard of a full one: that goes
        on in a file of another name until it is told to open a new one.
        """
        if self._is_full():
            for number in range(KEPT, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    self._file(number - 1).replace(self._file(number))
        if not self._file(0).exists():
            self._reopen()

    def _is_full(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return self._file(0).stat().st_size > MAX_BYTES
        return False

    def _file(self, number: int) -> Path:
        return self.directory / (f"{NAME}.{number}" if number else NAME)


def arguments() -> list[str]:
    """What Traefik is to be started with.

    It leaves headers out of itself, and so passwords. In queries there are tokens.
    """
    return [
        "--accessLog=true",
        "--accessLog.format=json",
        f"--accessLog.filePath={INSIDE}/{NAME}",
        "--accessLog.fields.queryParameters.defaultMode=drop",
    ]
