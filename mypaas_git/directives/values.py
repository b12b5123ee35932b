"""One strict parser for each directive's value.

Each takes the text behind ``=`` and returns validated values, or raises
:class:`BadValue`. The grammars are spelt out by hand: ``int()`` and ``float()``
read full-width digits, ``1_000`` and ``nan``, and ``urlparse`` keeps backticks and drops tabs.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal, NamedTuple, cast

from mypaas_git.directives.lexer import bare
from mypaas_git.directives.model import EnvVar, Healthcheck, Publish, Redirect, Url, Volume
from mypaas_git.errors import NameRefused
from mypaas_git.names import ServiceName, VariableName

MAX_ITEMS = 256
"""Urls, volumes, variables, ports of one service: Docker keeps a process for each port."""

MAX_SCALE = 100
MAX_CPUS = 1024.0
MAX_MEMORY = 1 << 50
MIN_MEMORY = 6 << 20
"""Bytes; the Docker Engine refuses less."""

# What a path may hold without meaning anything in a Traefik rule or a request.
_PATH = re.compile(r"/[A-Za-z0-9._~+,=:@/-]*")
_HEALTH_PATH = re.compile(r"/[A-Za-z0-9._~+,=:@/?&%-]*")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_URL_FORM = "write http(s)://host[/path], such as 'https://example.com/app'"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PORT_RANGE = r"[0-9]+(?:-[0-9]+)?"
_PUBLISH = re.compile(
    rf"(?:(?:(?P<ip>\[[^\]]*\]|[0-9.]+):)?(?P<host>{_PORT_RANGE})?:)?"
    rf"(?P<container>{_PORT_RANGE})(?:/(?P<protocol>[a-zA-Z]+))?"
)
_PUBLISH_FORM = "write [[ip:][host_port]:]container_port[/tcp|udp|sctp], such as '8080:80'"
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}
_BYTES = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class BadValue(ValueError):
    """A value that is none; ``str(error)`` is one line: what is wrong and what is right."""


class Scale(NamedTuple):
    """How many replicas run, and how a new release takes over from the old."""

    number: int
    mode: Literal["roll", "safe"]


def service(text: str) -> ServiceName:
    """Return a service's name."""
    try:
        return ServiceName.parse(text)
    except NameRefused as error:
        raise BadValue(error.message) from None


def url(text: str) -> Url:
    """Return ``http(s)://host[/path]``, scheme and host in lower case, no final slash."""
    if not text.isascii():
        raise BadValue(
            f"{_shown(text)} is not plain ASCII; write an international host name "
            "in its xn-- form"
        )
    match = re.fullmatch(r"(https?)://([^/]*)(/.*)?", text, re.IGNORECASE | re.DOTALL)
    if match is None:
        raise BadValue(f"{_shown(text)} is not a url; {_URL_FORM}")
    scheme = cast('Literal["http", "https"]', match[1].lower())
    return Url(scheme, _host(match[2].lower()), _url_path(match[3] or "/"))


def redirect(text: str) -> Redirect:
    """Return ``URL -> URL``."""
    source, arrow, target = text.partition("->")
    if not arrow:
        raise BadValue(
            f"{_shown(text)} is not a redirect; write FROM -> TO, such as "
            "'https://www.example.com -> https://example.com'"
        )
    found = Redirect(url(source.strip(" \t")), url(target.strip(" \t")))
    if found.target.wildcard:
        raise BadValue(f"{_shown(text)} leads to a wildcard; name one host to lead to")
    return found


def switch(text: str) -> bool:
    """Return whether something is to be so."""
    if text not in {"true", "false"}:
        raise BadValue(f"{_shown(text)} is neither 'true' nor 'false'")
    return text == "true"


def secret(text: str) -> str:
    """Return the name of a variable whose value the server's config holds."""
    key, equals, _ = text.partition("=")
    try:
        key = VariableName.parse(key.strip(" \t"))
    except NameRefused:
        # Whoever writes the users themselves here has no need to see them in a log.
        raise BadValue(
            "this is not the name of a secret; write one, such as SITE_USERS, and have an "
            "admin set its value: mypaas config set SERVICE SITE_USERS=user:password"
        ) from None
    if equals:
        raise BadValue(
            f"users do not stand in a Dockerfile; write {key} alone, and have an admin set "
            f"its value: mypaas config set SERVICE {key}=user:password"
        )
    return key


def volume(text: str) -> Volume:
    """Return ``/host:/container[:ro]``, ``~/host:/container[:ro]`` or ``name:/container``."""
    parts = text.split(":")
    if len(parts) not in {2, 3}:
        raise BadValue(
            f"{_shown(text)} is not a volume; write host_dir:container_dir[:ro], such as "
            "'~/data:/data', or name:container_dir"
        )
    if parts[2:] not in ([], ["ro"]):
        raise BadValue(f"{_shown(parts[2])} is not an option of a volume; the only one is 'ro'")
    target = _directory(parts[1], "container directory")
    if target == "/":
        raise BadValue("a volume cannot replace the container's '/'; name a directory in it")
    return Volume(_volume_source(parts[0]), target, read_only=len(parts) == 3)


