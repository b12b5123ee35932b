"""The running server: what happens at its start, at a client's request, at its end."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from mypaas_git.access.audit import Record, record
from mypaas_git.access.policy import Identity, Verb, allow, allow_ref
from mypaas_git.app import App
from mypaas_git.cli.context import release_detail
from mypaas_git.cli.tree import run_remote
from mypaas_git.deploy.keeper import Keeper
from mypaas_git.errors import (
    BuildFailed,
    MypaasError,
    PlanOnly,
    PortInUse,
    RouterDown,
    ServerRunning,
    ServiceBusy,
)
from mypaas_git.files import write_atomically
from mypaas_git.git.commands import Command
from mypaas_git.git.ingest import sweep, sweep_packs
from mypaas_git.git.receive import Deploy, Move, RefUpdate, receive_pack
from mypaas_git.git.repository import Repository
from mypaas_git.git.upload import refuse, upload_pack
from mypaas_git.hook import Push, tag_release
from mypaas_git.ledger.model import Release, Wanted
from mypaas_git.names import ServiceName
from mypaas_git.operations import settle
from mypaas_git.progress import Progress, clean
from mypaas_git.routing.proxy import ProxyPlan
from mypaas_git.ssh.hostkeys import ensure_host_keys
from mypaas_git.ssh.listener import Listener
from mypaas_git.ssh.session import GitVerb
from mypaas_git.ssh.stream import Stream

log = structlog.get_logger()

ROUTER_START = 20.0
"""Seconds that Traefik may take to answer after its container was started."""

RECOVERIES = 8
"""Services that are looked at at the same time when a server starts."""

MAX_REFS = 20
"""Refs of one push that are told apart in the audit trail."""

STOP_GRACE = 60.0
"""Seconds that running deploys may take after SIGTERM; the next start recovers the rest."""


class Server:
    """One home, served. Use as a context manager: entering starts it, leaving stops it."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._stack = contextlib.ExitStack()
        self._listener: Listener | None = None
        self._recovery = ThreadPoolExecutor(RECOVERIES, thread_name_prefix="recovery")

    def __enter__(self) -> Server:
        with contextlib.ExitStack() as stack:
            stack.callback(self._app.close)
            stack.enter_context(alone(self._app.home.server_lock))
            self._app.certificates.check()
            self._app.workers.start()
            revive_proxy(self._app)
            self._clear_up()
            stack.callback(self._recovery.shutdown)
            self._recover()
            keeper = self._keeper()
            keeper.start()
            stack.callback(keeper.stop)
            # Neither of the two is to wait until somebody's requests have ended.
            stack.callback(self._app.retirer.end_soon)
            self._listener = self._listen()
            stack.callback(self._listener.stop, STOP_GRACE)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def ready_line(self) -> str:
        """What a start prints once pushes are accepted."""
        if self._listener is None:
            raise RuntimeError("the server has not been started")
        host, port = self._listener.address
        ssh = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        web, secure = (_shown(self._app.proxy.port(inside)) for inside in (80, 443))
        return f"ready ssh={ssh} web={web} web_secure={secure}"

    def _listen(self) -> Listener:
        ssh = self._app.settings.ssh
        listener = Listener(
            (ssh.listen.host, ssh.listen.port),
            ensure_host_keys(self._app.home.host_keys),
            self._app.keys,
            Front(self._app),
            max_connections=ssh.max_connections,
            max_startups=ssh.max_startups,
            idle_seconds=ssh.idle_timeout,
            unwelcome=self._is_unwelcome,
        )
        listener.start()
        return listener

    def _is_unwelcome(self, peer: str) -> bool:
        """A container that connects to ssh has most likely been broken into."""
        app = self._app
        return not app.settings.host.reach_ssh and app.runtime.is_inside(peer)

    def _clear_up(self) -> None:
        """Remove the unfinished files of processes that were killed."""
        self._app.home.sweep()
        self._app.one_offs.clear(thorough=True)
        self._app.repositories.sweep()
        for name in self._app.repositories.names():
            self._clear(name)

    def _recover(self) -> None:
        """Make what runs and is routed, and the branches, agree with the ledger.

        Returns when that is so of all that is to run. What is to go, or to stop, may
        take its time to drain, for which nobody who pushes needs to wait.
        """
        ledger = self._app.ledger
        services = self._app.reconciler.services()
        to_run = [each for each in services if ledger.wanted(each) is Wanted.RUNNING]
        for done in [self._recovery.submit(self._recover_one, each) for each in to_run]:
            done.result()
        for service in services:
            if service not in to_run:
                self._recovery.submit(self._recover_one, service)

    def _recover_one(self, service: ServiceName) -> None:
        try:
            with self._app.engine.locks.hold_now(service, "the starting server"):
                self._repair(service)
        except ServiceBusy as error:
            log.info("not-reconciled", service=service, why=str(error))
        except MypaasError as error:
            log.error("not-reconciled", service=service, why=str(error))
        except Exception:  # one service's fault must not keep the others from being served
            log.exception("not-reconciled", service=service)

    def _keeper(self) -> Keeper:
        app = self._app
        return Keeper(
            ledger=app.ledger,
            runtime=app.runtime,
            router=app.router,
            reconciler=app.reconciler,
            locks=app.engine.locks,
            revive=lambda: revive_proxy(app),
            repair=self._repair,
            tidy=app.retirer.prune,
            clear=self._clear_away,
            certificates=app.certificates,
        )

    def _clear_away(self, thorough: bool) -> None:
        """Remove what commands and the proxy have no more use for."""
        self._app.one_offs.clear(thorough=thorough)
        if self._app.settings.http.access_log:
            self._app.access_log.rotate()

    def _clear(self, name: ServiceName) -> None:
        """Remove what a push that was killed left in a repository."""
        try:
            with (
                self._app.engine.locks.hold_now(name, "the starting server"),
                self._app.repositories.open(name) as repository,
            ):
                repository.clear_locks()
                sweep(repository.path / "objects", 0.0)
                sweep_packs(repository.path / "objects" / "pack")
        except MypaasError as error:
            log.warning("not-cleared", service=name, why=str(error))
        except Exception:  # as in _recover_one
            log.exception("not-cleared", service=name)

    def _repair(self, service: ServiceName) -> None:
        """Make what runs, is routed and is kept, the branch and the tags as the ledger says."""
        self._app.reconciler.reconcile(service)
        self._app.retirer.prune(service)
        live = self._app.ledger.live_release(service)
        if live is None or not self._app.repositories.exists(service):
            return
        with self._app.repositories.open(service) as repository:
            settle(repository, live)
            for release in self._app.ledger.releases(service):
                if release.served:
                    tag_release(repository, release)


