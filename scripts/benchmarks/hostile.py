"""What a thousand hostile sockets cost, and what a push notices of them.

    hostile.py [--sockets 1000] [--again RATE] [--seconds 40] [--json]

A process of its own opens the sockets from 127.0.0.1, of every kind in turn, and holds
them; with ``--again`` it replaces those that the server has closed, RATE a second at
most. Meanwhile stock git pushes from the same address. It takes about a minute and less
than 100 MB.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import paramiko
from sshserver import Served, running

from mypaas_git.ssh.patience import LOGIN_SECONDS

BANNER = b"SSH-2.0-hostile\r\n"
# What each kind says when it is connected, and then, again and again, every half second.
KINDS: dict[str, tuple[bytes, bytes]] = {
    "T1 silent": (b"", b""),
    "T1 half a banner": (b"SSH-2.0-half", b""),
    "T1 stops at KEXINIT": (BANNER, b""),
    "T1 half a KEXINIT": (BANNER + b"\0\0\4\0\x08\x14" + bytes(500), b""),
    "T1 trickles": (b"SSH-", b"x"),
    "T2 a packet of 2^31": (BANNER + (2**31).to_bytes(4, "big") + bytes(60), b""),
    "T2 a packet of 35,000": (BANNER + (35_000).to_bytes(4, "big") + bytes(30_000), b"x" * 100),
    "T3 an endless banner": (b"SSH-2.0-" + b"x" * 20_000, b"x" * 500),
    "T3 many lines": (b"hello\r\n" * 1000, b"hello\r\n" * 100),
    "T4 half-open": (b"", b""),
}
AUTHENTICATING = 40
"""So many more exchange keys, half of them offer one, and stop: this costs us cpu as well."""


class Attack:
    """The hostile side: one thread for all sockets, and a few for those that exchange keys."""

    def __init__(self, port: int, sockets: int, rate: float) -> None:
        self._address = ("127.0.0.1", port)
        self._rate = rate
        self._selector = selectors.DefaultSelector()
        self._open: dict[socket.socket, tuple[str, float]] = {}
        self._waiting = deque(list(KINDS)[number % len(KINDS)] for number in range(sockets))
        self.longest: dict[str, float] = dict.fromkeys([*KINDS, "T1 authenticating"], 0.0)
        self.connections = 0

    def run(self, seconds: float) -> None:
        threads = [
            threading.Thread(target=self._authenticate, args=[number % 2 == 0])
            for number in range(AUTHENTICATING)
        ]
        for thread in threads:
            thread.start()
        end, tick = time.monotonic() + seconds, time.monotonic()
        allowance = float(len(self._waiting))
        while time.monotonic() < end and (self._open or self._waiting):
            while self._waiting and allowance >= 1:
                allowance -= 1
                self._connect(self._waiting.popleft())
            for key, _ in self._selector.select(0.05):
                self._hear(key.fileobj)
            if time.monotonic() > tick + 0.5:
                tick += 0.5
                allowance = min(self._rate, allowance + self._rate / 2)
                self._trickle()
        for sock in list(self._open):
            self._gone(sock)
        for thread in threads:
            thread.join()

    def _connect(self, kind: str) -> None:
        sock = socket.socket()
        try:
            sock.settimeout(5)
            sock.connect(self._address)
            sock.setblocking(False)
        except OSError:
            sock.close()
            return
        self.connections += 1
        self._open[sock] = (kind, time.monotonic())
        self._selector.register(sock, selectors.EVENT_READ)
        self._say(sock, KINDS[kind][0])

    def _hear(self, sock: object) -> None:
        assert isinstance(sock, socket.socket)  # noqa: S101 - for the type checker
        try:
            ended = not sock.recv(65536)
        except BlockingIOError:
            ended = False
        except OSError:
            ended = True
        if ended:
            kind, _ = self._gone(sock)
            if self._rate:
                self._waiting.append(kind)

    def _gone(self, sock: socket.socket) -> tuple[str, float]:
        self._selector.unregister(sock)
        sock.close()
        kind, began = self._open.pop(sock)
        self.longest[kind] = max(self.longest[kind], time.monotonic() - began)
        return kind, began

    def _trickle(self) -> None:
        for sock, (kind, _) in list(self._open.items()):
            self._say(sock, KINDS[kind][1])

    def _say(self, sock: socket.socket, words: bytes) -> None:
        with contextlib.suppress(OSError):  # the end is heard when reading
            sock.send(words)

    def _authenticate(self, offers: bool) -> None:
        began = time.monotonic()
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            transport = paramiko.Transport(self._address)
            try:
                transport.start_client(timeout=30)
                if offers:
                    with contextlib.suppress(paramiko.AuthenticationException):
                        key = paramiko.ECDSAKey.generate()
                        transport.auth_publickey("me", key)
                transport.join(60)
            finally:
                transport.close()
        lasted = time.monotonic() - began
        self.longest["T1 authenticating"] = max(self.longest["T1 authenticating"], lasted)


def attack(port: int, sockets: int, rate: float, seconds: float) -> None:
    logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)
    attacker = Attack(port, sockets, rate)
    attacker.run(seconds)
    print(json.dumps([attacker.connections, attacker.longest]))


class Watch:
    """The most that the server took, looked at ten times a second."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.memory = 0.0
        self.threads = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self.memory = max(self.memory, self._served.memory)
            self.threads = max(self.threads, self._served.threads)


