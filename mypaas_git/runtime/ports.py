"""Ports of this host that somebody listens on already."""

from __future__ import annotations

import errno
import socket

from mypaas_git.directives.model import Publish

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def fault_of(publish: Publish) -> str | None:
    """Why Docker could not publish a port just now; None where only it can tell."""
    if not publish.host_port or publish.host_port_end or publish.protocol not in _KINDS:
        return None
    family = socket.AF_INET6 if ":" in publish.host_ip else socket.AF_INET
    try:
        with socket.socket(family, _KINDS[publish.protocol]) as probe:
            if publish.protocol == "tcp":
                # As Docker does: connections that have ended do not hold a port.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((publish.host_ip, publish.host_port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            shown = f"{publish.host_port}/{publish.protocol}"
            return f"the host port {shown} is in use by a program of this host; choose another"
        if error.errno == errno.EADDRNOTAVAIL:
            return f"{publish.host_ip} is not an address of this host; choose one that it has"
    return None
