"""An ssh client that exchanges keys properly and then says what it likes."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paramiko
from paramiko.message import Message

SERVICE_ACCEPT, FAILURE, SUCCESS, PK_OK = 6, 51, 52, 60
CLOSED = -1


class Prober:
    """``transport`` is paramiko's; authentication is spoken by hand."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self._replies: queue.Queue[int] = queue.Queue()
        self._handler_table = {
            number: lambda _message, number=number: self._replies.put(number)
            for number in (SERVICE_ACCEPT, FAILURE, SUCCESS, PK_OK)
        }
        transport.auth_handler = self
        assert self.say(b"\x05", b"ssh-userauth") == SERVICE_ACCEPT

    def abort(self) -> None:
        """Called by paramiko when the connection has ended."""
        self._replies.put(CLOSED)

    def say(self, kind: bytes, *parts: bytes | bool) -> int:
        """Send a message and return the number of the answer."""
        self.send(kind, *parts)
        return self._replies.get(timeout=30)

    def send(self, kind: bytes, *parts: bytes | bool) -> None:
        message = _message(kind, *parts)
        self.transport._send_message(message)

    def query(self, key: paramiko.PKey) -> int:
        """Ask whether ``key`` would do."""
        return self.offer(key.get_name().encode(), key.asbytes())

    def offer(self, algorithm: bytes, blob: bytes) -> int:
        return self._userauth(False, algorithm, blob)

    def sign(self, key: paramiko.PKey, *, signer: paramiko.PKey | None = None) -> int:
        """Log in as ``key``, with a signature that ``signer`` made."""
        algorithm = key.get_name().encode()
        request = _message(
            b"2", b"me", b"ssh-connection", b"publickey", True, algorithm, key.asbytes()
        )
        said = Message()
        said.add_string(self.transport.session_id)
        said.add_bytes(request.asbytes())
        signature = (signer or key).sign_ssh_data(said.asbytes()).asbytes()
        return self._userauth(True, algorithm, key.asbytes(), signature)

    def _userauth(self, *parts: bytes | bool) -> int:
        return self.say(b"2", b"me", b"ssh-connection", b"publickey", *parts)

    def run(self, command: str) -> bytes:
        """What a command prints."""
        with self.transport.open_session(timeout=30) as channel:
            channel.exec_command(command)
            output = b""
            while data := channel.recv(65536):
                output += data
            return output


def _message(kind: bytes, *parts: bytes | bool) -> Message:
    message = Message()
    message.add_byte(kind)
    for part in parts:
        if isinstance(part, bool):
            message.add_boolean(part)
        else:
            message.add_string(part)
    return message


@contextmanager
def probing(port: int) -> Iterator[Prober]:
    transport = paramiko.Transport(("127.0.0.1", port))
    try:
        transport.start_client(timeout=30)
        yield Prober(transport)
    finally:
        transport.close()
        transport.join(10)


def load(path: Path) -> paramiko.PKey:
    """The private key in a file."""
    return paramiko.PKey.from_path(path)
