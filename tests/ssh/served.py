"""A listener on a free port, whose backend does what its caller says."""

from __future__ import annotations

import functools
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paramiko
from structlog.testing import capture_logs
from support.keys import ssh_key
from support.net import wait_until
from support.stockgit import clean_env, ssh_options

from mypaas_git.access.keyline import Rights
from mypaas_git.access.keys import KeyFile
from mypaas_git.access.policy import Identity
from mypaas_git.errors import BuildFailed, MypaasError, UsageError
from mypaas_git.ssh.hostkeys import ensure_host_keys, known_hosts_line
from mypaas_git.ssh.listener import Listener
from mypaas_git.ssh.session import GitVerb
from mypaas_git.ssh.stream import Stream


class Obedient:
    """A backend with a few commands that show what reached it."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.may_end = threading.Event()
        self.saw_gone = threading.Event()
        self.away: list[tuple[Identity, str, str]] = []

    def git(self, identity: Identity, verb: GitVerb, path: str, stream: Stream) -> int:
        stream.write(json.dumps([identity.name, verb, path]).encode())
        return 0

    def turned_away(self, who: Identity, asked: str, error: MypaasError) -> None:
        self.away.append((who, asked, error.message))

    def command(self, identity: Identity, argv: list[str], stream: Stream) -> int:
        action: Callable[..., int] | None = (
            getattr(self, f"do_{argv[0]}", None) if argv else None
        )
        if action is not None:
            return action(stream, *argv[1:])
        stream.write(json.dumps([identity.name, identity.admin, argv]).encode())
        return 0

    def do_exit(self, stream: Stream, code: str) -> int:
        stream.write_error(b"to stderr\n")
        return int(code)

    def do_big(self, stream: Stream, size: str) -> int:
        stream.write(b"x" * int(size))
        stream.write_error(b"y" * int(size))
        return 3

    def do_cat(self, stream: Stream) -> int:
        while data := stream.read(100_000):
            stream.write(data)
        return 0

    def do_sip(self, stream: Stream) -> int:
        taken = 0
        while data := stream.read(100_000):
            taken += len(data)
            time.sleep(0.002)
        stream.write(b"%d" % taken)
        return 0

    def do_head(self, stream: Stream) -> int:
        stream.write(stream.read(5))
        return 0

    def do_refuse(self, _stream: Stream) -> int:
        raise BuildFailed("RUN make\x1b[31m failed", details=["line 1", "line 2"])

    def do_misuse(self, _stream: Stream) -> int:
        raise UsageError("which service?")

    def do_terminal(self, stream: Stream) -> int:
        """Show what the client's terminal is, then what happens to it, until it says TERM."""
        stream.write(json.dumps([stream.window, stream.term]).encode() + b"\n")
        while not stream.gone:
            for event in stream.events():
                stream.write(json.dumps(event).encode() + b"\n")
                if event == "TERM":
                    return 0
            time.sleep(0.01)
        return 1

    def do_boom(self, _stream: Stream) -> int:
        raise RuntimeError("a secret inside")

    def do_wait(self, stream: Stream) -> int:
        self.running.set()
        while not self.may_end.wait(0.01):
            if stream.gone:
                self.saw_gone.set()
                return 1
        stream.write(b"ended well")
        return 0

    def do_flood(self, stream: Stream) -> int:
        self.running.set()
        try:
            while True:
                stream.write(b"x" * 60_000)
        except OSError:
            self.saw_gone.set()
        return 1

    def do_take(self, stream: Stream) -> int:
        self.running.set()
        while stream.read(1000):
            pass
        self.saw_gone.set()
        return 0

    def do_follow(self, stream: Stream) -> int:
        self.running.set()
        if stream.wait_gone(20):
            self.saw_gone.set()
        stream.write(b"nobody reads this")
        return 0


class Served:
    """A running listener with its keys, and stock ssh to talk to it."""

    logs: Sequence[Mapping[str, Any]] = ()

    def __init__(
        self,
        root: Path,
        host_keys: list[paramiko.PKey],
        backend: Obedient | None = None,
        host: str = "127.0.0.1",
        **options: Any,
    ) -> None:
        self.root = root
        self.keys = KeyFile(root / "authorized_keys")
        self.backend = backend or Obedient()
        self.host_keys = host_keys
        self.listener = Listener((host, 0), host_keys, self.keys, self.backend, **options)
        self.listener.start()
        self.port = self.listener.address[1]
        self.known_hosts = root / "known_hosts"
        lines = [known_hosts_line("127.0.0.1", self.port, key) for key in host_keys]
        self.known_hosts.write_text("\n".join(lines) + "\n")

    def logged(self, event: str) -> list[Mapping[str, Any]]:
        """The log's entries of this kind, so far."""
        return [entry for entry in self.logs if entry["event"] == event]

    def new_key(self, name: str, *, admin: bool = False, kind: str = "ed25519") -> Path:
        """A key pair of which the server knows the public half."""
        path = ssh_key(self.root, name, kind=kind)
        public = path.with_suffix(".pub").read_text()
        self.keys.add(name, public, Rights(admin=admin))
        return path

    def options(self, key: Path | None) -> list[str]:
        return [*ssh_options(key, self.known_hosts), "-p", str(self.port)]

    def ssh(
        self,
        *argv: str,
        key: Path | None,
        more: tuple[str, ...] = (),
        stdin: bytes = b"",
    ) -> subprocess.CompletedProcess[bytes]:
        """``ssh anybody@server argv``, or a plain ``ssh server`` without ``argv``."""
        return subprocess.run(
            ["ssh", *more, *self.options(key), "anybody@127.0.0.1", *argv],
            env=clean_env(),
            input=stdin,
            capture_output=True,
            timeout=30,
            check=False,
        )

    def popen(self, *argv: str, key: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["ssh", *self.options(key), "anybody@127.0.0.1", *argv],
            env=clean_env(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


@contextmanager
def nothing_left() -> Iterator[None]:
    """Fails when threads or descriptors that were not there before stay behind."""
    threads, descriptors = set(threading.enumerate()), _descriptors()
    yield
    wait_until(
        lambda: set(threading.enumerate()) <= threads and _descriptors() <= descriptors,
        "threads and descriptors are gone",
        seconds=5,
    )


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@functools.cache
def host_keys() -> list[paramiko.PKey]:
    """One set for all tests: RSA takes its time."""
    with tempfile.TemporaryDirectory() as directory:
        return ensure_host_keys(Path(directory))


@contextmanager
def serving(root: Path, backend: Obedient | None = None, **options: Any) -> Iterator[Served]:
    """A listener that runs, is stopped, and leaves nothing behind."""
    keys = host_keys()
    with nothing_left(), capture_logs() as logs:
        served = Served(root, keys, backend, **options)
        served.logs = logs
        try:
            yield served
        finally:
            served.backend.may_end.set()
            served.listener.stop(grace=0.5)
