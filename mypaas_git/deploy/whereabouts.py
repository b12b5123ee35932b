"""Whether the DNS leads a host to this server, as far as a server can know."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address

PATIENCE = 3.0
"""Seconds that the DNS may take to answer."""

Address = IPv4Address | IPv6Address

# Addresses that mean nothing elsewhere. Unlike ``is_private`` without those of documentation.
_INNER = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"),
    )
)


def misled(hosts: Collection[str], own: Collection[str]) -> dict[str, str]:
    """Of those of ``hosts`` that do not lead here, why, in a clause.

    ``own`` are names and addresses of this server: one behind a router knows its public
    address by its name alone. Where nobody can tell, nothing is said.
    """
    known = addresses({*hosts, *own} - {""}) if hosts else {}
    ours = _local().union(*(known.get(each, ()) for each in own))
    faults = {host: _fault(host, known[host], ours) for host in hosts if host in known}
    return {host: fault for host, fault in faults.items() if fault}


def _fault(host: str, found: frozenset[Address], ours: frozenset[Address]) -> str:
    here = ", ".join(sorted(str(each) for each in ours if _is_public(each)))
    if not found:
        return f"{host} is not in the DNS: let it lead to {here or 'this server'}"
    if not here or found & ours or not any(map(_is_public, found)):
        return ""
    leads = ", ".join(sorted(map(str, found)))
    return f"{host} leads to {leads}, which is not this server: let it lead to {here}"


def addresses(names: Collection[str]) -> dict[str, frozenset[Address]]:
    """What each name leads to; without those of which nothing is heard within PATIENCE."""
    found: dict[str, frozenset[Address]] = {}

    def look_up(name: str) -> None:
        answer = _resolve(name)
        if answer is not None:
            found[name] = answer

    # The system's resolver has time-outs of its own, and they are long.
    threads = [threading.Thread(target=look_up, args=(each,), daemon=True) for each in names]
    deadline = time.monotonic() + PATIENCE
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(found)


def _resolve(name: str) -> frozenset[Address] | None:
    """What ``name`` leads to; None when there was no answer, be it that it does not exist."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return frozenset() if error.errno == socket.EAI_NONAME else None
    except (OSError, UnicodeError):
        return None
    return frozenset(_address(str(each[4][0])) for each in found)


def _local() -> frozenset[Address]:
    """From where this host would send to far away: its addresses that the world may know."""
    found = set()
    # Nothing is sent: connecting a datagram socket only chooses its address.
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((far, 9))
                found.add(_address(probe.getsockname()[0]))
        except OSError:
            continue
    return frozenset(found)


def _address(text: str) -> Address:
    return ipaddress.ip_address(text.partition("%")[0])


def _is_public(address: Address) -> bool:
    inner = any(address in net for net in _INNER if net.version == address.version)
    here = address.is_loopback or address.is_link_local or address.is_unspecified
    return not (inner or here)
