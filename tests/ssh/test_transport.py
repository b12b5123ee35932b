"""What is agreed upon, and what a hostile peer gets: a closed connection, quickly."""

from __future__ import annotations

import contextlib
import gc
import queue
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from paramiko.common import MSG_KEXINIT
from paramiko.message import Message
from prober import FAILURE, SUCCESS, load, probing
from served import Served, serving
from support.net import wait_until

from mypaas_git.ssh import transport as transport_room
from mypaas_git.ssh.login import MAX_OFFERS
from mypaas_git.ssh.patience import PatientSocket
from mypaas_git.ssh.transport import WINDOW


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as running:
        yield running


@pytest.fixture
def alice(served: Served) -> Path:
    return served.new_key("alice")


@pytest.mark.parametrize(
    "option",
    [
        "KexAlgorithms=curve25519-sha256",
        "KexAlgorithms=curve25519-sha256@libssh.org",
        "KexAlgorithms=ecdh-sha2-nistp256",
        "KexAlgorithms=ecdh-sha2-nistp521",
        "Ciphers=aes128-gcm@openssh.com",
        "Ciphers=aes256-gcm@openssh.com",
        "Ciphers=aes256-ctr",
        "MACs=hmac-sha2-256-etm@openssh.com",
        "MACs=hmac-sha2-512-etm@openssh.com",
        "HostKeyAlgorithms=ssh-ed25519",
        "HostKeyAlgorithms=ecdsa-sha2-nistp256",
        "HostKeyAlgorithms=rsa-sha2-512",
        "HostKeyAlgorithms=rsa-sha2-256",
    ],
)
def test_sound_algorithms(served: Served, alice: Path, option: str) -> None:
    """Stock ssh that insists on one of these gets it."""
    done = served.ssh("big 100000", key=alice, more=("-o", option, "-o", "Ciphers=aes128-ctr"))
    assert (done.returncode, len(done.stdout)) == (3, 100000)


@pytest.mark.parametrize(
    "option",
    [
        "KexAlgorithms=diffie-hellman-group14-sha1",
        "KexAlgorithms=diffie-hellman-group14-sha256",
        "KexAlgorithms=diffie-hellman-group16-sha512",
        "KexAlgorithms=diffie-hellman-group-exchange-sha256",
        "Ciphers=aes128-cbc",
        "Ciphers=3des-cbc",
        "MACs=hmac-sha1",
        "MACs=hmac-md5",
        "MACs=umac-64@openssh.com",
        "MACs=hmac-sha2-256",
        "HostKeyAlgorithms=ssh-rsa",
        "PubkeyAcceptedAlgorithms=ssh-rsa",
    ],
)
def test_unsound_algorithms(served: Served, option: str) -> None:
    """Stock ssh that insists on one of these is told that there is no match."""
    key = served.new_key("alice", kind="rsa")
    # GCM would make the choice of a MAC void.
    options = ("-o", option, "-o", "Ciphers=aes128-ctr", "-o", "LogLevel=INFO")
    done = served.ssh("show", key=key, more=options)
    assert done.returncode == 255
    assert re.search(rb"no matching|Permission denied", done.stderr)


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        (None, "aes128-gcm@openssh.com"),
        ("^aes256-ctr", "aes128-gcm@openssh.com"),
        ("aes128-ctr,aes256-gcm@openssh.com", "aes256-gcm@openssh.com"),
        ("aes256-ctr,aes128-ctr", "aes256-ctr"),
    ],
)
def test_the_quickest_cipher_is_chosen(
    served: Served, alice: Path, wanted: str | None, got: str
) -> None:
    """Of what stock ssh can do, whatever it likes best."""
    more = ("-vv", "-o", "LogLevel=DEBUG1", *(("-o", f"Ciphers={wanted}") if wanted else ()))
    done = served.ssh("show", key=alice, more=more)
    assert done.stderr.decode().count(f"cipher: {got} ") == 2