def env(text: str) -> EnvVar:
    """Return ``KEY=value``, or ``KEY`` whose value the server's config holds."""
    key, equals, value = text.partition("=")
    try:
        key, value = VariableName.parse(key.strip(" \t")), bare(value)
    except NameRefused as error:
        raise BadValue(error.message) from None
    if _CONTROL.search(value):
        # The value may be a secret: it is not shown.
        raise BadValue(f"the value of {key} holds a tab or another control character")
    return EnvVar(key, value if equals else None)


def port(text: str) -> int:
    """Return a port, 1 to 65535."""
    return _integer(text, "a port", 1, 65535)


def protocol(text: str) -> Literal["http", "h2c"]:
    """Return what a process speaks on its port: HTTP/1.1, or HTTP/2 without TLS."""
    if text not in {"http", "h2c"}:
        raise BadValue(
            f"{_shown(text)} is not a protocol; write http, or h2c for HTTP/2 without TLS, "
            "which gRPC needs"
        )
    return cast('Literal["http", "h2c"]', text)


def publish(text: str) -> tuple[Publish, ...]:
    """Return what ``docker run --publish`` makes of ``text``, one item per container port.

    The grammar is that of Docker's command line reference: an IPv6 address in
    brackets, ranges of equal length, or a range of the host for one container port.
    """
    match = _PUBLISH.fullmatch(text)
    if match is None:
        raise BadValue(f"{_shown(text)} is not a port to publish; {_PUBLISH_FORM}")
    ip = _address(match["ip"] or "")
    protocol = _protocol(match["protocol"] or "tcp")
    first, last = _port_range(match["container"])
    count = last - first + 1
    if count > MAX_ITEMS:
        raise BadValue(f"{_shown(text)} has more than the {MAX_ITEMS} ports of a service")
    if match["host"] in {None, "0"}:
        return tuple(Publish(first + n, 0, ip, protocol) for n in range(count))
    host_first, host_last = _port_range(match["host"])
    if count == 1 and host_last > host_first:
        return (Publish(first, host_first, ip, protocol, host_last),)
    if host_last - host_first != last - first:
        raise BadValue(f"{_shown(text)} has two ranges of different length")
    return tuple(Publish(first + n, host_first + n, ip, protocol) for n in range(count))


def scale(text: str) -> Scale:
    """Return a number of replicas and ``roll`` (the default) or ``safe``."""
    count, *modes = _words(text)
    number = _integer(count, "a scale", 0, MAX_SCALE)
    if modes not in ([], ["roll"], ["safe"]):
        raise BadValue(
            f"{_shown(text)} is not a scale; write a number, optionally with 'roll' or "
            "'safe', such as '2 safe'"
        )
    if modes and number == 0:
        raise BadValue(f"a scale of 0 stops before it starts; '{modes[0]}' takes 1 or more")
    return Scale(number, "safe" if modes == ["safe"] else "roll")


def healthcheck(text: str) -> Healthcheck:
    """Return ``/path [interval [timeout]]``."""
    path, *durations = _words(text)
    legal = _HEALTH_PATH.fullmatch(path) and "//" not in path and len(path) <= 1000
    if len(durations) > 2 or not legal:
        raise BadValue(
            f"{_shown(text)} is not a health check; write a path, then optionally interval "
            "and timeout, such as '/health 10s 2s'"
        )
    return Healthcheck(path, *(duration(each) for each in durations))


def duration(text: str) -> float:
    """Return seconds: a number with ``ms``, ``s`` or ``m``, from 10 ms to an hour."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m)", text)
    if match is None:
        raise BadValue(
            f"{_shown(text)} is not a duration; write a number with ms, s or m, such as '10s'"
        )
    seconds = round(float(match[1]) * _SECONDS[match[2]], 6)
    if not 0.01 <= seconds <= 3600:
        raise BadValue(f"{_shown(text)} is out of range; a duration is 10ms to 60m")
    return seconds


def maxcpu(text: str) -> float:
    """Return a number of CPUs, as Docker's ``--cpus`` takes it: 0.01 or more."""
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9}", text) is None:
        raise BadValue(f"{_shown(text)} is not a number of CPUs; write such as '0.5' or '2'")
    cpus = float(text)
    if not 0.01 <= cpus <= MAX_CPUS:
        raise BadValue(
            f"{_shown(text)} is out of range; CPUs are 0.01 to {MAX_CPUS:g}, and leaving "
            "the directive out sets no limit"
        )
    return cpus


