"""What else people do to a service than push to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from mypaas_git.access.policy import Identity
from mypaas_git.deploy.engine import Engine
from mypaas_git.deploy.lock import never
from mypaas_git.deploy.reconcile import Reconciler
from mypaas_git.deploy.request import Request
from mypaas_git.errors import MypaasError, ReleaseMissing, ServiceMissing
from mypaas_git.failpoints import reach
from mypaas_git.git.receive import RefUpdate
from mypaas_git.git.repository import Repositories, Repository
from mypaas_git.hook import PostReceive, Push, tag_release
from mypaas_git.ledger.model import Action, Release, Wanted
from mypaas_git.ledger.store import Ledger
from mypaas_git.names import ServiceName
from mypaas_git.progress import Progress

log = structlog.get_logger()


@dataclass(frozen=True)
class Asker:
    """Who wants something done, where to tell of it, and whether they have left."""

    identity: Identity
    progress: Progress
    cancelled: Callable[[], bool] = never


class Operations:
    """Each waits for the service's lock and raises a MypaasError when it is not done."""

    def __init__(
        self,
        *,
        engine: Engine,
        hook: PostReceive,
        ledger: Ledger,
        reconciler: Reconciler,
        repositories: Repositories,
    ) -> None:
        self._engine = engine
        self._hook = hook
        self._ledger = ledger
        self._reconciler = reconciler
        self._repositories = repositories

    def rollback(self, service: ServiceName, number: int | None, asker: Asker) -> Release:
        """Serve again what release ``number`` served, or what the one before the live did.

        Its image, spec and variables become a new release, without a build, and the
        branch names its commit again.
        """
        with self._turn(service, asker):
            live = self._live(service)
            target = self._target(live, number)
            asker.progress.step(
                f"Rolling {service} back from {live.label} to {target.label} "
                f"({target.commit[:7]})"
            )
            return self._again(target, Action.ROLLBACK, asker)

    def restart(self, service: ServiceName, asker: Asker) -> Release:
        """Replace the containers by new ones of the same image, spec and variables."""
        with self._turn(service, asker):
            live = self._live(service)
            asker.progress.step(f"Restarting {service} {live.label}")
            return self._again(live, Action.RESTART, asker)

    def redeploy(self, service: ServiceName, asker: Asker) -> Release:
        """Build and deploy the live commit afresh, with the variables of today."""
        live = self._live(service)
        with self._repositories.open(service) as repository:
            update = RefUpdate(f"refs/heads/{live.branch}", live.commit, live.commit)
            push = Push(
                repository,
                update,
                asker.identity,
                asker.progress,
                asker.cancelled,
                Action.REDEPLOY,
            )
            return self._hook.deploy(push, service, lambda _=None: None)

    def stop(self, service: ServiceName, asker: Asker) -> Release:
        """Let the containers end what they serve, and stop them until :meth:`start`."""
        with self._turn(service, asker):
            live = self._live(service)
            asker.progress.step(f"Stopping {service} {live.label}")
            self._ledger.want(service, Wanted.STOPPED)
            self._reconciler.reconcile(service)
            return live

    def start(self, service: ServiceName, asker: Asker) -> Release:
        """Have a stopped service serve again; if it does not get ready, it stays stopped."""
        with self._turn(service, asker):
            live = self._live(service)
            try:
                self._engine.start(live, asker.progress)
            except MypaasError:
                self._reconciler.reconcile(service)
                raise
            self._ledger.want(service, Wanted.RUNNING)
            return live

    def remove(self, service: ServiceName, asker: Asker, *, with_repository: bool) -> None:
        """Remove containers, images and routes; volumes stay.

        ``with_repository`` removes the repository, the logs and the history as well.
        """
        with self._turn(service, asker):
            asker.progress.step(f"Removing {service}")
            self._ledger.want(service, Wanted.ERASED if with_repository else Wanted.REMOVED)
            reach("remove.recorded")
            self._reconciler.reconcile(service)

    @contextmanager
    def _turn(self, service: ServiceName, asker: Asker) -> Iterator[None]:
        who = asker.identity.name
        with self._engine.locks.hold(service, who, asker.progress, asker.cancelled):
            yield

    def _live(self, service: ServiceName) -> Release:
        live = self._ledger.live_release(service)
        if live is None:
            raise ServiceMissing(f"nothing of {service} is live: push to it first")
        return live

    def _target(self, live: Release, number: int | None) -> Release:
        """The release to roll back to."""
        if number is None:
            return self._before(live)
        target = self._ledger.release(live.service, number)
        if not target.served:
            raise ReleaseMissing(f"{target.label} never was live ({target.reason})")
        if target.number == live.number:
            raise ReleaseMissing(f"{target.label} is live")
        return target

    def _before(self, live: Release) -> Release:
        """The release before the live one, a restart of which is the same release still."""
        for release in self._ledger.releases(live.service):
            if release.served and release.number < live.number and not release.runs_like(live):
                return release
        raise ReleaseMissing(f"there is no release before {live.label} to roll back to")

    def _again(self, release: Release, action: Action, asker: Asker) -> Release:
        self._hook.check_host(release.spec)
        request = Request.again(
            release,
            action,
            who=asker.identity.name,
            fingerprint=asker.identity.fingerprint,
            cancelled=asker.cancelled,
        )
        try:
            new = self._engine.deploy(request, asker.progress)
        except MypaasError as error:
            raise error.ending(self._engine.fate(release.service)) from error
        self._settle(new, asker.progress)
        return new

    def _settle(self, release: Release, progress: Progress) -> None:
        """Have branch and tag name what is live; where they cannot, it is live all the same."""
        try:
            with self._repositories.open(release.service) as repository:
                settle(repository, release)
        except MypaasError as error:
            progress.warning(f"{release.branch} was not moved: {error.message}")


def settle(repository: Repository, release: Release) -> None:
    """Have the branch and the tag of a live release name it. Raises RefRefused."""
    ref = f"refs/heads/{release.branch}"
    now = repository.ref(ref)
    if now != release.commit:
        reach("ref.unmoved")
        log.info("branch-moved", service=release.service, was=now, now=release.commit)
        repository.move_ref(ref, now, release.commit)
        reach("ref.moved")
    repository.adopt_head(ref)
    tag_release(repository, release)
