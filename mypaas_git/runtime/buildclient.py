"""The docker client that can drive BuildKit, which the SDK cannot."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from mypaas_git.errors import BuildFailed
from mypaas_git.runtime.client import Client, engine_errors
from mypaas_git.runtime.process import converse
from mypaas_git.runtime.transcript import short
from mypaas_git.runtime.watch import Watch

log = structlog.get_logger()

PATIENCE = 20.0
"""Seconds that a client may take for the trial."""

FORGET = 300.0
"""Seconds after which it is tried again whether any client works, where none did."""

# Where the engine is, and what the client and its credential helpers need to work as
# they do for the user who runs the server. Nothing else of our environment is passed.
_PASSED = (
    *("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "XDG_RUNTIME_DIR"),
    *("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONFIG"),
    *("SSH_AUTH_SOCK", "GNUPGHOME", "PASSWORD_STORE_DIR", "DBUS_SESSION_BUS_ADDRESS"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy"),
)
_OURS = {
    # The SDK knows no contexts: without a host it means this one.
    "DOCKER_HOST": "unix:///var/run/docker.sock",
    "DOCKER_BUILDKIT": "1",
    "BUILDKIT_PROGRESS": "plain",
    # Only the engine's own builder leaves its images in the engine, and only as images.
    "BUILDX_BUILDER": "default",
    "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
    "DOCKER_CLI_HINTS": "false",
    "NO_COLOR": "1",
}


class BuildClient:
    """Finds, once a process, a docker client that builds with BuildKit.

    Several may lie on PATH, and some know BuildKit only by a plugin that is not there:
    each one has to build something. ``search`` gives what PATH gives.
    """

    def __init__(self, engine: Client, search: Callable[[], str] | None = None) -> None:
        self._engine = engine
        self._search = search or (lambda: os.environ.get("PATH", os.defpath))
        self._lock = threading.Lock()
        self._found: Path | None = None
        self._missing_since: float | None = None

    def find(self, cancelled: Callable[[], bool] = lambda: False) -> Path | None:
        """The client's path, or None where none works.

        Raises EngineDown, and then the next call tries again; Cancelled once ``cancelled``
        is true.
        """
        with self._lock:
            if self._found and os.access(self._found, os.X_OK):
                return self._found
            if self._missing_since and time.monotonic() - self._missing_since < FORGET:
                return None
            self._found = self._try_each(cancelled)
            self._missing_since = None if self._found else time.monotonic()
            return self._found

    def _try_each(self, cancelled: Callable[[], bool]) -> Path | None:
        self._ping()
        for path in clients(self._search()):
            fault = _trial(path, cancelled)
            if fault is None:
                log.info("buildkit-found", client=str(path))
                return path
            log.info("buildkit-missing", client=str(path), error=fault)
        self._ping()  # if that was why, nothing has been learned
        return None

    def _ping(self) -> None:
        with engine_errors():
            self._engine.api.ping()


def clients(search: str) -> list[Path]:
    """Every docker client on the path ``search``, each once, whatever links to it."""
    found: dict[Path, Path] = {}
    for directory in filter(None, search.split(os.pathsep)):
        path = Path(directory) / "docker"
        if path.is_file() and os.access(path, os.X_OK):
            found.setdefault(path.resolve(), path.absolute())
    return list(found.values())


def environment(secrets: Mapping[str, str] | None = None) -> dict[str, str]:
    """The client's whole environment; ``secrets`` are added under names of ours."""
    passed = {name: os.environ[name] for name in _PASSED if os.environ.get(name)}
    return {**_OURS, **passed, **(secrets or {})}


def _trial(path: Path, cancelled: Callable[[], bool]) -> str | None:
    """Build nothing out of nothing and keep nothing; what went wrong, or None."""
    said: list[str] = []
    watch = Watch(cancelled, PATIENCE)
    argv = [str(path), "build", "--progress=plain", "--secret", "id=trial,env=MYPAAS_TRIAL"]
    try:
        code = converse(
            # To its own output instead of into the engine, where it would stay.
            [*argv, "--output", "type=tar,dest=-", "-"],
            environment({"MYPAAS_TRIAL": "trial"}),
            iter([_nothing()]),
            lambda text: said.append(text[:2000]),
            lambda: watch.check("the trial of BuildKit"),
        )
    except BuildFailed as error:
        return error.message
    return None if code == 0 else short("".join(said), 400)


def _nothing() -> bytes:
    """A context whose Dockerfile makes an empty image."""
    dockerfile = b"FROM scratch\n"
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(dockerfile)
        tar.addfile(info, io.BytesIO(dockerfile))
    return file.getvalue()
