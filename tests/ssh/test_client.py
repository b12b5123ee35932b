from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.keys import ssh_key
from support.net import free_port, wait_until
from support.sshd import Sshd

from mypaas_git.errors import ConnectionFailed, UsageError
from mypaas_git.ssh import client
from mypaas_git.ssh.client import Address, connect


@dataclass
class Someone:
    """Answers as told, and remembers what was asked."""

    agrees_to_all: bool | None = None
    phrase: str | None = None
    asked: list[str] = field(default_factory=list)

    def agrees(self, question: str) -> bool | None:
        self.asked.append(question)
        return self.agrees_to_all

    def passphrase(self, key: str) -> str | None:
        self.asked.append(key)
        return self.phrase


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    server.authorize(ssh_key(server.root, "alice"))
    server.repo("hello-world")
    with server.running():
        yield server


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, without an agent."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


@pytest.fixture
def known(sshd: Sshd, home: Path) -> Path:
    """The user's known_hosts, which lists the server."""
    path = home / ".ssh" / "known_hosts"
    path.parent.mkdir(mode=0o700)
    path.write_text("# first line\n" + sshd.known_hosts_line)
    return path


def log_in(
    sshd: Sshd,
    person: Someone | None = None,
    *,
    key: Path | None = None,
    host_key: str | None = None,
) -> None:
    """Connect, and have git list the refs of a repository."""
    with connect(address(sshd), person or Someone(), key=key, host_key=host_key) as server:
        channel = server.run("git-upload-pack '/hello-world'")
        assert channel.read(4).isalnum()
        channel.close()


def address(sshd: Sshd) -> Address:
    return Address.parse(f"root@127.0.0.1:{sshd.port}")


def alice(sshd: Sshd) -> Path:
    return sshd.root / "alice"


