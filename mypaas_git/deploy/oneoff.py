"""One-off commands: a container of the live release that ends with whoever runs it.

The journal is a file in ``locks/`` for each, named as its container is, whose lock dies
with the process that made both. A container whose file nobody holds is left over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog

from mypaas_git.deploy.plan import own_variables, replica_plans
from mypaas_git.files import abandoned, temporary
from mypaas_git.ledger.model import Release
from mypaas_git.names import ServiceName
from mypaas_git.runtime.base import Operator, Runtime

log = structlog.get_logger()

_SUFFIX = ".lock"


class OneOffs:
    """Runs commands, and clears up after those whose process was killed.

    ``expand`` turns a volume's ``~`` into a path, ``grace`` is how many seconds a command
    gets between SIGTERM and SIGKILL when its operator has left.
    """

    def __init__(
        self, runtime: Runtime, directory: Path, expand: Callable[[str], str], grace: float
    ) -> None:
        self._runtime = runtime
        self._directory = directory
        self._expand = expand
        self._grace = grace

    def run(self, live: Release, command: Sequence[str], operator: Operator) -> int:
        """Run ``command`` as a container of ``live`` would, and return its exit code.

        It has the release's variables and volumes, and neither its name on the network nor
        its ports. Raises StartFailed, Cancelled when the operator has left, and EngineDown.
        """
        first = replica_plans(live.spec, live.number, live.image, live.env, self._expand)[0]
        has_terminal = operator.window is not None
        term = {"TERM": operator.term} if has_terminal and operator.term else {}
        with self._claimed(live.service) as name:
            plan = dataclasses.replace(
                first,
                name=name,
                env={**term, **first.env, **own_variables(live.spec, live.number, name)},
                aliases=(),
                publish=(),
                command=tuple(command),
                terminal=has_terminal,
            )
            try:
                self._runtime.create(plan)
                return self._runtime.converse(name, operator)
            finally:
                self._runtime.stop(name, self._grace)
                self._runtime.remove(name)

    def clear(self, *, thorough: bool = False) -> None:
        """Remove the containers whose process was killed. Raises EngineDown.

        ``thorough`` asks the engine for more of them than there are files.
        """
        names = {path.name.removesuffix(_SUFFIX) for path in self._directory.glob("*.run.*")}
        if thorough:
            names.update(self._runtime.one_offs())
        for name in names:
            with abandoned(self._directory / f"{name}{_SUFFIX}") as is_so:
                if is_so:
                    log.warning("left-over-removed", container=name)
                    self._runtime.remove(name)

    @contextmanager
    def _claimed(self, service: ServiceName) -> Iterator[str]:
        """A new container's name, whose file says that we live."""
        with temporary(self._directory, f"{service}.run.", _SUFFIX) as (path, _):
            yield path.name.removesuffix(_SUFFIX)
