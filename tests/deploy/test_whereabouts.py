"""Where hosts lead, by a real resolver on a host with addresses of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.net import with_hosts

from mypaas_git.deploy.whereabouts import PATIENCE, addresses

HOSTS = """\
203.0.113.9 away.test
2001:db8::9 away.test
198.51.100.2 here.test www.here.test
203.0.113.9 both.test
198.51.100.2 both.test
203.0.113.20 paas.test behind.test
127.0.0.1 loop.test
192.168.0.7 lan.test
"""
OURS = """\
ip link add one type veth peer name two
ip addr add {}/24 dev one
ip link set one up
ip link set two up
ip route add default dev one
exec "$@"
"""


def misled(root: Path, hosts: list[str], *, domain: str, own: str) -> dict[str, str]:
    """What is said of ``hosts`` on a host at ``own``."""
    script = (
        "import json, sys\n"
        "from mypaas_git.deploy.whereabouts import misled\n"
        "print(json.dumps(misled(sys.argv[2:], [sys.argv[1], '0.0.0.0'])))"
    )
    inside = with_hosts(root, hosts=HOSTS, nsswitch_conf="hosts: files\n")
    network = ["unshare", "-n", "sh", "-ec", OURS.format(own), "sh"]
    done = subprocess.run(
        [*inside, *network, sys.executable, "-c", script, domain, *hosts],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_a_server_at_a_public_address(tmp_path: Path) -> None:
    """Only what leads elsewhere, or nowhere, is told."""
    hosts = ["here.test", "both.test", "away.test", "gone.test", "loop.test", "lan.test"]
    found = misled(tmp_path, hosts, domain="", own="198.51.100.2")
    assert found == {
        "away.test": "away.test leads to 2001:db8::9, 203.0.113.9, which is not this server: "
        "let it lead to 198.51.100.2",
        "gone.test": "gone.test is not in the DNS: let it lead to 198.51.100.2",
    }


@pytest.mark.parametrize("domain", ["", "paas.test", "gone.test"])
def test_a_server_behind_a_router(tmp_path: Path, domain: str) -> None:
    """Its public address is known by its own name, or not at all."""
    hosts = ["behind.test", "away.test", "here.test", "gone.test"]
    found = misled(tmp_path, hosts, domain=domain, own="10.1.2.3")
    assert "behind.test" not in found
    assert found["gone.test"].startswith("gone.test is not in the DNS: let it lead to ")
    assert ("away.test" in found) == (domain == "paas.test")
    if domain == "paas.test":
        assert found["here.test"].endswith(
            "which is not this server: let it lead to 203.0.113.20"
        )


def test_odd_names_are_not_looked_up() -> None:
    """Nothing that a name can be is an error, or waited for."""
    assert PATIENCE <= 5
    assert addresses([]) == {}
    assert set(addresses(["x" * 300, "a..b"])) <= {"x" * 300, "a..b"}
