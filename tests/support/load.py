"""A constant load on one service, from a process of its own, with every outcome recorded."""

from __future__ import annotations

import http.client
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from support.net import wait_until

UPLOAD = 1 << 20
CHUNKS = 20
"""An upload: so many bytes, in so many pieces over about a second."""

TIMEOUT = 15.0
"""Seconds without a byte after which a request has failed."""

QUICK = ("kept", "fresh")
"""The kinds of requests that are answered at once."""

LONGEST = 3600.0
"""Seconds after which a load ends by itself, whatever became of who started it."""


@dataclass(frozen=True)
class Outcome:
    """One request: when, of which kind, which version answered, or what was wrong.

    ``start`` and ``end`` are of the clock ``time.monotonic()``, which all processes share.
    """

    kind: str
    start: float
    end: float
    version: str
    error: str = ""

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Report:
    """What became of a load's requests."""

    outcomes: Sequence[Outcome]

    def between(self, start: float, end: float) -> Report:
        """The requests that were under way at some time between ``start`` and ``end``."""
        return Report([o for o in self.outcomes if o.end >= start and o.start <= end])

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.error]

    def counts(self) -> dict[str, int]:
        """How many requests there were of each kind."""
        return dict(Counter(outcome.kind for outcome in self.outcomes))

    def slowest(self, *kinds: str) -> float:
        """Seconds of the slowest request, of ``kinds`` if there are any."""
        found = [o.seconds for o in self.outcomes if not kinds or o.kind in kinds]
        return max(found, default=0.0)

    def versions(self) -> set[str]:
        return {outcome.version for outcome in self.outcomes if not outcome.error}

    def last_without(self, version: str) -> float | None:
        """When the last quick request began that another version answered."""
        return max(
            (
                o.start
                for o in self.outcomes
                if o.kind in QUICK and o.version != version and not o.error
            ),
            default=None,
        )

    def first_seen(self, version: str) -> float | None:
        """When the first answer of ``version`` had arrived."""
        return min(
            (o.end for o in self.outcomes if o.version == version and not o.error),
            default=None,
        )

    def reasons(self) -> dict[str, int]:
        """How often each kind of request failed for each reason."""
        return dict(Counter(f"{each.kind}: {each.error}" for each in self.failed))

    def __str__(self) -> str:
        counts = ", ".join(f"{n} {kind}" for kind, n in sorted(self.counts().items()))
        return (
            f"{len(self.failed)} of {len(self.outcomes)} requests failed ({counts}; "
            f"slowest quick one {self.slowest(*QUICK):.2f} s) {self.reasons() or ''}"
        )


