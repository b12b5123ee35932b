"""Builds by the real engine that leave nothing in it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from mypaas_git.directives.images import ImageRules, uses
from mypaas_git.names import ServiceName
from mypaas_git.runtime.base import BuildPlan
from mypaas_git.runtime.buildclient import BuildClient
from mypaas_git.runtime.builder import Builder, Limits
from mypaas_git.runtime.client import Client
from mypaas_git.runtime.docker import DockerRuntime
from support.apps import unique

NAMESPACE = "mypaas-test-builds"


@dataclass
class Bench:
    """Builds with one builder; ``choice`` is what [docker] builder says.

    ``path`` is where docker clients are looked for, if not on PATH. ``kept`` are the ids
    that the last build told of, ``lines`` what it said.
    """

    choice: str
    path: str | None = None
    client: Client = field(default_factory=Client)
    kept: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    _layers: list[str] = field(default_factory=list)
    _images: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        path = self.path
        self._finder = BuildClient(self.client, (lambda: path) if path else None)

    def build(
        self,
        dockerfile: str,
        *,
        secrets: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        context: Iterator[bytes] | None = None,
        service: str | None = None,
        release: int = 1,
    ) -> str:
        """Build ``dockerfile``, or ``context``; returns the image's name.

        Each is for another service unless ``service`` says which.
        """
        self.lines.clear()
        self.kept.clear()
        plan = BuildPlan(
            service=ServiceName.parse(service or unique()),
            release=release,
            context=context or iter([tar(dockerfile)]),
            secrets=secrets or {},
            cancelled=cancelled,
            keep=self._keep,
            images=tuple(uses(dockerfile.encode())[0]),
        )
        image = self.runtime(limits).build(plan, self.lines.append)
        self._images.append(image)
        return image

    def runtime(self, limits: Limits | None = None) -> DockerRuntime:
        rules = ImageRules(NAMESPACE)
        builder = Builder(self.client, self.choice, limits, self._finder, rules)
        return DockerRuntime(self.client, builder, namespace=NAMESPACE, network="none")

    def close(self) -> None:
        for image in self._images:
            self.client.api.remove_image(image)
        self.runtime().remove_layers(self._layers)
        self.client.close()

    def _keep(self, layer: str) -> None:
        self.kept.append(layer)
        self._layers.append(layer)


def tar(dockerfile: str) -> bytes:
    """A context that holds a Dockerfile and nothing else."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(dockerfile.encode())
        archive.addfile(info, io.BytesIO(dockerfile.encode()))
    return file.getvalue()
