"""How long a visitor waits for a replica that is silent, by a real Traefik."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.traefik import run_traefik, together

from mypaas_git.directives.model import ServiceSpec, Url
from mypaas_git.names import ServiceName
from mypaas_git.routing import rules


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """One that neither accepts nor refuses, as the address of a container that is gone."""
    with contextlib.ExitStack() as held:
        server = held.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(8):  # they fill its queue
            visitor = held.enter_context(socket.socket())
            visitor.setblocking(False)
            visitor.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def test_a_silent_replica_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try to connect ends after DIAL, and there are no more than ATTEMPTS."""
    monkeypatch.setattr(rules, "DIAL", "500ms")
    with silent_port() as port, run_traefik(tmp_path) as router:
        urls = (Url("http", "silent.test"),)
        spec = ServiceSpec(ServiceName("silent"), urls, port=port)
        route = rules.route(spec, ["127.0.0.1"])
        router.load(together(rules.shared(rules.USUAL), route))
        began = time.monotonic()
        assert router.ask("http", "silent.test", "/").status == 504
        assert 1.5 <= time.monotonic() - began < 10
