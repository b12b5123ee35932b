"""Is there anybody who would answer a service's visitors?"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from mypaas_git.runtime.base import Replica

CONNECT = 0.2
"""Seconds after which a replica that neither accepts nor refuses a connection is busy."""


def answers(replicas: Sequence[Replica], port: int, *, sure: bool) -> bool:
    """Whether one of ``replicas`` runs and, unless we are ``sure``, accepts a connection.

    One that was started a moment ago is always tried: what runs in it may have yet to boot.
    """
    return any(
        each.running and ((sure and not each.young) or _accepts(each, port))
        for each in replicas
    )


def _accepts(replica: Replica, port: int) -> bool:
    """Whether connections are not refused; who is slow to accept them is busy, not away."""
    if replica.address is None:
        return False
    try:
        socket.create_connection((replica.address, port), timeout=CONNECT).close()
    except TimeoutError:
        return True
    except OSError:
        return False
    return True
