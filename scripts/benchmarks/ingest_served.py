"""The server that is measured: the real one, less Traefik and whatever only deploys need.

    ingest_served.py HOME PORT PUBLIC_KEY_FILE

Serves the repositories of HOME by ssh on 127.0.0.1:PORT until SIGTERM. Everything
between the socket and the stored tag is what ``mypaas server start`` runs.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from pathlib import Path

from mypaas_git.access.keyline import Rights
from mypaas_git.app import App
from mypaas_git.cli.__main__ import configure_logging
from mypaas_git.server import Front
from mypaas_git.settings import from_dict
from mypaas_git.ssh.hostkeys import ensure_host_keys
from mypaas_git.ssh.listener import Listener


def main(home: str, port: str, public_key: str) -> None:
    """Serve until told to stop."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    configure_logging(logging.INFO)
    app = App(from_dict(Path(home), {"ssh": {"listen": f"127.0.0.1:{port}"}}))
    if not app.keys.entries():
        text = Path(public_key).read_text("utf-8")
        app.keys.add("bench", text, Rights(admin=True))
    app.workers.start()
    address = app.settings.ssh.listen
    listener = Listener(
        (address.host, address.port),
        ensure_host_keys(app.home.host_keys),
        app.keys,
        Front(app),
    )
    listener.start()
    stop.wait()
    listener.stop(1.0)
    app.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
