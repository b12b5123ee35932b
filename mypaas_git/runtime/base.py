"""What the deploy engine asks of whatever runs containers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mypaas_git.directives.images import Use
from mypaas_git.directives.model import Publish, Volume
from mypaas_git.names import ServiceName


@dataclass(frozen=True)
class ReplicaPlan:
    """One container to be made. ``maxcpu`` is in CPUs, ``maxmem`` in bytes.

    ``volumes`` have absolute or named sources, ``aliases`` are further names of
    the container on the services' network. With a ``command``, which its image's entry
    point gets, it is no replica: :meth:`Runtime.converse` runs it, on a terminal or not.
    """

    name: str
    service: ServiceName
    release: int
    image: str
    env: Mapping[str, str] = field(repr=False)
    aliases: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    publish: tuple[Publish, ...] = ()
    maxcpu: float | None = None
    maxmem: int | None = None
    command: tuple[str, ...] = ()
    terminal: bool = False


@dataclass(frozen=True)
class BuildPlan:
    """One image to be made, of the tar stream ``context``.

    ``secrets`` can be mounted by the Dockerfile (``RUN --mount=type=secret,id=KEY``) where
    the builder knows how, and are hidden in what it prints. ``cancelled`` tells, to any
    thread, whether nobody wants the image any more. ``keep`` is told the id of each layer
    that this build made, as it is made, for when the build fails; where the builder has a
    cache that clears itself up, it hears of none. ``images`` are those that the Dockerfile
    names.
    """

    service: ServiceName
    release: int
    context: Iterable[bytes] = field(repr=False)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    cancelled: Callable[[], bool] = lambda: False
    keep: Callable[[str], None] = lambda _: None
    images: tuple[Use, ...] = ()


@dataclass(frozen=True)
class Replica:
    """One container that exists.

    ``state`` is Docker's word (created, running, restarting, exited, …), ``health``
    that of an image's HEALTHCHECK or None, ``address`` its IP on the services'
    network while it runs. ``directories`` of the host that it has: path, read-only.
    ``ended_at`` is when it ended last, in seconds since the epoch. ``young`` tells, of those
    that were listed, whether it has run for less than a minute.
    """

    name: str
    service: ServiceName
    release: int
    state: str
    exit_code: int = 0
    out_of_memory: bool = False
    health: str | None = None
    address: str | None = None
    directories: tuple[tuple[str, bool], ...] = ()
    ended_at: float | None = None
    young: bool = False

    @property
    def running(self) -> bool:
        return self.state == "running"

    @property
    def up(self) -> bool:
        """Whether it runs, or the engine itself is about to start it again."""
        return self.state in ("running", "restarting")


Window = tuple[int, int]
"""A terminal's columns and rows."""


class Operator(Protocol):
    """Whoever sits in front of a command that runs in a container."""

    @property
    def window(self) -> Window | None:
        """The size of their terminal when they began; None when they have none."""

    @property
    def term(self) -> str:
        """What their terminal is called, such as ``xterm-256color``; may be empty."""

    def read(self, n: int) -> bytes:
        """Up to ``n`` bytes of their input as soon as there are some; b"" at its end."""

    def write(self, data: bytes) -> None:
        """Show standard output. Raises OSError when nobody is there."""

    def write_error(self, data: bytes) -> None: ...

    def events(self) -> list[Window | str]:
        """What has happened since the last call: sizes, and signals by names like INT."""

    @property
    def gone(self) -> bool:
        """Whether they have left."""


class LogStream(Protocol):
    """What a container printed, in pieces as they come."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None:
        """End it, from any thread; whoever iterates over it then comes to its end."""


class Runtime(Protocol):
    """Builds images and runs replicas; every method may raise EngineDown."""

    def check(self) -> None:
        """Raise EngineDown unless the engine answers."""

    def build(self, plan: BuildPlan, log: Callable[[str], None]) -> str:
        """Build an image as planned and return its name.

        Every line of the build's output goes to ``log`` as it comes. Raises BuildFailed,
        HostRefused when it is to be made of what is another service's,
        and Cancelled soon after ``plan.cancelled()`` has become true.
        """

    def create(self, plan: ReplicaPlan) -> None:
        """Create a container without starting it. Raises StartFailed."""

    def port_fault(self, publish: Publish) -> str | None:
        """Why a port of the host cannot be published, as far as that can be seen."""

    def start(self, name: str) -> None:
        """Start a container. Raises StartFailed, and PortInUse where that is why."""

    def keep_up(self, name: str) -> None:
        """Have the engine restart the container whenever it dies, and after a reboot."""

    def connections(self, name: str, ports: Collection[int]) -> int | None:
        """How many TCP connections to these ports of a container are open.

        0 when it does not run, None when that cannot be seen from here.
        """

    def stop(self, name: str, grace: float) -> None:
        """SIGTERM, then SIGKILL after ``grace`` seconds; a missing container is stopped.

        One whose first process does not listen to SIGTERM gets SIGKILL at once.
        """

    def remove(self, name: str) -> None:
        """Remove a container, running or not, but no volume; a missing one is removed."""

    def inspect(self, name: str) -> Replica | None:
        """The container of this name, or None."""

    def replicas(self, service: ServiceName | None = None) -> list[Replica]:
        """Every container of ours, of one service or of all, in one look.

        Whether one ran out of memory only :meth:`inspect` tells.
        """

    def converse(self, name: str, operator: Operator) -> int:
        """Start a container made for a command, lead its input and output to ``operator``.

        Returns its exit code, 128 and the number of the signal that ended it. Raises
        Cancelled soon after the operator has left, and leaves the container to the caller.
        """

    def one_offs(self, service: ServiceName | None = None) -> list[str]:
        """The containers that were made for a command, of one service or of all."""

    def logs(
        self,
        name: str,
        *,
        tail: int | None = None,
        follow: bool = False,
        since: float | None = None,
    ) -> LogStream:
        """What a container printed; ``tail`` is a number of lines, ``since`` a time.

        With ``follow`` it goes on until the container ends.
        """

    def free_disk(self) -> tuple[Path, int, int]:
        """Where the engine keeps images, with the free and all bytes of that disk."""

    def images(self, service: ServiceName) -> list[int]:
        """The releases of ``service`` whose images exist."""

    def remove_image(self, service: ServiceName, release: int) -> None:
        """Remove the image of a release; one that is missing or in use is left."""

    def remove_layers(self, ids: Iterable[str]) -> None:
        """Remove layers, named in the order in which ``BuildPlan.keep`` was told of them.

        The newest goes first. One that has a tag, that another image or a container needs,
        or that is gone, is left. A build that is just about to continue from one would fail.
        """
