"""Places where a process can be told to kill itself, so that recovery is shown, not hoped.

``MYPAAS_FAILPOINT=switch.confirmed`` ends the process there with SIGKILL, the way that a
power cut, the kernel's memory killer or an impatient admin would.
"""

from __future__ import annotations

import os
import signal

from mypaas_git.errors import SettingsError

VARIABLE = "MYPAAS_FAILPOINT"
POINTS = (
    "receive.quarantined",  # the pack is checked and not yet part of the repository
    "receive.stored",
    "deploy.begun",  # the ledger has a row, and nothing else has happened
    "build.built",
    "create.created",  # the first container of several
    "stop.stopped",  # of a service that does not scale: the old container
    "start.started",
    "start.healthy",
    "switch.recorded",  # the ledger says that the route is about to change
    "route.written",  # and Traefik may or may not have seen it
    "switch.confirmed",
    "ledger.live",
    "retire.begun",
    "ref.unmoved",
    "ref.moved",
    "tag.set",
    "report.unsent",
    "retire.drained",
    "retire.stopped",
    "retire.removed",
    "retire.pruned",
    "remove.recorded",
    "remove.removed",
    "proxy.created",  # Traefik's successor, which is yet to be started
    "proxy.stopped",
    "proxy.renamed",
    "proxy.succeeded",
    "proxy.answers",
)
"""Every place, in the order in which a deploy comes by; at last those of another Traefik."""

_armed = os.environ.get(VARIABLE, "")


def check() -> None:
    """Raise SettingsError when the variable names a place that does not exist."""
    if _armed and _armed not in POINTS:
        raise SettingsError(f"{VARIABLE}={_armed}: there is no such place")


def reach(point: str) -> None:
    """End the process here if it was told to."""
    if _armed == point:
        os.kill(os.getpid(), signal.SIGKILL)
