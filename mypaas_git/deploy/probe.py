"""What visitors see while a release goes live, by asking as they do: through the proxy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mypaas_git.deploy.health import ask
from mypaas_git.directives.model import Healthcheck, ServiceSpec, Url
from mypaas_git.errors import MypaasError
from mypaas_git.ledger.model import Downtime, Release

PAUSE = 0.025
"""Seconds between two probes, or as long as the last one took: a slow app gets few."""
TIMEOUT = 5.0
SETTLE = 1.0
"""Seconds that the first good answer after a switch may take."""
FIRST = 1.0
"""Seconds that the first answer of all is waited for."""
STUCK = 0.3
"""Seconds, beside twice what the slowest took, after which no answer is a bad one."""
GATEWAY_ERRORS = frozenset({404, 502, 503, 504})
"""What the proxy itself answers where it finds no service, or none that answers."""

Entry = Callable[[str], "tuple[str, int]"]
"""From ``http`` or ``https`` to where the proxy listens for it on this host."""


@dataclass(frozen=True)
class Probe:
    """One request: when it began and ended, in monotonic seconds, and what came."""

    began: float
    ended: float
    status: int | None


class Prober:
    """Asks for ``url`` over and over in a thread of its own, from ``start`` to ``finish``."""

    def __init__(self, url: Url, entry: Entry) -> None:
        self._url = url
        self._what = Healthcheck(url.path, timeout=TIMEOUT)
        self._entry = entry
        self._address: tuple[str, int] | None = None
        self._probes: list[Probe] = []
        # When the probe began that is still waiting for its answer.
        self._waiting: float | None = None
        self._lock = threading.Lock()
        self._asked = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)

    def start(self) -> None:
        """Begin. What the app says before anything is changed is waited for: it is what
        later answers are held against."""
        self._thread.start()
        self._asked.wait(FIRST)

    def finish(self) -> Downtime:
        """Ask until there is a good answer, end, and say what was seen.

        The thread may still wait for whoever has gone away meanwhile.
        """
        deadline = time.monotonic() + SETTLE
        while True:
            probe = self._ask()
            with self._lock:
                self._probes.append(probe)
                good = not self._failed(probe)
            if good or time.monotonic() > deadline:
                return self.stop()
            time.sleep(PAUSE)

    def stop(self) -> Downtime:
        """End at once and say what was seen."""
        self._stopping.set()
        with self._lock:
            if self._is_stuck():
                self._probes.append(Probe(self._waiting or 0, time.monotonic(), None))
            return self._seen()

    def _is_stuck(self) -> bool:
        """Whether a probe has waited for much longer than any before: it leads nowhere."""
        if self._waiting is None:
            return False
        slowest = max((each.ended - each.began for each in self._probes), default=0.0)
        return time.monotonic() - self._waiting > STUCK + 2 * slowest

    def _failed(self, probe: Probe) -> bool:
        """What the app said before anything was changed is no fault of the deploy."""
        before = self._probes[0].status
        return probe.status is None or probe.status in GATEWAY_ERRORS - {before}

    def _seen(self) -> Downtime:
        probes = sorted(self._probes, key=lambda probe: probe.began)
        failed = [self._failed(each) for each in probes]
        return Downtime(seconds_down(probes, failed), len(failed), sum(failed))

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._waiting = time.monotonic()
            probe = self._ask()
            with self._lock:
                self._waiting = None
                if not self._stopping.is_set():
                    self._probes.append(probe)
            self._asked.set()
            self._stopping.wait(max(PAUSE, probe.ended - probe.began))

    def _ask(self) -> Probe:
        began = time.monotonic()
        status = None
        try:
            self._address = self._address or self._entry(self._url.scheme)
            secure = self._url.scheme == "https"
            status = ask(self._address, self._what, self._url.sample, secure=secure)
        except (OSError, ValueError, MypaasError):
            pass
        return Probe(began, time.monotonic(), status)


def seconds_down(probes: Sequence[Probe], failed: Sequence[bool]) -> float:
    """From the begin of each failed probe to the end of the next good one, in all."""
    down, since = 0.0, None
    for probe, bad in zip(probes, failed, strict=True):
        if bad:
            since = probe.began if since is None else since
        elif since is not None:
            down += probe.ended - since
            since = None
    return down if since is None else down + probes[-1].ended - since


def url_to_probe(spec: ServiceSpec, before: Release | None) -> Url | None:
    """An address that the service had before and has again; None when there is none."""
    if before is None:
        return None
    return next((url for url in spec.urls if url in before.spec.urls), None)
