"""The app that benchmarks and rolling deploys push: it tells its version, as any app might.

It runs in a container as ``/server.py`` beside a file ``/version``; the environment says how
long it boots (BOOT, seconds), where it listens (PORT), whether it is ill (ILL), and whether
it does not hear SIGTERM (DEAF).
"""

from __future__ import annotations

import os
import signal
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

VERSION = Path("/version")
SLOW = 2.0
"""Seconds that an answer to ``/slow`` takes, and all of ``/stream``."""


class Handler(BaseHTTPRequestHandler):
    """``/``, ``/slow``, ``/stream`` and POST ``/upload``, with keep-alive."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # an answer leaves in one piece

    def do_GET(self) -> None:
        if os.environ.get("ILL"):
            self.answer(503, "ill")
        elif self.path == "/stream":
            self.stream()
        else:
            if self.path == "/slow":
                time.sleep(SLOW)
            self.answer(200, version())

    def do_POST(self) -> None:
        wanted = int(self.headers["Content-Length"])
        received = 0
        while received < wanted:
            chunk = self.rfile.read(min(1 << 16, wanted - received))
            if not chunk:
                break
            received += len(chunk)
        self.answer(200, f"{version()} {received}")

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def stream(self) -> None:
        """The version twenty times, in chunks over SLOW seconds."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        line = f"{version()}\n".encode()
        for _ in range(20):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
            self.wfile.flush()
            time.sleep(SLOW / 20)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *args: object) -> None:
        """Say nothing: a line for each request is no part of what is measured."""


class Server(ThreadingHTTPServer):
    """With room for more visitors at once than a load has."""

    request_queue_size = 1024


def version() -> str:
    return VERSION.read_text().strip()


def main() -> None:
    # As process 1 it would be deaf: the kernel spares it what it has no handler for. It
    # dies at once, whatever it has in hand.
    if not os.environ.get("DEAF"):
        signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    time.sleep(float(os.environ.get("BOOT", "0")))
    Server(("", int(os.environ.get("PORT", "80"))), Handler).serve_forever()


if __name__ == "__main__":
    main()
