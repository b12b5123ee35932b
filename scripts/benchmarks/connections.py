"""What connections cost: memory and cpu of the server with many of stock ssh's.

    connections.py [--idle 200] [--active 50] [--seconds 10] [--json]

Idle ones have logged in and run nothing. Active ones run a command and send it 64 KiB
five times a second. Last of all stock git pushes beside them. The clients take some 5 MB
each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sshserver import Served, running

BYTES = bytes(64 * 1024)
EVERY = 0.2


@dataclass(frozen=True)
class Figures:
    """Memory in MiB for each connection, cpu in seconds for each second."""

    idle: int
    active: int
    idle_memory: float
    active_memory: float
    idle_cpu: float
    active_cpu: float
    push: float
    push_beside: float
    threads: tuple[int, int]
    descriptors: tuple[int, int]

    def show(self) -> None:
        print(f"{self.idle} idle     {self.idle_memory:6.3f} MiB each, cpu {self.idle_cpu:.2%}")
        print(
            f"{self.active} active    {self.active_memory:6.3f} MiB each more, "
            f"cpu {self.active_cpu:.2%}, {self.active * len(BYTES) / EVERY / 2**20:.0f} MiB/s"
        )
        print(
            f"a push       {self.push * 1000:6.0f} ms alone, {self.push_beside * 1000:.0f} "
            f"beside them: {self.push_beside / self.push:.2f} times"
        )
        print("threads      {:6} before, {} afterwards".format(*self.threads))
        print("descriptors  {:6} before, {} afterwards".format(*self.descriptors))


@contextlib.contextmanager
def clients(
    served: Served, number: int, command: list[str]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many of stock ssh, logged in."""
    login = ["ssh", *served.ssh_options, "-p", str(served.port), "me@127.0.0.1"]
    before = served.descriptors
    with contextlib.ExitStack() as stack:
        processes = []
        for count in range(1, number + 1):
            process = subprocess.Popen(
                [*login, *command], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
            )
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)
            while served.descriptors < before + count - 20:  # the machine does other work too
                time.sleep(0.01)
        time.sleep(3)
        if served.descriptors != before + number:
            raise SystemExit(f"{served.descriptors - before} of {number} are connected")
        yield processes


def cpu(served: Served, seconds: float) -> float:
    before = served.cpu
    time.sleep(seconds)
    return (served.cpu - before) / seconds


def feed(processes: list[subprocess.Popen[bytes]], served: Served, seconds: float) -> float:
    """Send to all of them for a while; the share of a cpu that the server took."""
    before, began = served.cpu, time.monotonic()
    while time.monotonic() < began + seconds:
        round_began = time.monotonic()
        for process in processes:
            assert process.stdin is not None  # noqa: S101 - for the type checker
            process.stdin.write(BYTES)
            process.stdin.flush()
        time.sleep(max(0.0, EVERY - (time.monotonic() - round_began)))
    return (served.cpu - before) / (time.monotonic() - began)


def measure(served: Served, options: argparse.Namespace) -> Figures:
    alone = [served.push() for _ in range(10)]
    served.rest()
    memory, threads, descriptors = served.memory, served.threads, served.descriptors
    with clients(served, options.idle, ["-N"]):
        idle_memory = (served.memory - memory) / options.idle
        idle_cpu = cpu(served, options.seconds)
        memory = served.memory
        with clients(served, options.active, ["wait"]) as active:
            active_cpu = feed(active, served, options.seconds)
            active_memory = (served.memory - memory) / options.active
            beside = [served.push() for _ in range(10)]
    served.rest()
    return Figures(
        idle=options.idle,
        active=options.active,
        idle_memory=idle_memory,
        active_memory=active_memory,
        idle_cpu=idle_cpu,
        active_cpu=active_cpu,
        push=statistics.median(alone),
        push_beside=statistics.median(beside),
        threads=(threads, served.threads),
        descriptors=(descriptors, served.descriptors),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--idle", type=int, default=200)
    parser.add_argument("--active", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, running(Path(directory)) as served:
        figures = measure(served, options)
    if options.json:
        print(json.dumps(asdict(figures)))
    else:
        figures.show()


if __name__ == "__main__":
    main()
