"""Images by the engine's own (classic) builder, its messages as plain lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, cast

import docker
from docker.errors import APIError

from mypaas_git.errors import BuildFailed, EngineDown
from mypaas_git.runtime.answer import Answer
from mypaas_git.runtime.client import TIMEOUT, Client, engine_errors, explanation
from mypaas_git.runtime.job import Job
from mypaas_git.runtime.transcript import (
    USING_CACHE,
    Lines,
    Transcript,
    dockerfile_fault,
    step_failed,
    step_refused,
)
from mypaas_git.runtime.watch import Watcher


@dataclass(frozen=True)
class Caps:
    """What the containers of a build may use: ``memory`` in bytes, ``cpus``; 0 is no cap."""

    memory: int = 0
    cpus: int = 0


class Classic:
    """Builds by the SDK. It knows no build secrets, and makes a layer of every step."""

    def __init__(self, engine: Client, caps: Caps) -> None:
        self._engine = engine
        self._caps = caps

    def build(self, job: Job) -> None:
        """Raises BuildFailed, Cancelled or EngineDown.

        The label is the builder's last step, which then comes from the cache. Format of the
        answer: Docker Engine API, "Build an image", one JSON object per message.
        """
        api = self._engine.another()
        answer = Answer()
        api.hooks["response"] = [answer.begins]
        messages = _Messages(job.transcript, _Layers(self._engine, answer, job.plan.keep))
        try:
            with Watcher(job.watch, answer.end):
                for message in self._messages(api, job):
                    messages.take(message)
        except EngineDown:
            job.check()  # that may be how the answer ended
            raise
        finally:
            answer.close()
            api.close()
        if not messages.built:
            job.check()
        messages.end()

    def _messages(self, api: docker.APIClient, job: Job) -> Iterator[Mapping[str, Any]]:
        # For the engine to take the context; its answer may pause as long as a step does.
        timeout: Any = (TIMEOUT, None)  # the stubs know only whole seconds
        with engine_errors():
            try:
                yield from api.build(
                    fileobj=cast(IO[bytes], job.context()),  # any iterable is sent in chunks
                    custom_context=True,
                    tag=job.image,
                    labels=dict([job.label]),
                    container_limits=self._limits(),
                    rm=True,
                    forcerm=True,
                    decode=True,
                    timeout=timeout,
                )
            except APIError as error:
                said = job.transcript.tell(explanation(error))
                raise BuildFailed(dockerfile_fault(said)) from error

    def _limits(self) -> Any:
        """The caps as the engine takes them; it refuses CPUs that it does not have."""
        limits: dict[str, Any] = {}
        if self._caps.memory:
            limits |= {"memory": self._caps.memory, "memswap": self._caps.memory}
        if self._caps.cpus and self._caps.cpus < self._engine.api.info()["NCPU"]:
            limits["cpusetcpus"] = f"0-{self._caps.cpus - 1}"
        return limits or None


class _Layers:
    """Tells ``keep`` the id of each image that this build has made."""

    def __init__(self, engine: Client, answer: Answer, keep: Callable[[str], None]) -> None:
        self._engine = engine
        self._answer = answer
        self._keep = keep
        self._kept: set[str] = set()

    def seen(self, layer: str) -> None:
        """The output named ``layer``, which a command can have printed as well as the builder.

        Its age tells: nothing that was there before the build is ever kept for removal.
        """
        data = self._engine.image(layer)
        if data is None or not self._answer.began or data["Id"] in self._kept:
            return
        if data["Created"][:19] >= self._answer.began:
            self._kept.add(data["Id"])
            self._keep(data["Id"])


# What only the builder's own developers want to read.
_REMOVING = r"Removing intermediate container [0-9a-f]{12}\n"
_NOISE = r" ---> (Running in )?[0-9a-f]{12}$|Removing intermediate container |Successfully "


class _Messages:
    """Turns the builder's messages into lines, and its errors into BuildFailed."""

    def __init__(self, transcript: Transcript, layers: _Layers) -> None:
        self._transcript = transcript
        self._layers = layers
        self._lines = Lines(self._line)
        self.built = False
        self._cached = False
        self._last = ""
        self._steps = (0, 0)

    def take(self, message: Mapping[str, Any]) -> None:
        # Faults of the context come, late, as the message of a failed request.
        error = message.get("error", message.get("message"))
        if error is not None:
            self._lines.end()
            raise BuildFailed(self._fault(str(error)))
        self.built = self.built or "ID" in (message.get("aux") or {})
        if "stream" in message:
            if re.fullmatch(_REMOVING, message["stream"]):
                self._lines.end()  # which a command need not have done to its last line
            self._lines.feed(message["stream"])
        elif "status" in message and not message.get("progressDetail"):
            about = f"{message['id']}: " if "id" in message else ""
            self._line(about + message["status"])

    def end(self) -> None:
        """Raise BuildFailed unless there is an image."""
        self._lines.end()
        if not self.built:
            after = self._transcript.step or "nothing"
            raise BuildFailed(f"the builder ended without an image, after {after}")

    def _line(self, line: str) -> None:
        step = self._step_of(line)
        in_label = self._steps[0] > 0 and self._steps[0] == self._steps[1]
        if in_label:
            return
        if step:
            self._last = ""
            self._transcript.begin(step)
            return
        self._layer(line)
        if not re.match(_NOISE, line):
            shown = self._transcript.show(line)
            if shown.strip() and not shown.startswith(" --->"):
                self._last = shown.strip()

    def _layer(self, line: str) -> None:
        named = re.fullmatch(r" ---> ([0-9a-f]{12})", line)
        if named and not self._cached:
            self._layers.seen(named[1])
        self._cached = line == USING_CACHE

    def _step_of(self, line: str) -> str | None:
        """The builder's own step line, counted without our label's; apps print others."""
        match = re.match(r"Step ([0-9]{1,4})/([0-9]{1,4}) : (.*)", line)
        if match is None:
            return None
        number, total = int(match[1]), int(match[2])
        before, known = self._steps
        if number != before + 1 or known not in (0, total):
            return None
        self._steps = (number, total)
        return f"Step {number}/{total - 1} : {match[3].strip()}"

    def _fault(self, said: str) -> str:
        tell, step = self._transcript.tell, self._transcript.step
        code = re.search(r"returned a non-zero code: ([0-9]+)", said)
        if code:
            return step_failed(step, code[1], self._last)
        return step_refused(step, dockerfile_fault(tell(said)))
