"""Host keys: made once, private, and never replaced behind the admin's back."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from mypaas_git.errors import SettingsError
from mypaas_git.ssh import hostkeys
from mypaas_git.ssh.hostkeys import ensure_host_keys, known_hosts_line


@pytest.fixture(autouse=True)
def _small_rsa(monkeypatch: pytest.MonkeyPatch) -> None:
    """A 3072-bit key takes up to a second to find."""
    monkeypatch.setattr(hostkeys, "RSA_BITS", 2048)


def test_made_once(tmp_path: Path) -> None:
    """Three keys, best first, in files that only their owner reads; the same ones later."""
    home = tmp_path / "keys"
    first = ensure_host_keys(home)
    assert [key.get_name() for key in first] == [
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "ssh-rsa",
    ]
    assert len(list(home.iterdir())) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {0o600}
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    again = ensure_host_keys(home)
    assert [key.asbytes() for key in again] == [key.asbytes() for key in first]


def test_openssh_reads_them(tmp_path: Path) -> None:
    """ssh-keygen derives the same public keys from the files."""
    for key, name in zip(ensure_host_keys(tmp_path), ("ed25519", "ecdsa", "rsa"), strict=True):
        path = tmp_path / f"ssh_host_{name}_key"
        public = subprocess.check_output(["ssh-keygen", "-y", "-f", str(path)], text=True)
        assert public.split()[1] == key.get_base64()


def test_missing_one_is_made(tmp_path: Path) -> None:
    """A key that is missing is added, and the others stay."""
    first = ensure_host_keys(tmp_path)
    (tmp_path / "ssh_host_ecdsa_key").unlink()
    again = ensure_host_keys(tmp_path)
    assert [a.asbytes() == b.asbytes() for a, b in zip(again, first, strict=True)] == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    "content", [b"", b"\xff\0", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"]
)
def test_broken_file(tmp_path: Path, content: bytes) -> None:
    """A broken key is an error that names the file, and the file is left alone."""
    ensure_host_keys(tmp_path)
    path = tmp_path / "ssh_host_ed25519_key"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="ssh_host_ed25519_key"):
        ensure_host_keys(tmp_path)
    assert path.read_bytes() == content


def test_truncated_file(tmp_path: Path) -> None:
    """Wherever a file was cut off, the error is the same clear one."""
    ensure_host_keys(tmp_path)
    for name in ("ssh_host_ed25519_key", "ssh_host_ecdsa_key", "ssh_host_rsa_key"):
        path = tmp_path / name
        whole = path.read_bytes()
        for size in range(0, len(whole) - 40, 97):
            path.write_bytes(whole[:size])
            with pytest.raises(SettingsError, match=name):
                ensure_host_keys(tmp_path)
        path.write_bytes(whole)


def test_wrong_kind(tmp_path: Path) -> None:
    """A key of another kind, and one with a passphrase, are refused."""
    ensure_host_keys(tmp_path)
    ed25519 = tmp_path / "ssh_host_ed25519_key"
    ed25519.write_bytes((tmp_path / "ssh_host_rsa_key").read_bytes())
    with pytest.raises(SettingsError, match="type ssh-ed25519"):
        ensure_host_keys(tmp_path)
    ed25519.unlink()
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(ed25519)]
    subprocess.run(command, check=True)
    with pytest.raises(SettingsError, match="unencrypted"):
        ensure_host_keys(tmp_path)


def test_readable_by_others(tmp_path: Path) -> None:
    """A key that others can read is refused with the command that mends it."""
    ensure_host_keys(tmp_path)
    path = tmp_path / "ssh_host_rsa_key"
    path.chmod(0o640)
    with pytest.raises(SettingsError, match=f"chmod 600 {path}"):
        ensure_host_keys(tmp_path)


def test_no_directory(tmp_path: Path) -> None:
    """A directory that cannot be made is a clear error."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="file/keys"):
        ensure_host_keys(tmp_path / "file" / "keys")


def test_known_hosts_line(tmp_path: Path) -> None:
    """The line names host and port as OpenSSH does."""
    key = ensure_host_keys(tmp_path)[0]
    line = f"ssh-ed25519 {key.get_base64()}"
    assert known_hosts_line("a.example", 22, key) == f"a.example {line}"
    assert known_hosts_line("a.example", 2222, key) == f"[a.example]:2222 {line}"
    assert known_hosts_line("::1", 2222, key) == f"[::1]:2222 {line}"
