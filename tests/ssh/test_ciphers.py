"""Which cipher stock ssh ends up with: the fast one, unless it was told otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Served, serving

GCM, CTR = "aes128-gcm@openssh.com", "aes128-ctr"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("ciphers", "chosen"),
    [
        # The default of OpenSSH before 10, which puts CTR before GCM.
        (f"chacha20-poly1305@openssh.com,{CTR},aes256-ctr,{GCM},aes256-gcm@openssh.com", GCM),
        (
            f"chacha20-poly1305@openssh.com,{CTR},aes256-gcm@openssh.com",
            "aes256-gcm@openssh.com",
        ),
        (f"chacha20-poly1305@openssh.com,{CTR}", CTR),
        (f"{CTR},{GCM}", CTR),
        (GCM, GCM),
    ],
)
def test_choice(served: Served, ciphers: str, chosen: str) -> None:
    """The client's first choice if we have it, else GCM if the client has it."""
    key = served.new_key("alice")
    options = ("-v", "-o", "LogLevel=DEBUG1", "-o", f"Ciphers={ciphers}")
    done = served.ssh("big 100000", key=key, more=(*options, "-o", "RekeyLimit=64K"))
    assert (done.returncode, len(done.stdout)) == (3, 100_000)
    found = re.findall(rb"kex: server->client cipher: (\S+)", done.stderr)
    # At the beginning, and again for each new set of keys.
    assert len(found) > 1
    assert {each.decode() for each in found} == {chosen}


def test_no_common_cipher(served: Served) -> None:
    """The client is told that there is none."""
    key = served.new_key("alice")
    options = ("-o", "LogLevel=INFO", "-o", "Ciphers=chacha20-poly1305@openssh.com")
    done = served.ssh("show", key=key, more=options)
    assert b"no matching cipher found" in done.stderr