class Front:
    """What ssh sessions lead to: git for one service, or a command."""

    def __init__(self, app: App) -> None:
        self._app = app

    def git(self, identity: Identity, verb: GitVerb, path: str, stream: Stream) -> int:
        """Serve one git client; whatever is refused is told as git expects it."""
        pushes = verb == "git-receive-pack"
        did = "push" if pushes else "fetch"
        try:
            service = service_of(path)
            if pushes:
                self._allow_push(identity, service)
                self._receive(identity, service, stream)
            else:
                allow(identity, Verb.FETCH, service)
                upload_pack(stream, self._app.repositories, service)
                self._app.audit.add(record(identity, did, service))
        except MypaasError as error:
            log.info("git-refused", key=identity.name, path=path, why=str(error))
            self._app.audit.add(record(identity, did, path.strip("/"), error))
            refuse(stream, f"{error.code}: {error.message}")
            return 1
        return 0

    def command(self, identity: Identity, argv: list[str], stream: Stream) -> int:
        return run_remote(self._app, identity, argv, stream)

    def turned_away(self, who: Identity, asked: str, error: MypaasError) -> None:
        self._app.audit.add(record(who, asked, None, error))

    def _allow_push(self, identity: Identity, service: ServiceName) -> None:
        allow(identity, Verb.PUSH, service)
        if not self._app.ledger.has(service):
            allow(
                identity, Verb.CREATE, service, create=identity.admin or self._app.may_create()
            )

    def _receive(self, identity: Identity, service: ServiceName, stream: Stream) -> None:
        releases: dict[str, Release] = {}
        commands = self._receive_pack(identity, service, stream, releases)
        for new in _push_records(identity, service, commands, releases):
            self._app.audit.add(new)

    def _receive_pack(
        self,
        identity: Identity,
        service: ServiceName,
        stream: Stream,
        releases: dict[str, Release],
    ) -> Sequence[Command]:
        """Serve a push; ``releases`` gets what went live, by its ref."""
        push_id = secrets.token_hex(4)
        with structlog.contextvars.bound_contextvars(
            push_id=push_id, key=identity.name, service=service
        ):
            return receive_pack(
                stream,
                self._app.repositories,
                service,
                branches=self._app.settings.git.branches,
                max_pack_size=self._app.settings.git.max_pack_size,
                deploy=self._deploy(identity, service, stream, releases),
                plan=self._plan(identity, service, stream),
                push_id=push_id,
                allow=functools.partial(allow_ref, identity),
                take=self._app.workers.take,
            )

    def _plan(
        self, identity: Identity, service: ServiceName, stream: Stream
    ) -> Callable[[Repository, RefUpdate, Progress], None]:
        def plan(repository: Repository, update: RefUpdate, progress: Progress) -> None:
            log.info("plan", commit=update.new, ref=update.ref)
            push = Push(repository, update, identity, progress, lambda: stream.left)
            self._app.hook.plan(push, service)

        return plan

    def _deploy(
        self,
        identity: Identity,
        service: ServiceName,
        stream: Stream,
        releases: dict[str, Release],
    ) -> Deploy:
        def deploy(
            repository: Repository,
            update: RefUpdate,
            progress: Progress,
            move: Move,
        ) -> None:
            log.info("push", commit=update.new, ref=update.ref)
            push = Push(repository, update, identity, progress, lambda: stream.left)
            try:
                releases[update.ref] = self._app.hook.deploy(push, service, move)
                log.info("deployed", commit=update.new)
            except MypaasError as error:
                log.info("not-deployed", commit=update.new, code=error.code, why=str(error))
                raise

        return deploy


