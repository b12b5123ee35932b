"""A program on a terminal of its own, and somebody who types and reads there."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

CTRL_C, CTRL_D = b"\x03", b"\x04"


class Dialogue:
    """Use as a context manager; at its end the program is killed, if it has not ended."""

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], size: tuple[int, int] = (80, 24)
    ) -> None:
        self.shown = b""
        self._terminal, theirs = os.openpty()
        self.resize(*size)
        try:
            self.process = subprocess.Popen(
                argv,
                env=env,
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,
            )
        finally:
            os.close(theirs)

    def __enter__(self) -> Dialogue:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._terminal)

    def resize(self, columns: int, rows: int) -> None:
        """Give the window another size, which the program hears of as of any window's."""
        packed = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, packed)
        if hasattr(self, "process"):
            # It is no controlling terminal, since nobody opened it as one.
            self.process.send_signal(signal.SIGWINCH)

    def type(self, keys: bytes) -> None:
        os.write(self._terminal, keys)

    def expect(self, pattern: bytes, *, seconds: float = 60) -> re.Match[bytes]:
        """Read until ``pattern`` was shown, and forget what stood before its end."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.shown)):
            if time.monotonic() > deadline or not self._read(deadline - time.monotonic()):
                raise AssertionError(f"{pattern!r} was not shown, but {self.shown!r}")
        self.shown = self.shown[found.end() :]
        return found

    def wait(self, *, seconds: float = 60) -> int:
        """Read to the end; returns the exit code."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(max(1.0, deadline - time.monotonic()))

    def _read(self, seconds: float) -> bool:
        """Read something; False at the end, or after ``seconds``."""
        if not select.select([self._terminal], [], [], max(0.0, seconds))[0]:
            return False
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # everybody else has closed it
            return False
        self.shown += data
        return bool(data)
