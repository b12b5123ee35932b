"""How long it takes to be let in: one ssh client alone, and fifty at once."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from ingest_peers import Peer, peers
from ingest_pushes import Runs
from ingest_usage import usage
from support.stockgit import clean_env

SECONDS = 60
# ssh runs this as soon as it is logged in; $PPID is ssh itself.
_LEAVE = ["-N", "-o", "PermitLocalCommand=yes", "-o", "LocalCommand=kill -TERM $PPID"]


def measure(root: Path, at_once: int, rounds: int, deadline: float) -> Mapping[str, Runs]:
    """Log in ``at_once`` times at once, in at most ``rounds`` rounds, to each server in turns.

    From the start of the clients to the moment at which the last one is logged in.
    """
    results: dict[str, Runs] = defaultdict(Runs)
    with peers(root) as servers:
        for number in range(rounds):
            if number and time.monotonic() > deadline:
                break
            for name, peer in servers.items():
                with usage(peer.pid) as used:
                    start = time.monotonic()
                    _log_in(peer, at_once)
                    results[name].walls.append(time.monotonic() - start)
                    time.sleep(0.05)  # for what is left of the connections to end
                results[name].cpus.append(used.cpu)
                results[name].peaks.append(used.peak)
    return results


def _log_in(peer: Peer, at_once: int) -> None:
    clients = [
        subprocess.Popen(
            [*peer.login, *_LEAVE],
            env=clean_env(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for _ in range(at_once)
    ]
    for client in clients:
        _, said = client.communicate(timeout=SECONDS)
        if client.returncode != -signal.SIGTERM:
            raise RuntimeError(f"a login failed: {client.returncode} {said!r}")
