"""How long it takes to make a build context of many files, against ``git archive``.

Run as a program, ``ingest_contexts.py REPOSITORY COMMIT``, it writes the context to its
standard output: the memory of a process of its own is easy to tell. Of its wall
time the start of the interpreter, which a server has behind it, does not count.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from ingest_peers import peers
from ingest_pushes import TAG, Runs, push
from support.stockgit import clean_env, git

from mypaas_git.git.repository import Repository

CHUNK = 1 << 20
READY = b"ready\n"


def measure(source: Path, root: Path, rounds: int, deadline: float) -> Mapping[str, Runs]:
    """Read both archives of what each server received, to their ends, in turns."""
    results: dict[str, Runs] = defaultdict(Runs)
    commit = git(source, "rev-parse", "main").stdout.strip()
    with peers(root) as servers:
        for name, peer in servers.items():
            peer.prepare(name, {}, None)
            push(peer, source, "main", [name])
        commands = {
            "mypaas": [sys.executable, __file__, str(servers["mypaas"].path("mypaas")), commit],
            "git": ["git", "-C", str(servers["git"].path("git")), "archive", f"{TAG}-main"],
        }
    for number in range(rounds):
        if number and time.monotonic() > deadline:
            break
        for name, command in commands.items():
            _read(command, results[name])
    return results


def _read(command: list[str], runs: Runs) -> None:
    """Read all that ``command`` writes, and note what it took."""
    read, write = os.pipe()
    start = time.monotonic()
    process = subprocess.Popen(command, env=clean_env(), stdout=write)
    os.close(write)
    if command[0] == sys.executable:
        os.read(read, len(READY))
        start = time.monotonic()
    size = 0
    while chunk := os.read(read, CHUNK):
        size += len(chunk)
    os.close(read)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0 or size < CHUNK:
        raise RuntimeError(f"{command!r} ended with {process.returncode} after {size} bytes")
    runs.walls.append(time.monotonic() - start)
    runs.cpus.append(used.ru_utime + used.ru_stime)
    runs.peaks.append(used.ru_maxrss << 10)


def main(path: str, commit: str) -> None:
    """Write the context of ``commit`` to the standard output, piece by piece."""
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    with Repository.at(Path(path)) as repository:
        for piece in repository.context(commit):
            sys.stdout.buffer.write(piece)


if __name__ == "__main__":
    main(*sys.argv[1:])
