"""Is a new replica ready to serve?"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from mypaas_git.deploy import http2
from mypaas_git.directives.model import Healthcheck, ServiceSpec
from mypaas_git.errors import Cancelled, StartFailed, Unhealthy
from mypaas_git.failpoints import reach
from mypaas_git.progress import clean_lines
from mypaas_git.runtime.base import Replica, Runtime

STEADY = 2.0
"""Seconds that a replica without urls or HEALTHCHECK must stay up to count as ready."""

FIRST_POLL, LAST_POLL, SHARE = 0.02, 0.5, 0.02
"""Seconds between two looks at a replica, and their share of the time waited so far: one
that takes 5 s to get ready is seen at most 0.1 s late."""
INSPECT = 0.2
"""Seconds between two questions to the engine, which cost more than one to the replica."""

SILENCE = 10.0
"""Seconds after which the pusher is told what a replica lacks; then after twice as many."""

CANCEL_POLL = 0.2
LOG_LINES = 20
MAX_STATUS_LINE = 4096


@dataclass(frozen=True)
class Gate:
    """What is asked of a replica before it may serve; ``None`` means no request.

    ``below`` is the status from which on an answer is a bad one. With ``h2c`` it is not
    asked for the path: gRPC has none. It is ready when it speaks HTTP/2.
    """

    probe: Healthcheck | None
    port: int = 80
    host: str = "localhost"
    below: int = 400
    h2c: bool = False


def gate_of(spec: ServiceSpec) -> Gate:
    """The gate that ``spec`` asks for.

    A url or ``mypaas.healthcheck`` means HTTP with a status of 2xx or 3xx. Where
    neither scale nor healthcheck promise a good ``/``, any answer below 500 will do.
    """
    if spec.urls and spec.protocol == "h2c":
        return Gate(Healthcheck(), spec.port, h2c=True)
    host = spec.urls[0].sample if spec.urls else "localhost"
    if spec.healthcheck is not None:
        return Gate(spec.healthcheck, spec.port, host)
    if not spec.urls:
        return Gate(None)
    return Gate(Healthcheck(), spec.port, host, 400 if spec.scale else 500)


def start_and_wait(
    runtime: Runtime,
    names: Sequence[str],
    gate: Gate,
    timeout: float,
    report: Callable[[str], None],
    *,
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Start the replicas, all at the same time, and return once each passes the gate.

    ``report`` gets a line for each that does, and some for one that takes long. Raises
    StartFailed when one does not start or exits, and Unhealthy when one is not ready after
    ``timeout`` seconds; those carry its last lines. Raises Cancelled when
    ``cancelled`` turns true.
    """
    failed = threading.Event()

    def watch(name: str) -> None:
        try:
            watched = _Watch(runtime, name, gate, timeout, failed)
            runtime.start(name)
            reach("start.started")
            seconds = watched.wait(report)
        except BaseException:
            failed.set()
            raise
        report(f"{name} healthy after {seconds:.1f} s")

    with ThreadPoolExecutor(max_workers=len(names)) as pool:
        done = [pool.submit(watch, name) for name in names]
        try:
            _wait(done, failed, cancelled)
        except BaseException:  # Ctrl-C, say: nobody waits for the outcome any more
            failed.set()
            raise
    # The one that failed first says why; the others were only told to give up.
    errors = [error for future in done if (error := future.exception()) is not None]
    errors.sort(key=lambda error: isinstance(error, _GaveUp))
    if errors:
        raise errors[0]


def _wait(
    watches: Sequence[Future[None]], failed: threading.Event, cancelled: Callable[[], bool]
) -> None:
    """Return once all have ended, or one has failed and the others soon will."""
    left = set(watches)
    while left and not failed.is_set():
        _, left = wait(left, CANCEL_POLL, return_when=FIRST_EXCEPTION)
        if left and cancelled():
            raise Cancelled("cancelled while the containers started")


class _GaveUp(Exception):
    """Another replica failed, so this one no longer matters."""


