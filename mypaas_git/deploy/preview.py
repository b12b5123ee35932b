"""What a deploy would change of what is live, in lines for the pusher. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mypaas_git.directives.model import Healthcheck, Publish, ServiceSpec, Volume
from mypaas_git.ledger.model import Release

WIDTH = 12
"""Characters of what stands before a line's facts."""


def preview(spec: ServiceSpec, env: Mapping[str, str], live: Release | None) -> list[str]:
    """The differences between ``spec`` and what is live; values of variables are not shown.

    ``env`` has a value for every variable of the spec.
    """
    before = live.spec if live else ServiceSpec(spec.service)
    lines = [
        *_set("urls", map(str, before.urls), map(str, spec.urls)),
        *_set("redirects", map(str, before.redirects), map(str, spec.redirects)),
        *_env(live.env if live else {}, env),
        *_set("volumes", map(_volume, before.volumes), map(_volume, spec.volumes)),
        *_set("publish", map(_publish, before.publish), map(_publish, spec.publish)),
        *_values(before, spec, live is None),
    ]
    return lines or ["everything but the image stays as it is"]


def expected_downtime(spec: ServiceSpec, live: Release | None, stopped: bool) -> str:
    """How long the service is going to be away, as far as it can be known."""
    if live is None or stopped:
        return "none: nothing serves at the moment"
    if spec.scale == 0:
        last = f"; the deploy of {live.label} took {live.down:.1f} s" if live.down else ""
        return f"for as long as its container takes to start, as scale is 0{last}"
    if spec.scale_mode == "safe":
        return "usually less than a second, answered by 503, as scale is safe"
    return "none: the new containers are ready before the old ones stop"


def _set(name: str, before: Iterator[str], after: Iterator[str]) -> Iterator[str]:
    old, new = list(before), list(after)
    for each in new:
        if each not in old:
            yield _line(name, f"+ {each}")
    for each in old:
        if each not in new:
            yield _line(name, f"- {each}")


def _env(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    yield from _set("env", iter(before), iter(after))
    for key in after:
        if key in before and before[key] != after[key]:
            yield _line("env", f"~ {key} has another value")


def _values(before: ServiceSpec, after: ServiceSpec, all_new: bool) -> Iterator[str]:
    for (name, old), (_, new) in zip(_facts(before), _facts(after), strict=True):
        if old != new:
            yield _line(name, new if all_new else f"{old} → {new}")


def _facts(spec: ServiceSpec) -> list[tuple[str, str]]:
    """What a service has one of."""
    mode = f" {spec.scale_mode}" if spec.scale else ""
    return [
        ("port", str(spec.port)),
        ("protocol", spec.protocol),
        ("scale", f"{spec.scale}{mode}"),
        ("stripprefix", str(spec.stripprefix).lower()),
        ("auth", spec.auth or "none"),
        ("sticky", str(spec.sticky).lower()),
        ("healthcheck", _check(spec.healthcheck)),
        ("maxcpu", "none" if spec.maxcpu is None else f"{spec.maxcpu:g}"),
        ("maxmem", "none" if spec.maxmem is None else _size(spec.maxmem)),
    ]


def _volume(volume: Volume) -> str:
    return f"{volume.source}:{volume.target}{':ro' if volume.read_only else ''}"


def _publish(publish: Publish) -> str:
    ip = f"[{publish.host_ip}]" if ":" in publish.host_ip else publish.host_ip
    port = str(publish.host_port or "")
    if publish.host_port_end:
        port += f"-{publish.host_port_end}"
    where = f"{ip}:{port}:" if ip else f"{port}:" if port else ""
    return f"{where}{publish.container_port}/{publish.protocol}"


def _check(check: Healthcheck | None) -> str:
    return "none" if check is None else f"{check.path} {check.interval:g}s {check.timeout:g}s"


def _size(size: int) -> str:
    for unit, factor in (("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}b"


def _line(name: str, fact: str) -> str:
    return f"{name:<{WIDTH}}{fact}"
