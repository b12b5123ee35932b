"""Ctrl-C in a shell as a request to call a deploy off, not as an end at any line."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Yields what tells whether the process was asked to end; it does not end by itself.

    Between the switch of traffic and the move of the branch nothing may come between. In
    the server's threads it is the client that leaves, and signals are the server's own.
    """
    asked: list[int] = []  # an event has a lock, which a handler must not wait for
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {each: signal.signal(each, lambda *_: asked.append(1)) for each in SIGNALS}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
