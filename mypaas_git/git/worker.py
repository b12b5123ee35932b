"""The helper process of a server: forks a child for each large pack, and does nothing else.

A server has threads, and a process with threads cannot be forked safely; this one has a
single thread. What a child may take of the machine is limited by the kernel. Run as
``python -m mypaas_git.git.worker FD``, where FD is the socket of a :class:`Workers`.

Each datagram on that socket is a job as JSON (where the objects are, and what may be
taken of the machine) and one end of a socket pair. On that the child asks for the pack,
``R`` for every piece, which comes behind its length in four bytes; it asks for one ahead
when that is sure to come. It ends with ``V`` and the verdict, as JSON.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import resource
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from mypaas_git.errors import GitRefused, PackRefused
from mypaas_git.git.ingest import Quarantine, indexes_size, take_within, told_of_full_disk
from mypaas_git.git.limits import MAX_OBJECT, MIB, Limits, PackBroken, size_now

ASK, VERDICT = b"R", b"V"
LENGTH = 4


class _Processors:
    """Which of the processors have something to do for a pack.

    A process takes one by a lock, which the kernel takes back when the process ends.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create("processors")
        self._left = set(range(len(os.sched_getaffinity(0))))

    def take(self) -> bool:
        """Take one more; whether there was one."""
        for number in sorted(self._left):
            # All processes share the place in the file, so it cannot be what is locked from.
            with suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
                self._left.remove(number)
                return True
        return False


class Overtaxed(BaseException):
    """The processor time is used up."""


def serve(control: socket.socket) -> None:
    """Fork a child for every job, until the server is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    processors = _Processors()
    gc.collect()
    gc.freeze()  # what children only read stays shared
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 1)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            gc.disable()  # of what a pack takes, nothing is in a circle
            status = 1
            try:
                with socket.socket(fileno=descriptors[0]) as connection:
                    _carry_out(json.loads(message), connection, processors)
                status = 0
            finally:
                os._exit(status)
        os.close(descriptors[0])


def _carry_out(job: dict[str, Any], connection: socket.socket, processors: _Processors) -> None:
    processors.take()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a second process is waited for
    quarantine = Quarantine(Path(job["path"]), Path(job["objects"]))
    try:
        _restrict(quarantine, job)
        verdict = _take(_Feed(connection), quarantine, job, processors)
    except Exception:  # noqa: BLE001 - the server logs it and tells the pusher
        verdict = {"crash": traceback.format_exc()}
    with suppress(OSError):  # the server may be gone
        data = json.dumps(verdict).encode()
        connection.sendall(VERDICT + len(data).to_bytes(LENGTH, "big") + data)


def _take(
    feed: _Feed, quarantine: Quarantine, job: dict[str, Any], processors: _Processors
) -> dict[str, Any]:
    try:
        with told_of_full_disk():
            limits = Limits(received=job["limit"], helped=processors.take)
            checksum = take_within(feed.read, quarantine, limits, feed.ask)
        return {"checksum": checksum and checksum.hex()}
    except GitRefused as error:
        broken = isinstance(error, PackBroken)
        return {"code": error.code, "message": error.message, "broken": broken}
    except MemoryError:
        why = f"more than {job['memory'] // MIB} MiB of memory"
    except Overtaxed:
        why = f"more than {job['seconds']} s of a processor"
    why = f"the pack takes {why} to take in: push it in parts"
    return {"code": PackRefused.code, "message": why, "broken": True}


def _restrict(quarantine: Quarantine, job: dict[str, Any]) -> None:
    """Have the kernel see to it that a pack takes no more than it is granted."""

    def overtaxed(*_: object) -> None:
        raise Overtaxed

    signal.signal(signal.SIGXCPU, overtaxed)
    room = size_now() + indexes_size(quarantine.objects) + job["memory"]
    # Of a pack there is one copy, and large objects are unfolded one by one.
    longest = job["limit"] + 2 * MAX_OBJECT
    for what, most in (
        (resource.RLIMIT_AS, room),
        (resource.RLIMIT_FSIZE, longest),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (job["seconds"], job["seconds"] + 10))


class _Feed:
    """The pack as the server hands it on, a piece for every question."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._asked = False

    def ask(self) -> None:
        """Have the next piece sent, one at a time."""
        if not self._asked:
            self._asked = True
            with suppress(OSError):  # then there is nothing to be read
                self._connection.sendall(ASK)

    def read(self, _size: int) -> bytes:
        """What comes next; ``b""`` at the end, and when the server is gone."""
        self.ask()
        self._asked = False
        with suppress(OSError):
            return self._exactly(int.from_bytes(self._exactly(LENGTH), "big"))
        return b""

    def _exactly(self, size: int) -> bytes:
        data = bytearray(size)
        view = memoryview(data)
        at = 0
        while at < size and (count := self._connection.recv_into(view[at:])):
            at += count
        return bytes(data[:at]) if at == size else b""


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as own_end:
        serve(own_end)
