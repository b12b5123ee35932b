"""What a client may do once its key is proven: run git or one of our commands.

Each exec request is a :class:`Session` in a thread of its own. Everything else that
ssh can ask for (a shell, files, forwarding, an environment) is refused.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Literal, Protocol

import paramiko
import structlog
from paramiko.common import (
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_FAILED_RESOURCE_SHORTAGE,
    OPEN_SUCCEEDED,
)

from mypaas_git.access.keys import KeyFile
from mypaas_git.access.policy import Identity
from mypaas_git.access.publickey import fingerprint
from mypaas_git.errors import AccessDenied, GitRefused, MypaasError, UsageError
from mypaas_git.progress import clean, clean_lines
from mypaas_git.ssh import patience
from mypaas_git.ssh.patience import PatientSocket
from mypaas_git.ssh.transport import ServerTransport

MAX_COMMAND = 64 * 1024
"""Bytes of one command line."""
MAX_CHANNELS = 10
"""Commands that one connection may run at a time (ssh's ControlMaster)."""
CHUNK = 256 * 1024
LINGER_SECONDS = 1.0
"""How long a client may take to hang up by itself after its last command."""

GitVerb = Literal["git-receive-pack", "git-upload-pack"]


class ClientGone(BrokenPipeError):
    """The client closed the channel, or the connection was lost."""


class KeyGone(AccessDenied):
    """The key that opened the connection may not come in any more."""


class Stream:
    """A command's standard input, output and error, at the client's end."""

    def __init__(
        self,
        channel: paramiko.Channel,
        gone: threading.Event,
        stopping: threading.Event,
        line_end: str,
    ) -> None:
        self._channel = channel
        self._gone = gone
        self._stopping = stopping
        self._line_end = line_end
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
            except (OSError, EOFError, paramiko.SSHException) as error:
                raise ClientGone from error
            if sent == 0:
                raise ClientGone
            view = view[sent:]


class Backend(Protocol):
    """What sessions lead to. Both return the exit code, 0 to 255."""

    def git(self, identity: Identity, verb: GitVerb, path: str, stream: Stream) -> int:
        """Speak git's protocol over ``stream``; ``path`` is as the client wrote it.

        Tells the client itself of anything that is refused.
        """

    def command(self, identity: Identity, argv: list[str], stream: Stream) -> int:
        """Run one of our commands, less the leading ``mypaas``; ``argv`` may be empty.

        May raise any :class:`MypaasError`, which the client sees as one line.
        """

    def turned_away(self, who: Identity, asked: str, error: MypaasError) -> None:
        """Note that somebody got no further than here; a stranger has no name.

        ``asked`` is the first word of what they asked for.
        """


@dataclass(frozen=True)
class GitRequest:
    """``git push`` or ``git fetch`` at the other end."""

    verb: GitVerb
    path: str


def parse_command(line: bytes) -> GitRequest | list[str]:
    """What an exec request asks for: git, or the words of one of our commands.

    Raises :class:`UsageError` for a line that is no command line, and
    :class:`GitRefused` for what git can do elsewhere and not here.
    """
    words = _split(line)
    if words[:1] == ["git"] and len(words) > 1:
        words = [f"git-{words[1]}", *words[2:]]
    if words and words[0] in {"git-receive-pack", "git-upload-pack"}:
        if len(words) != 2:
            raise UsageError(f"{words[0]} takes one repository")
        verb: GitVerb = (
            "git-receive-pack" if words[0] == "git-receive-pack" else "git-upload-pack"
        )
        return GitRequest(verb, words[1])
    if words and words[0].startswith("git-"):
        raise GitRefused(f"{words[0][:40]} is not served here; git push, fetch and clone are")
    if words[:1] == ["mypaas"]:
        words = words[1:]
    if words and re.fullmatch(r"[a-z-]+(?::[a-z-]+)+", words[0]):
        words = [*words[0].split(":"), *words[1:]]
    return words


def _split(line: bytes) -> list[str]:
    if len(line) > MAX_COMMAND:
        raise UsageError(f"the command line is longer than {MAX_COMMAND // 1024} KiB")
    if b"\0" in line:
        raise UsageError("there is a NUL byte in the command line")
    try:
        return shlex.split(line.decode())
    except UnicodeDecodeError:
        raise UsageError("the command line is not UTF-8") from None
    except ValueError as error:
        raise UsageError(f"the command line's quotes do not match: {error}") from None


class Session:
    """One command of one client. ``command`` None stands for a shell."""

    def __init__(
        self,
        command: bytes | None,
        stream: Stream,
        *,
        identify: Callable[[], Identity],
        turned_away: Callable[[str, MypaasError], None],
        backend: Backend,
        has_terminal: bool,
        log: Any,
    ) -> None:
        self.id = secrets.token_hex(4)
        self._command = command
        self.stream = stream
        self._identify = identify
        self._turned_away = turned_away
        self._backend = backend
        self._has_terminal = has_terminal
        self._log = log.bind(session=self.id)
        self.key_gone = False

    def run(self) -> None:
        """Run the command to its end; never raises."""
        code = 1
        try:
            code = self._dispatch()
        except ClientGone:
            self._log.info("the client left")
        except MypaasError as error:
            self.key_gone = isinstance(error, KeyGone)
            code = 2 if isinstance(error, UsageError) else 1
            self._log.info("refused", code=error.code, reason=error.message)
            self._turned_away(self._asked, error)
            self._report(error)
        except Exception:  # noqa: BLE001 - the boundary: the log gets it all, the client a line
            self._log.exception("internal error")
            self._say(f"internal error, session {self.id}")
        finally:
            self.stream.finish(code if 0 <= code <= 255 else 1)

    def _dispatch(self) -> int:
        if self._command is None:
            raise AccessDenied("no shell here; try: ssh … help, or git push")
        if self._has_terminal:
            raise AccessDenied("there are no terminals here; run ssh without -t")
        request = parse_command(self._command)
        # Asked for each command, since a connection can outlive its key.
        identity = self._identify()
        if isinstance(request, GitRequest):
            self._log.info("git", verb=request.verb, path=request.path)
            return self._backend.git(identity, request.verb, request.path, self.stream)
        self._log.info("command", asked=self._asked)
        return self._backend.command(identity, request, self.stream)

    @property
    def _asked(self) -> str:
        """What was asked for, without arguments: there may be secrets among them."""
        if self._command is None:
            return "shell"
        return self._command[:100].partition(b" ")[0].decode("utf-8", "replace")

    def _report(self, error: MypaasError) -> None:
        self._say(error.message)
        with contextlib.suppress(ClientGone):
            for detail in error.details:
                for line in clean_lines(detail):
                    self.stream.write_error(f"  {line}\n".encode())

    def _say(self, text: str) -> None:
        with contextlib.suppress(ClientGone):
            self.stream.say(text)


class Connection(paramiko.ServerInterface):
    """One client: who it is, what it asks for, and the sessions it runs."""

    def __init__(
        self,
        sock: PatientSocket,
        peer: str,
        source: str,
        *,
        host_keys: Sequence[paramiko.PKey],
        keys: KeyFile,
        backend: Backend,
        entered: Callable[[Connection], None],
        ended: Callable[[Connection], None],
    ) -> None:
        self.source = source
        self._peer = peer
        self._who = Identity("", address=peer)
        self.transport = ServerTransport(sock, host_keys, self)
        self._sock = sock
        self._keys = keys
        self._backend = backend
        self._entered = entered
        self._ended = ended
        self._crowded_out = False
        self._with_terminal: weakref.WeakSet[paramiko.Channel] = weakref.WeakSet()
        self._busy: weakref.WeakSet[paramiko.Channel] = weakref.WeakSet()
        self._had_commands = False
        self._lock = threading.Lock()
        self._sessions: dict[threading.Thread, Session] = {}
        self._stopping = threading.Event()
        self._log: Any = structlog.get_logger().bind(peer=peer, connection=secrets.token_hex(4))

    def start(self) -> None:
        """Begin to talk; raises RuntimeError when no thread can be had."""
        self._log.debug("connected")
        # Given an event, paramiko returns at once instead of waiting for the client.
        self.transport.start_server(threading.Event(), self)

    def crowd_out(self) -> None:
        """End it: somebody else needs the place of one who has not logged in."""
        if self.transport.proven_key is None:  # or else it has freed the place itself
            self._crowded_out = True
            self.transport.close()

    @property
    def exchanged_keys(self) -> bool:
        """Whether the client has done its part of a key exchange."""
        return self.transport.initial_kex_done

    # What the transport asks and tells.

    def knows(self, blob: bytes) -> bool:
        try:
            self._keys.report_broken()
            return self._keys.valid(blob, datetime.now(timezone.utc)) is not None
        except MypaasError as error:
            self._log.error("nobody can log in", reason=error.message)
            return False

    def accepts(self, blob: bytes, flags: int) -> bool:
        entry = self._keys.valid(blob, datetime.now(timezone.utc))
        accepted = entry is not None and entry.rights.accepts(flags)
        if not accepted:
            self._log.info("token not touched, or not unlocked", flags=flags)
        return accepted

    def logged_in(self, blob: bytes) -> None:
        identity = self._keys.find(blob, datetime.now(timezone.utc))
        self._keys.used(blob)
        self._who = Identity(
            identity.name if identity else "", fingerprint(blob), address=self._peer
        )
        self._log = self._log.bind(key=self._who.name, fingerprint=self._who.fingerprint)
        self._log.info("authenticated")
        self._entered(self)

    def ended(self) -> None:
        if self.transport.proven_key:
            self._log.info("disconnected", idle=self._sock.idle)
        else:
            offered = [fingerprint(blob) for blob in self.transport.refused_keys]
            if offered:
                self._turn_away(offered)
            self._log.info(
                "refused",
                offered=offered,
                overdue=self._sock.overdue,
                crowded_out=self._crowded_out,
            )
        self._ended(self)

    def _turn_away(self, offered: Sequence[str]) -> None:
        stranger = Identity("", offered[0], address=self._peer)
        more = f" and {len(offered) - 1} more" if len(offered) > 1 else ""
        error = AccessDenied(f"{offered[0]}{more} may not come in, or did not sign")
        self._backend.turned_away(stranger, "login", error)

    def identify(self) -> Identity:
        """Who is at the other end; raises :class:`AccessDenied` when they may not any more."""
        if self._stopping.is_set():
            raise AccessDenied("the server is stopping; try again in a moment")
        proven = self.transport.proven_key
        identity = proven and self._keys.find(proven, datetime.now(timezone.utc))
        if not proven or not identity:
            raise KeyGone("your key has expired or was removed")
        self._keys.used(proven)
        return replace(identity, address=self._peer)

    @property
    def sessions(self) -> list[threading.Thread]:
        """The threads of the commands that are running."""
        with self._lock:
            return list(self._sessions)

    @property
    def had_commands(self) -> bool:
        """Whether any command was ever run."""
        return self._had_commands

    def refuse_commands(self) -> None:
        """From now on answer that the server is about to stop, and wait for no input."""
        self._stopping.set()
        with self._lock:
            running = list(self._sessions.values())
        for session in running:
            session.stream.end_input()

    # What paramiko asks, in the transport's thread.

    def check_channel_request(self, kind: str, _chanid: int) -> int:
        if kind != "session":
            return OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        if self.transport.open_channels >= MAX_CHANNELS:
            return OPEN_FAILED_RESOURCE_SHORTAGE
        return OPEN_SUCCEEDED

    def check_channel_pty_request(self, channel: paramiko.Channel, *_: Any, **__: Any) -> bool:
        # A refusal would make ssh print a line of its own before ours.
        self._with_terminal.add(channel)
        return True

    def check_channel_shell_request(self, channel: paramiko.Channel) -> bool:
        return self._begin(channel, None)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        return self._begin(channel, command)

    def _begin(self, channel: paramiko.Channel, command: bytes | None) -> bool:
        if channel in self._busy:
            return False
        self._busy.add(channel)
        self._had_commands = True
        has_terminal = channel in self._with_terminal
        line_end = "\r\n" if has_terminal else "\n"
        stream = Stream(channel, self.transport.gone(channel), self._stopping, line_end)
        session = Session(
            command,
            stream,
            identify=self.identify,
            turned_away=lambda asked, error: self._backend.turned_away(self._who, asked, error),
            backend=self._backend,
            has_terminal=has_terminal,
            log=self._log,
        )
        self.transport.start_after_reply(lambda: self._start(session))
        return True

    def _start(self, session: Session) -> None:
        thread = threading.Thread(
            target=self._run, args=[session], name=f"session-{session.id}", daemon=True
        )
        with self._lock:
            self._sessions[thread] = session
            self._sock.occupy()
        try:
            thread.start()
        except RuntimeError:
            self._log.exception("no thread for a command")
            self._forget(thread)
            session.stream.finish(1)

    def _run(self, session: Session) -> None:
        try:
            session.run()
            if session.key_gone:
                # Whoever was told so hangs up by themselves; a ControlMaster does not.
                self.transport.join(LINGER_SECONDS)
                self.transport.close()
        finally:
            self._forget(threading.current_thread())

    def _forget(self, thread: threading.Thread) -> None:
        with self._lock:
            self._sessions.pop(thread, None)
            if not self._sessions:
                self._sock.rest()
