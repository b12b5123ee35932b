"""What a service may ask of the host. Pure: takes values, answers, touches nothing.

Paths are compared by their components, never as strings. Symbolic links are
not followed here: whoever mounts a path resolves it first and asks
:func:`check_path` about what it found.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from mypaas_git.directives.model import Publish, ServiceSpec
from mypaas_git.directives.values import BadValue, port
from mypaas_git.errors import HostRefused, SettingsError

# Whoever can write these owns the host, whatever config.toml says.
_NEVER = (
    "/proc",
    "/sys",
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/containerd",
    "/var/run/containerd",
    "/var/lib/docker",
)
_NEVER_AT_HOME = (".ssh", ".gnupg", ".docker", ".bashrc", ".bash_profile", ".profile")


@dataclass(frozen=True)
class HostRules:
    """What the administrator opens to services.

    Paths are absolute. A host volume lies within one of ``volume_roots`` and has
    nothing to do with the ``forbidden`` ones; ``home`` is what ``~`` stands for.
    Host ports are from ``publish_low`` to ``publish_high``.
    """

    volume_roots: tuple[str, ...]
    forbidden: tuple[str, ...]
    publish_low: int
    publish_high: int
    home: str


def check(spec: ServiceSpec, rules: HostRules) -> None:
    """Raise :class:`HostRefused`, with one detail a fault, for what a service may not have."""
    paths = [expand(volume.source, rules) for volume in spec.volumes if not volume.named]
    faults = [_path_fault(path, rules) for path in paths]
    for publish in spec.publish:
        faults += [_port_fault(publish, rules), _address_fault(publish)]
    details = [fault for fault in faults if fault]
    if details:
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        raise HostRefused(details[0] + more, details=details)


def check_path(path: str, rules: HostRules) -> None:
    """Raise :class:`HostRefused` unless a service may mount the absolute ``path``."""
    fault = _path_fault(path, rules)
    if fault:
        raise HostRefused(fault, details=[fault])


def expand(source: str, rules: HostRules) -> str:
    """Return a volume's source with ``~`` replaced by the server's home."""
    if source == "~" or source.startswith("~/"):
        return rules.home.rstrip("/") + source[1:] or "/"
    return source


def always_forbidden(home: str, state: str) -> tuple[str, ...]:
    """Return what no config opens: Docker's own, our ``state``, what ``home`` logs in with."""
    return (*_NEVER, state, *(f"{home.rstrip('/')}/{name}" for name in _NEVER_AT_HOME))


def parse_publish_range(text: str) -> tuple[int, int]:
    """Return the lowest and highest port of ``1024-65535``, or of a single port.

    Raises :class:`SettingsError`.
    """
    first, _, last = text.partition("-")
    try:
        low, high = port(first), port(last or first)
    except BadValue as error:
        raise SettingsError(f"[host] publish: {error}") from None
    if low > high or text.endswith("-"):
        raise SettingsError(f"[host] publish: {text!a} is no range; write '1024-65535'")
    return low, high


def _path_fault(path: str, rules: HostRules) -> str | None:
    why = _malformed(path) or _forbidden(path, rules) or _outside(path, rules)
    return f"{path!a} cannot be mounted: {why}" if why else None


def _malformed(path: str) -> str | None:
    if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
        return "it is not an absolute path without '..'"
    return None if _parts(path) else "it is the whole host; name a directory in it"


def _forbidden(path: str, rules: HostRules) -> str | None:
    parts = _parts(path)
    for forbidden in filter(_parts, rules.forbidden):
        other = _parts(forbidden)
        if _within(parts, other):
            return f"{forbidden} is never opened to services"
        if _within(other, parts):
            return f"it holds {forbidden}; name a directory beside that"
    return None


def _outside(path: str, rules: HostRules) -> str | None:
    if any(_within(_parts(path), _parts(root)) for root in rules.volume_roots):
        return None
    roots = ", ".join(rules.volume_roots) or "no directory at all"
    return (
        f"this host opens {roots}; use a named volume, or an admin can add to volumes "
        "under [host] in config.toml"
    )


def _port_fault(publish: Publish, rules: HostRules) -> str | None:
    first, last = publish.host_port, publish.host_port_end or publish.host_port
    if first == 0 or rules.publish_low <= first <= last <= rules.publish_high:
        return None
    port_or_range = f"{first}-{last}" if last > first else f"{first}"
    return (
        f"the host port {port_or_range} cannot be published: this host opens "
        f"{rules.publish_low}-{rules.publish_high}; take one of these, or an admin can "
        "change publish under [host] in config.toml"
    )


def _address_fault(publish: Publish) -> str | None:
    """Only an address that a host can have, or that means all of them, is one to listen on."""
    if not publish.host_ip:
        return None
    try:
        address = ipaddress.ip_address(publish.host_ip)
    except ValueError:
        return f"{publish.host_ip!a} is not an address to publish a port on"
    # IPv6 counts :: and ::1 among the reserved ones.
    usable = address.is_unspecified or address.is_loopback or not address.is_reserved
    if address.is_multicast or not usable:
        return f"{publish.host_ip} is not an address to publish a port on"
    return None


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part not in {"", "."})


def _within(inner: tuple[str, ...], outer: tuple[str, ...]) -> bool:
    """Whether ``inner`` is ``outer`` or lies in it."""
    return inner[: len(outer)] == outer
