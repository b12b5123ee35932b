"""A program that is fed a stream and listened to, and that ends when it is told to."""

from __future__ import annotations

import codecs
import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO

from mypaas_git.errors import BuildFailed
from mypaas_git.runtime import tied
from mypaas_git.runtime.watch import PULSE

GRACE = 0.5
"""Seconds between SIGTERM and SIGKILL."""


def converse(
    argv: Sequence[str],
    env: Mapping[str, str],
    chunks: Iterator[bytes],
    hear: Callable[[str], None],
    check: Callable[[], None],
) -> int:
    """Run ``argv`` with ``chunks`` on its standard input; returns its exit code.

    ``hear`` gets whatever it prints, as it comes. ``check`` is called several times a
    second; what it raises, or ``chunks`` or ``hear``, ends the program and all that it
    started, and goes to the caller. It does not outlive us either, lest it make an image
    that nobody expects any more. Raises BuildFailed when the program cannot be started.
    """
    if shutil.which(argv[0], path=env.get("PATH")) is None:
        raise BuildFailed(f"{argv[0]} cannot be run: No such file or not a program")
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", tied.__file__, str(os.getpid()), *argv],
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise BuildFailed(f"{argv[0]} cannot be run: {error.strerror}") from error
    with process:
        try:
            _exchange(process, chunks, hear, check)
            return _wait(process, check)
        finally:
            _end(process)


def _exchange(
    process: subprocess.Popen[bytes],
    chunks: Iterator[bytes],
    hear: Callable[[str], None],
    check: Callable[[], None],
) -> None:
    """Feed and listen until the program closes its output."""
    if process.stdin is None or process.stdout is None:  # both were asked for
        return
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    with selectors.DefaultSelector() as selector:
        feed = _Feed(process.stdin, chunks)
        selector.register(process.stdin, selectors.EVENT_WRITE)
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            check()
            ready = {key.fileobj for key, _ in selector.select(PULSE)}
            if process.stdin in ready and not feed.more():
                selector.unregister(process.stdin)
                feed.close()
            if process.stdout in ready:
                data = os.read(process.stdout.fileno(), 1 << 16)
                hear(decoder.decode(data, final=not data))
                if not data:
                    return


class _Feed:
    """Writes chunks into a pipe, as much at a time as it takes."""

    def __init__(self, pipe: IO[bytes], chunks: Iterator[bytes]) -> None:
        self._pipe = pipe
        self._chunks = chunks
        self._rest = memoryview(b"")
        os.set_blocking(pipe.fileno(), False)

    def more(self) -> bool:
        """Write something; False when that was all, or nobody reads it any more."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._rest = memoryview(chunk)
        try:
            self._rest = self._rest[os.write(self._pipe.fileno(), self._rest) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        return True

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._pipe.close()


def _wait(process: subprocess.Popen[bytes], check: Callable[[], None]) -> int:
    while True:
        try:
            return process.wait(PULSE)
        except subprocess.TimeoutExpired:
            check()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End whatever is left of the program; the pipes are drained by nobody any more."""
    if process.poll() is not None:
        return
    deadline = time.monotonic() + GRACE
    _signal(process, signal.SIGTERM)
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if process.poll() is None:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], sig: signal.Signals) -> None:
    """Signal the whole session of a process that has not been waited for."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, sig)
