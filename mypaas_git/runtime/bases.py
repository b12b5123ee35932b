"""What a build takes of other images, as far as only the engine can tell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from docker.errors import APIError

from mypaas_git.directives.images import ImageRules, Use, fault_of, uses_of_trigger
from mypaas_git.errors import BuildFailed, EngineDown, HostRefused
from mypaas_git.names import ServiceName
from mypaas_git.runtime.answer import Answer
from mypaas_git.runtime.client import Client, engine_errors, explanation
from mypaas_git.runtime.job import Job
from mypaas_git.runtime.watch import Watcher

NAMESPACE = "mypaas.namespace"


class Bases:
    """Refuses builds that take from the image of another service in ways no text shows.

    That is by the id of an image, from the services of another server on the same engine,
    and by a base image whose ONBUILD instructions do it.
    """

    def __init__(self, engine: Client, rules: ImageRules) -> None:
        self._engine = engine
        self._rules = rules

    def check(self, job: Job, *, quoted: bool) -> None:
        """Raise HostRefused, or BuildFailed for a base image that cannot be pulled.

        A base image that is missing is pulled, since the builder that did so would follow
        its instructions at once. ``quoted`` tells whether the builder takes what stands in
        heredocs for instructions.
        """
        service = job.plan.service
        for use in job.plan.images:
            data = self._engine.image(use.reference)
            if data is None and use.base and (quoted or not use.quoted):
                self._pull(use, job)
                data = self._engine.image(use.reference)
            faults = [self._platform_fault(use), self._fault(use.reference, data, service)]
            if data is not None and use.base:
                faults += self._trigger_faults(use.reference, data, service)
            for fault in filter(None, faults):
                raise HostRefused(f"Dockerfile line {use.number}: {fault}")

    def _platform_fault(self, use: Use) -> str | None:
        """A base image of another platform is another image than the one that is here."""
        if not use.platform:
            return None
        with engine_errors():
            found = self._engine.api.version()
        own = f"{found['Os']}/{found['Arch']}"
        asked = use.platform if "/" in use.platform else f"linux/{use.platform}"
        asked = asked.replace("x86_64", "amd64").replace("aarch64", "arm64")
        if asked == own or asked.startswith(f"{own}/"):
            return None
        return f"this host runs {own}, not {use.platform[:60]}; leave --platform out"

    def _fault(
        self, reference: str, data: dict[str, Any] | None, service: ServiceName
    ) -> str | None:
        fault = fault_of(reference, service, self._rules)
        if fault or data is None:
            return fault
        if _is_id(reference, data):
            return f"{reference!a} is the id of an image, which may be anybody's; name it"
        other = (data["Config"].get("Labels") or {}).get(NAMESPACE)
        if other and fault_of(reference, service, ImageRules(other, frozenset({service}))):
            return (
                f"{reference!a} is the image of a service of another server; build upon another"
            )
        return None

    def _trigger_faults(
        self, base: str, data: dict[str, Any], service: ServiceName
    ) -> Iterator[str]:
        for trigger in data["Config"].get("OnBuild") or []:
            used, unreadable = uses_of_trigger(trigger)
            names = [use.reference for use in used]
            taken = [self._fault(each, self._engine.image(each), service) for each in names]
            for fault in filter(None, [*(each.message for each in unreadable), *taken]):
                yield f"the base image {base!a} has an ONBUILD instruction: {fault}"

    def _pull(self, use: Use, job: Job) -> None:
        job.transcript.show(f"Pulling {use.reference}")
        api = self._engine.another()
        answer = Answer()
        api.hooks["response"] = [answer.begins]
        try:
            with Watcher(job.watch, answer.end), engine_errors():
                try:
                    for message in api.pull(use.reference, stream=True, decode=True):
                        if "error" in message:
                            raise _not_pulled(use, job, str(message["error"]))
                except APIError as error:
                    raise _not_pulled(use, job, explanation(error)) from error
        except EngineDown:
            job.check()  # that may be how the answer ended
            raise
        finally:
            answer.close()
            api.close()


def _is_id(reference: str, data: dict[str, Any]) -> bool:
    """Whether an image was found by its id, not by a name."""
    plain = reference.removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]+", plain):
        return False
    names = [tag.rpartition(":")[0] for tag in data.get("RepoTags") or []]
    return plain not in names and data["Id"].removeprefix("sha256:").startswith(plain)


def _not_pulled(use: Use, job: Job, said: str) -> BuildFailed:
    said = job.transcript.tell(said)
    return BuildFailed(
        f"Dockerfile line {use.number}: {use.reference} cannot be pulled: {said}"
    )
