"""One build on its way: what every builder is given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mypaas_git.runtime.base import BuildPlan
from mypaas_git.runtime.transcript import Transcript
from mypaas_git.runtime.watch import Watch


@dataclass(frozen=True)
class Job:
    """``plan`` becomes ``image``; ``label`` is a name and a value, the same for every build."""

    plan: BuildPlan
    image: str
    label: tuple[str, str]
    transcript: Transcript
    watch: Watch

    def context(self) -> Iterator[bytes]:
        """The chunks of the context; raises once the build has to end."""
        for chunk in self.plan.context:
            self.check()
            yield chunk

    def check(self) -> None:
        """Raise Cancelled or BuildFailed if the build has to end."""
        self.watch.check(self.transcript.tell(self.transcript.step, 100))
