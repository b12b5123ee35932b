"""The client's way to a server: connect, know the host, prove a key, run commands.

paramiko's own SSHClient is not used: it does not say where an unwanted host key
is written, compares with only one known key of a kind, and asks nobody.
"""

from __future__ import annotations

import getpass
import logging
import re
import socket
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import paramiko

from mypaas_git.errors import ConnectionFailed, UsageError
from mypaas_git.progress import clean
from mypaas_git.ssh.known_hosts import (
    KnownKey,
    default_files,
    host_label,
    lookup,
    remember,
)

DEFAULT_PORT = 2222
TIMEOUT = 20.0
"""Seconds for each of: the connection, the handshake, one proof of a key, a new channel."""
SILENCE = 60
"""Seconds without an acknowledgement after which the server counts as gone."""
DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_BUFFER = 1 << 16

# What goes wrong is said once, by ConnectionFailed; the transport's thread would log
# it a second time, with a traceback.
_LOG = "mypaas_git.ssh.client.transport"
logging.getLogger(_LOG).addHandler(logging.NullHandler())
logging.getLogger(_LOG).propagate = False


@dataclass(frozen=True)
class Address:
    """Where a server is, and as whom to log in."""

    host: str
    port: int
    user: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``[user@]host[:port]``; an IPv6 host stands in brackets.

        Raises :class:`UsageError`.
        """
        match = re.fullmatch(
            r"(?:(?P<user>[\w.+][\w.+-]*)@)?"
            r"(?:\[(?P<ip6>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[\w.][\w.-]*))"
            r"(?::(?P<port>[0-9]{1,5}))?",
            text,
            re.ASCII,
        )
        port = int(match["port"] or DEFAULT_PORT) if match else 0
        if match is None or not 1 <= port <= 65535:
            raise UsageError(
                f"{text!a} is not a server: write [user@]host[:port], "
                f"with an IPv6 address in brackets"
            )
        return cls(match["ip6"] or match["host"], port, match["user"] or _local_user())

    @property
    def label(self) -> str:
        """The host's name in ``known_hosts``."""
        return host_label(self.host, self.port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Person(Protocol):
    """Somebody who may be asked; None means that nobody answered."""

    def agrees(self, question: str) -> bool | None: ...

    def passphrase(self, key: str) -> str | None: ...


@contextmanager
def connect(
    address: Address,
    person: Person,
    *,
    key: Path | None = None,
    host_key: str | None = None,
    known_hosts: Sequence[Path] | None = None,
) -> Iterator[Connection]:
    """Log in at ``address``; ``person`` answers what only a person can.

    ``key`` is a private key's file; without it the agent and ``~/.ssh/id_*``
    are tried. ``host_key`` is the fingerprint (``SHA256:…``) to expect of a
    host that ``known_hosts`` (the user's and the machine's file) does not list.
    Raises :class:`ConnectionFailed`.
    """
    files = default_files() if known_hosts is None else known_hosts
    transport = _transport(address)
    try:
        _handshake(transport, address, files, host_key, person)
        _log_in(transport, address, _keys(key, person))
        yield Connection(transport, address)
    finally:
        transport.close()


class Connection:
    """A server that knows who we are."""

    def __init__(self, transport: paramiko.Transport, address: Address) -> None:
        self._transport = transport
        self._address = address

    def run(self, command: str) -> Channel:
        """Start ``command`` on the server. Raises :class:`ConnectionFailed`."""
        try:
            channel = self._transport.open_session(timeout=TIMEOUT)
            channel.exec_command(command)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise ConnectionFailed(
                f"{self._address} will not run '{clean(command)}': {_why(error)}"
            ) from None
        return Channel(channel)


class Channel:
    """One command's input and output."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._output = channel.makefile("rb", _BUFFER)

    def read(self, size: int, /) -> bytes:
        """Return ``size`` bytes of output, fewer only at its end."""
        return self._output.read(size)

    def write(self, data: bytes, /) -> None:
        """Send ``data``; :class:`OSError` when the command is gone."""
        self._channel.sendall(data)

    def complaint(self) -> str:
        """What the command wrote to its standard error; its output has ended."""
        self._channel.settimeout(TIMEOUT)
        text = b""
        with suppress(OSError):
            while len(text) < _BUFFER and (data := self._channel.recv_stderr(_BUFFER)):
                text += data
        return text.decode("utf-8", "replace")

    def close(self) -> None:
        self._output.close()
        self._channel.close()


def _transport(address: Address) -> paramiko.Transport:
    try:
        sock = socket.create_connection((address.host, address.port), TIMEOUT)
    except OSError as error:
        raise ConnectionFailed(f"cannot reach {address}: {_why(error)}") from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A build may be silent for long, so only a host that is gone ends the wait.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE * 1000)
    try:
        transport = paramiko.Transport(sock)
    except BaseException:
        sock.close()
        raise
    transport.set_log_channel(_LOG)
    transport.banner_timeout = transport.auth_timeout = TIMEOUT
    return transport


def _handshake(
    transport: paramiko.Transport,
    address: Address,
    files: Sequence[Path],
    host_key: str | None,
    person: Person,
) -> None:
    """Agree on keys, and go on only with the host that was meant."""
    try:
        known = lookup(address.label, files)
    except OSError as error:
        raise ConnectionFailed(f"cannot read {error.filename}: {error.strerror}") from None
    # The server has several keys: ask for one of the kind that is known here.
    kinds = {kind for each in known for kind in _algorithms(each.type)}
    options = transport.get_security_options()
    options.key_types = sorted(options.key_types, key=lambda kind: kind not in kinds)
    try:
        transport.start_client(timeout=TIMEOUT)
        shown = transport.get_remote_server_key()
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise ConnectionFailed(f"{address} does not speak ssh with us: {_why(error)}") from None
    _check_host(shown, address, known, host_key)
    if not known:
        if host_key is None:
            _introduce(shown, address, person)
        try:
            remember(address.label, shown, files[0])
        except OSError as error:
            raise ConnectionFailed(
                f"cannot write the host's key into {files[0]}: {error.strerror}"
            ) from None


def _check_host(
    shown: paramiko.PKey, address: Address, known: Sequence[KnownKey], host_key: str | None
) -> None:
    """Refuse a host whose key is not the one that we know or were told."""
    if host_key is not None and shown.fingerprint != host_key:
        raise ConnectionFailed(
            f"{address} has another host key than the one asked for: it is {_describe(shown)}"
        )
    blob = shown.asbytes()
    for each in known:
        if each.revoked and each.blob == blob:
            raise ConnectionFailed(
                f"THE HOST KEY OF {address} IS REVOKED at {each.place}: {_describe(shown)}"
            )
    if known and not any(each.blob == blob and not each.revoked for each in known):
        place = next(
            (each.place for each in known if each.type == shown.get_name()), known[0].place
        )
        raise ConnectionFailed(
            f"THE HOST KEY OF {address} HAS CHANGED: it is {_describe(shown)}, not what "
            f"{place} says; somebody may be listening in. If the server was "
            f"made anew, remove that line"
        )


def _introduce(shown: paramiko.PKey, address: Address, person: Person) -> None:
    """Ask whether an unknown host's key is the right one."""
    agreed = person.agrees(
        f"{address} is not known here. Its host key is {_describe(shown)}. Trust it?"
    )
    if agreed is None:
        raise ConnectionFailed(
            f"{address} is not known here and nobody answers whether to trust it: "
            f"if its host key is right, add --host-key {shown.fingerprint}"
        )
    if not agreed:
        raise ConnectionFailed(f"{address} is not trusted: nothing was sent")


def _describe(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.fingerprint}"


def _algorithms(key_type: str) -> tuple[str, ...]:
    """The signatures that a key of this type makes; RSA's are not named like its keys."""
    return ("rsa-sha2-512", "rsa-sha2-256") if key_type == "ssh-rsa" else (key_type,)


def _log_in(
    transport: paramiko.Transport,
    address: Address,
    keys: Iterator[tuple[str, paramiko.PKey]],
) -> None:
    """Try one key after the other."""
    tried = []
    for name, key in keys:
        tried.append(name)
        try:
            transport.auth_publickey(address.user, key)
        except paramiko.AuthenticationException:
            pass
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise ConnectionFailed(f"{address} ended the login: {_why(error)}") from None
        if transport.is_authenticated():
            return
        if not transport.is_active():
            break
    if not tried:
        raise ConnectionFailed(
            f"there is no key to show to {address}: make one with ssh-keygen, "
            f"start the agent, or name one with -i"
        )
    raise ConnectionFailed(
        f"{address} knows none of your keys ({', '.join(tried)}); its admin can add one "
        f"with: mypaas keys add NAME FILE.pub"
    )


def _keys(path: Path | None, person: Person) -> Iterator[tuple[str, paramiko.PKey]]:
    """Yield named keys to try: that of ``path`` alone, or the agent's and the usual."""
    if path is not None:
        yield str(path), _load(path, person)
        return
    seen = set()
    for name, key in _agent_keys():
        seen.add(key.asbytes())
        yield name, key
    for usual in (Path.home() / ".ssh" / name for name in DEFAULT_KEYS):
        if usual.is_file() and _public_blob(usual) not in seen:
            yield str(usual), _load(usual, person)


def _agent_keys() -> Iterator[tuple[str, paramiko.PKey]]:
    try:
        agent = paramiko.Agent()
    except (paramiko.SSHException, OSError):
        return  # a socket that is no agent's
    try:
        for key in agent.get_keys():
            yield f"agent: {clean(key.comment) or key.get_name()}", key
    finally:
        agent.close()


def _public_blob(path: Path) -> bytes | None:
    """The public half that lies beside a private key, to tell that the agent has it."""
    try:
        return b64decode(path.with_name(path.name + ".pub").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _load(path: Path, person: Person) -> paramiko.PKey:
    """Read a private key, asking for its passphrase if it has one."""
    passphrase = None
    try:
        try:
            return paramiko.PKey.from_path(path)
        except (TypeError, paramiko.PasswordRequiredException):  # it has a passphrase
            passphrase = person.passphrase(str(path))
            if passphrase is None:
                raise ConnectionFailed(
                    f"the key {path} has a passphrase and nobody answers: "
                    f"add it to the agent with ssh-add"
                ) from None
            # The annotation says str, but what decrypts the key takes bytes only.
            return paramiko.PKey.from_path(path, passphrase.encode())  # type: ignore[arg-type]
    except OSError as error:
        raise ConnectionFailed(f"cannot read the key {path}: {error.strerror}") from None
    except (ValueError, TypeError, paramiko.SSHException) as error:
        if passphrase is not None:
            raise ConnectionFailed(f"this passphrase does not open the key {path}") from None
        raise ConnectionFailed(f"{path} is no private key: {_why(error)}") from None


def _local_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name; KeyError before Python 3.13
        return "mypaas"


def _why(error: BaseException) -> str:
    """One line for what a library raised."""
    if isinstance(error, TimeoutError) or (isinstance(error, OSError) and error.strerror):
        return "no answer in time" if isinstance(error, TimeoutError) else str(error.strerror)
    return clean(str(error)) or "the connection was closed"
