"""Images by the engine's own (classic) builder, its output as plain lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any, cast

import docker
from docker.errors import APIError

from mypaas_git.errors import BuildFailed
from mypaas_git.progress import MAX_LINE, clean
from mypaas_git.runtime.client import engine_errors, explanation


def build(
    api: docker.APIClient,
    context: Iterable[bytes],
    image: str,
    label: tuple[str, str],
    log: Callable[[str], None],
) -> None:
    """Build the tar stream ``context`` as ``image``; its output goes to ``log`` line by line.

    ``label`` is a name and a value that is the same for every build: the builder makes
    it a last step, which then comes from the cache.
    Raises BuildFailed naming the step and what it said. Format of the answer:
    Docker Engine API, "Build an image", one JSON object per message.
    """
    output = _Output(log)
    for message in _messages(api, context, image, label):
        output.take(message)
    output.end()
    output.check()


def _messages(
    api: docker.APIClient, context: Iterable[bytes], image: str, label: tuple[str, str]
) -> Iterator[Mapping[str, Any]]:
    with engine_errors():
        try:
            yield from api.build(
                fileobj=cast(IO[bytes], context),  # any iterable is sent in chunks
                custom_context=True,
                tag=image,
                labels=dict([label]),
                rm=True,
                forcerm=True,
                decode=True,
                timeout=None,
            )
        except APIError as error:
            raise BuildFailed(_dockerfile_fault(_short(explanation(error), 400))) from error


# What only the builder's own developers want to read.
_NOISE = r" ---> (Running in )?[0-9a-f]{12}$|Removing intermediate container |Successfully "


class _Output:
    """Turns the builder's messages into lines, and its errors into BuildFailed."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._built = False
        self._partial = ""
        self._step = ""
        self._last = ""
        self._steps = (0, 0)

    def take(self, message: Mapping[str, Any]) -> None:
        # Faults of the context come, late, as the message of a failed request.
        error = message.get("error", message.get("message"))
        if error is not None:
            self.end()
            raise BuildFailed(self._fault(str(error)))
        self._built = self._built or "ID" in (message.get("aux") or {})
        if "stream" in message:
            *lines, self._partial = (self._partial + message["stream"]).split("\n")
            for line in lines:
                self._line(line)
            if len(self._partial) > MAX_LINE:  # no end of it in sight
                self.end()
        elif "status" in message and not message.get("progressDetail"):
            about = f"{message['id']}: " if "id" in message else ""
            self._line(about + message["status"])

    def check(self) -> None:
        """Raise BuildFailed unless there is an image."""
        if not self._built:
            raise BuildFailed(
                f"the builder ended without an image, after {self._step or 'nothing'}"
            )

    def end(self) -> None:
        self._line(self._partial)
        self._partial = ""

    def _line(self, raw: str) -> None:
        line = clean(raw)
        step = self._step_of(line)
        if step:
            line = self._step = step
            self._last = ""
        in_label = self._steps[0] > 0 and self._steps[0] == self._steps[1]
        if not line.strip() or in_label or re.match(_NOISE, line):
            return
        if not step and not line.startswith(" --->"):
            self._last = line.strip()
        self._log(line)

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
        code = re.search(r"returned a non-zero code: ([0-9]+)", said)
        if not code:
            fault = _dockerfile_fault(_short(said, 400))
            return f"{_short(self._step, 100)}: {fault}" if self._step else fault
        last = f" ({_short(self._last, 200)})" if self._last else ""
        return f"{_short(self._step, 100)} returned {code[1]}{last}"


def _short(text: str, length: int) -> str:
    """``text`` on one line of at most ``length`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _dockerfile_fault(said: str) -> str:
    """What is wrong with the Dockerfile itself, its line number in front."""
    match = re.search(r"parse error (?:on )?line ([0-9]+): (.*)", said, re.IGNORECASE)
    return f"Dockerfile line {match[1]}: {match[2]}" if match else said
