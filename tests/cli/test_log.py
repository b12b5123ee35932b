"""The server's own log, as an admin's terminal gets it."""

from __future__ import annotations

import subprocess
import sys

LOG = """
import logging, structlog
from mypaas_git.cli.__main__ import configure_logging
configure_logging(logging.INFO)
log = structlog.get_logger()
client = "\\x1b]0;mine\\x07\\x1b[2JSSH-2.0\\x9b31m-x\\x00"
log.info(client, client=client, error=ValueError(client), wait=0.5, known=True, key=None)
try:
    raise ValueError(client)
except ValueError:
    log.exception("unexpected")
"""


def test_no_control_character_of_a_client_is_logged() -> None:
    """Neither in a text, nor in an error, nor in a traceback, which keeps its lines."""
    done = subprocess.run(
        [sys.executable, "-c", LOG], capture_output=True, text=True, check=True
    )
    first, second = done.stderr.removesuffix("\n").split("\n")
    assert done.stderr.replace("\n", "").isprintable()
    assert " client=SSH-2.031m-x " in first
    assert " error=SSH-2.031m-x " in first
    assert first.endswith(" wait=0.5 known key=")
    assert "event=unexpected" in second
    assert "\\nValueError: SSH-2.0" in second
