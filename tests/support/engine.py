"""The Docker Engine, driven by whichever docker client comes first on PATH."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

NAMESPACE_LABEL = "mypaas.namespace"


def docker(*args: str, check: bool = True, stdin: bytes = b"", seconds: float = 120) -> str:
    """Run ``docker args`` and return what it prints, less the last newline."""
    done = subprocess.run(
        ["docker", *args],
        # The classic builder: a newer client without buildx knows no other.
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
        input=stdin,
        capture_output=True,
        timeout=seconds,
        check=False,
    )
    if check and done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise AssertionError(f"docker {' '.join(args)}: {words}")
    return done.stdout.decode("utf-8", "replace").rstrip("\n")


def answers() -> bool:
    """Whether there is a client, and an engine that answers it."""
    try:
        return bool(docker("version", "-f", "{{.Server.Version}}", check=False, seconds=20))
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


def inspect(name: str) -> dict[str, Any]:
    """Everything that the engine knows of a container, image or network."""
    found: list[dict[str, Any]] = json.loads(docker("inspect", name))
    return found[0]


def containers(namespace: str, *filters: str) -> list[str]:
    """Names of the namespace's containers, stopped ones too, sorted."""
    wanted = [f"label={NAMESPACE_LABEL}={namespace}", *filters]
    options = [part for each in wanted for part in ("--filter", each)]
    return sorted(docker("ps", "-a", *options, "--format", "{{.Names}}").split())


def sweep(namespace: str) -> None:
    """Remove containers, networks, volumes and images of one test's namespace."""
    ours = ("--filter", f"label={NAMESPACE_LABEL}={namespace}", "-q")
    for listing, removal in (
        (("ps", "-a", *ours), ("rm", "-f", "-v")),
        (("network", "ls", *ours), ("network", "rm")),
        (("volume", "ls", *ours), ("volume", "rm", "-f")),
        (("images", f"{namespace}/*", "--format", "{{.Repository}}:{{.Tag}}"), ("rmi", "-f")),
    ):
        found = sorted(set(docker(*listing).split()))
        if found:
            docker(*removal, *found, check=False)
