"""Apps to deploy: a git repository with a Dockerfile and some files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path

from support.stockgit import git

BASE = "mypaas-test/busybox"
"""The 2 MB image that scripts/test builds: sh, httpd, nc, wget, and it stops at once."""

_numbers = itertools.count(1)


def unique(prefix: str = "app") -> str:
    """A service name that no other test of this run uses."""
    return f"{prefix}-{next(_numbers)}-{os.getpid()}"


def web_dockerfile(
    *directives: str, page: str = "hello\n", run: str = "", port: int = 80
) -> str:
    """A Dockerfile whose app answers ``page`` on ``/`` at ``port``.

    ``directives`` are written as ``url=http://a.test``; ``run`` is a further RUN line's
    command.
    """
    lines = [
        f"FROM {BASE}",
        *(f"# mypaas.{each}" for each in directives),
        *([f"RUN {run}"] if run else []),
        f"RUN mkdir -p /www && printf '%b' '{_escaped(page)}' > /www/index.html",
        f'CMD ["httpd", "-f", "-p", "{port}", "-h", "/www"]',
    ]
    return "\n".join(lines) + "\n"


def files_dockerfile(name: str, *, ready_after: float = 0) -> str:
    """An app whose pages are the files of its commit; nothing is run to build it."""
    wait = f"sleep {ready_after}; " if ready_after else ""
    return (
        f"FROM {BASE}\n# mypaas.url=http://{name}.test\n# mypaas.scale=1\n"
        f"COPY . /www/\nCMD {wait}exec httpd -f -p 80 -h /www\n"
    )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("'", "'\\''")


def make_app(
    directory: Path,
    dockerfile: str | None = None,
    files: Mapping[str, str | bytes] | None = None,
    *,
    name: str = "app",
) -> Path:
    """A repository ``directory/name`` with one commit on ``main``; returns its path.

    Without ``dockerfile`` it has none.
    """
    app = directory / name
    app.mkdir(parents=True)
    git(app, "init", "-q", "-b", "main")
    everything = dict(files or {})
    if dockerfile is not None:
        everything["Dockerfile"] = dockerfile
    commit(app, everything, "First version")
    return app


def commit(app: Path, files: Mapping[str, str | bytes], message: str = "Change") -> str:
    """Write ``files``, commit everything that ``app`` holds, return the commit's id."""
    for path, content in files.items():
        target = app / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
    git(app, "add", "-A")
    git(app, "commit", "-q", "--allow-empty", "-m", message)
    return git(app, "rev-parse", "HEAD").stdout.strip()


def head(app: Path) -> str:
    return git(app, "rev-parse", "HEAD").stdout.strip()


def page_files(name: str, page: str, scale: str = "1") -> dict[str, str]:
    """The files of a service that answers ``page`` at ``http://<name>.test/``."""
    directives = f"# mypaas.url=http://{name}.test\n# mypaas.scale={scale}\n"
    run = 'COPY index.html /www/\nCMD ["httpd", "-f", "-p", "80", "-h", "/www"]\n'
    return {"Dockerfile": f"{directives}FROM {BASE}\n{run}", "index.html": page}


def slow_files(name: str, page: str, scale: str = "1") -> dict[str, str]:
    """As :func:`page_files`, and ``/cgi-bin/slow`` takes a minute to end its answer."""
    files = page_files(name, page, scale)
    slow = "#!/bin/sh\necho Content-Type: text/plain; echo; echo begun; sleep 60\n"
    run = "COPY slow /www/cgi-bin/\nRUN chmod +x /www/cgi-bin/slow\n"
    return {**files, "slow": slow, "Dockerfile": f"{files['Dockerfile']}{run}"}
