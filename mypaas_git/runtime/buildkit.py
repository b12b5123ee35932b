"""Images by BuildKit, through the docker client."""

from __future__ import annotations

from pathlib import Path

from mypaas_git.errors import BuildFailed
from mypaas_git.runtime.buildclient import environment
from mypaas_git.runtime.client import Client, engine_errors
from mypaas_git.runtime.job import Job
from mypaas_git.runtime.process import converse
from mypaas_git.runtime.transcript import Lines
from mypaas_git.runtime.vertices import Vertices


class BuildKit:
    """Builds by the client at ``path``.

    BuildKit can cap neither a build's memory nor its CPUs. What failed builds leave in
    its cache is the engine's to collect, so that a job's ``keep`` hears of nothing.
    """

    def __init__(self, engine: Client, path: Path) -> None:
        self._engine = engine
        self._path = path

    def build(self, job: Job) -> None:
        """Raises BuildFailed, Cancelled or EngineDown."""
        vertices = Vertices(job.transcript)
        lines = Lines(vertices.take)

        def check() -> None:
            vertices.tick()
            job.check()

        code = converse(self._argv(job), _environment(job), job.context(), lines.feed, check)
        lines.end()
        vertices.flush()
        if code != 0:
            self._ping()
            raise BuildFailed(vertices.fault() or f"the docker client ended with {code}")

    def _argv(self, job: Job) -> list[str]:
        argv = [str(self._path), "build", "--progress=plain", "--tag", job.image]
        argv += ["--label", "=".join(job.label)]
        # Else RUN --mount=type=cache of one service would be that of all others as well.
        argv += ["--build-arg", f"BUILDKIT_CACHE_MOUNT_NS={job.image.rpartition(':')[0]}"]
        for number, key in enumerate(job.plan.secrets):
            argv += ["--secret", f"id={key},env={_variable(number)}"]
        return [*argv, "-"]

    def _ping(self) -> None:
        """A build may have failed because its engine did: raise EngineDown then."""
        with engine_errors():
            self._engine.api.ping()


def _environment(job: Job) -> dict[str, str]:
    """Secrets go by variables of our own: one called PATH must not steer the client."""
    values = job.plan.secrets.values()
    return environment({_variable(number): each for number, each in enumerate(values)})


def _variable(number: int) -> str:
    return f"MYPAAS_SECRET_{number}"
