"""Who pushes, at the other end of the wire: sends a pack, sees progress, gets the report.

Format: git's ``gitprotocol-pack(5)``, "Report Status".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Lock, Thread

from dulwich.errors import GitProtocolError
from dulwich.protocol import pkt_seq

from mypaas_git.errors import GitRefused
from mypaas_git.git.commands import SIDE_BAND, Command, Request
from mypaas_git.git.ingest import Quarantine, Take
from mypaas_git.git.limits import Limits, PackBroken
from mypaas_git.git.packstream import PackStream
from mypaas_git.git.wire import Wire
from mypaas_git.progress import LineProgress

SILENCE = 4.0
"""Seconds without a word after which something that lies between may think us dead."""
_KEEPALIVE = b"\x01"
"""An empty packet of the report's band, which git's clients pass over."""


class Pusher:
    """A client that has sent its commands; it may be gone at any time."""

    def __init__(self, wire: Wire, request: Request, take: Take) -> None:
        self._wire = wire
        self._take = take
        capabilities = request.capabilities
        self._side_band = SIDE_BAND in capabilities
        self._wants_report = bool({b"report-status", b"report-status-v2"} & capabilities)
        self._sends_pack = request.sends_pack
        self._broken = False
        # A build and a health check may both have something to say.
        self._writing = Lock()
        self._listens = True
        self._spoke = time.monotonic()
        # git asks for "quiet" wherever there is no terminal, where people read this, too.
        self.progress = LineProgress(self._show)

    def send_pack(self, quarantine: Quarantine, limit: int) -> bytes | None:
        """Take the pack in, and return its checksum, None if there is nothing in it.

        Raises :class:`GitRefused`.
        """
        if not self._sends_pack:
            return None
        self._sends_pack, self._broken = False, True
        try:
            checksum = self._take(self._wire.recv, quarantine, limit)
        except PackBroken:
            raise
        except GitRefused:
            self._broken = False
            raise
        self._broken = False
        return checksum

    @contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Say something now and then, however long the rest is silent."""
        if not self._side_band:
            yield
            return
        ended = Event()
        thread = Thread(target=self._pulse, args=[ended], name="keepalive", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def report(self, unpacked: str, commands: Sequence[Command]) -> None:
        """Say what became of everything, the last words of a push."""
        lines = [f"unpack {unpacked}\n".encode()]
        for command in commands:
            status = b"ok %s" % command.raw_ref
            if command.reason is not None:
                status = b"ng %s %s" % (command.raw_ref, command.reason.encode())
            lines.append(status + b"\n")
        with self._writing:
            if self._wants_report and self._side_band:
                self._wire.write_sideband(1, pkt_seq(*lines))
            elif self._wants_report:
                for line in lines:
                    self._wire.write_pkt_line(line)
            if self._wants_report or self._side_band:
                self._wire.write_pkt_line(None)
            self._listens = False

    def finish(self, limit: int) -> None:
        """Read what is still being sent: git looks at the report only afterwards."""
        if self._sends_pack:
            try:
                limits = Limits(received=limit)
                for _ in PackStream(self._wire.recv, len, limits, keep=False).entries():
                    pass
            except GitRefused:
                self._broken = True
        if self._broken:
            self._wire.drain(limit)

    def _show(self, line: str) -> None:
        """Show a line at once."""
        data = line.encode("utf-8", "replace")
        with self._writing:
            self._say(lambda: self._wire.write_sideband(2, data))

    def _pulse(self, ended: Event) -> None:
        while not ended.wait(max(0.0, self._spoke + SILENCE - time.monotonic())):
            with self._writing:
                if time.monotonic() - self._spoke >= SILENCE:
                    self._say(lambda: self._wire.write_pkt_line(_KEEPALIVE))

    def _say(self, write: Callable[[], None]) -> None:
        """Write; that nobody is there to see it is no reason to stop."""
        self._spoke = time.monotonic()
        if self._side_band and self._listens:
            try:
                write()
            except GitProtocolError:
                self._listens = False
