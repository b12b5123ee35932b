"""The Docker Engine as a runtime.

Everything made here carries the label ``mypaas.namespace``, containers also
``mypaas.service`` and ``mypaas.release``. Nothing else is touched.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from docker.errors import APIError, NotFound
from docker.types import LogConfig, Mount

from mypaas_git.directives.model import Publish, Volume
from mypaas_git.errors import NameRefused, PortInUse, StartFailed
from mypaas_git.names import ServiceName, release_label
from mypaas_git.runtime.base import BuildPlan, Replica, ReplicaPlan
from mypaas_git.runtime.builder import Builder
from mypaas_git.runtime.client import Client, engine_errors, explanation

NAMESPACE = "mypaas.namespace"
SERVICE = "mypaas.service"
RELEASE = "mypaas.release"
# Tells replicas from the proxy; whoever lists them goes by their names as well.
ROLE = "mypaas.role"

# An app that prints for ever must not fill the disk.
LOGS = LogConfig(type=LogConfig.types.JSON, config={"max-size": "10m", "max-file": "3"})


class DockerRuntime:
    """Replicas as containers on one bridge network.

    Docker's names carry the namespace, so that two servers share an engine:
    the replica ``hello.v1.1`` is the container ``mypaas.hello.v1.1``.
    """

    def __init__(
        self, client: Client, builder: Builder, *, namespace: str, network: str
    ) -> None:
        self._client = client
        self._builder = builder
        self._namespace = namespace
        self._network = network

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

    def build(self, plan: BuildPlan, log: Callable[[str], None]) -> str:
        image = self._image(plan.service, plan.release)
        self._builder.build(plan, image, (NAMESPACE, self._namespace), log)
        return image

    def create(self, plan: ReplicaPlan) -> None:
        api = self._client.api
        with engine_errors():
            host = api.create_host_config(
                mounts=[self._mount(volume) for volume in plan.volumes],
                port_bindings=_bindings(plan.publish),
                nano_cpus=int(plan.maxcpu * 1e9) if plan.maxcpu else None,
                mem_limit=plan.maxmem,
                log_config=LOGS,
            )
            endpoint = api.create_endpoint_config(aliases=[plan.name, *plan.aliases])
            networks: Any = {self._network: endpoint}  # its type is misstated in the stubs
            try:
                api.create_container(
                    plan.image,
                    name=self._container(plan.name),
                    environment=dict(plan.env),
                    labels=self._labels(plan.service, plan.release) | {ROLE: "replica"},
                    ports=[(each.container_port, each.protocol) for each in plan.publish],
                    host_config=host,
                    networking_config=api.create_networking_config(networks),
                )
            except APIError as error:
                raise StartFailed(
                    f"{plan.name} was not created: {explanation(error)}"
                ) from error

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

    def stop(self, name: str, grace: float) -> None:
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
        labels = [f"{NAMESPACE}={self._namespace}", f"{ROLE}=replica"]
        api = self._client.api
        found = []
        with engine_errors():
            for row in api.containers(all=True, filters={"label": labels}):
                with contextlib.suppress(NotFound):
                    replica = self._replica(api.inspect_container(row["Id"]))
                    if replica and service in (None, replica.service):
                        found.append(replica)
        return sorted(found, key=lambda each: _natural(each.name))

    def logs(
        self, name: str, *, tail: int | None = None, follow: bool = False
    ) -> Iterator[bytes]:
        with engine_errors(), contextlib.suppress(NotFound):
            yield from self._client.api.logs(
                self._container(name),
                stream=True,
                follow=follow,
                tail="all" if tail is None else tail,
            )

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

    def _mount(self, volume: Volume) -> Mount:
        if volume.named:
            return Mount(
                volume.target,
                f"{self._namespace}-{volume.source}",
                read_only=volume.read_only,
                labels={NAMESPACE: self._namespace},
            )
        try:
            if not Path(volume.source).is_file():
                Path(volume.source).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartFailed(
                f"the volume {volume.source} cannot be made: {error.strerror}"
            ) from error
        return Mount(volume.target, volume.source, type="bind", read_only=volume.read_only)

    def _replica(self, data: dict[str, Any]) -> Replica | None:
        """The replica that a container is by its name, which only we give; else None.

        Labels prove nothing: a container inherits those that a Dockerfile sets.
        """
        name = data["Name"].removeprefix(f"/{self._namespace}.")
        parts = re.fullmatch(r"([^.]+)\.v([1-9][0-9]{0,8})\.[1-9][0-9]*", name)
        if parts is None or not data["Name"].startswith(f"/{self._namespace}."):
            return None
        try:
            service = ServiceName.parse(parts[1])
        except NameRefused:
            return None
        state = data["State"]
        network = data["NetworkSettings"]["Networks"].get(self._network) or {}
        return Replica(
            name=name,
            service=service,
            release=int(parts[2]),
            state=state["Status"],
            exit_code=state["ExitCode"],
            out_of_memory=state["OOMKilled"],
            health=(state.get("Health") or {}).get("Status"),
            address=network.get("IPAddress") or None,
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
