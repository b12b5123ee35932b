"""The ssh room in a process of its own, with real repositories, that deploys nothing.

    sshserver.py ROOT LOGIN_SECONDS

serves ``ROOT/repos`` to the keys in ``ROOT/authorized_keys`` on a free port of 127.0.0.1
and prints that. As a module it is what the benchmarks start it with: :func:`running`.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from mypaas_git.access.keyline import Rights
from mypaas_git.access.keys import KeyFile
from mypaas_git.access.policy import Identity
from mypaas_git.errors import MypaasError
from mypaas_git.git.receive import RefUpdate, receive_pack
from mypaas_git.git.repository import Repositories, Repository
from mypaas_git.git.upload import upload_pack
from mypaas_git.names import ServiceName
from mypaas_git.progress import Progress
from mypaas_git.ssh.hostkeys import ensure_host_keys, known_hosts_line
from mypaas_git.ssh.listener import Listener
from mypaas_git.ssh.patience import LOGIN_SECONDS
from mypaas_git.ssh.session import GitVerb
from mypaas_git.ssh.stream import Stream


class Backend:
    """Takes pushes and moves the branch; every command waits for its input's end."""

    def __init__(self, root: Path) -> None:
        self._repositories = Repositories(root / "repos")

    def git(self, _identity: Identity, verb: GitVerb, path: str, stream: Stream) -> int:
        service = ServiceName.parse(path.strip("/"))
        if verb == "git-upload-pack":
            upload_pack(stream, self._repositories, service)
        else:
            receive_pack(
                stream,
                self._repositories,
                service,
                branches=["main"],
                max_pack_size=1 << 30,
                deploy=_just_move,
                plan=lambda *_: None,
                push_id="benchmark",
            )
        return 0

    def turned_away(self, _who: Identity, _asked: str, _error: MypaasError) -> None:
        pass

    def command(self, _identity: Identity, _argv: list[str], stream: Stream) -> int:
        stream.write(b"go on\n")
        while stream.read(65536):
            pass
        return 0


def _just_move(
    _repository: Repository, _update: RefUpdate, _progress: Progress, move: Callable[[], None]
) -> None:
    move()


class Served:
    """A running server, what its process takes, and stock git and ssh to use it."""

    def __init__(self, root: Path, process: subprocess.Popen[str], port: int) -> None:
        self.root, self.pid, self.port = root, process.pid, port
        self.key = root / "key"
        self.work = root / "work"
        keys = ensure_host_keys(root / "host_keys")
        lines = [known_hosts_line("127.0.0.1", port, key) for key in keys]
        self.known_hosts = root / "known_hosts"
        self.known_hosts.write_text("\n".join(lines) + "\n")
        self._pushes = 0
        self.git("init", "-q", "-b", "main", str(self.work), cwd=root)

    @property
    def memory(self) -> float:
        """MiB that are resident."""
        return int(self._status("VmRSS").split()[0]) / 1024

    @property
    def threads(self) -> int:
        return int(self._status("Threads"))

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    @property
    def cpu(self) -> float:
        """Seconds so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rest(self) -> None:
        """Wait until connections that are about to end have ended, 20 s at most."""
        seen, since = (-1, -1), 0.0
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            now = (self.threads, self.descriptors)
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > 1:
                return
            time.sleep(0.05)

    def push(self) -> float:
        """Push a new commit with stock git; seconds that it took."""
        self._pushes += 1
        (self.work / "file").write_text(f"{self._pushes}\n")
        self.git("add", "file")
        self.git("commit", "-q", "-m", f"{self._pushes}")
        began = time.monotonic()
        self.git("push", "-q", f"ssh://me@127.0.0.1:{self.port}/app", "main")
        return time.monotonic() - began

    def git(self, *args: str, cwd: Path | None = None) -> None:
        who = {"NAME": "Alice", "EMAIL": "alice@example.com"}
        env = {
            **os.environ,
            **{
                f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in who.items()
            },
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_SSH_COMMAND": shlex.join(["ssh", *self.ssh_options]),
        }
        subprocess.run(
            ["git", *args],
            cwd=cwd or self.work,
            env=env,
            check=True,
            capture_output=True,  # without pipes a time-out looks round every 32 ms
            timeout=60,
        )

    @property
    def ssh_options(self) -> list[str]:
        options = [
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "BatchMode=yes",
            "LogLevel=ERROR",
            f"UserKnownHostsFile={self.known_hosts}",
        ]
        return ["-F", os.devnull, "-i", str(self.key), *(p for o in options for p in ("-o", o))]

    def _status(self, field: str) -> str:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(line for line in status.splitlines() if line.startswith(field)).split(
            maxsplit=1
        )[1]


@contextlib.contextmanager
def running(root: Path, login_seconds: float = LOGIN_SECONDS) -> Iterator[Served]:
    """A server in ``root``, an empty directory, and a key that may log in."""
    key = root / "key"
    generate = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me", "-f", str(key)]
    subprocess.run(generate, check=True)
    public = key.with_suffix(".pub").read_text()
    KeyFile(root / "authorized_keys").add("me", public, Rights(admin=True))
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, str(root), str(login_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    with process:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        yield Served(root, process, int(process.stdout.readline()))
        process.communicate()  # its input ends, and so does it


def main() -> None:
    # The log belongs to the error output: nobody reads ours behind the first line.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    root = Path(sys.argv[1])
    listener = Listener(
        ("127.0.0.1", 0),
        ensure_host_keys(root / "host_keys"),
        KeyFile(root / "authorized_keys"),
        Backend(root),
        login_seconds=float(sys.argv[2]),
    )
    listener.start()
    print(listener.address[1], flush=True)
    sys.stdin.read()
    listener.stop(grace=1)


if __name__ == "__main__":
    main()
