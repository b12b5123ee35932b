"""Who gets in, who does not, and how it all ends."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import paramiko
import pytest
from prober import FAILURE, PK_OK, SUCCESS, load, probing
from served import Obedient, Served, host_keys, nothing_left, serving
from support.hardware import hardware_key
from support.keys import ssh_key
from support.net import wait_until
from support.stockgit import clean_env

from mypaas_git.access.keyline import Rights
from mypaas_git.access.keys import KeyFile
from mypaas_git.errors import SettingsError
from mypaas_git.ssh import patience
from mypaas_git.ssh.hostkeys import known_hosts_line
from mypaas_git.ssh.listener import Listener

DENIED = b"anybody@127.0.0.1: Permission denied (publickey).\r\n"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as running:
        yield running


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_known_key(served: Served, kind: str) -> None:
    """Each kind of key gets in, with the rights on its line, and the log says who came."""
    key = served.new_key("alice", admin=True, kind=kind)
    done = served.ssh("show", key=key)
    assert json.loads(done.stdout) == ["alice", True, ["show"]]
    assert done.stderr == b""
    (entry,) = served.logged("authenticated")
    assert entry["key"] == "alice"
    assert entry["fingerprint"] == served.keys.entries()[0].fingerprint
    assert entry["peer"].startswith("127.0.0.1:")


def test_unknown_key(served: Served) -> None:
    """A stranger gets ssh's one clear line, and the log has the key's fingerprint."""
    served.new_key("alice")
    stranger = ssh_key(served.root, "stranger")
    done = served.ssh("show", key=stranger)
    assert (done.returncode, done.stdout, done.stderr) == (255, b"", DENIED)
    wait_until(lambda: served.logged("refused"), "the log tells")
    told = subprocess.check_output(["ssh-keygen", "-lf", str(stranger)], text=True)
    assert served.logged("refused")[0]["offered"] == [told.split()[1]]


def test_no_keys_at_all(served: Served) -> None:
    """Without an authorized_keys file nobody gets in."""
    assert served.ssh("show", key=ssh_key(served.root, "alice")).stderr == DENIED


def test_expired_key(served: Served) -> None:
    """A key whose time is over is as good as none."""
    key = served.new_key("alice")
    line = served.keys.path.read_text()
    served.keys.path.write_text(f'expiry-time="20200101Z" {line}')
    assert served.ssh("show", key=key).stderr == DENIED


def test_key_that_expires(served: Served) -> None:
    """A key with time left gets in."""
    path = ssh_key(served.root, "alice")
    soon = datetime.now(timezone.utc) + timedelta(minutes=5)
    public = path.with_suffix(".pub").read_text()
    served.keys.add("alice", public, Rights(expires=soon))
    assert served.ssh("show", key=path).returncode == 0


def test_keys_change_while_the_server_runs(served: Served) -> None:
    """Added and removed keys count from the next connection on."""
    served.new_key("admin", admin=True)
    key = served.new_key("alice")
    assert served.ssh("show", key=key).returncode == 0
    served.keys.remove("alice")
    assert served.ssh("show", key=key).stderr == DENIED


def test_broken_line(served: Served) -> None:
    """A line with an option that is not ours grants nothing."""
    key = served.new_key("alice")
    line = served.keys.path.read_text()
    served.keys.path.write_text(f'command="id" {line}')
    assert served.ssh("show", key=key).stderr == DENIED


def test_keys_that_cannot_be_read(served: Served) -> None:
    """When the file is unreadable nobody gets in, and the log says why."""
    key = ssh_key(served.root, "alice")
    served.keys.path.mkdir()
    assert served.ssh("show", key=key).stderr == DENIED
    assert "authorized_keys" in served.logged("nobody can log in")[0]["reason"]


def test_passwords(served: Served) -> None:
    """T5: no other way of authentication is offered or taken."""
    served.new_key("alice")
    more = ("-o", "PreferredAuthentications=none,password,keyboard-interactive")
    assert served.ssh("show", key=None, more=more).stderr == DENIED
    with probing(served.port) as prober:
        tried = (b"2", b"me", b"ssh-connection")
        assert prober.say(*tried, b"password", False, b"secret") == FAILURE
        assert prober.say(*tried, b"none") == FAILURE
        assert prober.say(*tried, b"keyboard-interactive", b"", b"") == FAILURE
        assert prober.say(*tried, b"hostbased", b"x") == FAILURE


def test_queried_key_grants_nothing(served: Served) -> None:
    """T6: whose key was asked about does not matter, only whose signature was verified.

    A server that remembers the key of the last question takes an attacker, who may
    ask about anybody's public key and then sign with a key of their own, for
    somebody else.
    """
    admin, alice = load(served.new_key("admin", admin=True)), load(served.new_key("alice"))
    with probing(served.port) as prober:
        assert prober.query(admin) == PK_OK
        assert prober.sign(alice) == SUCCESS
        assert json.loads(prober.run("show")) == ["alice", False, ["show"]]
        prober.send(b"2", b"me", b"ssh-connection", b"publickey", False)
        prober.send(
            b"2",
            b"me",
            b"ssh-connection",
            b"publickey",
            False,
            b"ssh-ed25519",
            admin.asbytes(),
        )
        assert json.loads(prober.run("show")) == ["alice", False, ["show"]]
    with probing(served.port) as prober:
        assert prober.query(alice) == PK_OK
        assert prober.sign(admin) == SUCCESS
        assert json.loads(prober.run("show")) == ["admin", True, ["show"]]


def test_somebody_elses_signature(served: Served) -> None:
    """T6, T7: an admin's key with another key's signature lets nobody in."""
    admin, alice = load(served.new_key("admin", admin=True)), load(served.new_key("alice"))
    with probing(served.port) as prober:
        assert prober.sign(admin, signer=alice) == FAILURE
        with pytest.raises(paramiko.ChannelException):
            prober.run("show")
        assert prober.sign(alice) == SUCCESS
        assert json.loads(prober.run("show"))[0] == "alice"


def test_query_is_no_login(served: Served) -> None:
    """T6: after a question alone no channel can be opened."""
    admin = load(served.new_key("admin", admin=True))
    with probing(served.port) as prober:
        assert prober.query(admin) == PK_OK
        with pytest.raises(paramiko.ChannelException):
            prober.run("show")


def test_bad_signatures_are_counted(served: Served) -> None:
    """T7: six wrong signatures end the connection."""
    admin, other = load(served.new_key("admin")), load(ssh_key(served.root, "other"))
    with probing(served.port) as prober:
        for _ in range(6):
            assert prober.sign(admin, signer=other) == FAILURE
        wait_until(lambda: not prober.transport.is_active(), "the connection has ended")


def test_mangled_signatures(served: Served) -> None:
    """T7: signatures of no shape at all are wrong ones, not a reason to fall over."""
    keys = [load(served.new_key(kind, kind=kind)) for kind in ("ed25519", "ecdsa")]
    rsa = load(served.new_key("rsa", kind="rsa"))
    tried = (b"2", b"me", b"ssh-connection", b"publickey", True)
    with probing(served.port) as prober:
        for key in keys:
            name = key.get_name().encode()
            inner = len(name).to_bytes(4, "big") + name + b"\0\0\0\2\xff\xff"
            assert prober.say(*tried, name, key.asbytes(), inner) == FAILURE
            assert prober.say(*tried, name, key.asbytes(), b"") == FAILURE
        # SHA-1: the key is known, the algorithm is not.
        assert prober.say(*tried, b"ssh-rsa", rsa.asbytes(), b"") == FAILURE
        # One kind's algorithm with another kind's key.
        assert prober.say(*tried, b"rsa-sha2-512", keys[0].asbytes(), b"") == FAILURE
        assert prober.sign(keys[1]) == SUCCESS


def test_unusable_keys_come_first(served: Served) -> None:
    """T8: keys that cannot be used are passed over, however strange they look."""
    alice = load(served.new_key("alice"))
    blob = alice.asbytes()
    with probing(served.port) as prober:
        for algorithm in (
            b"sk-ssh-ed25519@openssh.com",
            b"sk-ecdsa-sha2-nistp256@openssh.com",
            b"ssh-ed25519-cert-v01@openssh.com",
            b"ssh-dss",
            b"ssh-rsa",
            b"rsa-sha2-256",
            b"ssh-mldsa-65",
            b"\xff\xfe",
            b"",
        ):
            assert prober.offer(algorithm, blob) == FAILURE
            assert prober.offer(algorithm, b"\0\0\0\x0bgarbage") == FAILURE
        assert prober.sign(alice) == SUCCESS


@contextlib.contextmanager
def agent(*keys: Path) -> Iterator[Path]:
    """A real ssh-agent that holds ``keys``; gives its socket."""
    where = keys[0].parent / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(where)], stdout=subprocess.DEVNULL)
    try:
        wait_until(where.exists, "the agent listens")
        env = {**os.environ, "SSH_AUTH_SOCK": str(where)}
        subprocess.run(["ssh-add", "-q", *map(str, keys)], env=env, check=True)
        yield where
    finally:
        process.terminate()
        process.wait(10)


def test_agent_with_many_keys(served: Served) -> None:
    """T8: stock ssh finds the right key behind ten others and four that nobody takes."""
    strangers = [ssh_key(served.root, f"other-{number}") for number in range(10)]
    useless = [hardware_key(served.root, kind, kind) for kind in ("ed25519-sk", "ecdsa-sk")]
    useless.append(ssh_key(served.root, "small", kind="rsa", bits="1024"))
    useless.append(ssh_key(served.root, "dsa", kind="dsa"))
    with agent(*useless, *strangers, served.new_key("alice")) as where:
        more = ["PubkeyAcceptedAlgorithms=+ssh-dss", f"IdentityAgent={where}"]
        more += ["IdentitiesOnly=no", "IdentityFile=none"]
        options = [part for each in more for part in ("-o", each)]
        done = served.ssh("show", key=None, more=("-o", "PubkeyAuthentication=yes", *options))
    assert done.stderr == b""
    assert json.loads(done.stdout)[0] == "alice"


def test_certificate_comes_first(served: Served) -> None:
    """T8: stock ssh that offers a certificate first still gets in with its key."""
    key, authority = served.new_key("alice"), ssh_key(served.root, "authority")
    subprocess.run(
        ["ssh-keygen", "-q", "-s", str(authority), "-I", "x", f"{key}.pub"], check=True
    )
    assert served.ssh("show", key=key).returncode == 0


def test_deadline(tmp_path: Path) -> None:
    """T1: who does not log in in time is dropped, wherever they have stopped."""
    with serving(tmp_path, login_seconds=0.3) as served, contextlib.ExitStack() as stack:
        silent = stack.enter_context(_connect(served))
        banner = stack.enter_context(_connect(served))
        banner.sendall(b"SSH-2.0-half")
        kex = stack.enter_context(_connect(served))
        kex.sendall(b"SSH-2.0-whole\r\n\0\0\1")
        prober = stack.enter_context(probing(served.port))
        assert all(_drained(sock) for sock in (silent, banner, kex))
        wait_until(lambda: not prober.transport.is_active(), "the deadline has passed")
        wait_until(lambda: len(served.logged("refused")) == 4, "the log tells")
        assert all(entry["overdue"] for entry in served.logged("refused"))


def test_drip(tmp_path: Path) -> None:
    """T1, T3: bytes that keep trickling in do not move the deadline."""
    with serving(tmp_path, login_seconds=0.3) as served, _connect(served) as sock:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() < began + 5:
                sock.sendall(b"x")
                time.sleep(0.02)
        assert time.monotonic() < began + 5


def test_deadline_ends_with_the_login(tmp_path: Path) -> None:
    """A command may run for longer than a login may take."""
    with serving(tmp_path, login_seconds=0.5) as served:
        key = served.new_key("alice")
        with served.popen("wait", key=key) as process:
            assert served.backend.running.wait(10)
            time.sleep(0.7)
            served.backend.may_end.set()
            assert process.communicate()[0] == b"ended well"


def test_too_many_connections(tmp_path: Path) -> None:
    """Beyond the limit a connection is closed at once, and later ones get in again."""
    with serving(tmp_path, max_connections=2) as served:
        key = served.new_key("alice")
        with probing(served.port) as first, probing(served.port) as second:
            assert [first.sign(load(key)), second.sign(load(key))] == [SUCCESS, SUCCESS]
            with _connect(served) as third:
                assert third.recv(10) == b""
            assert served.logged("too many connections")
        wait_until(lambda: len(served.logged("disconnected")) == 2, "the first two are gone")
        assert served.ssh("show", key=key).returncode == 0


def test_strangers_make_room(tmp_path: Path) -> None:
    """T4: who fills the door from one address loses places there, and keeps nobody out."""
    with serving(tmp_path, max_startups=10) as served, contextlib.ExitStack() as stack:
        key = served.new_key("alice")
        silent = [stack.enter_context(_connect(served)) for _ in range(30)]
        assert served.ssh("show", key=key).returncode == 0
        gone = served.logged("refused")
        assert len(gone) >= 25
        assert all(entry["crowded_out"] for entry in gone)
        for sock in silent:
            sock.settimeout(0.05)
        assert sum(map(_drained, silent)) >= 25


def test_other_addresses_keep_their_places(tmp_path: Path) -> None:
    """T4: a crowd from one address costs nobody at another a place, however long they take."""
    with serving(tmp_path, max_startups=10) as served, contextlib.ExitStack() as stack:
        slow = stack.enter_context(_connect(served, "127.0.0.2"))
        for _ in range(50):
            stack.enter_context(_connect(served))
        key = served.new_key("alice")
        more = ("-b", "127.0.0.3")
        assert served.ssh("show", key=key, more=more).returncode == 0
        assert slow.recv(100).startswith(b"SSH-2.0-")
        slow.setblocking(False)
        with contextlib.suppress(BlockingIOError):  # what is there is no end
            while True:
                assert slow.recv(65536)


def test_fifty_at_once(tmp_path: Path) -> None:
    """A CI that starts fifty jobs at the same moment gets every one of them in."""
    with serving(tmp_path) as served, contextlib.ExitStack() as stack:
        key = served.new_key("ci")
        jobs = [stack.enter_context(served.popen("exit", "0", key=key)) for _ in range(50)]
        assert [job.wait(60) for job in jobs] == [0] * 50
        assert not served.logged("refused")


def test_idle_connection(tmp_path: Path) -> None:
    """Who is logged in and runs nothing is dropped after a while, and the log says so."""
    with serving(tmp_path, idle_seconds=0.3) as served:
        key = served.new_key("alice")
        with probing(served.port) as prober:
            assert prober.sign(load(key)) == SUCCESS
            prober.transport.set_keepalive(1)  # what ssh itself says is no command
            for _ in range(5):
                prober.run("show")
                time.sleep(0.1)
            wait_until(lambda: not prober.transport.is_active(), "the server hung up")
        wait_until(lambda: served.logged("disconnected"), "the log says so")
        assert [entry["idle"] for entry in served.logged("disconnected")] == [True]


def test_command_is_not_idle(tmp_path: Path) -> None:
    """A command that says nothing for long keeps its connection."""
    with serving(tmp_path, idle_seconds=0.1) as served:
        key = served.new_key("alice")
        with served.popen("wait", key=key) as process:
            assert served.backend.running.wait(10)
            time.sleep(0.5)
            served.backend.may_end.set()
            assert process.communicate()[0] == b"ended well"


def test_no_thread_for_a_client(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system gives no thread, one client is dropped and the next is served."""
    key = served.new_key("alice")

    def refuse(_transport: object, *_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(paramiko.Transport, "start_server", refuse)
        with _connect(served) as sock:
            assert _drained(sock)
    assert served.logged("no thread for a connection")
    assert served.ssh("show", key=key).returncode == 0


def test_descriptors_are_provided_for(tmp_path: Path) -> None:
    """A soft limit that would not do for all connections is raised when it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (600, hard))
    try:
        with serving(tmp_path) as served:
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 1700
            assert not served.logged("few descriptors")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_descriptors(served: Served) -> None:
    """When descriptors run out, a client waits instead of being lost, and the log says so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client, contextlib.ExitStack() as stack:
        client.settimeout(10)
        used = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with contextlib.suppress(OSError):
            while True:
                stack.enter_context(socket.socket())
        client.connect(("127.0.0.1", served.port))
        wait_until(lambda: served.logged("cannot accept a connection"), "the log tells")
        stack.close()
        assert client.recv(100).startswith(b"SSH-2.0-")


def test_stop_waits_for_commands(served: Served) -> None:
    """A command that runs may end within the grace period, and its client reads it all."""
    key = served.new_key("alice")
    with served.popen("wait", key=key) as process:
        assert served.backend.running.wait(10)
        served.backend.may_end.set()
        served.listener.stop(grace=10)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (0, b"ended well", b"")


def test_who_stops_reading_is_left_behind(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T14: a client that leaves no room for output counts as gone after a while."""
    monkeypatch.setattr(patience, "STALL_SECONDS", 0.3)
    key = served.new_key("alice")
    with served.popen("flood", key=key) as process:
        assert served.backend.running.wait(10)
        process.send_signal(signal.SIGSTOP)
        try:
            assert served.backend.saw_gone.wait(20)
        finally:
            process.kill()


def test_stop_waits_for_no_input(served: Served) -> None:
    """A client that has more to send does not keep the server from stopping."""
    key = served.new_key("alice")
    with served.popen("take", key=key) as process:
        assert served.backend.running.wait(10)
        served.listener.stop(grace=30)
        assert served.backend.saw_gone.is_set()
        process.communicate(timeout=30)


def test_stop_is_not_held_up(served: Served) -> None:
    """A command that would run on notices the stop and ends by itself."""
    key = served.new_key("alice")
    with served.popen("wait", key=key) as process:
        assert served.backend.running.wait(10)
        served.listener.stop(grace=5)
        assert served.backend.saw_gone.is_set()
        process.communicate(timeout=30)
        assert process.returncode == 1
    with pytest.raises(ConnectionRefusedError):
        _connect(served)


def test_stop_with_half_open_connections(served: Served) -> None:
    """T1: strangers who say nothing do not delay the end."""
    with _connect(served) as sock:
        assert sock.recv(100) == b"SSH-2.0-mypaas\r\n"
        served.listener.stop(grace=30)
        assert sock.recv(100) == b""


def test_port_in_use(served: Served) -> None:
    """A port that another has is one clear error that names the setting."""
    other = Listener(("127.0.0.1", served.port), [], served.keys, served.backend)
    with pytest.raises(SettingsError, match=rf"127.0.0.1:{served.port}.*\[ssh\] listen"):
        other.start()


def test_address_of_another_host(tmp_path: Path) -> None:
    """An address that this host does not have is refused the same way."""
    other = Listener(("192.0.2.1", 0), [], KeyFile(tmp_path / "none"), Obedient())
    with pytest.raises(SettingsError, match=r"192\.0\.2\.1:0"):
        other.start()


def test_ipv6(tmp_path: Path) -> None:
    """``[::]`` listens on IPv6 and IPv4."""
    path = ssh_key(tmp_path, "alice")
    keys = KeyFile(tmp_path / "authorized_keys")
    public = path.with_suffix(".pub").read_text()
    keys.add("alice", public, Rights())
    with nothing_left():
        listener = Listener(("::", 0), host_keys(), keys, Obedient())
        listener.start()
        try:
            port = listener.address[1]
            for host in ("::1", "127.0.0.1"):
                trust = tmp_path / host.replace(":", "_")
                trust.write_text(known_hosts_line(host, port, host_keys()[0]) + "\n")
                options = ["-i", str(path), "-o", f"UserKnownHostsFile={trust}"]
                done = subprocess.run(
                    ["ssh", "-F", "none", *options, "-p", str(port), host, "show"],
                    env=clean_env(),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=20,
                    check=False,
                )
                assert done.returncode == 0, done.stderr
        finally:
            listener.stop()


def _connect(served: Served, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(
        ("127.0.0.1", served.port), timeout=10, source_address=(source, 0)
    )


def _drained(sock: socket.socket) -> bool:
    """Read until the server closes; False when it does not."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True
