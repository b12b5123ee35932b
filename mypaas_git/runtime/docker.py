"""The Docker Engine as a runtime.

Everything made here carries the label ``mypaas.namespace``, containers also
``mypaas.service`` and ``mypaas.release``. Nothing else is touched.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timezone
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from docker.errors import APIError, NotFound
from docker.types import LogConfig, Mount

from mypaas_git.directives.labels import is_reserved_label
from mypaas_git.directives.model import Publish, Volume
from mypaas_git.errors import HostRefused, NameRefused, PortInUse, StartFailed
from mypaas_git.names import ServiceName, release_label
from mypaas_git.runtime import console, directories, ports, processes
from mypaas_git.runtime.base import BuildPlan, LogStream, Operator, Replica, ReplicaPlan
from mypaas_git.runtime.builder import Builder
from mypaas_git.runtime.client import Client, engine_errors, explanation
from mypaas_git.runtime.logs import open_logs

NAMESPACE = "mypaas.namespace"
SERVICE = "mypaas.service"
RELEASE = "mypaas.release"
# Tells replicas from the proxy; whoever lists them goes by their names as well.
ROLE = "mypaas.role"
REPLICA, RUN = "replica", "run"

NEUTRAL = {"traefik.enable": "false"}
"""What a label that an image brings becomes, if not nothing; it cannot be taken away."""

# An app that prints for ever must not fill the disk.
LOGS = LogConfig(type=LogConfig.types.JSON, config={"max-size": "10m", "max-file": "3"})
NO_LOGS = LogConfig(type="none")


@dataclasses.dataclass(frozen=True)
class Confinement:
    """What a container's processes may do: ``pids`` is how many there may be, 0 for any."""

    pids: int = 4096
    capabilities: Sequence[str] = ()


