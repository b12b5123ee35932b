"""The plot of a deploy: build → start → healthy → switch → live → retire the old."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import RawIOBase
from pathlib import Path

import structlog

from mypaas_git.deploy.health import exited, gate_of, start_and_wait
from mypaas_git.deploy.lock import ServiceLocks
from mypaas_git.deploy.plan import replica_names, replica_plans
from mypaas_git.deploy.reconcile import Reconciler
from mypaas_git.deploy.retire import Retirer
from mypaas_git.directives.model import ServiceSpec
from mypaas_git.errors import LedgerFault, MypaasError, RouteRefused
from mypaas_git.ledger.model import Release
from mypaas_git.ledger.store import Ledger
from mypaas_git.names import ServiceName
from mypaas_git.progress import LineProgress, Progress, Tee
from mypaas_git.routing.rules import owner_of
from mypaas_git.routing.traefik import Traefik
from mypaas_git.runtime.base import BuildPlan, Replica, ReplicaPlan, Runtime

log = structlog.get_logger()


@dataclass(frozen=True)
class Request:
    """What is to be deployed: a commit, its spec, and who wants it.

    ``env`` has a value for every variable of the spec, ``context`` begins the tar
    stream of the commit's files.
    """

    spec: ServiceSpec
    env: Mapping[str, str] = field(repr=False)
    context: Callable[[], Iterator[bytes]]
    commit: str
    branch: str
    who: str
    fingerprint: str


class Engine:
    """Brings releases to life, one at a time per service.

    Nothing that serves is touched before its replacement is healthy, save where
    ``scale`` is 0 and so asks for it. ``health_timeout`` and ``grace`` are seconds.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        runtime: Runtime,
        router: Traefik,
        retirer: Retirer,
        reconciler: Reconciler,
        locks: ServiceLocks,
        outputs: Path,
        expand: Callable[[str], str],
        health_timeout: float,
        grace: float,
    ) -> None:
        self._ledger = ledger
        self._runtime = runtime
        self._router = router
        self._retirer = retirer
        self._reconciler = reconciler
        self._outputs = outputs
        self._expand = expand
        self._health_timeout = health_timeout
        self._grace = grace
        self.locks = locks

    def deploy(self, request: Request, progress: Progress) -> Release:
        """Bring ``request`` to life; the caller holds the service's lock.

        Raises a MypaasError when it fails. What was live before is live then too, and
        nothing is left of the attempt but its row and its log.
        """
        self._runtime.check()
        self._router.check()
        self._refuse_taken_urls(request.spec)
        self._repair(request.spec.service)
        release = self._begin(request)
        with self._recorded(release) as record:
            out = Tee(progress, record)
            attempt = _Attempt(release)
            try:
                live = self._bring_live(attempt, request, out)
            except BaseException as error:
                self._give_up(attempt, error, record)
                raise
            self._retirer.retire(release.service, attempt.replaced)
            _announce(live, out)
        return live

    def fate(self, service: ServiceName) -> str:
        """What a pusher whose deploy failed wants to know first."""
        try:
            live = self._ledger.live_release(service)
        except LedgerFault:
            return "what was live still is"
        return f"{live.label} still live" if live else "nothing is live yet"

    def output(self, release: Release) -> Path:
        """Where the build and deploy log of ``release`` is kept."""
        return self._outputs / release.service / f"{release.label}.log"

    def _repair(self, service: ServiceName) -> None:
        """Mend what a deploy before left broken; what cannot be is about to be replaced."""
        try:
            self._reconciler.reconcile_broken(service)
        except MypaasError as fault:
            log.warning("not-repaired", service=service, error=str(fault))

    def _begin(self, request: Request) -> Release:
        return self._ledger.begin(
            request.spec,
            commit=request.commit,
            branch=request.branch,
            who=request.who,
            fingerprint=request.fingerprint,
        )

    def _bring_live(self, attempt: _Attempt, request: Request, out: Progress) -> Release:
        spec, number = request.spec, attempt.release.number
        out.step(f"Building {spec.service} from Dockerfile")
        build = BuildPlan(spec.service, number, request.context(), secrets=request.env)
        image = self._runtime.build(build, out.detail)
        release = self._ledger.starting(attempt.release, image)
        old = [r for r in self._runtime.replicas(spec.service) if r.release != number]
        attempt.replaced = [replica.name for replica in old]
        plans = replica_plans(spec, number, image, request.env, self._expand)
        for plan in plans:
            attempt.created.append(plan.name)
            self._runtime.create(plan)
        if spec.scale == 0:
            self._stop(attempt, old, out)
        self._start(release, plans, out)
        if spec.scale and spec.scale_mode == "safe":
            self._stop(attempt, old, out)
        if spec.urls:
            out.step("Switching traffic")
        with self.locks.hold_routes():
            # Somebody else may have gone live with one of our urls while we were building.
            self._refuse_taken_urls(spec)
            attempt.switching = True
            self._ledger.switching(release)
            self._router.set(spec, [plan.name for plan in plans])
            return self._ledger.live(release, down=attempt.down())

    def _start(self, release: Release, plans: Sequence[ReplicaPlan], out: Progress) -> None:
        count = f"{len(plans)} container{'s' if len(plans) > 1 else ''}"
        out.step(f"Starting {count} ({release.label})")
        names = [plan.name for plan in plans]
        gate = gate_of(release.spec)
        start_and_wait(self._runtime, names, gate, self._health_timeout, out.detail)
        for name in names:
            self._runtime.keep_up(name)
        # One may have died while others were still being waited for.
        for name in names:
            replica = self._runtime.inspect(name)
            if replica is None or not replica.running:
                raise exited(self._runtime, name, replica)

    def _stop(self, attempt: _Attempt, old: Sequence[Replica], out: Progress) -> None:
        """Stop what serves, so that old and new never run, or never answer, together."""
        running = [replica.name for replica in old if replica.running]
        live = self._ledger.live_release(attempt.release.service)
        if running:
            out.step(f"Stopping {', '.join(running)}")
            attempt.stopped = [r.name for r in old if live and r.release == live.number]
            attempt.down_since = time.monotonic()
            with ThreadPoolExecutor(max_workers=len(running)) as pool:
                list(pool.map(lambda name: self._runtime.stop(name, self._grace), running))

    def _give_up(self, attempt: _Attempt, error: BaseException, record: Progress) -> None:
        """Take back whatever the attempt did; the release before serves again."""
        release = attempt.release
        code, message = "internal-error", "internal error"
        if isinstance(error, MypaasError):
            code, message = error.code, error.message
        elif not isinstance(error, Exception):
            code, message = "cancelled", "cancelled"
        try:
            self._undo(attempt)
        except MypaasError as fault:  # the next deploy or start repairs it
            log.warning("undo-failed", service=release.service, error=str(fault))
            if attempt.stopped and isinstance(error, MypaasError):
                error.fate = f"the release before is down: {fault.message}"
        try:
            self._ledger.failed(release, reason=code, message=message, down=attempt.down())
        except MypaasError as fault:
            log.warning("not-recorded", service=release.service, error=str(fault))
        show_failure(error, record)

    def _undo(self, attempt: _Attempt) -> None:
        service = attempt.release.service
        live = self._ledger.live_release(service)
        if attempt.switching:
            # Another service's file may be what Traefik could not read.
            for other in self._ledger.live_releases():
                self._router.write(other.spec, replica_names(other.spec, other.number))
        if live and attempt.switching:
            self._router.restore(live.spec, replica_names(live.spec, live.number))
        elif attempt.switching:
            self._router.drop(service)
        for name in attempt.created:
            self._runtime.remove(name)
        if live and attempt.stopped:
            gate, timeout = gate_of(live.spec), self._health_timeout
            start_and_wait(self._runtime, attempt.stopped, gate, timeout, log.info)
        self._runtime.remove_image(service, attempt.release.number)

    def _refuse_taken_urls(self, spec: ServiceSpec) -> None:
        others = [r.spec for r in self._ledger.live_releases() if r.service != spec.service]
        for url in spec.urls:
            owner = owner_of(url, others)
            if owner is not None:
                raise RouteRefused(
                    f"{url} belongs to the service '{owner}'; choose another url"
                )

    @contextlib.contextmanager
    def _recorded(self, release: Release) -> Iterator[Progress]:
        """The release's log. A disk that cannot take it must not fail a good deploy."""
        path = self.output(release)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Unbuffered, so that nothing is left to be written, and to fail, at the end.
            file = path.open("wb", buffering=0)
        except OSError as error:
            log.warning("no-output-kept", path=str(path), error=str(error))
            yield Tee()
            return
        with file:
            yield LineProgress(lambda line: _write(file, line))


@dataclass
class _Attempt:
    """What a deploy has done so far, to be taken back should it fail."""

    release: Release
    switching: bool = False
    created: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    down_since: float | None = None

    def down(self) -> float:
        """Seconds that nothing has answered for the sake of this attempt."""
        return 0.0 if self.down_since is None else time.monotonic() - self.down_since


def show_failure(error: BaseException, progress: Progress) -> None:
    """Say why a deploy failed: the details, then the one line that matters."""
    if isinstance(error, MypaasError):
        # A single detail is what the message says anyway.
        for line in error.details if len(error.details) > 1 else ():
            progress.detail(line)
        progress.warning(f"{error.code}: {error.message}")


def _announce(release: Release, out: Progress) -> None:
    seconds = f"{release.seconds or 0:.1f} s"
    down = f"{release.down:.1f}" if release.down else "0"
    out.done(f"{release.service} {release.label} is live in {seconds}, {down} s down")
    for url in release.spec.urls:
        out.detail(str(url))


def _write(file: RawIOBase, line: str) -> None:
    with contextlib.suppress(OSError):
        file.write(line.encode("utf-8", "replace"))
