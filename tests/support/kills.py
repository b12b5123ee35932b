"""``kill -9`` at random moments of a deploy, and what became of it."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mypaas_git.names import ServiceName
from support import engine
from support.apps import commit, make_app, page_files, unique
from support.invariants import ledger_of, live_of, settled
from support.net import wait_until
from support.paas import Paas
from support.stockgit import clean_env
from support.visitors import Visitors

AGAIN = 4
"""In every so many rounds the server is killed a second time, while it recovers."""


@dataclass(frozen=True)
class Round:
    """One kill. Times are in seconds: ``moment`` from the push's begin, ``recovered`` from
    the next start until nothing was wrong any more.

    ``state`` is how far the deploy had come, ``again`` when the recovery was killed too.
    """

    number: int
    moment: float
    state: str
    again: float | None
    acknowledged: bool
    answered: int
    failures: tuple[str, ...]
    recovered: float
    wrong: tuple[str, ...]

    HEAD = (
        "  #  killed at  in            again at  acknowledged  "
        "answered  failed  recovered in  left over"
    )

    @property
    def fine(self) -> bool:
        return not self.failures and not self.wrong

    def __str__(self) -> str:
        again = "-" if self.again is None else f"{self.again:.2f} s"
        return (
            f"{self.number:3}  {self.moment:7.2f} s  {self.state:12}  {again:>8}  "
            f"{'yes' if self.acknowledged else 'no':12}  {self.answered:8}  "
            f"{len(self.failures):6}  {self.recovered:10.1f} s  "
            f"{'; '.join(self.wrong) or 'nothing'}"
        )


class Kills:
    """Rounds on one service of a running server.

    ``seed`` makes the moments, as parts of how long a deploy takes at the time.
    """

    def __init__(self, paas: Paas, directory: Path, seed: int, scale: str = "2") -> None:
        self._paas = paas
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._scale = scale
        self._name = unique("kills")
        self._app = make_app(directory, name=self._name)
        self._version = 0
        self._usual = 0.0
        for _ in range(2):
            if wrong := self._push_on():
                raise AssertionError(f"not even undisturbed: {wrong}")

    def rounds(self, count: int) -> Iterator[Round]:
        for number in range(1, count + 1):
            moment = self._random.random() * self._usual
            again = self._random.uniform(0.3, 1.5) if number % AGAIN == 0 else None
            yield self._round(number, moment, again)

    def _round(self, number: int, moment: float, again: float | None) -> Round:
        paas, name = self._paas, self._name
        pages = [self._page(self._version + more) for more in range(3)]
        wrong = []
        with Visitors(paas, name, *pages) as visitors:
            new, acknowledged = self._kill(moment)
            state = self._state(new)
            recovered, left = self._recover(again)
            live = live_of(paas, name)
            if acknowledged and (live is None or live.commit != new):
                wrong.append("what was acknowledged is lost")
            wrong += left + self._push_on()
        return Round(
            number,
            moment,
            state,
            again,
            acknowledged,
            visitors.answered,
            tuple(visitors.failures),
            recovered,
            tuple(wrong),
        )

    def _page(self, version: int) -> str:
        return f"{self._name} {version}"

    def _commit(self) -> str:
        self._version += 1
        files = page_files(self._name, self._page(self._version), self._scale)
        return commit(self._app, files)

    def _kill(self, moment: float) -> tuple[str, bool]:
        """The commit that was being pushed, and whether git says that it was."""
        new = self._commit()
        with subprocess.Popen(
            ["git", "-C", str(self._app), "push", self._paas.url(self._name), "main"],
            env=clean_env(self._paas.git_env()),
            stderr=subprocess.DEVNULL,
        ) as pushing:
            time.sleep(moment)
            self._paas.stop(signal.SIGKILL)
            return new, pushing.wait(60) == 0

    def _state(self, new: str) -> str:
        newest = ledger_of(self._paas).releases(ServiceName(self._name))[0]
        if newest.commit != new:
            return "receiving"
        if not newest.served:
            return newest.state.value
        ours = f"label=mypaas.service={self._name}"
        left = len(engine.containers(self._paas.namespace, ours)) - newest.spec.replicas
        return "live, drains" if left else "live, done"

    def _recover(self, again: float | None) -> tuple[float, list[str]]:
        """Start the server, twice if need be: how long that took, and what is wrong then."""
        self._paas.launch()
        if again is not None:
            time.sleep(again)
            self._paas.stop(signal.SIGKILL)
            self._paas.launch()
        began = time.monotonic()
        self._paas.wait_ready()
        _, wrong = settled(self._paas, self._name)
        return time.monotonic() - began, wrong

    def _push_on(self) -> list[str]:
        """What the next push finds wrong; it is killed by nobody, so its time is taken."""
        self._commit()
        began = time.monotonic()
        pushed = self._paas.push(self._app, self._name)
        if pushed.returncode:
            return [f"the next push: {pushed.stderr.splitlines()[-1]}"]
        wait_until(self._answers_the_newest, "the newest version answers")
        _, wrong = settled(self._paas, self._name)
        self._usual = time.monotonic() - began
        return wrong

    def _answers_the_newest(self) -> bool:
        answer = self._paas.get(f"http://{self._name}.test/")
        return answer.text == self._page(self._version)
