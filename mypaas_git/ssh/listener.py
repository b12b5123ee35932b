"""The port on which clients arrive."""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import paramiko
import structlog

from mypaas_git.access.keys import KeyFile
from mypaas_git.errors import SettingsError
from mypaas_git.ssh.connection import LINGER_SECONDS, Connection
from mypaas_git.ssh.patience import IDLE_SECONDS, LOGIN_SECONDS, PatientSocket
from mypaas_git.ssh.session import Backend
from mypaas_git.ssh.startups import MAX_STARTUPS, StartUps, source_of

BACKLOG = 128
"""Longer, and a crowd is let in quicker than it costs time to get rid of it."""
MAX_CONNECTIONS = 500
"""Each idle one takes a thread and some 0.1 MiB."""
OTHER_DESCRIPTORS = 1000
"""For commands: packs, builds, the engine."""
JOIN_SECONDS = 5.0

log: Any = structlog.get_logger()


class Listener:
    """Accepts clients at ``address`` and serves each in threads of its own.

    ``address`` is a host and port; port 0 takes a free one. At most ``max_connections``
    are logged in at once, and ``max_startups`` on the way there (:class:`StartUps`). Who
    has not logged in after ``login_seconds``, or has been logged in without a command
    for ``idle_seconds``, is dropped. From a host that is ``unwelcome`` nobody gets in.
    """

    def __init__(
        self,
        address: tuple[str, int],
        host_keys: Sequence[paramiko.PKey],
        keys: KeyFile,
        backend: Backend,
        *,
        max_connections: int = MAX_CONNECTIONS,
        max_startups: int = MAX_STARTUPS,
        login_seconds: float = LOGIN_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
        unwelcome: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._address = address
        self._host_keys = host_keys
        self._keys = keys
        self._backend = backend
        self._max_connections = max_connections
        self._login_seconds = login_seconds
        self._idle_seconds = idle_seconds
        self._unwelcome = unwelcome
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._connections: set[Connection] = set()
        self._startups = StartUps[Connection](max_startups)
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> tuple[str, int]:
        """The host and port; once started, the real port instead of 0."""
        return self._address

    def start(self) -> None:
        """Listen and accept; raises :class:`SettingsError` when the port cannot be had."""
        listening = _bind(*self._address)
        _allow_descriptors(self._max_connections + self._startups.limit + OTHER_DESCRIPTORS)
        host, port = listening.getsockname()[:2]
        self._address = (host, port)
        self._socket = listening
        self._thread = threading.Thread(
            target=self._accept, args=[listening], name="ssh-accept", daemon=True
        )
        self._thread.start()

    def stop(self, grace: float = 10.0) -> None:
        """Accept nobody else, give running commands ``grace`` seconds, close everything."""
        self._stopping.set()
        self._stop_accepting()
        connections = self._current()
        for connection in connections:
            connection.refuse_commands()
        deadline = time.monotonic() + grace
        _join(connections, _sessions, deadline)
        # A client hangs up by itself when its command has ended and it has read it all.
        busy = [connection for connection in connections if connection.had_commands]
        _join(busy, _transport, min(deadline, time.monotonic() + LINGER_SECONDS))
        for connection in connections:
            connection.transport.close()
        end = time.monotonic() + JOIN_SECONDS
        _join(connections, _transport, end)
        _join(connections, _sessions, end)
        for thread in [thread for each in connections for thread in each.sessions]:
            log.warning("a command does not end", thread=thread.name)

    def _stop_accepting(self) -> None:
        if self._socket is None or self._thread is None:
            return
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._thread.join()
        self._socket.close()

    def _accept(self, listening: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                accepted, peer = listening.accept()
            except OSError as error:
                if not self._stopping.is_set():
                    log.warning("cannot accept a connection", error=str(error))
                    self._stopping.wait(0.2)  # most likely out of descriptors
                continue
            if self._logged_in() >= self._max_connections:
                log.warning(
                    "too many connections",
                    peer=_shown(*peer[:2]),
                    limit=self._max_connections,
                )
                accepted.close()
            elif self._unwelcome(peer[0]):
                log.warning("an unwelcome peer", peer=_shown(*peer[:2]))
                accepted.close()
            else:
                self._welcome(accepted, *peer[:2])

    def _welcome(self, accepted: socket.socket, host: str, port: int) -> None:
        sock = PatientSocket(accepted.detach(), self._login_seconds, self._idle_seconds)
        connection = Connection(
            sock,
            _shown(host, port),
            source_of(host),
            host_keys=self._host_keys,
            keys=self._keys,
            backend=self._backend,
            entered=self._entered,
            ended=self._forget,
        )
        with self._lock:
            self._connections.add(connection)
            leaver = self._startups.admit(connection)
        if leaver is not None:
            leaver.crowd_out()
        try:
            connection.start()
        except RuntimeError:
            log.exception("no thread for a connection", peer=_shown(host, port))
            self._forget(connection)
            sock.release()

    def _entered(self, connection: Connection) -> None:
        with self._lock:
            self._startups.discard(connection)

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            self._connections.discard(connection)
            self._startups.discard(connection)

    def _logged_in(self) -> int:
        with self._lock:
            return len(self._connections) - len(self._startups)

    def _current(self) -> list[Connection]:
        with self._lock:
            return list(self._connections)


def _allow_descriptors(wanted: int) -> None:
    """Let this process have so many, when its hard limit does; 1,024 is a usual soft one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < wanted:
        log.warning("few descriptors", hard_limit=hard, wanted=wanted)


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # "::" means every address of the host, IPv4 too, as with other servers.
        return socket.create_server(
            address[:2],
            family=family,
            backlog=BACKLOG,
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {_shown(host, port)}: {_why(error)}; "
            "set another address in config.toml, [ssh] listen"
        ) from error


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program has this port"
    if error.errno == errno.EACCES:
        return "ports below 1024 need root"
    return (error.strerror or str(error)).lower()


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _sessions(connection: Connection) -> list[threading.Thread]:
    return connection.sessions


def _transport(connection: Connection) -> list[threading.Thread]:
    return [connection.transport]


def _join(
    connections: Iterable[Connection],
    threads: Callable[[Connection], list[threading.Thread]],
    deadline: float,
) -> None:
    for connection in connections:
        for thread in threads(connection):
            thread.join(max(0.0, deadline - time.monotonic()))
