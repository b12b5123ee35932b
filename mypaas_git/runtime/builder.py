"""How images are made: by BuildKit where there is a client for it, else as before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mypaas_git.directives.images import ImageRules
from mypaas_git.errors import BuildFailed
from mypaas_git.runtime.base import BuildPlan
from mypaas_git.runtime.bases import Bases
from mypaas_git.runtime.buildclient import BuildClient
from mypaas_git.runtime.buildkit import BuildKit
from mypaas_git.runtime.classic import Caps, Classic
from mypaas_git.runtime.client import Client
from mypaas_git.runtime.job import Job
from mypaas_git.runtime.transcript import Flood, Transcript
from mypaas_git.runtime.watch import Watch

NO_BUILDKIT = (
    "no docker client on the server can build with BuildKit; install Docker's buildx plugin "
    '(docker-buildx-plugin, or docker-buildx), or set [docker] builder = "auto"'
)


@dataclass(frozen=True)
class Limits:
    """What one build may take: ``timeout`` in seconds, and how much of it is shown.

    ``caps`` hold for the classic builder; BuildKit has none for a single build.
    """

    timeout: float = 1800.0
    caps: Caps = field(default_factory=Caps)
    flood: Flood = field(default_factory=Flood)


class Builder:
    """Makes images by the builder that ``choice`` names: auto, buildkit or classic."""

    def __init__(
        self,
        engine: Client,
        choice: str = "auto",
        limits: Limits | None = None,
        client: BuildClient | None = None,
        images: ImageRules | None = None,
    ) -> None:
        self._engine = engine
        self._choice = choice
        self._limits = limits or Limits()
        self._client = client or BuildClient(engine)
        self._bases = Bases(engine, images or ImageRules("mypaas"))

    def build(
        self, plan: BuildPlan, image: str, label: tuple[str, str], log: Callable[[str], None]
    ) -> None:
        """Make ``plan`` the image ``image``; its output goes to ``log`` line by line.

        ``label`` is a name and a value that is the same for every build, lest every image
        have a layer of its own. Raises BuildFailed naming the step and what it said,
        HostRefused for what is made of another service's image, Cancelled, and EngineDown.
        """
        transcript = Transcript(log, plan.secrets, self._limits.flood)
        watch = Watch(plan.cancelled, self._limits.timeout)
        job = Job(plan, image, label, transcript, watch)
        builder = self._chosen(plan)
        self._bases.check(job, quoted=isinstance(builder, Classic))
        builder.build(job)

    def _chosen(self, plan: BuildPlan) -> BuildKit | Classic:
        path = self._client.find(plan.cancelled) if self._choice != "classic" else None
        if path is not None:
            return BuildKit(self._engine, path)
        if self._choice == "buildkit":
            raise BuildFailed(NO_BUILDKIT)
        return Classic(self._engine, self._limits.caps)