@pytest.mark.parametrize(
    ("text", "host", "port", "user"),
    [
        ("host", "host", 2222, "me"),
        ("paas.example.com:22", "paas.example.com", 22, "me"),
        ("bob@10.0.0.1:2200", "10.0.0.1", 2200, "bob"),
        ("[::1]", "::1", 2222, "me"),
        ("bob@[fe80::1%eth0]:22", "fe80::1%eth0", 22, "bob"),
    ],
)
def test_addresses(
    text: str, host: str, port: int, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """User and port may be left out."""
    monkeypatch.setenv("LOGNAME", "me")
    assert Address.parse(text) == Address(host, port, user)


@pytest.mark.parametrize(
    "text",
    [
        *("", "::1", "[]", "[host", "host:", "host:0", "host:65536", "host:٢٢", "host\n"),
        *("a b", "-oProxy=x", "@host", "host/x", "ssh://host"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    """Anything else is a matter of usage."""
    with pytest.raises(UsageError, match="is not a server: write "):
        Address.parse(text)


def test_a_known_host_asks_nothing(sshd: Sshd, known: Path) -> None:
    """With the key's file and a listed host, nobody is bothered."""
    person = Someone()
    log_in(sshd, person, key=alice(sshd))
    assert person.asked == []
    assert known.read_text().count("\n") == 2


def test_hashed_known_hosts_count(sshd: Sshd, known: Path) -> None:
    """A line hashed by OpenSSH names the host as well."""
    subprocess.run(["ssh-keygen", "-H", "-f", str(known)], check=True, capture_output=True)
    log_in(sshd, key=alice(sshd))


def test_an_unknown_host_is_asked_about_once(sshd: Sshd, home: Path) -> None:
    """Yes stores the key where OpenSSH finds it, and the next time nothing is asked."""
    person = Someone(agrees_to_all=True)
    log_in(sshd, person, key=alice(sshd))
    [question] = person.asked
    assert question == (
        f"127.0.0.1:{sshd.port} is not known here. "
        f"Its host key is ssh-ed25519 {sshd.fingerprint}. Trust it?"
    )
    stored = home / ".ssh" / "known_hosts"
    assert stored.read_text() == sshd.known_hosts_line
    assert stored.stat().st_mode & 0o777 == 0o600
    log_in(sshd, person, key=alice(sshd))
    assert len(person.asked) == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (False, "is not trusted: nothing was sent"),
        (None, r"nobody answers .* --host-key SHA256:"),
    ],
)
def test_an_unknown_host_is_never_trusted_silently(
    answer: bool | None, message: str, sshd: Sshd, home: Path
) -> None:
    """No, and no answer, both end it before any key is shown; nothing is stored."""
    with pytest.raises(ConnectionFailed, match=message):
        log_in(sshd, Someone(answer), key=alice(sshd))
    assert not (home / ".ssh").exists()


def test_a_fingerprint_given_in_advance_is_an_answer(sshd: Sshd, home: Path) -> None:
    """The right one is stored without a question, another one is refused."""
    log_in(sshd, key=alice(sshd), host_key=sshd.fingerprint)
    assert (home / ".ssh" / "known_hosts").read_text() == sshd.known_hosts_line
    with pytest.raises(ConnectionFailed, match="another host key than the one asked for"):
        log_in(sshd, key=alice(sshd), host_key="SHA256:" + "A" * 43)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_a_changed_host_key_is_refused_loudly(
    kind: str, sshd: Sshd, known: Path, tmp_path: Path
) -> None:
    """Nobody is asked, not even told by --host-key; the line to remove is named."""
    other = ssh_key(tmp_path, "other", kind=kind).with_suffix(".pub").read_text().split()
    known.write_text(f"# first line\n\n[127.0.0.1]:{sshd.port} {other[0]} {other[1]}\n")
    person = Someone(agrees_to_all=True)
    with pytest.raises(ConnectionFailed) as caught:
        log_in(sshd, person, key=alice(sshd), host_key=sshd.fingerprint)
    assert "HAS CHANGED" in str(caught.value)
    assert f"{known}:3" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert person.asked == []


def test_a_revoked_host_key_is_refused(sshd: Sshd, known: Path) -> None:
    """@revoked outweighs a line that allows the key."""
    known.write_text(
        sshd.known_hosts_line + "@revoked * " + sshd.known_hosts_line.split(" ", 1)[1]
    )
    with pytest.raises(ConnectionFailed, match=f"IS REVOKED at {known}:2"):
        log_in(sshd, key=alice(sshd))


def test_of_several_host_keys_the_known_one_is_asked_for(
    tmp_path: Path, home: Path, sshd: Sshd
) -> None:
    """A host that is known by its RSA key alone has not changed."""
    root = tmp_path / "two"
    root.mkdir()
    server = Sshd(root)
    rsa = ssh_key(root, "rsa_host_key", kind="rsa")
    server.authorize(alice(sshd))
    server.repo("hello-world")
    (home / ".ssh").mkdir()
    kind, blob, *_ = rsa.with_suffix(".pub").read_text().split()
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {kind} {blob}\n")
    with server.running(f"HostKey {rsa}"):
        log_in(server, key=alice(sshd))


def test_a_key_that_the_server_does_not_know(sshd: Sshd, known: Path, tmp_path: Path) -> None:
    """One line with the key's name and how to add it."""
    mallory = ssh_key(tmp_path, "mallory")
    with pytest.raises(
        ConnectionFailed, match=rf"knows none of your keys \({mallory}\).*keys add"
    ):
        log_in(sshd, key=mallory)


def test_without_any_key(sshd: Sshd, known: Path) -> None:
    """One line that says how to get one."""
    with pytest.raises(ConnectionFailed, match="there is no key to show"):
        log_in(sshd)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_default_keys_are_tried(kind: str, sshd: Sshd, known: Path) -> None:
    """Those that ssh-keygen makes, under their usual names."""
    sshd.authorize(ssh_key(known.parent, f"id_{kind}", kind=kind))
    log_in(sshd)


def test_the_agents_keys_are_tried_one_by_one(
    sshd: Sshd, known: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent holds a stranger's key and the right one; no file is needed."""
    ssh_key(tmp_path, "stranger")
    socket_path = tmp_path / "agent"
    with subprocess.Popen(
        ["ssh-agent", "-D", "-a", socket_path], stdout=subprocess.DEVNULL
    ) as agent:
        try:
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket_path))
            wait_until(socket_path.exists, "the agent listens")
            for key in (tmp_path / "stranger", alice(sshd)):
                subprocess.run(["ssh-add", "-q", str(key)], check=True, capture_output=True)
            # Its private half needs no passphrase here: the agent has it already.
            shutil.copy(alice(sshd).with_suffix(".pub"), known.parent / "id_ed25519.pub")
            log_in(sshd)
        finally:
            agent.terminate()


# paramiko leaves the socket that it could not connect to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_dead_agent_is_no_agent(
    sshd: Sshd, known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A left-over SSH_AUTH_SOCK does not matter."""
    monkeypatch.setenv("SSH_AUTH_SOCK", str(known))
    shutil.copy(alice(sshd), known.parent / "id_ed25519")
    log_in(sshd)


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
@pytest.mark.parametrize("form", ["RFC4716", "PEM"])
def test_a_passphrase_is_asked_for(
    kind: str, form: str, sshd: Sshd, known: Path, tmp_path: Path
) -> None:
    """The right one opens the key; a wrong one, and none, are one line each."""
    key = ssh_key(tmp_path, "locked", kind=kind)
    sshd.authorize(key)
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-P", "", "-N", "open sésame", "-m", form, "-f", str(key)],
        check=True,
        capture_output=True,
    )
    person = Someone(phrase="open sésame")
    log_in(sshd, person, key=key)
    assert person.asked == [str(key)]
    with pytest.raises(ConnectionFailed, match=f"this passphrase does not open the key {key}"):
        log_in(sshd, Someone(phrase="wrong"), key=key)
    with pytest.raises(ConnectionFailed, match="nobody answers: add it to the agent"):
        log_in(sshd, Someone(), key=key)


def test_what_is_no_key(sshd: Sshd, known: Path, tmp_path: Path) -> None:
    """A missing file, a public key and a text are one line each."""
    with pytest.raises(ConnectionFailed, match=r"cannot read the key .*No such file"):
        log_in(sshd, key=tmp_path / "missing")
    with pytest.raises(ConnectionFailed, match=r"alice\.pub is no private key"):
        log_in(sshd, key=alice(sshd).with_suffix(".pub"))


def test_nobody_listens() -> None:
    """A refused connection and an unknown host say so."""
    for host, why in (("127.0.0.1", "Connection refused"), ("no-such-host.invalid", "")):
        with (
            pytest.raises(ConnectionFailed, match=f"cannot reach {host}:[0-9]+: {why}"),
            connect(Address(host, free_port(), "me"), Someone()),
        ):
            pass


@pytest.mark.parametrize(
    "banner", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-mute\r\n", b""]
)
def test_who_speaks_no_ssh(banner: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another protocol, an early end and silence are one line each."""
    monkeypatch.setattr(client, "TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held: list[socket.socket] = []

        def answer() -> None:
            connection, _ = listener.accept()
            held.append(connection)
            connection.sendall(banner)
            if banner.startswith(b"HTTP"):
                connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with (
                pytest.raises(ConnectionFailed, match="does not speak ssh with us: "),
                connect(Address("127.0.0.1", listener.getsockname()[1], "me"), Someone()),
            ):
                pass
        finally:
            thread.join()
            for connection in held:
                connection.close()


def test_what_a_command_complains_of(sshd: Sshd, known: Path) -> None:
    """Standard error is there once the output has ended, and writing then fails as such."""
    with connect(address(sshd), Someone(), key=alice(sshd)) as server:
        channel = server.run("rm -rf /nothing")
        assert channel.read(1) == b""
        assert channel.complaint() == "only git: rm -rf /nothing\n"
        wait_until(lambda: refuses_to_write(channel), "the channel is closed")
        channel.close()


def refuses_to_write(channel: client.Channel) -> bool:
    try:
        channel.write(b"x")
    except OSError:
        return True
    return False
