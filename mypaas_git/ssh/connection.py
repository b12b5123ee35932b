"""One client: its key becomes an identity, and what it asks for becomes sessions.

Everything that ssh can ask for but commands (a shell, files, forwarding, an environment) is
refused.
"""

from __future__ import annotations

import secrets
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

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
from mypaas_git.errors import AccessDenied, MypaasError
from mypaas_git.ssh.patience import PatientSocket
from mypaas_git.ssh.session import Backend, KeyGone, Session
from mypaas_git.ssh.stream import Stream
from mypaas_git.ssh.terminal import Events
from mypaas_git.ssh.transport import ServerTransport

MAX_CHANNELS = 10
"""Commands that one connection may run at a time (ssh's ControlMaster)."""
LINGER_SECONDS = 1.0
"""How long a client may take to hang up by itself after its last command."""


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
        self._clients: weakref.WeakKeyDictionary[paramiko.Channel, Events] = (
            weakref.WeakKeyDictionary()
        )
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

    def check_channel_pty_request(
        self,
        channel: paramiko.Channel,
        term: bytes,
        width: int,
        height: int,
        *_: Any,
        **__: Any,
    ) -> bool:
        if channel in self._busy:
            return False
        self._events(channel).opened(term, width, height)
        return True

    def check_channel_window_change_request(
        self, channel: paramiko.Channel, width: int, height: int, *_: Any, **__: Any
    ) -> bool:
        self._events(channel).resized(width, height)
        return True

    def signalled(self, channel: paramiko.Channel, name: str) -> None:
        self._events(channel).signalled(name)

    def _events(self, channel: paramiko.Channel) -> Events:
        return self._clients.setdefault(channel, Events())

    def check_channel_shell_request(self, channel: paramiko.Channel) -> bool:
        return self._begin(channel, None)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        return self._begin(channel, command)

    def _begin(self, channel: paramiko.Channel, command: bytes | None) -> bool:
        if channel in self._busy:
            return False
        self._busy.add(channel)
        self._had_commands = True
        gone = self.transport.gone(channel)
        stream = Stream(channel, gone, self._stopping, self._events(channel))
        session = Session(
            command,
            stream,
            identify=self.identify,
            turned_away=lambda asked, error: self._backend.turned_away(self._who, asked, error),
            backend=self._backend,
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
