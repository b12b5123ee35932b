from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import paramiko
import pytest
from support.keys import ssh_key

from mypaas_git.ssh.known_hosts import host_label, lookup, remember

LABEL = "[paas.example.com]:2222"


@pytest.fixture
def key(tmp_path: Path) -> paramiko.PKey:
    return paramiko.PKey.from_path(ssh_key(tmp_path))


def test_a_label_names_the_port_unless_it_is_sshs_own() -> None:
    """As OpenSSH writes it, in lower case."""
    assert host_label("PaaS.example.com", 22) == "paas.example.com"
    assert host_label("PaaS.example.com", 2222) == LABEL
    assert host_label("::1", 2222) == "[::1]:2222"


def test_remembered_keys_are_found_by_openssh_too(key: paramiko.PKey, tmp_path: Path) -> None:
    """The file is private, its last line is kept whole, and ssh-keygen reads it."""
    file = tmp_path / "home" / ".ssh" / "known_hosts"
    remember("other", key, file)
    file.write_text(file.read_text().rstrip("\n"))
    remember(LABEL, key, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    [found] = lookup(LABEL, [file])
    assert (found.place, found.blob) == (f"{file}:2", key.asbytes())
    shown = subprocess.run(
        ["ssh-keygen", "-F", LABEL, "-f", str(file)], check=True, capture_output=True, text=True
    )
    assert "found: line 2" in shown.stdout


def test_hashed_names_are_recognised(key: paramiko.PKey, tmp_path: Path) -> None:
    """Hashed by OpenSSH itself."""
    file = tmp_path / "known_hosts"
    remember(LABEL, key, file)
    subprocess.run(["ssh-keygen", "-H", "-f", str(file)], check=True, capture_output=True)
    assert LABEL not in file.read_text()
    assert [each.blob for each in lookup(LABEL, [file])] == [key.asbytes()]
    assert lookup("[other.example.com]:2222", [file]) == []


@pytest.mark.parametrize(
    ("names", "matches"),
    [
        (LABEL, True),
        (f"first,{LABEL},last", True),
        ("paas.example.com", False),
        ("[*.example.com]:2222", True),
        ("[PAAS.example.???]:2222", True),
        ("[*.example.com]:2222,![paas.*]:*", False),
        ("*", True),
        ("|1|not|base64", False),
        ("|1|", False),
        ("[paas-example-com]:2222", False),
    ],
)
def test_patterns(names: str, matches: bool, key: paramiko.PKey, tmp_path: Path) -> None:
    """Lists, wildcards, exceptions and nonsense."""
    file = tmp_path / "known_hosts"
    file.write_text(f"{names} {key.get_name()} {key.get_base64()} a comment\n")
    assert bool(lookup(LABEL, [file])) is matches


def test_lines_that_speak_of_no_key_are_passed_over(key: paramiko.PKey, tmp_path: Path) -> None:
    """Comments, authorities and broken lines count as lines and as nothing else."""
    file = tmp_path / "known_hosts"
    entry = f"{LABEL} {key.get_name()} {key.get_base64()}"
    file.write_bytes(
        f"# {entry}\n\n@cert-authority {entry}\n{LABEL} ssh-rsa ???\n{LABEL} x\n".encode()
        + b"\xff\xfe\n"
        + f"@revoked {entry}\n\t{entry}\r\n".encode()
    )
    found = lookup(LABEL, [tmp_path / "missing", file])
    assert [(each.line, each.revoked) for each in found] == [(7, True), (8, False)]
