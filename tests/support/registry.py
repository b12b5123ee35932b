"""A real image registry on loopback: Debian's docker-registry."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.net import free_port, listening, wait_until

_CONFIG = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@contextmanager
def run_registry(directory: Path) -> Iterator[str]:
    """Yield ``127.0.0.1:PORT``, where the registry answers without TLS or login."""
    port = free_port()
    config = directory / "registry.yml"
    config.write_text(_CONFIG.format(root=directory / "images", port=port))
    with (directory / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(
            lambda: listening(port) or process.poll() is not None, "the registry listens"
        )
        if process.poll() is not None:
            raise AssertionError((directory / "registry.log").read_text())
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)