@pytest.mark.parametrize("name", ["libssh_0.8.9", "OpenSSH-not_really"])
def test_others_are_not_waited_for(served: Served, name: str) -> None:
    """A client may wait for our offer before it makes its own, as old ones of libssh do."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as client:
        client.sendall(f"SSH-2.0-{name}\r\n".encode())
        with client.makefile("rb") as answer:
            assert answer.readline().startswith(b"SSH-2.0-mypaas")
            assert answer.read(6)[5] == MSG_KEXINIT


def test_no_compression(served: Served, alice: Path) -> None:
    """ssh -C works, uncompressed."""
    assert served.ssh("show", key=alice, more=("-C",)).returncode == 0


def test_post_quantum(served: Served, alice: Path) -> None:
    """A client that can do ML-KEM gets it, as the first choice of both."""
    transport = paramiko.Transport(("127.0.0.1", served.port))
    try:
        transport.get_security_options().kex = ("mlkem768x25519-sha256",)
        transport.connect(username="me", pkey=load(alice))
        with transport.open_session(timeout=30) as channel:
            channel.exec_command("exit 5")
            assert channel.recv_exit_status() == 5
    finally:
        transport.close()
        transport.join(10)


def test_paramiko_as_a_client(served: Served, alice: Path) -> None:
    """paramiko's own client logs in with its strongest choice, and signs at once."""
    client = paramiko.SSHClient()
    client.load_host_keys(str(served.known_hosts))
    with client:
        client.connect(
            "127.0.0.1",
            served.port,
            key_filename=str(alice),
            look_for_keys=False,
            allow_agent=False,
        )
        _, stdout, _ = client.exec_command("exit 5")
        assert stdout.channel.recv_exit_status() == 5


@pytest.mark.parametrize(
    "opening",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"SSH-1.5-old\r\n",
        b"SSH-2.0-x\r\n" + (2**31).to_bytes(4, "big") + bytes(60),
        b"SSH-2.0-x\r\n" + (2**32 - 1).to_bytes(4, "big") + bytes(60),
        b"SSH-2.0-x\r\n" + (40_000).to_bytes(4, "big") + bytes(60),
        b"SSH-2.0-x\r\n" + bytes(64),
        b"\xff\xfe\r\n" * 200,
        b"x" * 200_000,
        b"SSH-2.0-" + b"x" * 200_000,
        # T12: a message that does not exist, before any keys.
        b"SSH-2.0-x\r\n" + b"\0\0\0\x0c\x0a\xff" + bytes(10),
    ],
    ids=[
        "http",
        "ssh1",
        "2^31",
        "2^32-1",
        "40k",
        "zeros",
        "lines",
        "line",
        "banner",
        "unknown",
    ],
)
def test_hostile_openings(served: Served, alice: Path, opening: bytes) -> None:
    """T2, T3: nonsense is dropped at once, and others are served meanwhile."""
    with (
        socket.create_connection(("127.0.0.1", served.port), timeout=30) as sock,
        contextlib.suppress(ConnectionError),
    ):
        sock.sendall(opening)
        while sock.recv(65536):
            pass
    assert served.ssh("show", key=alice).returncode == 0


def test_signature_that_ends_early(served: Served) -> None:
    """Nine bytes that claim to be a number of a megabyte cost nothing.

    paramiko would fill it up with zeros and compute for a minute, before anybody has
    logged in: the numbers of an ECDSA signature, whose key anybody may know.
    """
    key = load(served.new_key("alice", kind="ecdsa"))
    name = key.get_name().encode()
    boast = b"\0\0\0\5\0\x0f\xff\xff\1"
    signature = len(name).to_bytes(4, "big") + name + boast
    with probing(served.port) as prober:
        said = (b"2", b"me", b"ssh-connection", b"publickey", True, name, key.asbytes())
        began = time.process_time()
        assert prober.say(*said, signature) == FAILURE
        assert time.process_time() < began + 2
        assert prober.sign(key) == SUCCESS


def test_offers_are_counted(served: Served) -> None:
    """T5: somebody who goes through all the keys there are is stopped."""
    with probing(served.port) as prober:
        for number in range(MAX_OFFERS):
            assert prober.offer(b"ssh-ed25519", b"%d" % number) == FAILURE
        wait_until(lambda: not prober.transport.is_active(), "the connection has ended")


