"""Versions of :mod:`support.webapp` to push: good ones, and bad ones of four kinds."""

from __future__ import annotations

from pathlib import Path

SOURCE = Path(__file__).with_name("webapp.py")
IMAGE = "python:3-slim"
Files = dict[str, str | bytes]

KINDS = {
    "build fails": ("RUN exit 7", "build-failed"),
    "exits": ('CMD ["sh", "-c", "echo gone; exit 3"]', "start-failed"),
    "never healthy": ("ENV ILL=yes", "unhealthy"),
    "wrong port": ("ENV PORT=81", "unhealthy"),
}
"""The line that makes a version bad, and the reason that the pusher gets."""


def version(
    name: str,
    number: int,
    *,
    scale: int = 2,
    boot: float = 1.0,
    deaf: bool = False,
    last: str = "",
) -> Files:
    """The files of the service ``name`` that answers ``v<number>`` at ``http://<name>.test``.

    Another version differs in the last, tiny file alone, so that all before it comes from
    the builder's cache. ``boot`` is in seconds; ``deaf`` makes it live through SIGTERM;
    ``last`` ends the Dockerfile.
    """
    lines = [
        f"# mypaas.service={name}",
        f"# mypaas.url=http://{name}.test",
        f"# mypaas.scale={scale}",
        f"FROM {IMAGE}",
        f"ENV BOOT={boot:g}{' DEAF=yes' if deaf else ''}",
        'CMD ["python3", "/server.py"]',
        "COPY server.py /",
        "COPY version /",
        *([last] if last else []),
    ]
    return {
        "Dockerfile": "\n".join(lines) + "\n",
        "server.py": SOURCE.read_bytes(),
        "version": f"v{number}\n",
    }


def bad(name: str, number: int, kind: str, *, scale: int = 2, boot: float = 1.0) -> Files:
    """A version that cannot go live, of one of the KINDS."""
    return version(name, number, scale=scale, boot=boot, last=KINDS[kind][0])


def write(directory: Path, files: Files) -> None:
    """Put ``files`` into a directory, for whoever builds or deploys one."""
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (directory / name).write_bytes(data)
