"""Packs are taken in: small ones here and now, large ones by a child of a helper process.

A fork costs milliseconds, which is nothing against a large pack and much against a
small one. What is small is found out by trying.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from contextlib import suppress
from threading import Lock
from typing import Any

import structlog

from mypaas_git.errors import GitRefused, PackRefused, TreeRefused
from mypaas_git.git import deltas
from mypaas_git.git.ingest import Quarantine, Read, take_within
from mypaas_git.git.limits import MIB, SMALL, Outgrown, PackBroken
from mypaas_git.git.worker import ASK, LENGTH, VERDICT

CHUNK = 1 << 18
MODULE = "mypaas_git.git.worker"
MEMORY = 224 * MIB
SECONDS = 300
PATIENCE = 10.0
"""Seconds that the helper process may take to end once nobody needs it."""

log = structlog.get_logger()

_ERRORS: dict[str, type[GitRefused]] = {
    each.code: each for each in (GitRefused, PackRefused, TreeRefused)
}


class Workers:
    """A helper process for large packs; it is started with the first, or by :meth:`start`.

    ``memory`` is how many bytes a child may take besides what the helper has, and
    ``seconds`` how much of a processor.
    """

    def __init__(self, *, memory: int = MEMORY, seconds: int = SECONDS) -> None:
        self._memory = memory
        self._seconds = seconds
        self._lock = Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Have the helper ready, so that the first large pack does not wait for it."""
        with self._lock:
            self._ensure()
        interpreted = deltas.__file__.endswith(".py")
        log.info("packs-can-come", compiled="no" if interpreted else "yes")

    def close(self) -> None:
        """End the helper; children that are at work end with their connections."""
        with self._lock:
            self._end()

    def take(self, read: Read, quarantine: Quarantine, limit: int) -> bytes | None:
        """Take a pack in: a :data:`~mypaas_git.git.ingest.Take`."""
        replayed = _Recorder(read)
        try:
            return take_within(replayed.record, quarantine, SMALL)
        except Outgrown:
            return self._by_child(replayed.replay, quarantine, limit)

    def _by_child(self, read: Read, quarantine: Quarantine, limit: int) -> bytes | None:
        job = {
            "path": str(quarantine.path),
            "objects": str(quarantine.objects),
            "limit": limit,
            "memory": self._memory,
            "seconds": self._seconds,
        }
        with self._begin(json.dumps(job).encode()) as connection:
            verdict = _converse(connection, read)
        if "checksum" in verdict:
            return bytes.fromhex(verdict["checksum"]) if verdict["checksum"] else None
        if "crash" in verdict:
            raise RuntimeError(f"a child could not take a pack in:\n{verdict['crash']}")
        kind = PackBroken if verdict["broken"] else _ERRORS[verdict["code"]]
        raise kind(verdict["message"])

    def _begin(self, job: bytes) -> socket.socket:
        """Have a child begin with a job, and return the connection to it."""
        ours, theirs = socket.socketpair()
        try:
            with theirs, self._lock:
                try:
                    socket.send_fds(self._ensure(), [job], [theirs.fileno()])
                except OSError:
                    # It was killed since; the next is as good.
                    self._end()
                    socket.send_fds(self._ensure(), [job], [theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        return ours

    def _ensure(self) -> socket.socket:
        if self._control is not None:
            return self._control
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", MODULE, str(theirs.fileno())],
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    # A Ctrl-C is for the server, which lets running pushes end.
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        self._control = ours
        return ours

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


class _Recorder:
    """Remembers what was read, for another to read it again."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._seen: list[bytes] = []

    def record(self, size: int) -> bytes:
        self._seen.append(self._read(size))
        return self._seen[-1]

    def replay(self, size: int) -> bytes:
        return self._seen.pop(0) if self._seen else self._read(size)


def _converse(connection: socket.socket, read: Read) -> dict[str, Any]:
    """Feed a child until its verdict."""
    with suppress(OSError, ValueError):
        while (asked := connection.recv(1)) == ASK:
            piece = read(CHUNK)
            with suppress(OSError):  # it may have judged by now, and be gone
                connection.sendall(len(piece).to_bytes(LENGTH, "big") + piece)
        if asked == VERDICT:
            size = int.from_bytes(connection.recv(LENGTH, socket.MSG_WAITALL), "big")
            verdict: dict[str, Any] = json.loads(connection.recv(size, socket.MSG_WAITALL))
            return verdict
    # By the kernel, which found no memory, or by itself in compiled code, which did not either.
    log.warning("pack-child-killed")
    why = "the server ran short of memory while it took the pack in: push it in parts"
    return {"code": PackRefused.code, "message": why, "broken": True}
