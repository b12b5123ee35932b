"""The table of directives: what exists, how often, and how its value is read."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mypaas_git.directives import values
from mypaas_git.directives.model import EnvVar, Publish, Redirect, Url, Volume


@dataclass(frozen=True)
class Directive:
    """One directive; ``field`` is what it fills in a ServiceSpec.

    ``parse`` raises :class:`values.BadValue`. A repeatable directive's ``parse``
    returns a tuple of items, and ``identity`` names what no two items may share.
    """

    key: str
    field: str
    parse: Callable[[str], Any]
    form: str
    help: str
    identity: Callable[[Any], str] | None = None

    @property
    def repeatable(self) -> bool:
        return self.identity is not None


def _one(parse: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    return lambda text: (parse(text),)


def _the_url(item: Url) -> str:
    return f"the url {item}"


def _the_source(item: Redirect) -> str:
    return f"a redirect from {item.source}"


def _the_target(item: Volume) -> str:
    return f"the container directory {item.target!a}"


def _the_key(item: EnvVar) -> str:
    return f"the variable {item.key}"


def _the_port(item: Publish) -> str:
    address = f" of {item.host_ip}" if item.host_ip else ""
    if item.host_port and not item.host_port_end:
        return f"the host port {item.host_port}/{item.protocol}{address}"
    # Docker looks for a free port: only the very same wish is a repetition.
    pool = f"{item.host_port}-{item.host_port_end}" if item.host_port else "any port"
    return f"{pool}{address} for the container port {item.container_port}/{item.protocol}"


_ALL = (
    Directive(
        "mypaas.service",
        "service",
        values.service,
        "name",
        "the service's name; default: the repository's",
    ),
    Directive(
        "mypaas.url",
        "urls",
        _one(values.url),
        "http(s)://host[/path]",
        "where the service is reached; none: not from outside",
        _the_url,
    ),
    Directive(
        "mypaas.redirect",
        "redirects",
        _one(values.redirect),
        "http(s)://host[/path] -> url",
        "an address whose visitors are sent on to one of the service's urls",
        _the_source,
    ),
    Directive(
        "mypaas.stripprefix",
        "stripprefix",
        values.switch,
        "true or false",
        "whether the app sees paths without that of its url; default: false",
    ),
    Directive(
        "mypaas.auth",
        "auth",
        values.secret,
        "KEY",
        "the secret that says who is let in: user:password lines",
    ),
    Directive(
        "mypaas.sticky",
        "sticky",
        values.switch,
        "true or false",
        "whether a visitor stays with one container, by a cookie; default: false",
    ),
    Directive(
        "mypaas.volume",
        "volumes",
        _one(values.volume),
        "host_dir:container_dir[:ro] or name:container_dir",
        "a directory or named volume that outlives the containers",
        _the_target,
    ),
    Directive(
        "mypaas.env",
        "env",
        _one(values.env),
        "KEY=value or KEY",
        "a variable; without value it comes from the server's config.toml",
        _the_key,
    ),
    Directive("mypaas.port", "port", values.port, "1-65535", "the process's port; default: 80"),
    Directive(
        "mypaas.protocol",
        "protocol",
        values.protocol,
        "http or h2c",
        "what the process speaks; default: http; h2c for gRPC",
    ),
    Directive(
        "mypaas.publish",
        "publish",
        values.publish,
        "[[ip:][host_port]:]container_port[/protocol]",
        "a port of the host that leads into the container",
        _the_port,
    ),
    Directive(
        "mypaas.scale",
        "scale",
        values.scale,
        "number [roll|safe]",
        "0 (default): stop, then start; 1 or more: start, wait healthy, switch, stop",
    ),
    Directive(
        "mypaas.healthcheck",
        "healthcheck",
        values.healthcheck,
        "/path [interval [timeout]]",
        "the path that answers 2xx or 3xx when a container is ready",
    ),
    Directive("mypaas.maxcpu", "maxcpu", values.maxcpu, "number", "CPUs of a container"),
    Directive("mypaas.maxmem", "maxmem", values.maxmem, "512m", "memory of a container"),
)

DIRECTIVES: Mapping[str, Directive] = {each.key: each for each in _ALL}
"""Every directive by its key, in the order of the documentation."""


def key_of(item: Url | Redirect | Volume | EnvVar | Publish) -> str:
    """The directive by which ``item`` was asked for."""
    kinds = {
        Url: "url",
        Redirect: "redirect",
        Volume: "volume",
        EnvVar: "env",
        Publish: "publish",
    }
    return f"mypaas.{kinds[type(item)]}"


def nearest(key: str) -> str | None:
    """Return the directive that was probably meant by ``key``."""
    names = [known.removeprefix("mypaas.") for known in DIRECTIVES]
    wanted = key.removeprefix("mypaas.").lower()[:30]
    near = difflib.get_close_matches(wanted, names, n=1)
    return f"mypaas.{near[0]}" if near else None
