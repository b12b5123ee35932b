"""What happens to a received commit: it is read, allowed, and deployed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import structlog

from mypaas_git.access import directories, host
from mypaas_git.access.policy import Identity, Verb, may
from mypaas_git.deploy.engine import Engine, show_failure
from mypaas_git.deploy.lock import never
from mypaas_git.deploy.request import Request
from mypaas_git.directives import images
from mypaas_git.directives.labels import label_faults
from mypaas_git.directives.lexer import Fault
from mypaas_git.directives.model import ServiceSpec, Volume
from mypaas_git.directives.parse import lines_of, parse_dockerfile, users_fault
from mypaas_git.directives.table import key_of
from mypaas_git.errors import DirectivesInvalid, DockerfileMissing, MypaasError, RefRefused
from mypaas_git.failpoints import reach
from mypaas_git.git.receive import Move, RefUpdate
from mypaas_git.git.repository import Repository
from mypaas_git.ledger.model import Action, Release
from mypaas_git.names import ServiceName, release_label
from mypaas_git.progress import Progress
from mypaas_git.routing.users import hashed

log = structlog.get_logger()

MAX_DOCKERFILE = 1 << 20

Lookup = Callable[[str, str], "str | None"]
"""From a service and the name of a variable to its value in config.toml."""

Stored = Callable[[str], Mapping[str, str]]
"""From a service to what ``mypaas config set`` has set for it, which wins."""


@dataclass(frozen=True)
class Push:
    """A ref update that arrived in ``repository``, who sent it, and where to tell of it.

    ``cancelled`` tells whether they have left.
    """

    repository: Repository
    update: RefUpdate
    identity: Identity
    progress: Progress
    cancelled: Callable[[], bool] = never
    action: Action = Action.PUSH

    @property
    def branch(self) -> str:
        return self.update.ref.removeprefix("refs/heads/")

    @property
    def commit(self) -> str:
        """The commit to deploy. Raises RefRefused for a deletion."""
        if self.update.new is None:
            raise RefRefused(f"{self.branch} cannot be deleted: it names what is live")
        return self.update.new


@dataclass(frozen=True)
class Wanted:
    """What a pushed Dockerfile asks for; ``lines`` tells where each of its wishes stands."""

    spec: ServiceSpec
    lines: Mapping[object, int]
    images: tuple[images.Use, ...]

    def where(self, wish: host.Wish) -> str:
        return f"Dockerfile line {self.lines.get(wish, 0)}: {key_of(wish)}: "


class PostReceive:
    """Deploys what was pushed to a deploy branch."""

    def __init__(
        self,
        engine: Engine,
        *,
        lookup: Lookup,
        stored: Stored,
        rules: host.HostRules,
        image_rules: images.ImageRules,
    ) -> None:
        self._engine = engine
        self._lookup = lookup
        self._stored = stored
        self._rules = rules
        self._image_rules = image_rules

    def deploy(self, push: Push, service: ServiceName, move: Move) -> Release:
        """Deploy a commit that the branch does not name yet, then have ``move`` move it.

        Raises a MypaasError, already told to the pusher, that ends with what is live.
        """
        try:
            push.progress.step(_received(push))
            wanted = self._read(push, service, pinned=True)
            with self._turn(push, service):
                push.repository.check_there(push.commit)
                now = _place(push)
                push.repository.check_movable(push.update.ref)
                self._tell_of_rollback(push, service)
                release = self._engine.deploy(self._request(push, wanted), push.progress)
                reach("ref.unmoved")
                move(now)
                reach("ref.moved")
                tag_release(push.repository, release)
                return release
        except MypaasError as error:
            raise self._told(error, service, push.progress) from error

    def plan(self, push: Push, service: ServiceName) -> None:
        """Say what :meth:`deploy` would change, and change nothing.

        Raises a MypaasError, already told to the pusher, where it would not even begin.
        """
        try:
            push.progress.step(f"Plan for {push.commit[:7]} ({push.branch})")
            wanted = self._read(push, service, pinned=True)
            self._engine.preview(self._request(push, wanted), push.progress)
        except MypaasError as error:
            raise self._told(error, service, push.progress) from error

    def deploy_moved(self, push: Push, default: ServiceName | None) -> None:
        """Deploy a commit that the branch names already, as git's own post-receive must.

        A branch that could not be deployed is put back. Raises as :meth:`deploy` does.
        """
        service = default
        try:
            push.progress.step(_received(push))
            wanted = self._read(push, default, pinned=False)
            service = wanted.spec.service
            with self._turn(push, service):
                _refuse_moved(push)
                release = self._engine.deploy(self._request(push, wanted), push.progress)
                tag_release(push.repository, release)
        except BaseException as error:
            put_back(push)
            if isinstance(error, MypaasError):
                raise self._told(error, service, push.progress) from error
            raise

    def check_host(self, spec: ServiceSpec, identity: Identity) -> None:
        """Raise HostRefused unless the host grants a release all that it asks for."""
        self._check_host(spec, identity, lambda _: "")

    def _check_host(
        self, spec: ServiceSpec, identity: Identity, where: Callable[[host.Wish], str]
    ) -> None:
        live = self._engine.live(spec.service)
        host.check(
            spec,
            self._rules,
            key=identity.name,
            kept=live.spec.addresses if live else (),
            resolve=self._resolve,
            where=where,
        )

    def _resolve(self, volume: Volume) -> None:
        if not volume.named:
            directories.resolve(volume.source, self._rules)

    def _turn(self, push: Push, service: ServiceName) -> AbstractContextManager[None]:
        """Whoever pushes gives way to a newer push; who restarts, say, has no newer one."""
        locks = self._engine.locks
        hold = locks.hold_for_push if push.action is Action.PUSH else locks.hold
        return hold(service, push.identity.name, push.progress, push.cancelled)

    def _tell_of_rollback(self, push: Push, service: ServiceName) -> None:
        """Whoever pushes may not know that what they had pushed before was taken back."""
        live = self._engine.live(service)
        if live is None or live.action is not Action.ROLLBACK or push.action is not Action.PUSH:
            return
        push.progress.warning(
            f"{service} was rolled back by {live.who} at {_moment(live.live_at)}: "
            f"{live.label} restores {release_label(live.restores or 0)} ({live.commit[:7]}); "
            f"this push replaces it"
        )

    def with_users(
        self, spec: ServiceSpec, stored: Mapping[str, str] | None = None
    ) -> ServiceSpec:
        """The spec with those whom it lets in today. Raises DirectivesInvalid.

        ``stored`` is as for :meth:`env_of`.
        """
        if spec.auth is None:
            return spec
        value = self._value(spec.service, spec.auth, stored)
        fault = users_fault(spec.auth, value)
        if value is None or fault:
            raise DirectivesInvalid(f"mypaas.auth: {fault}")
        return dataclasses.replace(spec, users=hashed(value))

    def _value(
        self, service: ServiceName, key: str, stored: Mapping[str, str] | None = None
    ) -> str | None:
        """The value that the server has for a variable."""
        found = (self._stored(service) if stored is None else stored).get(key)
        return self._lookup(service, key) if found is None else found

    def env_of(
        self, spec: ServiceSpec, stored: Mapping[str, str] | None = None
    ) -> Mapping[str, str]:
        """What containers of the spec get. Raises DirectivesInvalid for missing values.

        ``stored`` is what would be set for the service, None what is.
        """
        found = self.values_of(spec, stored)
        missing = ", ".join(key for key, value in found.items() if value is None)
        if missing:
            raise DirectivesInvalid(
                f"{missing}: the server has no value for it; an admin can set one: "
                f"mypaas config set {spec.service} {missing.partition(',')[0]}=…"
            )
        return {key: value for key, value in found.items() if value is not None}

    def values_of(
        self, spec: ServiceSpec, stored: Mapping[str, str] | None = None
    ) -> dict[str, str | None]:
        """As :meth:`env_of`, with None for what has no value."""
        found: dict[str, str | None] = {each.key: each.value for each in spec.env}
        for key, literal in found.items():
            found[key] = self._lookup(spec.service, key) if literal is None else literal
        return {**found, **(self._stored(spec.service) if stored is None else stored)}

    def _read(self, push: Push, default: ServiceName | None, *, pinned: bool) -> Wanted:
        """What the pushed commit asks for, when the host grants it."""
        text = push.repository.read_file(push.commit, "Dockerfile", MAX_DOCKERFILE)
        if text is None:
            raise DockerfileMissing(
                f"there is no Dockerfile at the top of {push.commit[:7]}; add one and commit "
                f"it (git add Dockerfile)"
            )
        spec = parse_dockerfile(
            text,
            default_service=default,
            pinned=pinned,
            value_of=self._value,
        )
        used, faults = images.uses(text)
        wanted = Wanted(spec, lines_of(text), tuple(used))
        faults += label_faults(text)
        for use in used:
            fault = images.fault_of(use.reference, spec.service, self._image_rules)
            faults += [Fault(use.number, fault)] if fault else []
        host.refuse([f"Dockerfile line {n}: {fault}" for n, fault in sorted(faults)])
        self._check_host(spec, push.identity, wanted.where)
        return wanted

    def _request(self, push: Push, wanted: Wanted) -> Request:
        commit = push.commit
        return Request(
            spec=self.with_users(wanted.spec),
            env=self.env_of(wanted.spec),
            context=lambda: push.repository.context(commit),
            commit=commit,
            branch=push.branch,
            who=push.identity.name,
            fingerprint=push.identity.fingerprint,
            action=push.action,
            cancelled=push.cancelled,
            may_share=lambda other: may(push.identity, Verb.PUSH, other),
            where=wanted.where,
            images=wanted.images,
        )

    def _told(
        self, error: MypaasError, service: ServiceName | None, progress: Progress
    ) -> MypaasError:
        """The error with what is live at its end, shown to the pusher."""
        live = self._engine.fate(service) if service else "nothing was deployed"
        told = error.ending(live)
        show_failure(told, progress)
        told.told = True
        return told


def tag_release(repository: Repository, release: Release) -> None:
    """Have the tag ``release/vN`` say who deployed what; a live release needs none to serve."""
    try:
        made = repository.set_tag(
            f"release/{release.label}",
            release.commit,
            _tag_message(release),
            tagger=release.who,
            when=release.live_at or time.time(),
        )
    except (MypaasError, OSError) as error:
        log.warning("not-tagged", release=release.label, error=str(error))
        return
    if made:
        reach("tag.set")


def _tag_message(release: Release) -> str:
    did = "Pushed" if release.action is Action.PUSH else release.action.value.capitalize()
    of = f" of {release_label(release.restores)}" if release.restores else ""
    key = f" ({release.fingerprint})" if release.fingerprint else ""
    return (
        f"{release.service} {release.label}\n\n"
        f"{did}{of} by {release.who}{key}, live since {_moment(release.live_at)}.\n"
    )


def _moment(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _received(push: Push) -> str:
    if push.action is not Action.PUSH:
        return f"Deploying {push.commit[:7]} again for {push.identity.name} ({push.branch})"
    return f"Received {push.commit[:7]} from {push.identity.name} ({push.branch})"


def _place(push: Push) -> str | None:
    """Where the branch is, from where it may go to the commit.

    Whoever moved it on while we waited may have, as long as all of theirs is part of the
    commit. A branch that was set back, as by a rollback, was meant to be. Raises RefRefused.
    """
    old, now = push.update.old, push.repository.ref(push.update.ref)
    if now == old:
        return now
    is_ancestor = push.repository.is_ancestor
    moved_on = now is not None and (old is None or is_ancestor(old, now))
    if now is None or not moved_on or not is_ancestor(now, push.commit):
        raise _moved(push, now)
    return now


def _refuse_moved(push: Push) -> None:
    """Somebody else may have deployed while we waited for the lock."""
    now = push.repository.ref(push.update.ref)
    if now != push.update.new:
        raise _moved(push, now)


def _moved(push: Push, now: str | None) -> RefRefused:
    return RefRefused(
        f"{push.branch} moved to {now[:7] if now else 'nothing'} in the meantime; "
        f"fetch, merge and push again"
    )


def put_back(push: Push) -> None:
    """Have the branch name again what it named before, unless somebody else moved it."""
    if push.repository.ref(push.update.ref) != push.update.new:
        return
    try:
        push.repository.move_ref(push.update.ref, push.update.new, push.update.old)
    except MypaasError as error:  # it must not hide why the deploy failed
        push.progress.warning(f"{push.branch} was not put back: {error.message}")
        return
    where = push.update.old[:7] if push.update.old else "not there"
    push.progress.detail(f"{push.branch} is {where} again")
