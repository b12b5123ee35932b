"""What else people do to a service than push to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from mypaas_git.access.policy import Identity, Verb, allow_ref, may
from mypaas_git.config.store import ConfigStore
from mypaas_git.config.store import check as check_variables
from mypaas_git.deploy.engine import Engine
from mypaas_git.deploy.lock import never
from mypaas_git.deploy.oneoff import OneOffs
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
from mypaas_git.runtime.base import Operator

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
        variables: ConfigStore,
        one_offs: OneOffs,
    ) -> None:
        self._engine = engine
        self._hook = hook
        self._ledger = ledger
        self._reconciler = reconciler
        self._repositories = repositories
        self._variables = variables
        self._one_offs = one_offs

    def rollback(self, service: ServiceName, number: int | None, asker: Asker) -> Release:
        """Serve again what release ``number`` served, or what the one before the live did.

        Of a rollback that is what was before the release that it restores, so that another
        one goes further back. The target's image, spec and variables become a new release,
        without a build, and the branch names its commit again.
        """
        with self._turn(service, asker):
            live = self._live(service, asker.identity)
            target = self._target(live, number)
            allow_ref(asker.identity, f"refs/heads/{target.branch}")
            asker.progress.step(
                f"Rolling {service} back from {live.label} to {target.label} "
                f"({target.commit[:7]})"
            )
            new = self._again(target, Action.ROLLBACK, asker)
            self._tell_of_other_values(new, asker.progress)
            return new

    def restart(self, service: ServiceName, asker: Asker) -> Release:
        """Replace the containers by new ones of the same image, spec and variables."""
        with self._turn(service, asker):
            live = self._live(service, asker.identity)
            asker.progress.step(f"Restarting {service} {live.label}")
            return self._again(live, Action.RESTART, asker)

    def redeploy(self, service: ServiceName, asker: Asker) -> Release:
        """Build and deploy the live commit afresh, with the variables of today.

        Of a removed service that is the commit which was live last.
        """
        last = self._last(service, asker.identity)
        with self._repositories.open(service) as repository:
            update = RefUpdate(f"refs/heads/{last.branch}", last.commit, last.commit)
            push = Push(
                repository,
                update,
                asker.identity,
                asker.progress,
                asker.cancelled,
                Action.REDEPLOY,
            )
            return self._hook.deploy(push, service, lambda _=None: None)

    def run(
        self,
        service: ServiceName,
        command: Sequence[str],
        operator: Operator,
        identity: Identity,
    ) -> int:
        """Run a command beside the live release, and return its exit code.

        Deploys do not wait for it. Raises Cancelled when the operator has left.
        """
        live = self._live(service, identity)
        self._hook.check_host(live.spec, identity)
        return self._one_offs.run(live, command, operator)

    def configure(
        self,
        service: ServiceName,
        changes: Mapping[str, str | None],
        asker: Asker,
        *,
        restart: bool,
    ) -> Release | None:
        """Set variables and, where the value is None, unset them, all in one new release.

        Returns the release, or None when they are kept for the next one: nothing runs, it
        runs with them already, or ``restart`` is False, and then nobody is waited for. When
        the release does not get live, they are what they were before.
        """
        if not restart:
            self._keep(service, changes)
            return None
        with self._turn(service, asker):
            standing = self._ledger.standing(service)
            live = standing.live
            if live is None or standing.wanted is not Wanted.RUNNING:
                self._keep(service, changes)
                return None
            with self._engine.locks.hold_variables():
                before = self._variables.read(service)
                after = changed(before, changes)
                check_variables(after)
                env = self._hook.env_of(live.spec, after)
                if live.spec.auth in changes:
                    spec = self._hook.with_users(live.spec, after)
                    live = dataclasses.replace(live, spec=spec)
                self._variables.write(service, after)
            if env == live.env:
                return None
            asker.progress.step(f"Restarting {service} {live.label} {_in_words(changes)}")
            try:
                return self._again(live, Action.CONFIG, asker, env)
            except BaseException:
                self._put_back(service, before, changes, asker.progress)
                raise

    def stop(self, service: ServiceName, asker: Asker) -> Release:
        """Let the containers end what they serve, and stop them until :meth:`start`."""
        with self._turn(service, asker):
            live = self._live(service, asker.identity)
            if self._reconciler.is_already(Wanted.STOPPED, service):
                asker.progress.done(f"{service} {live.label} is stopped already")
                return live
            asker.progress.step(f"Stopping {service} {live.label}")
            self._ledger.want(service, Wanted.STOPPED)
            self._reconciler.reconcile(service)
            asker.progress.done(f"{service} {live.label} is stopped")
            return live

    def start(self, service: ServiceName, asker: Asker) -> Release:
        """Have a stopped service serve again; if it does not get ready, it stays stopped."""
        with self._turn(service, asker):
            live = self._live(service, asker.identity)
            self._hook.check_host(live.spec, asker.identity)
            if self._reconciler.is_already(Wanted.RUNNING, service):
                asker.progress.done(f"{service} {live.label} runs already")
                return live
            try:
                self._engine.start(live, asker.progress)
            except MypaasError:
                self._reconciler.reconcile(service)
                raise
            self._ledger.want(service, Wanted.RUNNING)
            asker.progress.done(f"{service} {live.label} runs")
            return live

    def close(self, service: ServiceName, asker: Asker) -> Release:
        """Have visitors get a page until :meth:`open`, whatever is deployed meanwhile.

        A deploy that is going on is not waited for: it will find the service closed.
        """
        live = self._live(service, asker.identity)
        with self._engine.locks.hold_routes():
            self._ledger.close(service, asker.identity.name)
            self._reconciler.restore_route(self._ledger.standing(service))
        return live

    def open(self, service: ServiceName, asker: Asker) -> Release:
        """Have visitors get to the service again."""
        live = self._live(service, asker.identity)
        with self._engine.locks.hold_routes():
            self._ledger.open(service)
            self._reconciler.restore_route(self._ledger.standing(service))
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

    def _live(self, service: ServiceName, identity: Identity) -> Release:
        """What is live; whose key is for some branches must be allowed to push its branch."""
        return _allowed(self._ledger.live_release(service), service, identity)

    def _last(self, service: ServiceName, identity: Identity) -> Release:
        """As :meth:`_live`, or what was live when the service was removed."""
        served = (each for each in self._ledger.releases(service) if each.served)
        return _allowed(next(served, None), service, identity)

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
        releases = self._ledger.releases(live.service)
        first = _origin(live, releases)
        for release in releases:
            if release.served and release.number < first.number and not release.runs_like(live):
                return release
        if first is live:
            raise ReleaseMissing(f"there is no release before {live.label} to roll back to")
        raise ReleaseMissing(
            f"there is no release before {first.label}, which {live.label} restores; name one "
            f"to roll back to: mypaas rollback {live.service} vN"
        )

    def _keep(self, service: ServiceName, changes: Mapping[str, str | None]) -> None:
        """Change what is set, for the next release."""
        with self._engine.locks.hold_variables():
            after = changed(self._variables.read(service), changes)
            check_variables(after)
            self._variables.write(service, after)

    def _put_back(
        self,
        service: ServiceName,
        before: Mapping[str, str],
        changes: Mapping[str, str | None],
        progress: Progress,
    ) -> None:
        """Take ``changes`` back, and nothing that somebody else has changed meanwhile."""
        try:
            with self._engine.locks.hold_variables():
                now = self._variables.read(service)
                ours = [key for key, value in changes.items() if now.get(key) == value]
                self._variables.write(
                    service, changed(now, {key: before.get(key) for key in ours})
                )
        except MypaasError as error:  # it must not hide why the release failed
            progress.warning(f"the next release takes the new variables: {error.message}")
            return
        progress.warning(f"the variables of {service} are what they were before")

    def _tell_of_other_values(self, release: Release, progress: Progress) -> None:
        """What is set stays set, though a release that is restored has its own values."""
        try:
            today = self._hook.values_of(release.spec)
        except MypaasError:  # it is live, whatever is wrong with the settings
            return
        keys = [*today, *(key for key in release.env if key not in today)]
        differing = [key for key in keys if today.get(key) != release.env.get(key)]
        if differing:
            progress.warning(
                f"{release.label} has other values than are set today for "
                f"{', '.join(differing)}; the next push, redeploy or config set takes today's"
            )

    def _again(
        self,
        release: Release,
        action: Action,
        asker: Asker,
        env: Mapping[str, str] | None = None,
    ) -> Release:
        self._hook.check_host(release.spec, asker.identity)
        request = Request.again(
            release,
            action,
            who=asker.identity.name,
            fingerprint=asker.identity.fingerprint,
            env=env,
            cancelled=asker.cancelled,
            may_share=lambda other: may(asker.identity, Verb.PUSH, other),
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


def _allowed(release: Release | None, service: ServiceName, identity: Identity) -> Release:
    if release is None:
        raise ServiceMissing(f"nothing of {service} is live: push to it first")
    allow_ref(identity, f"refs/heads/{release.branch}")
    return release


def _origin(release: Release, releases: Sequence[Release]) -> Release:
    """The first release that ran like ``release`` and that it restores, at whatever remove."""
    numbered = {each.number: each for each in releases}
    restored = numbered.get(release.restores or 0)
    while restored is not None and restored.runs_like(release):
        release, restored = restored, numbered.get(restored.restores or 0)
    return release


def _in_words(changes: Mapping[str, str | None]) -> str:
    """``with A, B and without C``."""
    new = ", ".join(key for key, value in changes.items() if value is not None)
    gone = ", ".join(key for key, value in changes.items() if value is None)
    words = (f"with {new}" if new else "", f"without {gone}" if gone else "")
    return " and ".join(filter(None, words))


def changed(values: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """``values`` with ``changes``, of which those that are None go."""
    merged = {**values, **changes}
    return {key: value for key, value in merged.items() if value is not None}


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
