"""What a Dockerfile's directives ask for, as frozen and validated values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from mypaas_git.names import ServiceName


@dataclass(frozen=True)
class Url:
    """``http(s)://host[/path]``; ``path`` starts with ``/`` and only ``/`` itself ends so.

    A ``host`` of ``*.example.com`` is every host one label below ``example.com``.
    """

    scheme: Literal["http", "https"]
    host: str
    path: str = "/"

    @property
    def wildcard(self) -> bool:
        return self.host.startswith("*")

    @property
    def sample(self) -> str:
        """A host that the url is for: its own or, of a wildcard, one below it."""
        return self.host.replace("*", "any")

    def meets(self, other: Url) -> bool:
        """Whether there is a host that both are for."""
        return self.host in (other.host, wildcard_over(other.host)) or (
            other.host == wildcard_over(self.host)
        )

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{self.path if self.path != '/' else ''}"


def wildcard_over(host: str) -> str:
    """The one wildcard that ``host`` falls under, or is."""
    return f"*.{host.partition('.')[2]}"


@dataclass(frozen=True)
class Volume:
    """``source`` is an absolute or ``~`` path of the server, or a named volume's name."""

    source: str
    target: str
    read_only: bool = False

    @property
    def named(self) -> bool:
        return not self.source.startswith(("/", "~"))


@dataclass(frozen=True)
class EnvVar:
    """A variable of the container; ``value`` is None when config.toml holds it."""

    key: str
    value: str | None


@dataclass(frozen=True)
class Publish:
    """A port of the host that leads into the container.

    ``host_port`` 0 lets Docker choose; a ``host_port_end`` other than 0 lets it choose
    from ``host_port`` to there. ``host_ip`` has no brackets; empty means every address.
    """

    container_port: int
    host_port: int = 0
    host_ip: str = ""
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"
    host_port_end: int = 0


@dataclass(frozen=True)
class Healthcheck:
    """``path`` is asked every ``interval`` seconds and answers within ``timeout`` seconds."""

    path: str = "/"
    interval: float = 10.0
    timeout: float = 2.0


@dataclass(frozen=True)
class Redirect:
    """Visitors of ``source`` are sent on to ``target``, with what follows in their url."""

    source: Url
    target: Url

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


@dataclass(frozen=True)
class ServiceSpec:
    """Everything that a release asks for, save the image.

    ``scale`` 0 means one container that is stopped before its successor starts.
    ``protocol`` is what the process speaks on its port: ``h2c`` is HTTP/2 without TLS.
    ``healthcheck`` is None when the Dockerfile names none. ``maxcpu`` is in CPUs,
    ``maxmem`` in bytes, None meaning no limit. ``auth`` names the secret whose value says
    which visitors to let in, None for everybody; ``users`` are these with their passwords
    hashed, filled in when it is deployed.
    """

    service: ServiceName
    urls: tuple[Url, ...] = ()
    redirects: tuple[Redirect, ...] = ()
    stripprefix: bool = False
    auth: str | None = None
    sticky: bool = False
    volumes: tuple[Volume, ...] = ()
    env: tuple[EnvVar, ...] = ()
    port: int = 80
    protocol: Literal["http", "h2c"] = "http"
    publish: tuple[Publish, ...] = ()
    scale: int = 0
    scale_mode: Literal["roll", "safe"] = "roll"
    healthcheck: Healthcheck | None = None
    maxcpu: float | None = None
    maxmem: int | None = None
    users: tuple[str, ...] = field(default=(), repr=False)

    @property
    def addresses(self) -> tuple[Url, ...]:
        """What of the web is the service's own: its urls, and where it redirects from."""
        return (*self.urls, *(each.source for each in self.redirects))

    @property
    def replicas(self) -> int:
        """How many containers run: at least one."""
        return max(1, self.scale)

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON-able values, for the ledger."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ServiceSpec:
        """Return the spec that :meth:`to_dict` described, be it of an older version."""
        check = data["healthcheck"]
        return cls(
            **{
                **data,
                "service": ServiceName(data["service"]),
                "urls": tuple(Url(**each) for each in data["urls"]),
                "redirects": tuple(
                    Redirect(Url(**each["source"]), Url(**each["target"]))
                    for each in data.get("redirects", ())
                ),
                "users": tuple(data.get("users", ())),
                "volumes": tuple(Volume(**each) for each in data["volumes"]),
                "env": tuple(EnvVar(**each) for each in data["env"]),
                "publish": tuple(Publish(**each) for each in data["publish"]),
                "healthcheck": Healthcheck(**check) if check else None,
            }
        )
