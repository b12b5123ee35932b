"""A command's standard input, output and error, at the other end of a channel."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import paramiko

from mypaas_git.progress import clean
from mypaas_git.ssh import patience
from mypaas_git.ssh.terminal import Events, Keyboard, Window, with_returns

CHUNK = 256 * 1024


class ClientGone(BrokenPipeError):
    """The client closed the channel, or the connection was lost."""


class Stream:
    """A command's standard input, output and error, at the client's end."""

    def __init__(
        self,
        channel: paramiko.Channel,
        gone: threading.Event,
        stopping: threading.Event,
        client: Events,
    ) -> None:
        self._channel = channel
        self._gone = gone
        self._stopping = stopping
        self._client = client
        self._line_end = "\n" if client.window is None else "\r\n"
        self._patient = False
        self._ahead = b""
        self._at = 0

    def read(self, n: int) -> bytes:
        """Up to ``n`` bytes as soon as there are some; b"" at the end of the input."""
        if self._at == len(self._ahead):
            self._ahead, self._at = self._receive(), 0
        chunk = self._ahead[self._at : self._at + n]
        self._at += len(chunk)
        return chunk

    def write(self, data: bytes) -> None:
        """Send ``data`` to the standard output; raises :class:`ClientGone`."""
        self._send(self._channel.send, data)

    def write_error(self, data: bytes) -> None:
        """Send ``data`` to the standard error; raises :class:`ClientGone`."""
        self._send(self._channel.send_stderr, data)

    @property
    def gone(self) -> bool:
        """Whether a command that would go on for ever should end.

        Nobody is there any more to read what is written, or the server is stopping.
        """
        return self._stopping.is_set() or self.left

    @property
    def left(self) -> bool:
        """Whether the client has left by itself; a server that stops lets deploys end."""
        return self._gone.is_set() or self._channel.closed

    @property
    def window(self) -> Window | None:
        """The size of the client's terminal when the command began; None without one."""
        return self._client.window

    @property
    def term(self) -> str:
        """What the client's terminal is called, such as ``xterm-256color``."""
        return self._client.term

    def events(self) -> list[Window | str]:
        """Sizes of the terminal and signals that came since the last call."""
        return self._client.take()

    def be_patient(self) -> None:
        """From now on wait for a client that does not read, as long as it is there."""
        self._patient = True

    def operator(self) -> AbstractContextManager[Stream]:
        """The client as one who sits in front of a command in a container."""
        self.be_patient()
        return contextlib.nullcontext(self)

    def wait_gone(self, seconds: float | None = None) -> bool:
        """Wait until the client is gone, at most ``seconds``; return whether it is."""
        self._gone.wait(seconds)
        return self.gone

    def say(self, text: str) -> None:
        """Write one clean line behind our name to the standard error."""
        self.write_error(f"mypaas: {clean(text)}{self._line_end}".encode())

    def end_input(self) -> None:
        """Let whoever waits for input find its end."""
        self._channel.in_buffer.close()

    def finish(self, code: int) -> None:
        """End the command: its exit status goes after all data and before the close."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.send_exit_status(code)
            self._channel.shutdown_write()
            self._channel.close()

    def _receive(self) -> bytes:
        try:
            return self._channel.recv(CHUNK)
        except (OSError, EOFError, paramiko.SSHException):
            return b""  # no room is needed for a client that left

    def _send(self, send: Callable[[bytes], int], data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                # Nobody reads while we write: the time-out is for this direction alone.
                self._channel.settimeout(patience.STALL_SECONDS)
                sent = send(bytes(view[:CHUNK]))
                self._channel.settimeout(None)
            except TimeoutError as error:
                if self._patient and not self.gone:
                    continue
                raise ClientGone from error
            except (OSError, EOFError, paramiko.SSHException) as error:
                raise ClientGone from error
            if sent == 0:
                raise ClientGone
            view = view[sent:]


class TerminalStream(Stream):
    """The stream of one of our own commands to a client with a terminal.

    Ctrl-C is a leave: whatever asks whether the client has left ends by that.
    """

    def __init__(self, raw: Stream) -> None:
        super().__init__(raw._channel, raw._gone, raw._stopping, raw._client)
        self._raw = raw
        self._keyboard = Keyboard(raw.read)

    def read(self, n: int) -> bytes:
        return self._keyboard.read(n)

    def write(self, data: bytes) -> None:
        super().write(with_returns(data))

    def write_error(self, data: bytes) -> None:
        super().write_error(with_returns(data))

    @property
    def gone(self) -> bool:
        return self._keyboard.interrupted or super().gone

    @property
    def left(self) -> bool:
        return self._keyboard.interrupted or super().left

    @property
    def was_interrupted(self) -> bool:
        """Whether Ctrl-C ended the command."""
        return self._keyboard.was_interrupted

    def operator(self) -> AbstractContextManager[Stream]:
        """The client with nothing between; nothing may have been read of them so far."""
        return self._raw.operator()
