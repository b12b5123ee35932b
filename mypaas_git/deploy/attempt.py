"""How far a deploy has come."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from mypaas_git.deploy.probe import Entry, Prober
from mypaas_git.directives.model import Url
from mypaas_git.ledger.model import Downtime, Release
from mypaas_git.progress import Progress


@dataclass
class Attempt:
    """What a deploy has done so far, to be taken back should it fail.

    ``switched`` is when traffic was, in seconds since the epoch.
    """

    release: Release
    before: Release | None
    out: Progress
    switching: bool = False
    closed: bool = False
    switched: float = 0.0
    created: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    down_since: float | None = None
    prober: Prober | None = None

    def watch(self, url: Url | None, entry: Entry) -> None:
        """Begin to see what visitors see, where they had anything to see before."""
        if url is not None:
            self.prober = Prober(url, entry)
            self.prober.start()

    def down(self) -> float:
        """Seconds since something was stopped for the sake of this attempt."""
        return 0.0 if self.down_since is None else time.monotonic() - self.down_since

    def seen(self, *, finished: bool = False) -> Downtime:
        """What visitors saw; ``finished`` waits for the first good answer."""
        if self.prober is None:
            return Downtime(self.release.down if finished else self.down())
        return self.prober.finish() if finished else self.prober.stop()