@dataclass(frozen=True)
class Figures:
    """Memory in MiB, times in seconds; three figures are before, at most, and afterwards."""

    connections: int
    memory: tuple[float, float, float]
    threads: tuple[int, int, int]
    descriptors: tuple[int, int]
    quiet: float
    meanwhile: float
    slowest: float
    pushes: int
    lost: int
    longest: dict[str, float]

    def show(self) -> None:
        before, most, after = self.memory
        print(f"hostile connections          {self.connections:7}")
        print(
            f"memory before, most, after   {before:7.1f} {most:7.1f} {after:7.1f} MiB: "
            f"{most - before:.1f} for strangers"
        )
        print("threads before, most, after  {:7} {:7} {:7}".format(*self.threads))
        print("descriptors before, after    {:7} {:7}".format(*self.descriptors))
        print(f"a push, quiet                {self.quiet * 1000:7.0f} ms")
        print(
            f"a push, meanwhile            {self.meanwhile * 1000:7.0f} ms: "
            f"{self.meanwhile / self.quiet:.2f} times; at most {self.slowest * 1000:.0f}; "
            f"{self.pushes} done, {self.lost} lost"
        )
        for kind, seconds in self.longest.items():
            print(f"longest: {kind:22} {seconds:5.1f} s")


def measure(served: Served, options: argparse.Namespace) -> Figures:
    served.push()
    calm = [served.push() for _ in range(7)]
    served.rest()
    memory, threads, descriptors = served.memory, served.threads, served.descriptors
    command = [sys.executable, __file__, "--attack", str(served.port)]
    command += ["--sockets", str(options.sockets), "--again", str(options.again)]
    command += ["--seconds", str(options.seconds)]
    with (
        Watch(served) as watch,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attacker,
    ):
        times, lost = push_until(served, lambda: attacker.poll() is not None)
        connections, longest = json.loads(attacker.communicate()[0])
    served.rest()
    calm += [served.push() for _ in range(7)]
    served.rest()
    return Figures(
        connections=connections,
        memory=(memory, watch.memory, served.memory),
        threads=(threads, watch.threads, served.threads),
        descriptors=(descriptors, served.descriptors),
        quiet=statistics.median(calm),
        meanwhile=statistics.median(times),
        slowest=max(times),
        pushes=len(times),
        lost=lost,
        longest=longest,
    )


def push_until(served: Served, over: Callable[[], bool]) -> tuple[list[float], int]:
    """Push again and again; how long each took, and how many were lost."""
    times, lost = [], 0
    while not over():
        try:
            times.append(served.push())
        except subprocess.CalledProcessError:
            lost += 1
        time.sleep(0.2)
    return times, lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--again", type=float, default=0, help="replacements a second")
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--login", type=float, default=LOGIN_SECONDS, help="the deadline")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--attack", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        attack(options.attack, options.sockets, options.again, options.seconds)
        return
    with (
        tempfile.TemporaryDirectory() as directory,
        running(Path(directory), options.login) as served,
    ):
        figures = measure(served, options)
    if options.json:
        print(json.dumps(asdict(figures)))
    else:
        figures.show()


if __name__ == "__main__":
    main()
