"""T13: new keys in the middle of everything, whoever asks for them."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gitbackend import GitBackend
from paramiko.message import Message
from prober import SUCCESS, load, probing
from served import Served, serving
from support.net import wait_until
from support.stockgit import git, ssh_command

from mypaas_git.ssh.packets import BoundedPacketizer
from mypaas_git.ssh.transport import ServerTransport

KEXINIT = 20


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path, GitBackend(tmp_path)) as running:
        yield running


@pytest.fixture
def alice(served: Served) -> Path:
    return served.new_key("alice")


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry for each key exchange that the server has ended."""
    ended: list[object] = []
    original = ServerTransport._parse_newkeys

    def counting(self: ServerTransport, m: Message) -> None:
        original(self, m)
        ended.append(self)

    monkeypatch.setattr(ServerTransport, "_parse_newkeys", counting)
    return ended


@pytest.mark.parametrize("cipher", ["aes128-gcm@openssh.com", "aes128-ctr"])
@pytest.mark.parametrize("who", ["client", "server", "both"])
def test_both_ways(
    served: Served,
    exchanges: list[object],
    monkeypatch: pytest.MonkeyPatch,
    who: str,
    cipher: str,
) -> None:
    """Data that flows both ways arrives unchanged, whoever renews the keys, or both do."""
    if who != "client":
        monkeypatch.setattr(BoundedPacketizer, "REKEY_BYTES", 200_000)
    limit = "1G" if who == "server" else "300K"
    more = ("-o", f"RekeyLimit={limit}", "-o", f"Ciphers={cipher}")
    data = os.urandom(3_000_000)
    done = served.ssh("cat", key=served.new_key("alice"), more=more, stdin=data)
    assert done.stdout == data
    assert len(exchanges) > 2  # of which one is the first


@pytest.mark.parametrize("who", ["client", "server"])
def test_push(
    served: Served,
    exchanges: list[object],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    who: str,
) -> None:
    """A push of stock git goes through many exchanges, and every object arrives."""
    if who == "server":
        monkeypatch.setattr(BoundedPacketizer, "REKEY_BYTES", 1 << 20)
    work = tmp_path / "work"
    git(tmp_path, "init", "-q", "-b", "main", str(work))
    (work / "big").write_bytes(os.urandom(8 << 20))
    git(work, "add", "big")
    git(work, "commit", "-q", "-m", "big")
    limit = "1G" if who == "server" else "1M"
    options = [*served.options(served.new_key("alice")), "-o", f"RekeyLimit={limit}"]
    remote = f"ssh://me@127.0.0.1:{served.port}/app"
    git(work, "push", remote, "main", env=ssh_command(options))
    git(tmp_path, "clone", "-q", remote, "copy", env=ssh_command(options))
    assert (tmp_path / "copy/big").read_bytes() == (work / "big").read_bytes()
    assert len(exchanges) > 8


def test_requests_while_we_renew_keys(served: Served, alice: Path) -> None:
    """What a client asks before it has noticed that we renew keys is answered afterwards.

    The thread that reads would otherwise wait for itself to finish the exchange, until
    it gives up after half a minute and drops the connection.
    """
    with probing(served.port) as prober:
        assert prober.sign(load(alice)) == SUCCESS
        channel = prober.transport.open_session(timeout=30)
        other = prober.transport.open_session(timeout=30)
        original, order = prober.transport._handler_table[KEXINIT], list[str]()

        def late(m: Message) -> None:
            order.append("exchange")
            prober.transport._send_message(_request(b"\x62", channel.remote_chanid, "show"))
            prober.transport._send_message(_keepalive())
            prober.transport._send_message(_close(other.remote_chanid))
            time.sleep(0.1)  # the server reads them before it reads our part
            original(m)

        prober.transport._handler_table[KEXINIT] = late
        prober.transport._handler_table[82] = lambda _: order.append("kept alive")
        [connection] = served.listener._current()
        threading.Thread(target=_renew, args=[connection.transport]).start()
        output = channel.recv(1000)
        assert json.loads(output)[2] == ["show"]
        wait_until(lambda: len(order) == 2, "the other request is answered")
        assert order == ["exchange", "kept alive"]
        assert prober.run("show")


def test_too_many_requests_while_we_renew_keys(served: Served, alice: Path) -> None:
    """A client that only asks, and never does its part, does not fill the memory."""
    with probing(served.port) as prober:
        assert prober.sign(load(alice)) == SUCCESS

        def never(_: Message) -> None:
            for _number in range(2000):
                prober.transport._send_message(_keepalive())

        prober.transport._handler_table[KEXINIT] = never
        [connection] = served.listener._current()
        _renew(connection.transport)
        wait_until(lambda: not prober.transport.is_active(), "the connection has ended")


def _renew(transport: Any) -> None:
    transport._send_kex_init()


def _request(kind: bytes, channel: int, command: str) -> Message:
    message = Message()
    message.add_byte(kind)
    message.add_int(channel)
    message.add_string("exec")
    message.add_boolean(True)
    message.add_string(command)
    return message


def _keepalive() -> Message:
    message = Message()
    message.add_byte(b"\x50")
    message.add_string("keepalive@openssh.com")
    message.add_boolean(True)
    return message


def _close(channel: int) -> Message:
    message = Message()
    message.add_byte(b"\x61")
    message.add_int(channel)
    return message
