"""A command in a container, and somebody in front of it.

Source: Docker Engine API, "Attach to a container": the connection becomes a raw stream in
both directions; without a terminal the output comes in frames, each behind 8 bytes that
say whether it is standard output or error, and how long it is.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

import docker
from docker.errors import APIError

from mypaas_git.errors import Cancelled, StartFailed
from mypaas_git.runtime.base import Operator, Window
from mypaas_git.runtime.client import Client, engine_errors, explanation

CHUNK = 64 * 1024
PULSE = 200
"""Milliseconds between two looks at what else the operator does."""
HEADER = struct.Struct(">BxxxL")
ERROR = 2
END_OF_INPUT = b"\x04"
"""What Ctrl-D sends on a terminal."""


def converse(client: Client, container: str, operator: Operator) -> int:
    """Start ``container`` and return its exit code, as :meth:`Runtime.converse` says."""
    # A connection of its own: it is neither an HTTP one any more, nor to be used again.
    api = client.another()
    try:
        with engine_errors():
            # From before the start, so that nothing is missed.
            stream = _attach(api, container)
        try:
            return _Console(api, container, stream, operator).run()
        finally:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)  # wakes whoever feeds it
            stream.close()
    finally:
        api.close()


class _Console:
    def __init__(
        self, api: docker.APIClient, container: str, stream: socket.socket, operator: Operator
    ) -> None:
        self._api = api
        self._container = container
        self._stream = stream
        self._operator = operator
        self._has_terminal = operator.window is not None

    def run(self) -> int:
        self._start()
        threading.Thread(target=self._feed, name="console-input", daemon=True).start()
        self._show_all(self._operator.write if self._has_terminal else self._unframed())
        with engine_errors():
            code: int = self._api.wait(self._container)["StatusCode"]
        return code

    def _start(self) -> None:
        with engine_errors():
            try:
                self._api.start(self._container)
            except APIError as error:
                raise StartFailed(f"it was not started: {explanation(error)}") from error
        if self._operator.window is not None:
            self._resize(self._operator.window)

    def _feed(self) -> None:
        """Pass the operator's input on, to its end; in a thread of its own."""
        with contextlib.suppress(OSError):
            while data := self._operator.read(CHUNK):
                self._stream.sendall(data)
            if self._has_terminal:
                self._stream.sendall(END_OF_INPUT)
            else:
                self._stream.shutdown(socket.SHUT_WR)

    def _show_all(self, show: Callable[[bytes], None]) -> None:
        """Show what the command prints until it has ended. Raises Cancelled."""
        readable = select.poll()
        readable.register(self._stream, select.POLLIN)
        while True:
            if self._operator.gone:
                raise Cancelled("whoever ran it has left")
            for event in self._operator.events():
                self._pass_on(event)
            if readable.poll(PULSE):
                with engine_errors():
                    data = self._stream.recv(CHUNK)
                if not data:
                    return
                show(data)

    def _pass_on(self, event: Window | str) -> None:
        if isinstance(event, str):
            with engine_errors(), contextlib.suppress(APIError):  # it has just ended
                self._api.kill(self._container, f"SIG{event}")
        elif self._has_terminal:
            self._resize(event)

    def _resize(self, window: Window) -> None:
        columns, rows = window
        if columns and rows:
            with engine_errors(), contextlib.suppress(APIError):
                self._api.resize(self._container, height=rows, width=columns)

    def _unframed(self) -> Callable[[bytes], None]:
        """Shows what is in the frames, of which pieces come."""
        buffer = bytearray()
        left, kind = 0, 0

        def show(data: bytes) -> None:
            nonlocal left, kind
            buffer.extend(data)
            while left or len(buffer) >= HEADER.size:
                if not left:
                    kind, left = HEADER.unpack_from(buffer)
                    del buffer[: HEADER.size]
                    continue
                piece = bytes(buffer[:left])
                if not piece:
                    return
                del buffer[: len(piece)]
                left -= len(piece)
                (self._operator.write_error if kind == ERROR else self._operator.write)(piece)

        return show


def _attach(api: docker.APIClient, container: str) -> socket.socket:
    wanted = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
    found: Any = api.attach_socket(container, params=wanted)
    stream: socket.socket = getattr(found, "_sock", found)
    stream.settimeout(None)
    return stream