class Load:
    """About a hundred requests a second to ``host`` at ``address``, while the block runs.

    Of five kinds: on kept connections, on fresh ones, answers of two seconds, uploads, and
    streamed answers. Each gives its version, as :mod:`support.webapp` does.
    """

    def __init__(self, address: tuple[str, int], host: str, directory: Path) -> None:
        self._address = address
        self._host = host
        self._file = directory / f"load-{os.getpid()}-{id(self)}.jsonl"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Load:
        ip, port = self._address
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.load", ip, str(port), self._host, str(self._file)],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,  # closed, it tells the load to end, as our death does
            start_new_session=True,
        )
        wait_until(lambda: len(self.so_far().outcomes) > 20, "the load has begun")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the load once the requests under way have ended."""
        if self._process is not None:
            process, self._process = self._process, None
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(TIMEOUT + 15) == 0, "the load generator failed"

    def so_far(self) -> Report:
        """The requests that have ended by now."""
        if not self._file.exists():
            return Report([])
        whole, _, _ = self._file.read_text().rpartition("\n")
        return Report([Outcome(**json.loads(line)) for line in whole.splitlines()])

    def sees(self, version: str) -> bool:
        """Whether ``version`` has answered by now."""
        return self.so_far().first_seen(version) is not None


class Failure(Exception):
    """What was wrong with an answer."""


class _Visitor:
    """Asks again and again, ``every`` so many seconds, as one kind of client does."""

    def __init__(
        self, address: tuple[str, int], host: str, kind: str, every: float, kept: bool
    ) -> None:
        self._address = address
        self._host = host
        self._every = every
        self._kept = kept
        self._connection: http.client.HTTPConnection | None = None
        self.kind = kind

    def visit(self, stop: threading.Event, record: Callable[[Outcome], None]) -> None:
        """Ask until told to stop."""
        asks = {"slow": self._slow, "upload": self._upload, "stream": self._stream}
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._every, time.monotonic())
            record(self._outcome(asks.get(self.kind, self._get)))
        self._hang_up()

    def _outcome(self, ask: Callable[[http.client.HTTPConnection], str]) -> Outcome:
        start = time.monotonic()
        version, error = "", ""
        try:
            version = ask(self._connected())
        except (OSError, http.client.HTTPException, Failure) as failure:
            error = f"{type(failure).__name__}: {failure}"
        if error or not self._kept:
            self._hang_up()
        return Outcome(self.kind, start, time.monotonic(), version, error)

    def _connected(self) -> http.client.HTTPConnection:
        """The kept connection, or a fresh one if the server has closed it between requests.

        Every client does that; whatever happens to a request is a failure.
        """
        kept = self._connection
        if kept is not None and (kept.sock is None or _is_readable(kept.sock.fileno())):
            self._hang_up()
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self._address, timeout=TIMEOUT)
        return self._connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _get(self, connection: http.client.HTTPConnection, path: str = "/") -> str:
        connection.request("GET", path, headers={"Host": self._host})
        return _version(_body(connection))

    def _slow(self, connection: http.client.HTTPConnection) -> str:
        return self._get(connection, "/slow")

    def _stream(self, connection: http.client.HTTPConnection) -> str:
        connection.request("GET", "/stream", headers={"Host": self._host})
        lines = _body(connection).splitlines()
        if len(lines) != 20 or len(set(lines)) != 1:
            raise Failure(f"{len(lines)} lines of a stream, {len(set(lines))} different ones")
        return _version(lines[0])

    def _upload(self, connection: http.client.HTTPConnection) -> str:
        headers = {"Host": self._host, "Content-Length": str(UPLOAD)}
        connection.request("POST", "/upload", body=_dribbled(), headers=headers)
        version, _, count = _body(connection).partition(" ")
        if count != str(UPLOAD):
            raise Failure(f"{count or 'none'} of {UPLOAD} bytes arrived")
        return _version(version)


def _dribbled() -> Iterator[bytes]:
    for _ in range(CHUNKS):
        yield bytes(UPLOAD // CHUNKS)
        time.sleep(1 / CHUNKS)
    yield bytes(UPLOAD % CHUNKS)


def _is_readable(descriptor: int) -> bool:
    """Whether something came that nobody asked for: on an idle connection, its end."""
    return bool(select.select([descriptor], [], [], 0)[0])


def _body(connection: http.client.HTTPConnection) -> str:
    answer = connection.getresponse()
    body = answer.read().decode("utf-8", "replace")
    if answer.status != 200:
        raise Failure(f"status {answer.status}")
    return body


def _version(text: str) -> str:
    if not text.startswith("v"):
        raise Failure(f"the answer {text[:20]!r}")
    return text


VISITORS = (
    # kind, how many, seconds from one request to the next, on a kept connection?
    ("kept", 5, 0.1, True),
    ("fresh", 5, 0.1, False),
    ("slow", 2, 0.25, True),
    ("slow", 2, 0.25, False),
    ("upload", 2, 0.25, True),
    ("upload", 1, 0.25, False),
    ("stream", 1, 0.25, True),
)


def generate(address: tuple[str, int], host: str, out: TextIO) -> None:
    """Let all VISITORS ask, and write their outcomes, until standard input ends."""
    stop, lock = threading.Event(), threading.Lock()

    def record(outcome: Outcome) -> None:
        line = json.dumps(asdict(outcome)) + "\n"
        with lock:
            out.write(line)
            out.flush()

    visitors = [
        _Visitor(address, host, kind, every, kept)
        for kind, count, every, kept in VISITORS
        for _ in range(count)
    ]
    threads = [
        threading.Thread(target=visitor.visit, args=(stop, record)) for visitor in visitors
    ]
    for thread in threads:
        thread.start()
    select.select([sys.stdin], [], [], LONGEST)
    stop.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    with Path(sys.argv[4]).open("w", encoding="utf-8") as file:
        generate((sys.argv[1], int(sys.argv[2])), sys.argv[3], file)
