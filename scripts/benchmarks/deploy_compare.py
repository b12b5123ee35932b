"""Side by side on one engine: our pushes, upstream's deploys, and the least it can take."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import deploy_floor
from deploy_floor import Floor
from deploy_service import Service
from deploy_timing import Timing, timed
from deploy_upstream import Upstream
from deploy_verdicts import Part, progress, seconds
from support import rolling
from support.machine import Machine, traefik_images
from support.paas import Paas

OVER_FLOOR, OVER_RUN, TIMES = 0.7, 0.5, 10.0
"""Seconds that a push may take beyond the floor, and a rollback beyond the floor without its
build; how many times quicker than upstream a push has to be."""


@dataclass
class Runs:
    """All that was measured with one kind of app."""

    floors: list[Floor] = field(default_factory=list)
    pushes: list[Timing] = field(default_factory=list)
    rollbacks: list[Timing] = field(default_factory=list)
    upstream: list[Timing] = field(default_factory=list)


PLAIN = "plain"
KINDS: Mapping[str, bool] = {PLAIN: True, "polite": False}
"""Whether the app ignores SIGTERM. A plain ``CMD ["python3", "server.py"]`` does, as any
program without a handler for it that is process 1: the engine waits ten seconds and kills
it. The polite one dies of it at once."""


def compare(rounds: int, upstream_rounds: int, root: Path) -> Part:
    """Measure in turns, all under the same load, and judge."""
    part = Part(
        "side by side with upstream mypaas 0.5.9", ("", *(f"{kind} app" for kind in KINDS))
    )
    runs = {}
    for kind, deaf in KINDS.items():
        print(f"   a machine of its own for the {kind} app", flush=True)
        image = traefik_images()[-1]
        with Machine([rolling.IMAGE, image]) as machine:
            bench = _Bench(machine, root / kind, image, deaf)
            try:
                runs[kind] = bench.run(rounds, upstream_rounds)
            finally:
                bench.close()
    _show(part, runs)
    for kind, each in runs.items():
        _judge(part, kind, each)
        part.raw[kind] = asdict(each)
    return part


class _Bench:
    """Ours and upstream's, both serving on one machine."""

    def __init__(self, machine: Machine, root: Path, traefik: str, deaf: bool) -> None:
        self._machine = machine
        self._root = root
        self._traefik = traefik
        self._deaf = deaf
        root.mkdir(parents=True)
        self._paas = Paas(root / "ours", machine)

    def run(self, rounds: int, upstream_rounds: int) -> Runs:
        self._paas.init()
        self._paas.start()
        service = Service(self._paas, "ours", deaf=self._deaf)
        upstream = Upstream(self._machine, self._root / "upstream", "theirs", self._traefik)
        upstream.change(deaf=self._deaf)
        upstream.deploy()
        self._floor(0)  # fills the builder's cache
        runs = Runs()
        for number in range(1, rounds + 1):
            progress(f"round {number} of {rounds}")
            self._ours(service, number, runs)
            if number <= upstream_rounds:
                self._theirs(upstream, runs)
        return runs

    def close(self) -> None:
        self._paas.close()

    def _ours(self, service: Service, number: int, runs: Runs) -> None:
        with service.load() as load:
            runs.floors.append(self._floor(number))
            before = service.version
            service.change()
            runs.pushes.append(timed(load, service.version, service.push))
        with service.load() as load:
            runs.rollbacks.append(timed(load, before, service.roll_back))
        # What is rolled back to next time is the version before this one, not this one.
        service.change()
        service.push()

    def _theirs(self, upstream: Upstream, runs: Runs) -> None:
        with upstream.load() as load:
            upstream.change(deaf=self._deaf)
            runs.upstream.append(timed(load, upstream.version, upstream.deploy))

    def _floor(self, number: int) -> Floor:
        directory = self._root / "floor"
        directory.mkdir(exist_ok=True)
        rolling.write(directory, rolling.version("floor", number, deaf=self._deaf))
        return deploy_floor.on(self._machine, directory, f"floor:v{number}")


Figure = Callable[[Runs], Sequence[float]]
ROWS: Sequence[tuple[str, Figure]] = (
    ("floor: cached build, run, boot", lambda runs: [each.total for each in runs.floors]),
    ("floor without the build", lambda runs: [each.run for each in runs.floors]),
    ("two containers at once", lambda runs: [each.pair for each in runs.floors]),
    ("push: first new answer", lambda runs: [each.first for each in runs.pushes]),
    ("push: only new answers", lambda runs: [each.only for each in runs.pushes]),
    ("push: returned", lambda runs: [each.returned for each in runs.pushes]),
    ("rollback: first answer", lambda runs: [each.first for each in runs.rollbacks]),
    ("rollback: only those answers", lambda runs: [each.only for each in runs.rollbacks]),
    ("rollback: returned", lambda runs: [each.returned for each in runs.rollbacks]),
    ("upstream: first new answer", lambda runs: [each.first for each in runs.upstream]),
    ("upstream: only new answers", lambda runs: [each.only for each in runs.upstream]),
    ("upstream: returned", lambda runs: [each.returned for each in runs.upstream]),
)


def _show(part: Part, runs: Mapping[str, Runs]) -> None:
    for title, figure in ROWS:
        part.rows.append((title, *(seconds(figure(each)) for each in runs.values())))
    for what, moment in MOMENTS.items():
        ratios = [f"{_times_quicker(what, each):.1f} times" for each in runs.values()]
        part.rows.append((f"quicker than upstream, {moment}", *ratios))
    for who in ("pushes", "rollbacks", "upstream"):
        failed = [_failed(getattr(each, who)) for each in runs.values()]
        part.rows.append((f"{who}: failed requests", *failed))


def _failed(timings: Sequence[Timing]) -> str:
    failed = sum(each.failed for each in timings)
    return f"{failed} of {sum(each.requests for each in timings)}"


def _judge(part: Part, kind: str, runs: Runs) -> None:
    floor = statistics.median(each.total for each in runs.floors)
    run = statistics.median(each.run for each in runs.floors)
    push = statistics.median(each.first for each in runs.pushes)
    rollback = statistics.median(each.first for each in runs.rollbacks)
    wanted = f"floor + {OVER_FLOOR} s"
    part.judge(
        f"{kind}: push to the new answer",
        f"floor + {push - floor:.2f} s",
        wanted,
        push <= floor + OVER_FLOOR,
    )
    part.judge(
        f"{kind}: rollback to its answer",
        f"run + {rollback - run:.2f} s",
        f"run + {OVER_RUN} s",
        rollback <= run + OVER_RUN,
    )
    failed = sum(each.failed for each in (*runs.pushes, *runs.rollbacks))
    part.judge(f"{kind}: failed requests of ours", str(failed), "0", failed == 0)
    if kind == PLAIN:
        for what in ("only", "returned"):
            ratio = _times_quicker(what, runs)
            part.judge(
                f"{kind}: quicker than upstream, {MOMENTS[what]}",
                f"{ratio:.1f} times",
                f"{TIMES:g} times",
                ratio >= TIMES,
            )


MOMENTS = {
    "first": "first new answer",
    "only": "only new answers",
    "returned": "command's end",
}
"""When a deploy can be said to be done. The first new answer is shown and not judged: no
deploy is ten times quicker there, since the floor itself is not. Nor is the polite app: it
spares upstream the wait for apps that are not."""


def _times_quicker(what: str, runs: Runs) -> float:
    ours = statistics.median(getattr(each, what) for each in runs.pushes)
    return float(statistics.median(getattr(each, what) for each in runs.upstream) / ours)
