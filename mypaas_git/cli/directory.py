"""A directory to be deployed, and the service that its Dockerfile names."""

from __future__ import annotations

from pathlib import Path

from mypaas_git.directives.parse import parse_dockerfile
from mypaas_git.errors import DockerfileMissing, TreeRefused
from mypaas_git.hook import MAX_DOCKERFILE
from mypaas_git.names import ServiceName


def service_of(directory: Path) -> ServiceName:
    """Return the service that the Dockerfile names; all its faults are raised at once.

    Raises TreeRefused, DockerfileMissing or DirectivesInvalid.
    """
    if not directory.is_dir():
        raise TreeRefused(f"there is no directory {directory}")
    dockerfile = directory / "Dockerfile"
    try:
        with dockerfile.open("rb") as file:
            text = file.read(MAX_DOCKERFILE + 1)  # one byte more is refused as too large
    except FileNotFoundError:
        raise DockerfileMissing(f"there is no Dockerfile in {directory}") from None
    except OSError as error:
        raise DockerfileMissing(f"cannot read {dockerfile}: {error.strerror}") from None
    return parse_dockerfile(text, default_service=None).service
