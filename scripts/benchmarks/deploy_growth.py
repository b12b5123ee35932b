"""How the time of a push grows with the number of other services."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deploy_verdicts import Part, progress, seconds
from support.apps import BASE, commit, make_app, web_dockerfile
from support.machine import Machine, traefik_images
from support.paas import Paas

TARGET = 1.3
PARALLEL = 4


def growth(counts: Sequence[int], rounds: int, root: Path) -> Part:
    """Push a tiny app that boots at once, beside so many others, in turns."""
    part = Part("push beside other services (an app without any boot)", ("", "push to live"))
    took: dict[int, list[float]] = {count: [] for count in counts}
    with ExitStack() as stack:
        crowds = [stack.enter_context(_crowd(count, root)) for count in counts]
        for number in range(1, rounds + 1):
            for crowd in crowds:
                took[crowd.count].append(crowd.push(number))
            progress(f"round {number} of {rounds}")
    for count in counts:
        part.rows.append((f"{count} other service{'s'[: count > 1]}", seconds(took[count])))
    turns = zip(took[counts[0]], took[counts[-1]], strict=True)
    ratio = statistics.median(many / few for few, many in turns)
    part.judge(
        f"{counts[-1]} others against {counts[0]}",
        f"{ratio:.2f} times",
        f"{TARGET:g} times",
        ratio <= TARGET,
    )
    part.raw = {str(count): took[count] for count in counts}
    return part


class _Crowd:
    """A server with ``count`` services, and one more that is pushed again and again.

    It is stopped but for its own turn: what the others do in the background is part of
    their cost, and none of anybody else's.
    """

    def __init__(self, paas: Paas, count: int) -> None:
        self._paas = paas
        self.count = count
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(self._deploy, [f"other-{n}" for n in range(1, count + 1)]))
        self._app = self._deploy("one")
        _signal(self._paas, signal.SIGSTOP)

    def push(self, number: int) -> float:
        """Seconds of a push, from git's start to its end, when the new version is live."""
        _signal(self._paas, signal.SIGCONT)
        try:
            time.sleep(2)  # what it has missed
            page = f"version {number}\n"
            commit(self._app, {"Dockerfile": self._dockerfile("one", page)})
            began = time.monotonic()
            self._paas.deploy(self._app, "one")
            took = time.monotonic() - began
            found = self._paas.get("http://one.test/").text
            if found != page:
                raise RuntimeError(f"pushed {page!r}, and {found!r} is live")
            time.sleep(2)  # the old replica goes
            return took
        finally:
            _signal(self._paas, signal.SIGSTOP)

    def _deploy(self, name: str) -> Path:
        app = make_app(self._paas.root / "apps", self._dockerfile(name, f"{name}\n"), name=name)
        self._paas.deploy(app, name)
        return app

    def _dockerfile(self, name: str, page: str) -> str:
        return web_dockerfile(f"url=http://{name}.test", "scale=1", page=page)


@contextmanager
def _crowd(count: int, root: Path) -> Iterator[_Crowd]:
    """On a machine of its own, so that the engines' containers are counted apart too."""
    began = time.monotonic()
    with Machine([BASE, *traefik_images()]) as machine:
        paas = Paas(root / f"beside-{count}", machine)
        try:
            paas.init()
            paas.start()
            crowd = _Crowd(paas, count)
            took = time.monotonic() - began
            print(f"   {count} services in place ({took:.0f} s)", flush=True)
            yield crowd
        finally:
            _signal(paas, signal.SIGCONT)
            paas.close()


def _signal(paas: Paas, number: signal.Signals) -> None:
    if paas.process is not None:
        os.kill(paas.process.pid, number)
