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
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in SIGNALS}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