class _Watch:
    def __init__(
        self,
        runtime: Runtime,
        name: str,
        gate: Gate,
        timeout: float,
        others_failed: threading.Event,
    ) -> None:
        self._runtime = runtime
        self._name = name
        self._gate = gate
        self._timeout = timeout
        self._others_failed = others_failed
        self._started = time.monotonic()
        self._last = "no answer"
        self._replica: Replica | None = None
        self._inspected = float("-inf")

    def wait(self, report: Callable[[str], None]) -> float:
        """Return the seconds from its start until the replica was ready."""
        tell_at = SILENCE
        while not self._ready():
            if self._seconds() > self._timeout:
                raise self._unhealthy()
            if self._seconds() > tell_at:
                report(f"{self._name} not ready after {tell_at:g} s: {self._last}")
                tell_at *= 2
            pause = min(LAST_POLL, max(FIRST_POLL, self._seconds() * SHARE))
            if self._others_failed.wait(pause):
                raise _GaveUp
        return self._seconds()

    def _ready(self) -> bool:
        replica = self._inspect()
        if self._gate.probe is not None:
            return self._answers(self._gate.probe, replica)
        if replica.health is not None:
            self._last = f"its HEALTHCHECK says {replica.health}"
            if replica.health == "unhealthy":
                raise self._unhealthy()
            return replica.health == "healthy"
        return self._seconds() >= STEADY

    def _inspect(self) -> Replica:
        """What the engine says of it, a moment ago at most. Raises StartFailed."""
        replica = self._replica
        if replica and replica.address and time.monotonic() - self._inspected < INSPECT:
            return replica
        replica = self._runtime.inspect(self._name)
        if replica is None or replica.state not in ("created", "running"):
            raise exited(self._runtime, self._name, replica, self._seconds())
        self._replica, self._inspected = replica, time.monotonic()
        return replica

    def _answers(self, probe: Healthcheck, replica: Replica) -> bool:
        if replica.address is None:
            return False
        address = replica.address, self._gate.port
        try:
            if self._gate.h2c:
                http2.greet(address, probe.timeout)
                return True
            status = ask(address, probe, self._gate.host)
        except (OSError, ValueError) as error:
            self._last = _why(error)
            return False
        self._last = f"status {status}"
        return 200 <= status < self._gate.below

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _unhealthy(self) -> Unhealthy:
        probe = self._gate.probe
        if probe is None:
            what = f"{self._name} did not get healthy in {self._seconds():.0f} s ({self._last})"
        else:
            wanted, missing = f"gave no good answer to GET {probe.path}", "healthcheck"
            if self._gate.h2c:
                wanted, missing = "did not speak HTTP/2 without TLS", "protocol"
            what = (
                f"{self._name} {wanted} on port "
                f"{self._gate.port} within {self._timeout:g} s (last: {self._last}); "
                f"does it listen on 0.0.0.0:{self._gate.port}, "
                f"or is `# mypaas.port` or `# mypaas.{missing}` wrong or missing?"
            )
        return Unhealthy(what, details=_last_lines(self._runtime, self._name))


def exited(
    runtime: Runtime, name: str, replica: Replica | None, seconds: float | None = None
) -> StartFailed:
    """The error for a replica that does not run any more, with its last words."""
    lines = _last_lines(runtime, name)
    code = f" with code {replica.exit_code}" if replica else ""
    after = "" if seconds is None else f" after {seconds:.1f} s"
    said = f": {lines[-1].strip()}" if lines else " and printed nothing"
    if replica and replica.out_of_memory:
        said = ": it took more memory than `# mypaas.maxmem` allows"
    return StartFailed(f"{name} exited{code}{after}{said}", details=lines)


def ask(
    address: tuple[str, int], probe: Healthcheck, host: str, *, secure: bool = False
) -> int:
    """The status of a GET, all of it within ``probe.timeout`` seconds.

    Only the first line of the answer is read (RFC 9112, 4): an app that dribbles, or
    never ends, holds nobody up. Raises OSError, or ValueError for what is not HTTP.
    ``secure`` asks over TLS, with whatever certificate.
    """
    deadline = time.monotonic() + probe.timeout
    request = (
        f"GET {probe.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: mypaas-healthcheck\r\n"
        f"Accept: */*\r\nConnection: close\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(
            socket.create_connection(address, timeout=probe.timeout)
        )
        if secure:
            connection = stack.enter_context(
                _unverified().wrap_socket(connection, server_hostname=host)
            )
        connection.sendall(request.encode("ascii"))
        answer = b""
        while b"\n" not in answer and len(answer) < MAX_STATUS_LINE:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = connection.recv(MAX_STATUS_LINE)
            if not chunk:
                raise ValueError("the connection was closed without an answer")
            answer += chunk
    match = re.match(rb"HTTP/1\.[01] ([0-9]{3})[ \r\n]", answer)
    if match is None:
        raise ValueError("the answer is not HTTP")
    return int(match[1])


def _unverified() -> ssl.SSLContext:
    """A new host has no certificate that anybody could check, and this is not about it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _last_lines(runtime: Runtime, name: str) -> list[str]:
    text = b"".join(runtime.logs(name, tail=LOG_LINES))
    return [line for line in clean_lines(text.decode("utf-8", "replace")) if line.strip()]


def _why(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return type(error).__name__ if not str(error) else clean_lines(str(error))[0]