def maxmem(text: str) -> int:
    """Return bytes from what Docker's ``--memory`` takes: a whole number with b, k, m or g."""
    match = re.fullmatch(r"([0-9]{1,18})([bkmgBKMG]?)", text)
    if match is None:
        raise BadValue(
            f"{_shown(text)} is not an amount of memory; write a whole number with b, k, m "
            "or g, such as '512m'"
        )
    size = int(match[1]) * _BYTES[match[2].lower() or "b"]
    if not MIN_MEMORY <= size <= MAX_MEMORY:
        raise BadValue(
            f"{_shown(text)} is out of range; Docker's least is '6m' (a bare number is bytes), "
            "and leaving the directive out sets no limit"
        )
    return size


def _shown(text: str) -> str:
    """Return ``text`` for a message: quoted, plain ASCII, of bounded length."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")


def _words(text: str) -> list[str]:
    # str.split() would also take what only looks like a space.
    return re.split("[ \t]+", text)


def _integer(text: str, what: str, low: int, high: int) -> int:
    if re.fullmatch(r"0|[1-9][0-9]{0,9}", text) and low <= int(text) <= high:
        return int(text)
    raise BadValue(f"{_shown(text)} is not {what}; write a whole number from {low} to {high}")


def _host(host: str) -> str:
    """Check a host name in lower case: labels of letters, digits and hyphens (RFC 1123).

    In front of two of them or more, ``*.`` stands for one label.
    """
    if host.startswith("*.") and "." in host[2:] and "*" not in host[2:]:
        return f"*.{_host(host[2:])}"
    for mark, advice in (
        ("@", "a url takes no user name"),
        ("[", "write a host name, not an IP address"),
        (":", "a url takes no port; 'mypaas.port' is the process's, Traefik's is the server's"),
        ("*", "a wildcard is one '*.' in front of two labels, such as '*.example.com'"),
        ("?", "a url takes no query"),
        ("#", "a url takes no fragment"),
    ):
        if mark in host:
            raise BadValue(f"{_shown(host)} is not a host name: {advice}")
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadValue(
            f"{_shown(host)} is not a host name: dot-separated labels of a-z, 0-9 and '-'; "
            + _URL_FORM
        )
    if labels[-1].isdigit():
        raise BadValue(f"{_shown(host)} is an IP address; write a host name")
    return host


def _url_path(path: str) -> str:
    """Check a url's path and drop its final slash."""
    for mark, what in (("?", "query"), ("#", "fragment"), ("%", "percent-escape")):
        if mark in path:
            raise BadValue(f"{_shown(path)} is not a path: a url takes no {what}")
    if _PATH.fullmatch(path) is None or len(path) > 1000:
        raise BadValue(
            f"{_shown(path)} is not a path; it takes up to 1000 letters, digits and -._~+,=:@/"
        )
    if "//" in path or not {".", ".."}.isdisjoint(path.split("/")):
        raise BadValue(f"{_shown(path)} is not a path: it holds '//', '.' or '..'")
    return path.rstrip("/") or "/"


def _volume_source(source: str) -> str:
    if source.startswith("/"):
        return _directory(source, "host directory")
    if source == "~" or source.startswith("~/"):
        return "~" + _directory(source[1:] or "/", "host directory").rstrip("/")
    if re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}", source) is None:
        raise BadValue(
            f"{_shown(source)} is neither a host directory, which starts with '/' or '~/', "
            "nor a volume's name, which is 1 to 63 letters, digits and _.- with one of the "
            "first two in front"
        )
    return source


def _directory(path: str, what: str) -> str:
    """Check an absolute path and drop what is idle in it: ``//``, ``/./``, a final ``/``."""
    if not path.startswith("/"):
        raise BadValue(f"{_shown(path)} is not a {what}: it must start with '/'")
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise BadValue(f"{_shown(path)} is not a {what}: it must not hold '..'")
    if _CONTROL.search(path):
        raise BadValue(f"{_shown(path)} is not a {what}: it holds a control character")
    if len(path.encode()) > 4000 or any(len(part.encode()) > 255 for part in parts):
        raise BadValue(f"{_shown(path)} is not a {what}: it is too long")
    return "/" + "/".join(parts)


def _address(text: str) -> str:
    """Return the host's address without brackets, in its usual form; empty means all."""
    if not text:
        return ""
    try:
        if text.startswith("["):
            if "%" not in text:
                return str(ipaddress.IPv6Address(text[1:-1]))
        else:
            return str(ipaddress.IPv4Address(text))
    except ValueError:
        pass
    raise BadValue(f"{_shown(text)} is not an IP address; write such as 127.0.0.1 or [::1]")


def _protocol(text: str) -> Literal["tcp", "udp", "sctp"]:
    if text.lower() not in {"tcp", "udp", "sctp"}:
        raise BadValue(f"{_shown(text)} is not a protocol; write tcp, udp or sctp")
    return cast('Literal["tcp", "udp", "sctp"]', text.lower())


def _port_range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    low, high = port(first), port(last or first)
    if low > high:
        raise BadValue(f"{_shown(text)} is a range that ends before it starts")
    return low, high
