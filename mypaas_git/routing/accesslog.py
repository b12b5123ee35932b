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
        """Begin a new file when the last one is full. Raises EngineDown."""
        with contextlib.suppress(FileNotFoundError):
            if self._file(0).stat().st_size > MAX_BYTES:
                for number in range(KEPT, 0, -1):
                    with contextlib.suppress(FileNotFoundError):
                        self._file(number - 1).replace(self._file(number))
                self._reopen()

    def _file(self, number: int) -> Path:
        return self.directory / (f"{NAME}.{number}" if number else NAME)


def arguments() -> list[str]:
    """What Traefik is to be started with; headers, and so passwords, are left out of itself."""
    return [
        "--accessLog=true",
        "--accessLog.format=json",
        f"--accessLog.filePath={INSIDE}/{NAME}",
    ]
