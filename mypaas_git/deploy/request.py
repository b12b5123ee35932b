"""What is to be deployed, and who wants it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from mypaas_git.deploy.lock import never
from mypaas_git.directives.images import Use
from mypaas_git.directives.model import Publish, Redirect, ServiceSpec, Url, Volume
from mypaas_git.ledger.model import Action, Release
from mypaas_git.names import ServiceName

Wish = Url | Redirect | Volume | Publish


def _nowhere(_: Wish) -> str:
    return ""


def _nobody(_: ServiceName) -> bool:
    return False


@dataclass(frozen=True)
class Request:
    """What is to be deployed: a commit, its spec, and who wants it.

    ``env`` has a value for every variable of the spec, and what else was set for the
    service. ``context`` begins the tar stream
    of the commit's files; a request that ``restores`` a release takes its image instead.
    ``cancelled`` tells whether nobody wants it any more, which counts until the switch.
    ``may_share`` tells of other services whether this one may join them on their hosts and
    directories, ``where`` the line of a wish in the Dockerfile, ``images`` what that names.
    """

    spec: ServiceSpec
    env: Mapping[str, str] = field(repr=False)
    context: Callable[[], Iterator[bytes]]
    commit: str
    branch: str
    who: str
    fingerprint: str
    action: Action = Action.PUSH
    restores: Release | None = None
    cancelled: Callable[[], bool] = never
    may_share: Callable[[ServiceName], bool] = _nobody
    where: Callable[[Wish], str] = _nowhere
    images: tuple[Use, ...] = ()

    @property
    def secrets(self) -> dict[str, str]:
        return secrets_of(self.spec, self.env)

    @classmethod
    def again(
        cls,
        release: Release,
        action: Action,
        *,
        who: str,
        fingerprint: str,
        env: Mapping[str, str] | None = None,
        cancelled: Callable[[], bool] = never,
        may_share: Callable[[ServiceName], bool] = _nobody,
    ) -> Request:
        """A request for what ``release`` was: image, spec and, unless given, variables."""
        return cls(
            spec=release.spec,
            env=release.env if env is None else env,
            context=lambda: iter(()),
            commit=release.commit,
            branch=release.branch,
            who=who,
            fingerprint=fingerprint,
            action=action,
            restores=release,
            cancelled=cancelled,
            may_share=may_share,
        )


def secrets_of(spec: ServiceSpec, env: Mapping[str, str]) -> dict[str, str]:
    """The variables of ``env`` whose values do not stand in the Dockerfile anyway."""
    stated = {each.key: each.value for each in spec.env}
    return {key: value for key, value in env.items() if stated.get(key) != value}
