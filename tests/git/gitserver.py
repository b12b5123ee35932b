"""Serves the git room to stock git: its "ssh" is a pipe to a socket that a thread answers."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from support.stockgit import git

from mypaas_git.errors import MypaasError
from mypaas_git.git.ingest import Take, take_in
from mypaas_git.git.receive import Deploy, Plan, RefUpdate, receive_pack
from mypaas_git.git.repository import Repositories, Repository
from mypaas_git.git.upload import refuse, upload_pack
from mypaas_git.names import ServiceName
from mypaas_git.progress import Progress

COMPILED = os.environ.get("MYPAAS_COMPILED") == "1"
"""Whether the tests run on what ``pip install`` compiles."""
SECONDS = 20.0
"""After so long a test's server or client has hung."""

# What git calls instead of ssh: HOST COMMAND, joined to the socket whose path is filled in.
_PIPE = """\
import os, select, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
server.sendall(sys.argv[-1].encode() + b"\\n")
sources = [0, server]
while server in sources:
    for ready in select.select(sources, [], [])[0]:
        if ready == 0:
            data = os.read(0, 65536)
            if data:
                server.sendall(data)
            else:
                sources.remove(0)
                server.shutdown(socket.SHUT_WR)
        else:
            data = server.recv(65536)
            if data:
                os.write(1, data)
            else:
                sources.remove(server)
"""


class SocketStream:
    """A connection as the ssh room would hand it in."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def read(self, n: int) -> bytes:
        return self.connection.recv(n)

    def write(self, data: bytes) -> None:
        self.connection.sendall(data)


def just_move(
    repository: Repository, update: RefUpdate, progress: Progress, move: Callable[[], None]
) -> None:
    """A deploy that does nothing but succeed."""
    progress.done(f"{update.ref} is live")
    move()


def just_tell(repository: Repository, update: RefUpdate, progress: Progress) -> None:
    """A plan that only shows that the commit can be read."""
    assert update.new
    progress.step(f"{repository.commit_subject(update.new)} would be live")


class GitServer:
    """The repositories below ``root``, for stock git and for raw bytes."""

    def __init__(self, root: Path) -> None:
        self.repositories = Repositories(root / "repos")
        self.branches: Sequence[str] = ["main", "master"]
        self.max_pack_size = 1 << 30
        self.deploy: Deploy = just_move
        self.plan: Plan = just_tell
        self.take: Take = take_in
        self.faults: list[Exception] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(root / "s"))
        self._listener.listen(16)
        self._script = root / "pipe.py"
        self._script.write_text(_PIPE.format(path=str(root / "s")))
        self._start(self._accept)

    def path(self, name: str = "hello") -> Path:
        return self.repositories._root / f"{name}.git"

    @property
    def env(self) -> dict[str, str]:
        command = shlex.join([sys.executable, "-S", "-I", str(self._script)])
        return {"GIT_SSH_COMMAND": command, "GIT_SSH_VARIANT": "simple"}

    def git(
        self, cwd: Path, *args: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return git(cwd, *args, env=self.env, check=check, seconds=SECONDS)

    def connect(self, command: str) -> socket.socket:
        """Open a connection to ``command``, for bytes that no git would send."""
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(SECONDS)
        client.connect(self._listener.getsockname())
        client.sendall(command.encode() + b"\n")
        return client

    def fsck(self, name: str = "hello") -> None:
        """Fail unless stock git finds the repository flawless and nothing was left behind."""
        done = git(self.path(name), "fsck", "--strict", "--full", "--no-dangling")
        words = done.stderr + done.stdout
        assert all(line.startswith("notice: ") for line in words.splitlines()), words
        assert not list((self.path(name) / "objects").glob("incoming-*"))

    def refs(self, name: str = "hello") -> dict[str, str]:
        with self.repositories.open(ServiceName(name)) as repository:
            return repository.refs()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive(), "a connection hangs"
        self._listener.close()
        assert not self.faults, self.faults

    def wait_idle(self) -> None:
        """Wait until every connection so far has ended."""
        for thread in self._threads[1:]:
            thread.join(SECONDS)
            assert not thread.is_alive(), "a connection hangs"

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._start(lambda connection=connection: self._serve(connection))  # type: ignore[misc] # mypy cannot infer a default's type

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                command = b""
                while not command.endswith(b"\n"):
                    command += connection.recv(1)
                service, path = shlex.split(command.decode())
                name = ServiceName.parse(path.strip("/"))
                stream = SocketStream(connection)
                if service == "git-upload-pack":
                    _upload(stream, self.repositories, name)
                else:
                    receive_pack(
                        stream,
                        self.repositories,
                        name,
                        branches=self.branches,
                        max_pack_size=self.max_pack_size,
                        deploy=self.deploy,
                        plan=self.plan,
                        push_id="p123",
                        take=self.take,
                    )
            except Exception as error:  # noqa: BLE001 - close() fails the test with it
                self.faults.append(error)


def _upload(stream: SocketStream, repositories: Repositories, name: ServiceName) -> None:
    try:
        upload_pack(stream, repositories, name)
    except MypaasError as error:
        refuse(stream, str(error))


@contextmanager
def run_git_server(root: Path) -> Iterator[GitServer]:
    server = GitServer(root)
    try:
        yield server
    finally:
        server.close()


def commit(work: Path, files: dict[str, str], message: str = "change") -> str:
    """Commit ``files`` in ``work``, a repository on main that is made when missing; its id."""
    if not (work / ".git").exists():
        work.mkdir(exist_ok=True)
        git(work, "init", "-q", "-b", "main")
        git(work, "remote", "add", "mypaas", "ssh://host/hello")
    for name, text in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    git(work, "add", "-A", "-f")
    git(work, "commit", "-q", "--allow-empty", "-m", message)
    return git(work, "rev-parse", "HEAD").stdout.strip()


@contextmanager
def uncovered() -> Iterator[None]:
    """Of processes that are started meanwhile no lines are counted, which takes them long."""
    with patch.dict(os.environ):
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
        yield
