"""Somebody who asks a service all the time, and notes what came."""

from __future__ import annotations

import http.client
import threading
import time
from types import TracebackType

from support.net import fetch
from support.paas import Paas

PAUSE = 0.02
"""Seconds between two requests."""


class Visitors:
    """Asks for ``http://<name>.test/`` through Traefik, from entering to leaving.

    An answer is good when it has status 200 and is one of ``pages``.
    """

    def __init__(self, paas: Paas, name: str, *pages: str) -> None:
        self._web = paas.web
        self._url = f"http://{name}.test/"
        self._pages = set(pages)
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answered = 0
        self.last = ""
        self.failures: list[str] = []

    def __enter__(self) -> Visitors:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leaving.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._leaving.is_set():
            self._ask()
            self._leaving.wait(PAUSE)

    def _ask(self) -> None:
        try:
            answer = fetch(self._url, web=self._web)
        except (OSError, http.client.HTTPException) as error:
            self._fail(repr(error))
            return
        self.last = answer.text
        if answer.status == 200 and answer.text in self._pages:
            self.answered += 1
        else:
            self._fail(f"{answer.status} {answer.text[:40]!r}")

    def _fail(self, what: str) -> None:
        self.failures.append(f"{time.strftime('%H:%M:%S')} {what}")