def test_budget(served: Served) -> None:
    """T4: a stranger may not send without end, whatever it is."""
    with probing(served.port) as prober:
        with contextlib.suppress(OSError, EOFError):
            for _ in range(100):
                prober.send(b"\2", bytes(2000))
        wait_until(lambda: not prober.transport.is_active(), "the connection has ended")


def test_ten_thousand_channels(served: Served, alice: Path) -> None:
    """T10: a client that asks for 10,000 channels gets ten, and costs no memory."""
    kinds: list[bytes] = []
    with probing(served.port) as prober:
        assert prober.sign(load(alice)) == SUCCESS
        for number, kind in ((91, b"opened"), (92, b"refused")):
            prober.transport._handler_table[number] = lambda _, kind=kind: kinds.append(kind)
        for number in range(10_000):
            request = Message()
            request.add_byte(b"\x5a")
            request.add_string("session")
            for each in (number, WINDOW, 32768):
                request.add_int(each)
            prober.transport._send_message(request)
        wait_until(lambda: len(kinds) == 10_000, "every request is answered")
        assert kinds.count(b"opened") == 10
        [connection] = served.listener._current()
        assert connection.transport.open_channels == 10
        assert len(connection.transport.channels_seen) == 10


def test_many_channels_one_after_another(
    served: Served, alice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of a closed channel is kept for as long as its connection lives."""
    monkeypatch.setattr(transport_room, "MAX_SEEN", 5)
    with probing(served.port) as prober:
        assert prober.sign(load(alice)) == SUCCESS
        for _ in range(30):
            assert prober.run("show")
        [connection] = served.listener._current()
        wait_until(lambda: not connection.transport.open_channels, "all are closed")
        assert len(connection.transport.channels_seen) <= 6
        gc.collect()
        assert len(connection._busy) <= 1  # the last one, which the transport still looks at


def test_channels_are_counted(served: Served, alice: Path) -> None:
    """T10: ten channels at a time, and any number one after another."""
    with probing(served.port) as prober:
        assert prober.sign(load(alice)) == SUCCESS
        channels = [prober.transport.open_session(timeout=30) for _ in range(10)]
        with pytest.raises(paramiko.ChannelException):
            prober.transport.open_session(timeout=30)
        for channel in channels:
            channel.close()
        for _ in range(30):
            assert prober.run("show")


def test_window_to_the_last_byte(served: Served, alice: Path) -> None:
    """A client may fill the window, and not send one byte more."""
    with probing(served.port) as prober:
        assert prober.sign(load(alice)) == SUCCESS
        channel = prober.transport.open_session(timeout=30)
        channel.exec_command("wait")
        channel.sendall(bytes(WINDOW))
        prober.run("show")
        assert channel.out_window_size == 0
        channel.out_window_size = 1
        channel.sendall(b"x")
        wait_until(lambda: not prober.transport.is_active(), "the connection has ended")


def test_window_is_given_back(served: Served, alice: Path) -> None:
    """A client that waits for room sends many windows full, to a slow reader as well."""
    with probing(served.port) as prober:
        assert prober.sign(load(alice)) == SUCCESS
        channel = prober.transport.open_session(timeout=30)
        channel.exec_command("sip")
        channel.sendall(bytes(5 * WINDOW))
        channel.shutdown_write()
        assert channel.recv_exit_status() == 0
        assert int(channel.recv(100)) == 5 * WINDOW


def test_window_overrun(served: Served, alice: Path) -> None:
    """T11: a client that ignores the window is dropped before it fills the memory."""
    with probing(served.port) as prober:
        assert prober.sign(load(alice)) == SUCCESS
        channel = prober.transport.open_session(timeout=30)
        channel.exec_command("wait")
        channel.out_window_size = 100 * WINDOW
        with contextlib.suppress(OSError, EOFError):
            channel.sendall(bytes(4 * WINDOW))
        wait_until(lambda: not prober.transport.is_active(), "the connection has ended")
        assert served.backend.saw_gone.wait(5)


def test_second_command_on_a_channel(served: Served, alice: Path) -> None:
    """A channel runs one command; a second request is refused."""
    with probing(served.port) as prober:
        assert prober.sign(load(alice)) == SUCCESS
        channel = prober.transport.open_session(timeout=30)
        channel.exec_command("wait")
        with pytest.raises(paramiko.SSHException):
            channel.exec_command("show")


@pytest.mark.parametrize("window", [5_000, WINDOW])
def test_exit_status_comes_last(served: Served, alice: Path, window: int) -> None:
    """All data, then the exit status, then the end and the close, however slow the reader."""
    order: list[str] = []
    with probing(served.port) as prober:
        assert prober.sign(load(alice)) == SUCCESS
        _record(prober.transport, order)
        channel = prober.transport.open_session(window_size=window, timeout=30)
        channel.set_combine_stderr(True)
        channel.exec_command("big 200000")
        received = 0
        while data := channel.recv(3_000):
            received += len(data)
        assert received == 400_000
        assert channel.recv_exit_status() == 3
        wait_until(lambda: "close" in order, "the server closes")
    assert order[-3:] == ["request", "eof", "close"]
    assert set(order[:-3]) == {"data", "errors"}


def _record(transport: Any, order: list[str]) -> None:
    """Note what the server says about channels from now on."""
    names = {94: "data", 95: "errors", 96: "eof", 97: "close", 98: "request"}
    table = dict(transport._channel_handler_table)

    def noting(number: int, name: str) -> Callable[[Any, Message], None]:
        def handle(channel: Any, message: Message) -> None:
            order.append(name)
            table[number](channel, message)

        return handle

    noted = {number: noting(number, name) for number, name in names.items()}
    transport._channel_handler_table = {**table, **noted}


def test_large_packets_from_friends(served: Served, alice: Path) -> None:
    """A command line may be longer than a stranger's packet, up to its own limit."""
    with probing(served.port) as prober:
        assert prober.sign(load(alice)) == SUCCESS
        assert len(prober.run("show " + "x" * 60_000)) > 60_000
        assert prober.run("show " + "x" * 70_000) == b""


def test_megabyte_of_a_command(served: Served, alice: Path) -> None:
    """T15: a command line that fills more than a packet ends its connection, no other."""
    with probing(served.port) as prober:
        assert prober.sign(load(alice)) == SUCCESS
        channel = prober.transport.open_session(timeout=30)
        with pytest.raises((paramiko.SSHException, OSError, EOFError)):
            channel.exec_command("show " + "x" * 1_000_000)
        wait_until(lambda: not prober.transport.is_active(), "the connection has ended")
    assert served.ssh("show", key=alice).returncode == 0


def test_unknown_message(served: Served, alice: Path) -> None:
    """T12: a message of a later version of ssh is answered as unknown (RFC 4253, 11.4)."""
    unknown: queue.Queue[int] = queue.Queue()
    with probing(served.port) as prober:
        assert prober.sign(load(alice)) == SUCCESS
        prober.transport._handler_table[3] = lambda m: unknown.put(m.get_int())
        for number in (b"\xff", b"\xc0", b"\x65"):
            message = Message()
            message.add_bytes(number + bytes(8))
            prober.transport._send_message(message)
        first = unknown.get(timeout=30)
        assert [unknown.get(timeout=30) for _ in range(2)] == [first + 1, first + 2]
        assert prober.run("show")


def test_unknown_message_from_a_stranger(served: Served) -> None:
    """T12: before the login, a message that only friends may send ends the connection."""
    with probing(served.port) as prober:
        prober.send(b"\xff")
        wait_until(lambda: not prober.transport.is_active(), "the connection has ended")


def test_new_keys_before_a_login(served: Served) -> None:
    """A stranger does not get to exchange keys again and again."""
    with probing(served.port) as prober:
        prober.transport._send_kex_init()
        wait_until(lambda: not prober.transport.is_active(), "the connection has ended")


def test_socket_options() -> None:
    """T14: small answers are not held back, and a peer that vanishes is noticed."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()),
    ):
        ours = PatientSocket(listening.accept()[0].detach(), 1)
        try:
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle, interval, count = (
                ours.getsockopt(socket.IPPROTO_TCP, option)
                for option in (
                    socket.TCP_KEEPIDLE,
                    socket.TCP_KEEPINTVL,
                    socket.TCP_KEEPCNT,
                )
            )
            assert idle + interval * count == 60
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
        finally:
            ours.release()