class DockerRuntime:
    """Replicas as containers on one bridge network.

    Docker's names carry the namespace, so that two servers share an engine:
    the replica ``hello.v1.1`` is the container ``mypaas.hello.v1.1``.
    """

    def __init__(
        self,
        client: Client,
        builder: Builder,
        *,
        namespace: str,
        network: str,
        confinement: Confinement | None = None,
    ) -> None:
        self._client = client
        self._builder = builder
        self._namespace = namespace
        self._network = network
        self._confinement = confinement or Confinement()
        self._root: Path | None = None
        self._subnets: list[IPv4Network | IPv6Network] = []
        self._own: list[str] = []

    def check(self) -> None:
        with engine_errors():
            self._client.api.ping()

    def ensure_network(self) -> None:
        """Make the services' network unless it exists."""
        api = self._client.api
        with engine_errors():
            if not any(net["Name"] == self._network for net in api.networks([self._network])):
                api.create_network(
                    self._network,
                    driver="bridge",
                    check_duplicate=True,
                    labels={NAMESPACE: self._namespace},
                )

    def remove_network(self) -> None:
        """Remove the services' network, if it is ours. Raises EngineDown while it is in use."""
        ours: Any = {"label": f"{NAMESPACE}={self._namespace}"}
        with engine_errors():
            for net in self._client.api.networks([self._network], filters=ours):
                if net["Name"] == self._network:
                    self._client.api.remove_network(net["Id"])

    def volumes(self) -> list[str]:
        """What Docker calls the named volumes that services have, sorted."""
        ours: Any = {"label": f"{NAMESPACE}={self._namespace}"}
        with engine_errors():
            found = self._client.api.volumes(filters=ours)["Volumes"] or []
        return sorted(each["Name"] for each in found)

    def gateways(self) -> list[str]:
        """The addresses of this host on the services' network."""
        with engine_errors():
            found = self._client.api.inspect_network(self._network)
        ranges = found["IPAM"]["Config"] or []
        self._subnets = [ip_network(each["Subnet"]) for each in ranges if each.get("Subnet")]
        self._own = [g.partition("/")[0] for each in ranges if (g := each.get("Gateway"))]
        return self._own

    def is_inside(self, host: str) -> bool:
        """Whether an IP address is a container's, by what :meth:`gateways` saw last."""
        address = ip_address(host.partition("%")[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in each for each in self._subnets) and str(address) not in self._own

    def build(self, plan: BuildPlan, log: Callable[[str], None]) -> str:
        image = self._image(plan.service, plan.release)
        self._builder.build(plan, image, (NAMESPACE, self._namespace), log)
        return image

    def create(self, plan: ReplicaPlan) -> None:
        api = self._client.api
        with engine_errors():
            self._refuse_foreign_volumes(plan.volumes)
            host = api.create_host_config(
                mounts=[self._mount(volume) for volume in plan.volumes],
                port_bindings=_bindings(plan.publish),
                nano_cpus=int(plan.maxcpu * 1e9) if plan.maxcpu else None,
                mem_limit=plan.maxmem,
                # What a command prints is its operator's alone.
                log_config=NO_LOGS if plan.command else LOGS,
                # The first process of a container is spared Ctrl-C by the kernel.
                init=True if plan.command else None,
                security_opt=["no-new-privileges"],
                pids_limit=self._confinement.pids or None,
                cap_drop=["ALL"],
                cap_add=list(self._confinement.capabilities),
            )
            endpoint = api.create_endpoint_config(aliases=[plan.name, *plan.aliases])
            networks: Any = {self._network: endpoint}  # its type is misstated in the stubs
            try:
                api.create_container(
                    plan.image,
                    list(plan.command) or None,
                    name=self._container(plan.name),
                    environment=dict(plan.env),
                    labels=self._neutral_labels(plan.image)
                    | self._labels(plan.service, plan.release)
                    | {ROLE: RUN if plan.command else REPLICA},
                    stdin_open=bool(plan.command),
                    tty=plan.terminal,
                    ports=[(each.container_port, each.protocol) for each in plan.publish],
                    host_config=host,
                    networking_config=api.create_networking_config(networks),
                )
            except APIError as error:
                raise StartFailed(
                    f"{plan.name} was not created: {explanation(error)}"
                ) from error

    def port_fault(self, publish: Publish) -> str | None:
        # Only a socket is certain to lead to an engine of this host.
        here = self._client.api.base_url.startswith("http+docker://")
        return ports.fault_of(publish) if here else None

    def start(self, name: str) -> None:
        with engine_errors():
            try:
                self._client.api.start(self._container(name))
            except APIError as error:
                raise _start_error(name, explanation(error)) from error

    def keep_up(self, name: str) -> None:
        with engine_errors():
            policy: Any = {"Name": "unless-stopped"}  # a policy that the stubs leave out
            try:
                self._client.api.update_container(self._container(name), restart_policy=policy)
            except APIError as error:
                raise StartFailed(f"{name} was lost: {explanation(error)}") from error

    def connections(self, name: str, ports: Collection[int]) -> int | None:
        found = self._process(name)
        if found is None:
            return 0
        pid, container, _ = found
        return processes.connections(pid, ports) if processes.is_here(pid, container) else None

    def stop(self, name: str, grace: float) -> None:
        found = self._process(name)
        if found is None:
            grace = 0  # paused, restarting, or gone
        else:
            pid, container, wanted = found
            if processes.is_here(pid, container) and not processes.heeds(pid, wanted):
                grace = 0
        with engine_errors(), contextlib.suppress(NotFound):
            self._client.api.stop(self._container(name), timeout=round(grace))

    def remove(self, name: str) -> None:
        with engine_errors(), contextlib.suppress(NotFound):
            try:
                self._client.api.remove_container(self._container(name), force=True)
            except APIError as error:
                if "already in progress" not in explanation(error):
                    raise

    def inspect(self, name: str) -> Replica | None:
        with engine_errors(), contextlib.suppress(NotFound):
            return self._replica(self._client.api.inspect_container(self._container(name)))
        return None

    def replicas(self, service: ServiceName | None = None) -> list[Replica]:
        labels = [f"{NAMESPACE}={self._namespace}", f"{ROLE}={REPLICA}"]
        with engine_errors():
            rows = self._client.api.containers(all=True, filters={"label": labels})
        found = [replica for row in rows if (replica := self._listed(row))]
        return sorted(
            (each for each in found if service in (None, each.service)),
            key=lambda each: _natural(each.name),
        )

    def converse(self, name: str, operator: Operator) -> int:
        return console.converse(self._client, self._container(name), operator)

    def one_offs(self, service: ServiceName | None = None) -> list[str]:
        labels = [f"{NAMESPACE}={self._namespace}", f"{ROLE}={RUN}"]
        with engine_errors():
            rows = self._client.api.containers(all=True, filters={"label": labels})
        names = [name for row in rows for name in row["Names"]]
        ours = re.escape(f"/{self._namespace}.")
        pattern = re.compile(rf"{ours}(({service or '[a-z0-9-]+'})\.run\.[a-z0-9_]+)")
        return [found[1] for name in names if (found := pattern.fullmatch(name))]

    def logs(
        self,
        name: str,
        *,
        tail: int | None = None,
        follow: bool = False,
        since: float | None = None,
    ) -> LogStream:
        container = self._container(name)
        return open_logs(self._client, container, tail=tail, follow=follow, since=since)

    def free_disk(self) -> tuple[Path, int, int]:
        with engine_errors():
            if self._root is None:
                self._root = Path(self._client.api.info()["DockerRootDir"])
        try:
            usage = shutil.disk_usage(self._root)
        except OSError:  # the engine is elsewhere: what it keeps is not ours to see
            return self._root, sys.maxsize, sys.maxsize
        return self._root, usage.free, usage.total

    def images(self, service: ServiceName) -> list[int]:
        # By its label too: somebody else may have given an image a name like ours.
        ours = {"label": f"{NAMESPACE}={self._namespace}"}
        with engine_errors():
            rows = self._client.api.images(self._repository(service), filters=ours)
        tags = [tag.rpartition(":")[2] for row in rows for tag in row["RepoTags"] or []]
        return sorted(int(tag[1:]) for tag in tags if re.fullmatch(r"v[1-9][0-9]*", tag))

    def remove_image(self, service: ServiceName, release: int) -> None:
        if release not in self.images(service):
            return
        with engine_errors(), contextlib.suppress(APIError):
            self._client.api.remove_image(self._image(service, release))

    def remove_layers(self, ids: Iterable[str]) -> None:
        for each in reversed(list(ids)):
            data = self._client.image(each)
            if data is None or data.get("RepoTags") or data.get("RepoDigests"):
                continue
            with engine_errors(), contextlib.suppress(APIError):
                # Without its parents, which may be anybody's.
                self._client.api.remove_image(data["Id"], noprune=True)

    def _repository(self, service: ServiceName) -> str:
        return f"{self._namespace}/{service}"

    def _image(self, service: ServiceName, release: int) -> str:
        return f"{self._repository(service)}:{release_label(release)}"

    def _container(self, name: str) -> str:
        return f"{self._namespace}.{name}"

    def _labels(self, service: ServiceName, release: int) -> dict[str, str]:
        return {NAMESPACE: self._namespace, SERVICE: service, RELEASE: str(release)}

    def _neutral_labels(self, image: str) -> dict[str, str]:
        """What an image says to Traefik or to us, unsaid: a container inherits its labels."""
        data = self._client.image(image)
        found = (data["Config"].get("Labels") or {}) if data else {}
        return {key: NEUTRAL.get(key.lower(), "") for key in found if is_reserved_label(key)}

    def _refuse_foreign_volumes(self, volumes: Iterable[Volume]) -> None:
        """``a-b`` of namespace ``c`` and ``b`` of ``c-a`` are one to Docker."""
        for name in [each.source for each in volumes if each.named]:
            full = f"{self._namespace}-{name}"
            with contextlib.suppress(NotFound):
                found = self._client.api.inspect_volume(full)
                owner = (found.get("Labels") or {}).get(NAMESPACE, self._namespace)
                if owner != self._namespace:
                    raise HostRefused(
                        f"the volume {name} cannot be used: Docker's {full} belongs to the "
                        f"server with the namespace {owner}; choose another name"
                    )

    def _mount(self, volume: Volume) -> Mount:
        if volume.named:
            return Mount(
                volume.target,
                f"{self._namespace}-{volume.source}",
                read_only=volume.read_only,
                labels={NAMESPACE: self._namespace},
            )
        try:
            directories.ensure(volume.source)
        except OSError as error:
            raise StartFailed(
                f"the volume {volume.source} cannot be made: {error.strerror}"
            ) from error
        return Mount(volume.target, volume.source, type="bind", read_only=volume.read_only)

    def _replica(self, data: dict[str, Any]) -> Replica | None:
        """The replica that an inspected container is, if any."""
        named = self._named(data["Name"])
        state = data["State"]
        return named and dataclasses.replace(
            named,
            state=state["Status"],
            exit_code=state["ExitCode"],
            out_of_memory=state["OOMKilled"],
            health=(state.get("Health") or {}).get("Status"),
            address=self._address(data),
            directories=_directories(data),
            ended_at=_moment(state["FinishedAt"]),
        )

    def _listed(self, row: dict[str, Any]) -> Replica | None:
        """The replica that a row of the engine's list is, if any.

        Its health, exit code and age stand in words alone: ``Up 2 hours (healthy)``.
        """
        named = self._named(row["Names"][0] if row["Names"] else "")
        exited = re.match(r"Exited \(([0-9]+)\)", row["Status"])
        health = re.search(r"\((?:health: )?(starting|healthy|unhealthy)\)$", row["Status"])
        return named and dataclasses.replace(
            named,
            state=row["State"],
            exit_code=int(exited[1]) if exited else 0,
            health=health[1] if health else None,
            address=self._address(row),
            directories=_directories(row),
            young=re.match(r"Up (Less than|[0-9]+) (a )?second", row["Status"]) is not None,
        )

    def _named(self, name: str) -> Replica | None:
        """The replica of a container's name, which only we give; None for any other.

        Labels prove nothing: a container inherits those that a Dockerfile sets.
        """
        own = name.removeprefix(f"/{self._namespace}.")
        parts = re.fullmatch(r"([^.]+)\.v([1-9][0-9]{0,8})\.[1-9][0-9]*", own)
        if parts is None or own == name:
            return None
        try:
            service = ServiceName.parse(parts[1])
        except NameRefused:
            return None
        return Replica(name=own, service=service, release=int(parts[2]), state="")

    def _address(self, data: dict[str, Any]) -> str | None:
        network = data["NetworkSettings"]["Networks"].get(self._network) or {}
        return network.get("IPAddress") or None

    def _process(self, name: str) -> tuple[int, str, str] | None:
        """A running container's first process, its id, and the signal that stops it."""
        with engine_errors(), contextlib.suppress(NotFound):
            data = self._client.api.inspect_container(self._container(name))
            if data["State"]["Status"] == "running":
                wanted = data["Config"].get("StopSignal") or "SIGTERM"
                return data["State"]["Pid"], data["Id"], wanted
        return None


def _directories(data: dict[str, Any]) -> tuple[tuple[str, bool], ...]:
    return tuple(
        (mount["Source"], not mount["RW"])
        for mount in data.get("Mounts") or ()
        if mount["Type"] == "bind"
    )


def _bindings(publish: Iterable[Publish]) -> dict[int | str, Any]:
    bindings: dict[int | str, Any] = {}
    for each in publish:
        port = str(each.host_port or "")
        if each.host_port_end:
            port += f"-{each.host_port_end}"
        key = f"{each.container_port}/{each.protocol}"
        bindings.setdefault(key, []).append((each.host_ip, port))
    return bindings


def _moment(text: str) -> float | None:
    """The engine's ``2026-01-31T12:00:00.123456789Z`` in seconds since the epoch."""
    found = re.match(r"([0-9]{4}-[0-9T:-]{14})(\.[0-9]+)?Z", text)
    if found is None or found[1].startswith("0001"):
        return None  # it never was
    whole = datetime.fromisoformat(found[1]).replace(tzinfo=timezone.utc)
    return whole.timestamp() + float(found[2] or 0)


def _start_error(name: str, said: str) -> StartFailed:
    if "port is already allocated" in said or "address already in use" in said:
        port = re.search(r":([0-9]+)(?:/\w+)?(?: failed|: bind)", said)
        which = f"port {port[1]} of this host" if port else "a port that it publishes"
        return PortInUse(
            f"{name} was not started: {which} is in use; free it or change `# mypaas.publish`"
        )
    return StartFailed(f"{name} was not started: {said}")


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort ``x.v10.2`` behind ``x.v9.1``."""
    return [
        (int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)
    ]
