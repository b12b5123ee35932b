"""A small web app that says which release and which container answers."""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GREETING = "Hello, world!"
RELEASE = os.environ.get("MYPAAS_RELEASE", "no release")
CONTAINER = os.environ.get("MYPAAS_CONTAINER", "no container")


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{GREETING} This is {RELEASE}, answered by {CONTAINER}.\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


signal.signal(signal.SIGTERM, lambda *_: sys.exit())
ThreadingHTTPServer(("", int(os.environ.get("MYPAAS_PORT", "8000"))), Hello).serve_forever()