def _push_records(
    identity: Identity,
    service: ServiceName,
    commands: Sequence[Command],
    releases: Mapping[str, Release],
) -> Iterator[Record]:
    """What the audit trail says of a push: a record for each ref, up to a point."""
    if not commands:
        yield record(identity, "push", service)
    for number, command in enumerate(commands):
        update = command.update
        detail = {"ref": update.ref, "commit": update.new or "none"}
        if update.ref in releases:
            detail.update(release_detail(releases[update.ref]))
        if isinstance(command.error, PlanOnly):
            detail["plan"] = "only"
        if number == MAX_REFS - 1 and len(commands) > MAX_REFS:
            detail["more"] = f"{len(commands) - MAX_REFS} refs"
        yield record(identity, "push", service, command.error, detail)
        if number == MAX_REFS - 1:
            return


def revive_proxy(app: App) -> None:
    """:func:`start_proxy`, for a log to read."""
    fault = start_proxy(app, lambda line: log.info("traefik", line=line))
    if fault:
        log.error("traefik-not-replaced", why=fault)


def start_proxy(app: App, report: Callable[[str], None]) -> str:
    """Have the network and Traefik run, and return once Traefik's API answers.

    Where it cannot run as config.toml says, one from before goes on, since visitors are better
    off so. Why that is, is returned and kept in the home; usually it is empty.

    Raises EngineDown, BuildFailed, PortInUse or RouterDown.
    """
    app.runtime.check()
    app.runtime.ensure_network()
    app.router.guard_api(app.runtime.gateways())
    if app.settings.http.access_log:
        app.access_log.make()
    plan = None
    try:
        image = app.proxy.ensure_image(app.settings.docker.traefik_image, report)
        plan = app.proxy_plan(image)
        app.proxy.ensure(plan, lambda: _await_answer(app))
    except (BuildFailed, PortInUse, RouterDown) as error:
        return _go_back(app, plan, error)
    app.home.proxy_fault.unlink(missing_ok=True)
    return ""


def _go_back(app: App, plan: ProxyPlan | None, error: MypaasError) -> str:
    """Have Traefik run as it did before ``plan`` was tried; if it cannot, raise ``error``."""
    try:
        app.proxy.go_back(plan)
        _await_answer(app)
    except MypaasError:
        raise error from None
    fault = (
        f"Traefik goes on as it was before, since it does not run as config.toml says: "
        f"{error.message}; correct traefik_image under [docker], or [http], and restart "
        f"the server"
    )
    write_atomically(app.home.proxy_fault, fault.encode())
    return fault


def _await_answer(app: App) -> None:
    """Return once Traefik's API answers; raises RouterDown, early if Traefik ends instead."""
    began, deadline, crashes = time.time(), time.monotonic() + ROUTER_START, app.proxy.crashes()
    while True:
        try:
            return app.router.check()
        except RouterDown as error:
            ended = app.proxy.crashes() > crashes
            if ended or time.monotonic() > deadline:
                what = "Traefik ended when it was started" if ended else error.message
                raise RouterDown(f"{what}{_last_words(app, began)}") from error
            time.sleep(0.05)


def _last_words(app: App, since: float) -> str:
    """What Traefik has logged last: one that is too old does not know all its arguments."""
    said = app.proxy.log(since)
    return f"; its log ends: {clean(said[-1])[:300]} (3.7.12 or newer will do)" if said else ""


def service_of(path: str) -> ServiceName:
    """The service whose repository ``path`` names: ``/hello`` and ``hello.git`` are hello.

    Raises NameRefused.
    """
    return ServiceName.parse(path.removeprefix("/").removesuffix("/").removesuffix(".git"))


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the home's server lock. Raises ServerRunning (T69)."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ServerRunning(f"another server runs on {path.parent}; stop it first") from None
    finally:
        os.close(descriptor)


def _shown(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
