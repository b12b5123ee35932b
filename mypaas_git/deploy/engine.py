"""The plot of a deploy: build → start → healthy → switch → live → retire the old."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import RawIOBase
from pathlib import Path

import structlog

from mypaas_git.deploy.attempt import Attempt
from mypaas_git.deploy.certificates import Certificates
from mypaas_git.deploy.claims import Claims
from mypaas_git.deploy.health import exited, gate_of, start_and_wait
from mypaas_git.deploy.lock import ServiceLocks
from mypaas_git.deploy.plan import replica_names, replica_plans
from mypaas_git.deploy.preview import expected_downtime, preview
from mypaas_git.deploy.probe import Entry, url_to_probe
from mypaas_git.deploy.reconcile import Reconciler
from mypaas_git.deploy.request import Request, secrets_of
from mypaas_git.deploy.retire import Retirer
from mypaas_git.errors import (
    Cancelled,
    LedgerFault,
    MypaasError,
    PortInUse,
    ReleaseMissing,
    RouterDown,
)
from mypaas_git.failpoints import reach
from mypaas_git.ledger.model import Release, Wanted
from mypaas_git.ledger.store import Ledger
from mypaas_git.names import ServiceName
from mypaas_git.progress import LineProgress, Progress, Tee
from mypaas_git.redact import Redactor
from mypaas_git.routing.pages import Page
from mypaas_git.routing.traefik import Traefik
from mypaas_git.runtime.base import BuildPlan, Replica, ReplicaPlan, Runtime

log = structlog.get_logger()

ROUTER_PATIENCE = 15.0
"""Seconds that a proxy which was lost may take to come back."""
CLOSED = 0.2
"""Seconds without a connection after which a closed replica counts as drained: nobody but a
request that was on its way when it was closed can still come."""


class Engine:
    """Brings releases to life, one at a time per service.

    Nothing that serves is touched before its replacement is healthy, save where
    ``scale`` is 0 and so asks for it. ``health_timeout`` is in seconds, ``low_disk`` in
    bytes; ``entry`` tells where visitors come in.
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
        claims: Claims,
        certificates: Certificates,
        outputs: Path,
        expand: Callable[[str], str],
        entry: Entry,
        health_timeout: float,
        low_disk: int,
    ) -> None:
        self._ledger = ledger
        self._runtime = runtime
        self._router = router
        self._retirer = retirer
        self._reconciler = reconciler
        self._claims = claims
        self._certificates = certificates
        self._outputs = outputs
        self._expand = expand
        self._entry = entry
        self._health_timeout = health_timeout
        self._low_disk = low_disk
        self.locks = locks

    def deploy(self, request: Request, progress: Progress) -> Release:
        """Bring ``request`` to life; the caller holds the service's lock.

        Raises a MypaasError when it fails. What was live before is live then too, and
        nothing is left of the attempt but its row and its log.
        """
        self._runtime.check()
        self._await_router(progress)
        self._refuse_taken(request)
        before = self._repair(request.spec.service)
        release = self._begin(request)
        reach("deploy.begun")
        with self._recorded(release) as record:
            attempt = Attempt(release, before, out=Tee(progress, record))
            try:
                live = self._bring_live(attempt, request)
            except BaseException as error:
                if isinstance(error, MypaasError):  # it may quote what the app printed
                    error.rewrite(Redactor(request.secrets))
                self._give_up(attempt, error, record)
                raise
            # From here on nothing that fails may fail the deploy.
            self._keep_up(attempt.created)
            self._retirer.retire(release.service, attempt.replaced)
            live = self._measured(attempt, live)
            _announce(live, attempt.out)
            self._tell_urls(live, attempt)
            self._tell_of_maintenance(live.service, attempt.out)
        return live

    def start(self, live: Release, progress: Progress) -> None:
        """Have a stopped release serve again; the caller holds the service's lock.

        Raises a MypaasError when it does not get ready.
        """
        self._await_router(progress)
        names = replica_names(live.spec, live.number)
        progress.step(f"Starting {_counted(names)} ({live.label})")
        try:
            self._reconciler.bring_up(live)
            gate, timeout = gate_of(live.spec), self._health_timeout
            start_and_wait(self._runtime, names, gate, timeout, progress.detail)
            self._router.set(live.spec, names, self._page(live.service))
        except MypaasError as error:
            error.rewrite(Redactor(secrets_of(live.spec, live.env)))
            raise

    def preview(self, request: Request, progress: Progress) -> None:
        """Say what a deploy of ``request`` would change, and change nothing.

        Raises a MypaasError where a deploy would not even begin.
        """
        spec = request.spec
        self._claims.check(request)
        _read_through(request)
        standing = self._ledger.standing(spec.service)
        live = standing.live
        progress.step(
            f"{spec.service} would replace {live.label} ({live.commit[:7]})"
            if live
            else f"{spec.service} would go live for the first time"
        )
        for line in preview(spec, request.env, live):
            progress.detail(line)
        self._tell_of_maintenance(spec.service, progress)
        stopped = standing.wanted is not Wanted.RUNNING
        progress.step(f"Expected downtime: {expected_downtime(spec, live, stopped)}")

    def live(self, service: ServiceName) -> Release | None:
        """The release that serves, stopped or not."""
        return self._ledger.live_release(service)

    def fate(self, service: ServiceName) -> str:
        """What a pusher whose deploy failed wants to know first."""
        try:
            live = self._ledger.live_release(service)
        except LedgerFault:
            return "what was live still is"
        return f"{live.label} still live" if live else "nothing is live yet"

    def output(self, release: Release) -> Path:
        """Where the build and deploy log of ``release`` is kept."""
        return self.outputs(release.service) / f"{release.label}.log"

    def outputs(self, service: ServiceName) -> Path:
        """The directory of a service's logs."""
        return self._outputs / service

    def _await_router(self, progress: Progress) -> None:
        """Return once the proxy answers; the server sees to that. Raises RouterDown."""
        deadline = time.monotonic() + ROUTER_PATIENCE
        said = False
        while True:
            try:
                return self._router.check()
            except RouterDown as error:
                if time.monotonic() > deadline:
                    raise
                if not said:
                    progress.step(f"Waiting for Traefik: {error.message}")
                said = True
                time.sleep(0.1)

    def _repair(self, service: ServiceName) -> Release | None:
        """Mend what a deploy before left broken; what cannot be is about to be replaced.

        Returns what is live.
        """
        try:
            standing = self._ledger.standing(service)
            if self._reconciler.is_broken(standing, self._runtime.replicas(service)):
                self._reconciler.reconcile(service)
        except MypaasError as fault:
            log.warning("not-repaired", service=service, error=str(fault))
        return self._ledger.live_release(service)

    def _begin(self, request: Request) -> Release:
        return self._ledger.begin(
            request.spec,
            commit=request.commit,
            branch=request.branch,
            who=request.who,
            fingerprint=request.fingerprint,
            env=request.env,
            action=request.action,
            restores=request.restores,
        )

    def _bring_live(self, attempt: Attempt, request: Request) -> Release:
        spec, out = request.spec, attempt.out
        image = self._image(attempt, request)
        release = self._ledger.starting(attempt.release, image)
        old = self._create(attempt, request, image)
        attempt.watch(url_to_probe(spec, attempt.before), self._entry)
        if spec.scale == 0:
            self._stop(attempt, old)
        self._start(attempt, request)
        reach("start.healthy")
        if request.cancelled():
            raise Cancelled("cancelled before the switch")
        if spec.scale and spec.scale_mode == "safe":
            self._close(attempt, old)
        if spec.urls:
            out.step("Switching traffic")
        with self.locks.hold_routes():
            # Somebody else may have gone live with one of our urls while we were building.
            self._claims.check_urls(request)
            attempt.switching = True
            self._ledger.switching(release)
            reach("switch.recorded")
            self._certificates.expect(spec)
            attempt.switched = time.time()
            self._router.set(spec, attempt.created, self._page(spec.service))
            reach("switch.confirmed")
            live = self._ledger.live(release, attempt.down())
        reach("ledger.live")
        return live

    def _image(self, attempt: Attempt, request: Request) -> str:
        """The image to run: built now, or that of the release that is restored."""
        release, restored = attempt.release, request.restores
        if restored is not None:
            if restored.built_by not in self._runtime.images(release.service):
                raise ReleaseMissing(
                    f"the image of {restored.label} is gone; push its commit "
                    f"{restored.commit[:7]} again"
                )
            return restored.image
        self._warn_of_low_disk(attempt.out)
        with self.locks.hold_build(attempt.out, request.cancelled):
            attempt.out.step(f"Building {release.service} from Dockerfile")
            plan = BuildPlan(
                release.service,
                release.number,
                request.context(),
                secrets=request.secrets,
                cancelled=request.cancelled,
                keep=lambda layer: self._ledger.add_layer(release, layer),
                images=request.images,
            )
            image = self._runtime.build(plan, attempt.out.detail)
        reach("build.built")
        return image

    def _create(self, attempt: Attempt, request: Request, image: str) -> list[Replica]:
        """Make the new containers, and return those that they are to replace."""
        spec, number = request.spec, attempt.release.number
        old = [r for r in self._runtime.replicas(spec.service) if r.release != number]
        attempt.replaced = [replica.name for replica in old]
        plans = replica_plans(spec, number, image, request.env, self._expand)
        attempt.created = [plan.name for plan in plans]
        with contextlib.ExitStack() as stack:
            if spec.volumes:
                # Somebody may have mounted a directory of ours while we were building.
                stack.enter_context(self.locks.hold_volumes())
                self._claims.take_volumes(request, self._runtime.replicas)
            pool = stack.enter_context(ThreadPoolExecutor(max_workers=len(plans)))
            list(pool.map(self._create_one, plans))
        return old

    def _create_one(self, plan: ReplicaPlan) -> None:
        self._runtime.create(plan)
        reach("create.created")

    def _start(self, attempt: Attempt, request: Request) -> None:
        names = attempt.created
        attempt.out.step(f"Starting {_counted(names)} ({attempt.release.label})")
        start_and_wait(
            self._runtime,
            names,
            gate_of(request.spec),
            self._health_timeout,
            attempt.out.detail,
            cancelled=request.cancelled,
        )
        # One may have died while others started.
        running = {r.name for r in self._runtime.replicas(request.spec.service) if r.running}
        for name in names:
            if name not in running:
                raise exited(self._runtime, name, self._runtime.inspect(name))

    def _keep_up(self, names: Sequence[str]) -> None:
        """Have the engine restart those that serve now whenever they die."""
        for name in names:
            try:
                self._runtime.keep_up(name)
            except MypaasError as fault:  # whoever repairs the service does it
                log.warning("not-kept-up", replica=name, error=str(fault))

    def _page(self, service: ServiceName) -> Page | None:
        """The page that visitors get of what serves."""
        return Page.MAINTENANCE if self._ledger.maintenance(service) else None

    def _tell_of_maintenance(self, service: ServiceName, out: Progress) -> None:
        """Whoever deploys may not know that nobody gets to see it."""
        closed = self._ledger.maintenance(service)
        if closed:
            out.warning(
                f"{service} stays in maintenance, as {closed.who} wants it: visitors get a "
                f"page until somebody says: mypaas maintenance off {service}"
            )

    def _stop(self, attempt: Attempt, old: Sequence[Replica]) -> None:
        """Stop what serves, so that old and new never run together."""
        running = [replica.name for replica in old if replica.running]
        if running:
            attempt.out.step(f"Stopping {', '.join(running)}")
            before = attempt.before
            attempt.stopped = [r.name for r in old if before and r.release == before.number]
            attempt.down_since = time.monotonic()
            if before:
                # Whoever found nobody there would have to wait to hear that.
                attempt.closed = True
                self._reconciler.close(self._ledger.standing(before.service))
            with ThreadPoolExecutor(max_workers=len(running)) as pool:
                list(pool.map(self._retirer.stop, running))
            reach("stop.stopped")

    def _close(self, attempt: Attempt, old: Sequence[Replica]) -> None:
        """Have the old replicas end what they serve before any new one answers."""
        running = [replica.name for replica in old if replica.running]
        if attempt.before and running:
            attempt.out.step(f"Draining {', '.join(running)}")
            attempt.switching = True
            attempt.down_since = time.monotonic()
            self._router.set(attempt.before.spec, [], self._page(attempt.before.service))
            self._retirer.drain(running, quiet=CLOSED)

    def _give_up(self, attempt: Attempt, error: BaseException, record: Progress) -> None:
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
            seen = attempt.seen()
            self._ledger.failed(release, reason=code, message=message, down=seen.seconds)
        except MypaasError as fault:
            log.warning("not-recorded", service=release.service, error=str(fault))
        show_failure(error, record)

    def _undo(self, attempt: Attempt) -> None:
        service, live = attempt.release.service, attempt.before
        if attempt.switching and not attempt.closed:
            self._route_back(service)
        if attempt.switching and attempt.release.spec.scale:
            # Visitors may have got there already.
            self._retirer.retire(service, attempt.created)
        else:
            for name in attempt.created:
                self._runtime.remove(name)
        if live and attempt.stopped:
            gate, timeout = gate_of(live.spec), self._health_timeout
            start_and_wait(self._runtime, attempt.stopped, gate, timeout, log.info)
        if attempt.closed:
            self._route_back(service)
        if attempt.release.restores is None:
            self._runtime.remove_image(service, attempt.release.number)

    def _route_back(self, service: ServiceName) -> None:
        # Another service's file may be what Traefik could not read.
        replicas = self._runtime.replicas()
        for other in self._ledger.standings():
            if other.service != service:
                self._reconciler.write_route(other, replicas)
        self._reconciler.restore_route(self._ledger.standing(service))

    def _refuse_taken(self, request: Request) -> None:
        """Raise RouteRefused, PortInUse or HostRefused for what somebody else has."""
        self._claims.check(request)
        self._claims.check_directories(request, self._runtime.replicas)
        live = self._ledger.live_release(request.spec.service)
        for publish in request.spec.publish:
            fault = self._runtime.port_fault(publish)
            if fault and not (live and publish in live.spec.publish):
                raise PortInUse(request.where(publish) + fault)

    def _measured(self, attempt: Attempt, live: Release) -> Release:
        """The release with what visitors saw of it, as far as it can be recorded."""
        try:
            return self._ledger.measured(live, attempt.seen(finished=True))
        except MypaasError as fault:
            log.warning("not-recorded", service=live.service, error=str(fault))
            return live

    def _tell_urls(self, live: Release, attempt: Attempt) -> None:
        """Say where the release is reached."""
        try:
            self._certificates.report(live.spec, attempt.switched, attempt.out)
        except Exception:  # no certificate is worth failing for
            log.exception("certificates-unknown", service=live.service)
            attempt.out.warning("whether there are certificates is unknown")

    def _warn_of_low_disk(self, out: Progress) -> None:
        path, free, total = self._runtime.free_disk()
        if free < self._low_disk:
            out.warning(
                f"only {_gib(free)} of {_gib(total)} GiB are free in {path}: the build may "
                f"fail; make room there, or keep fewer images ([docker] keep_releases)"
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
    saw = f" ({release.probes_failed} of {release.probes} probes failed)"
    out.done(
        f"{release.service} {release.label} is live in {seconds}, {down} s down"
        f"{saw if release.probes else ''}"
    )


def _read_through(request: Request) -> None:
    """Read what a builder would be given. Raises TreeRefused, and Cancelled."""
    for _ in request.context():
        if request.cancelled():
            raise Cancelled("cancelled before the plan was made")


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} container{'s' if len(names) > 1 else ''}"


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f}"


def _write(file: RawIOBase, line: str) -> None:
    with contextlib.suppress(OSError):
        file.write(line.encode("utf-8", "replace"))
