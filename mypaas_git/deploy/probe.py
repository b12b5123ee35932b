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
        self._secure = url.scheme == "https"
        self._entry = entry
        self._probes: list[Probe] = []
        self._stopping = threading.Event()
        self._answered = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> Downtime:
        """Wait for a good answer to a request from now on, end, and say what was seen."""
        now = time.monotonic()
        with self._answered:
            self._answered.wait_for(lambda: self._good_since(now), SETTLE)
        return self.stop()

    def stop(self) -> Downtime:
        """End at once and say what was seen."""
        self._stopping.set()
        with self._answered:
            return self._seen()

    def _good_since(self, moment: float) -> bool:
        last = self._probes[-1] if self._probes else None
        return last is not None and last.began >= moment and not self._failed(last)

    def _failed(self, probe: Probe) -> bool:
        """What the app said before anything was changed is no fault of the deploy."""
        before = self._probes[0].status
        return probe.status is None or probe.status in GATEWAY_ERRORS - {before}

    def _seen(self) -> Downtime:
        failed = [self._failed(each) for each in self._probes]
        return Downtime(seconds_down(self._probes, failed), len(failed), sum(failed))

    def _run(self) -> None:
        address: tuple[str, int] | None = None
        while not self._stopping.is_set():
            began = time.monotonic()
            status = None
            try:
                address = address or self._entry(self._url.scheme)
                status = ask(address, self._what, self._url.host, secure=self._secure)
            except (OSError, ValueError, MypaasError):
                pass
            ended = time.monotonic()
            with self._answered:
                if not self._stopping.is_set():
                    self._probes.append(Probe(began, ended, status))
                    self._answered.notify_all()
            self._stopping.wait(max(PAUSE, ended - began))


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
