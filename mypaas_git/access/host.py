"""What a service may ask of the host. Pure: takes values, answers, touches nothing.

Paths are compared by their components, never as strings. Symbolic links are
not followed here: ``access.directories`` does that, and asks :func:`check_path` about
what it found. What services may not take from each other is ``deploy.claims``' to say.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from mypaas_git.directives.model import (
    Publish,
    Redirect,
    ServiceSpec,
    Url,
    Volume,
    wildcard_over,
)
from mypaas_git.directives.values import BadValue, port
from mypaas_git.errors import HostRefused, SettingsError

# Whoever can write these owns the host, whatever config.toml says.
_NEVER = (
    "/proc",
    "/sys",
    "/dev",
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/containerd",
    "/var/run/containerd",
    "/run/user",
    "/var/lib/docker",
    "/var/lib/containerd",
)
# What is run or read when somebody logs in, and what they log in elsewhere with.
_NEVER_AT_HOME = (
    ".ssh",
    ".gnupg",
    ".docker",
    ".config",
    ".local/bin",
    ".local/lib",
    ".local/share/docker",
    ".local/share/systemd",
    ".bashrc",
    ".bash_profile",
    ".bash_login",
    ".bash_logout",
    ".profile",
    ".zshrc",
    ".zshenv",
    ".zprofile",
    ".zlogin",
    ".pam_environment",
    ".gitconfig",
    ".git-credentials",
    ".netrc",
    ".aws",
    ".kube",
)


@dataclass(frozen=True)
class HostRules:
    """What the administrator opens to services.

    Paths are absolute. A host volume lies within one of ``volume_roots`` and has
    nothing to do with the ``forbidden`` ones; ``home`` is what ``~`` stands for.
    Host ports are from ``publish_low`` to ``publish_high``, and none of the server's
    ``own_ports``. ``domain`` is the server's own name, whose ``own_paths`` are its
    dashboard's. ``reserved`` says of patterns of hosts which services, and which keys
    (``key:NAME``), may use them. ``wildcards`` tells whether certificates for them can be
    had, beside the hosts that have ``certificates``.
    """

    volume_roots: tuple[str, ...]
    forbidden: tuple[str, ...]
    publish_low: int
    publish_high: int
    home: str
    own_ports: frozenset[int] = frozenset()
    domain: str = ""
    own_paths: tuple[str, ...] = ()
    reserved: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    wildcards: bool = False
    certificates: frozenset[str] = frozenset()


Wish = Url | Redirect | Volume | Publish
"""What a service may ask of the host."""


def check(
    spec: ServiceSpec,
    rules: HostRules,
    *,
    key: str = "",
    kept: Collection[Url] = (),
    resolve: Callable[[Volume], None] = lambda _: None,
    where: Callable[[Wish], str] = lambda _: "",
) -> None:
    """Raise :class:`HostRefused`, with one detail a fault, for what a service may not have.

    ``key`` is the name of the key that asks, ``kept`` are the urls that the service has
    already. ``resolve`` refuses a volume for what it leads to; ``where`` tells the place
    of a wish in the Dockerfile.
    """
    details: list[str] = []
    wishes: tuple[Wish, ...] = (*spec.urls, *spec.redirects, *spec.volumes, *spec.publish)
    for wish in wishes:
        fault = _fault(wish, spec, rules, key, kept)
        if fault is None and isinstance(wish, Volume):
            fault = _refusal(resolve, wish)
        if fault:
            details.append(where(wish) + fault)
    refuse(details)


def refuse(details: list[str]) -> None:
    """Raise HostRefused for the faults in ``details``, if there are any."""
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


def _fault(
    wish: Wish, spec: ServiceSpec, rules: HostRules, key: str, kept: Collection[Url]
) -> str | None:
    if isinstance(wish, Redirect):
        wish = wish.source
    if isinstance(wish, Url):
        return _url_fault(wish, spec, rules, key, kept)
    if isinstance(wish, Publish):
        return _port_fault(wish, rules) or _address_fault(wish)
    return None if wish.named else _path_fault(expand(wish.source, rules), rules)


def _refusal(resolve: Callable[[Volume], None], volume: Volume) -> str | None:
    try:
        resolve(volume)
    except HostRefused as error:
        return error.message
    return None


def _url_fault(
    url: Url, spec: ServiceSpec, rules: HostRules, key: str, kept: Collection[Url]
) -> str | None:
    """Whether the host, or one below a wildcard, is not for the service."""
    certifiable = rules.wildcards or url.host in rules.certificates
    if url.wildcard and url.scheme == "https" and not certifiable:
        return (
            f"{url} cannot be used: there is no certificate for a wildcard before an admin "
            f'sets acme_challenge = "dns" under [http] in config.toml, or gives one under '
            f"[http.certificates]; write one url for each host"
        )
    for path in rules.own_paths:
        if url.host == rules.domain.lower() and f"{url.path}/".startswith(f"{path}/"):
            return (
                f"{url} cannot be used: {path} belongs to the server's dashboard ([http] in "
                f"config.toml); choose another path"
            )
    named = (*rules.reserved, rules.domain.lower())
    below = [each for each in named if url.wildcard and wildcard_over(each) == url.host]
    for host in (url.host, *below):
        fault = _host_fault(url, spec, rules, host=host, key=key, kept=kept)
        if fault:
            return fault
    return None


def _host_fault(
    url: Url,
    spec: ServiceSpec,
    rules: HostRules,
    *,
    host: str,
    key: str,
    kept: Collection[Url],
) -> str | None:
    """Whether ``host`` is reserved. Nobody but config.toml gives it to a service."""
    pattern = _reservation(host, rules.reserved)
    if pattern is None:
        if host != rules.domain.lower():
            return None
        return (
            f"{url} cannot be used: {host} is the server's own name; choose another host, "
            f"or an admin can give it to {spec.service} under [host.urls] in config.toml"
        )
    owners = rules.reserved[pattern]
    by_key = any(each.startswith("key:") for each in owners) and url in kept
    if str(spec.service) in owners or f"key:{key}" in owners or by_key:
        return None
    return (
        f"{url} cannot be used: this host reserves {pattern} for {_named(owners)}; choose "
        f"another host, or an admin can add {spec.service} to it under [host.urls] in "
        f"config.toml"
    )


def _reservation(host: str, reserved: Mapping[str, tuple[str, ...]]) -> str | None:
    """The pattern that decides on ``host``: the host itself, else the longest one."""
    if host in reserved:
        return host
    found = [each for each in reserved if each.startswith("*") and host.endswith(each[1:])]
    return max(found, key=len, default=None)


def _named(owners: Collection[str]) -> str:
    said = [
        f"pushes with the key '{each.removeprefix('key:')}'"
        if each.startswith("key:")
        else f"the service '{each}'"
        for each in owners
    ]
    return " and ".join(said) or "nobody"


def _path_fault(path: str, rules: HostRules) -> str | None:
    why = (
        _malformed(path)
        or _forbidden(path, rules)
        or _outside(path, rules)
        or _read_by_programs(path, rules)
    )
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


def _read_by_programs(path: str, rules: HostRules) -> str | None:
    """Of ``~`` as a root only what people keep there, unless a root says otherwise.

    Hidden files set programs up, and login shells look for programs in ``~/bin``.
    """
    parts, home = _parts(path), _parts(rules.home)
    if not _within(parts, home) or parts == home:
        return None
    first = parts[len(home)]
    if not first.startswith(".") and first != "bin":
        return None
    opened = [_parts(root) for root in rules.volume_roots]
    if any(_within(root, (*home, first)) and _within(parts, root) for root in opened):
        return None
    return (
        f"programs of the server's user read ~/{first}; use another directory, or an admin "
        "can add it to volumes under [host] in config.toml"
    )


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
    own = [port for port in sorted(rules.own_ports) if first <= port <= last]
    if own:
        return f"the host port {own[0]} is the server's own; choose another"
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
