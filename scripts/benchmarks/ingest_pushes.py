"""Pushes by stock git, to each server in turns, with a clock beside them."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median

from ingest_peers import Peer, peers
from ingest_usage import descendants, usage
from ingest_workloads import OURS, Variant, Workload
from support.stockgit import clean_env, git

TAG = "refs/tags/pushed"
"""Our server stores a tag without deploying anything."""
BASE = "base"
SECONDS = 300


@dataclass
class Runs:
    """What pushes took: seconds on the wall, seconds of the server's cpu, bytes of memory."""

    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    @property
    def wall(self) -> float:
        return median(self.walls)

    @property
    def cpu(self) -> float:
        """The mean: the kernel counts in hundredths, which of a tiny push is too coarse."""
        return fmean(self.cpus)

    @property
    def peak(self) -> int:
        return max(self.peaks)


def measure(
    workload: Workload, source: Path, root: Path, rounds: int, deadline: float
) -> Mapping[str, Runs]:
    """Push ``source`` in at most ``rounds`` rounds, of which all begin before ``deadline``.

    The first one does in any case. Both servers are new, with an empty ``root``.
    """
    results: dict[str, Runs] = defaultdict(Runs)
    with peers(root) as servers:
        if workload.base:
            for peer in servers.values():
                peer.prepare(BASE, {}, None)
                push(peer, source, workload.base, [BASE])
        # Turned by one each time, so that nobody always comes after the same other.
        order = list(workload.variants)
        for number in range(rounds):
            if number and time.monotonic() > deadline:
                break
            for variant in order:
                _run(workload, variant, servers[variant.peer], source, results[variant.name])
            order = [*order[1:], order[0]]
    return results


def _run(workload: Workload, variant: Variant, peer: Peer, source: Path, runs: Runs) -> None:
    names = [f"pushed-{number}" for number in range(workload.at_once)]
    for name in names:
        peer.prepare(name, variant.config, BASE if workload.base else None)
    with usage(peer.pid) as used:
        start = time.monotonic()
        push(peer, source, "main", names)
        runs.walls.append(time.monotonic() - start)
        _wait_idle(peer, variant)
    runs.cpus.append(used.cpu)
    runs.peaks.append(used.peak)
    for name in names:
        _verify(source, peer.path(name))
        shutil.rmtree(peer.path(name))


def push(peer: Peer, source: Path, branch: str, names: list[str]) -> None:
    """Push ``branch`` to all of ``names`` at once."""
    tag = f"{TAG}-{branch}"
    clients = [
        subprocess.Popen(
            ["git", "push", "-q", peer.url(name), f"{branch}:{tag}"],
            cwd=source,
            env=clean_env(peer.env),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for name in names
    ]
    for client in clients:
        _, said = client.communicate(timeout=SECONDS)
        if client.returncode != 0:
            raise RuntimeError(f"a push failed: {said.decode('utf-8', 'replace')}")


def _wait_idle(peer: Peer, variant: Variant) -> None:
    """Let sshd's children end, whose cpu time counts when they were waited for."""
    end = time.monotonic() + 5
    while variant is not OURS and descendants(peer.pid) and time.monotonic() < end:
        time.sleep(0.002)


def _verify(source: Path, received: Path) -> None:
    """Raise unless the very commit was stored with all that belongs to it."""
    if (
        git(received, "rev-parse", f"{TAG}-main").stdout
        != git(source, "rev-parse", "main").stdout
    ):
        raise RuntimeError(f"another commit than the pushed one is in {received}")
    # Walks everything, and fails at the first object that is missing.
    git(received, "rev-list", "--objects", "--quiet", f"{TAG}-main")
