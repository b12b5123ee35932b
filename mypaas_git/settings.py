"""``config.toml`` as frozen settings: read once, strictly.

An unknown key, a wrong type or a bad value is a :class:`SettingsError` that
carries the path to the fault, such as ``[docker] keep_releases``.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NewType, get_type_hints

import toml

from mypaas_git.errors import NameRefused, SettingsError
from mypaas_git.names import VariableName


@dataclass(frozen=True)
class Address:
    """A listening address, written ``A:P``; an IPv6 address stands in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return ``text`` as an address; raises ValueError when it is none."""
        match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})", text)
        if match is None or int(match[3]) > 65535:
            raise ValueError(f"{text!r} is not an address; write it like 0.0.0.0:2222")
        return cls(match[1] or match[2], int(match[3]))


Cap = NewType("Cap", int)
"""A limit in bytes that 0, or "" in config.toml, lifts."""

Age = NewType("Age", int)
"""A time in whole seconds; "" in config.toml is 0, none."""


@dataclass(frozen=True)
class Init:
    domain: str = ""
    email: str = ""


@dataclass(frozen=True)
class Ssh:
    """``idle_timeout`` is in seconds."""

    listen: Address = Address("0.0.0.0", 2222)  # noqa: S104 - a server's ssh faces the world
    max_connections: int = 500
    max_startups: int = 200
    idle_timeout: float = 600.0


@dataclass(frozen=True)
class CertificateFiles:
    """A certificate with its chain, and its private key: files in PEM."""

    cert: str = ""
    key: str = ""


CertificatesByHost = Mapping[str, CertificateFiles]
Variables = Mapping[str, str]


@dataclass(frozen=True)
class Http:
    """Times are in seconds; 0 of ``hsts`` is none. ``acme_dns_env`` holds secrets.

    ``max_requests`` is how many of one address are served at a time, 0 for any number.
    """

    web: Address = Address("0.0.0.0", 80)  # noqa: S104 - and so does its web side
    web_secure: Address = Address("0.0.0.0", 443)  # noqa: S104
    acme_server: str = "https://acme-v02.api.letsencrypt.org/directory"
    acme_ca: str = ""
    acme_challenge: str = "http"
    acme_lifetime: float = 90 * 86400.0
    acme_wait: float = 10.0
    acme_dns_provider: str = ""
    acme_dns_resolvers: tuple[str, ...] = ()
    acme_dns_env: Variables = field(default_factory=dict, repr=False)
    certificates: CertificatesByHost = field(default_factory=dict)
    hsts: Age = Age(180 * 86400)
    http2: bool = True
    http3: bool = False
    access_log: bool = False
    compress: bool = False
    dashboard: bool = False
    max_requests: Cap = Cap(0)
    read_timeout: float = 3600.0
    trusted_proxies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Docker:
    """Times are in seconds, ``build_memory`` and ``low_disk`` in bytes; a cap of 0 is none."""

    namespace: str = "mypaas"
    network: str = ""
    traefik_image: str = "traefik:v3.7"
    keep_releases: int = 5
    builder: str = "auto"
    build_timeout: float = 1800.0
    build_memory: Cap = Cap(0)
    build_cpus: int = 0
    engine: str = "docker"
    builds: int = 2
    health_timeout: float = 60.0
    drain_timeout: float = 30.0
    stop_timeout: float = 10.0
    low_disk: int = 2 << 30


@dataclass(frozen=True)
class Git:
    """``max_pack_size`` is in bytes."""

    branches: tuple[str, ...] = ("main", "master")
    max_pack_size: int = 1 << 30


@dataclass(frozen=True)
class Defaults:
    """What every container gets; 0 ``pids`` is no limit.

    Docker's own capabilities less those that an ordinary app does without: raw sockets
    forge other services' packets, and the others make devices, file capabilities and audit
    records.
    """

    pids: Cap = Cap(4096)
    capabilities: tuple[str, ...] = (
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "NET_BIND_SERVICE",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    )


Reservations = Mapping[str, tuple[str, ...]]
"""Patterns of hosts, with the services and the keys (``key:NAME``) that may use them."""


@dataclass(frozen=True)
class Host:
    """``urls`` reserves hosts; ``base_images`` names services that others may build upon.

    ``reach_ssh`` tells whether containers may connect to this server's ssh.
    """

    volumes: tuple[str, ...] = ("~",)
    publish: str = "1024-65535"
    shared_volumes: tuple[str, ...] = ()
    base_images: tuple[str, ...] = ()
    reach_ssh: bool = False
    defaults: Defaults = Defaults()
    urls: Reservations = field(default_factory=dict)


@dataclass(frozen=True)
class Access:
    """``create``: whether a key without options may create services."""

    create: bool = True


@dataclass(frozen=True)
class Env:
    """Secrets: ``common`` for every service, ``services`` for one each, which wins."""

    common: Mapping[str, str] = field(default_factory=dict, repr=False)
    services: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)

    def lookup(self, service: str, key: str) -> str | None:
        return self.services.get(service, {}).get(key, self.common.get(key))


@dataclass(frozen=True)
class Settings:
    """The settings of one home; :func:`load` makes them."""

    home: Path
    init: Init = Init()
    ssh: Ssh = Ssh()
    http: Http = Http()
    docker: Docker = Docker()
    git: Git = Git()
    host: Host = Host()
    access: Access = Access()
    env: Env = Env()

    @property
    def network(self) -> str:
        return self.docker.network or f"{self.docker.namespace}-net"


def home_from_environment() -> Path:
    """The home that ``$MYPAAS_HOME`` names, else ``~/_mypaas``."""
    return Path(os.environ.get("MYPAAS_HOME") or "~/_mypaas").expanduser().absolute()


def load(home: Path) -> Settings:
    """Read ``home/config.toml``.

    Raises :class:`SettingsError` when it is missing, malformed or has a fault.
    """
    path = home / "config.toml"
    try:
        data = toml.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"there is no {path}; make it with: mypaas server init") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
    except (toml.TomlDecodeError, ValueError, IndexError, TypeError) as error:
        raise SettingsError(f"{path} is not valid TOML{_where(error)}") from None
    try:
        return from_dict(home, data)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def _where(error: Exception) -> str:
    """The place of a fault. The library's own words may hold secrets of the file."""
    again = re.match(r"What\? ([A-Za-z0-9_.-]{1,60}) already exists", str(error))
    if again:
        return f": [{again[1]}] stands there twice"
    return f": line {error.lineno}" if isinstance(error, toml.TomlDecodeError) else ""


def from_dict(home: Path, data: Mapping[str, Any]) -> Settings:
    """Return the settings that the parsed TOML ``data`` holds."""
    sections: dict[str, type] = {
        "init": Init,
        "ssh": Ssh,
        "http": Http,
        "docker": Docker,
        "git": Git,
        "host": Host,
        "access": Access,
    }
    values: dict[str, Any] = {}
    for name, content in data.items():
        if not isinstance(content, dict):
            raise SettingsError(f"'{name}' must stand in a section such as [docker]")
        if name == "env":
            values[name] = _env(content)
        elif name in sections:
            values[name] = _section(name, sections[name], content)
        else:
            raise SettingsError(f"unknown section [{name}]{_near(name, [*sections, 'env'])}")
    settings = Settings(home=home, **values)
    if settings.http.acme_challenge == "dns" and not settings.http.acme_dns_provider:
        raise SettingsError(
            '[http] acme_challenge: "dns" needs acme_dns_provider, the name that Traefik has '
            "for whoever hosts your DNS"
        )
    if settings.http.dashboard and not settings.init.domain:
        raise SettingsError(
            "[http] dashboard: true needs the server's own name, which is where it is; "
            "give domain under [init]"
        )
    return settings


def _section(name: str, cls: type, content: Mapping[str, Any]) -> Any:
    kinds = get_type_hints(cls)
    values = {}
    for key, value in content.items():
        where = f"[{name}] {key}"
        if key not in kinds:
            raise SettingsError(f"unknown key {where}{_near(key, kinds)}")
        try:
            values[key] = _value(name, key, kinds[key], value)
            _check(where, values[key])
        except ValueError as error:
            raise SettingsError(f"{where}: {error}") from None
    return cls(**values)


def _value(section: str, key: str, kind: Any, value: Any) -> Any:
    """Return what stands under a key, which may be a section of its own."""
    if kind not in (Defaults, Reservations, CertificatesByHost, Variables):
        return _convert(kind, value)
    name = f"{section}.{key}"
    if not isinstance(value, dict):
        raise SettingsError(f"[{section}] {key}: write it as a section, [{name}]")
    if kind is Defaults:
        return _section(name, Defaults, value)
    if kind == Variables:
        return {each: _secret(f"[{name}] {each}", each, text) for each, text in value.items()}
    return _certificates(name, value) if kind == CertificatesByHost else _reservations(value)


def _convert(kind: Any, value: Any) -> Any:
    """Return the TOML ``value`` as ``kind``; raises ValueError."""
    if kind in (Cap, Age) and value == "":
        return 0
    if kind is Address and isinstance(value, str):
        return Address.parse(value)
    if kind in (bool, str) and isinstance(value, kind):
        return value
    if kind in (int, Cap) and isinstance(value, (str, int)) and not isinstance(value, bool):
        return _size(value) if isinstance(value, str) else value
    if kind in (float, Age):
        return _seconds(value) if kind is float else round(_seconds(value))
    if (
        kind == tuple[str, ...]
        and isinstance(value, list)
        and all(isinstance(each, str) for each in value)
    ):
        return tuple(value)
    wanted = {
        bool: "true or false",
        str: "a text in quotes",
        int: "a whole number",
        Cap: "a whole number",
        Address: 'text like "0.0.0.0:80"',
    }
    raise ValueError(f"{value!r} is not {wanted.get(kind, 'a list of texts')}")


def _reservations(value: Mapping[str, Any]) -> Reservations:
    """What ``[host.urls]`` says; raises ValueError."""
    found: dict[str, tuple[str, ...]] = {}
    for pattern, owners in value.items():
        if not _PATTERN.fullmatch(pattern):
            raise ValueError(
                f'{pattern!r} is not a host; write such as "shop.example.com", '
                f'"*.example.com" for all below it, or "*" for every other one'
            )
        if not isinstance(owners, list) or not all(map(_is_owner, owners)):
            raise ValueError(
                f"{pattern}: {owners!r} is not a list of services and keys; write such as "
                f'["shop", "key:alice"]'
            )
        found[pattern] = tuple(owners)
    return found


def _certificates(section: str, value: Mapping[str, Any]) -> CertificatesByHost:
    """What ``[http.certificates]`` says; raises ValueError."""
    found: dict[str, CertificateFiles] = {}
    for host, files in value.items():
        name = f'{section}."{host}"'
        if host == "*" or not _PATTERN.fullmatch(host) or not isinstance(files, dict):
            raise ValueError(
                f"{host!r}: write a section for each host, such as "
                f'[{section}."www.example.com"], with cert and key'
            )
        found[host] = _section(name, CertificateFiles, files)
        for key in ("cert", "key"):
            if not getattr(found[host], key).startswith("/"):
                raise SettingsError(f"[{name}] {key}: write the absolute path of a PEM file")
    return found


def _is_owner(text: object) -> bool:
    return isinstance(text, str) and bool(
        re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}|key:[^\x00-\x1f]+", text)
    )


def _size(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,12})([bkmg]?)", text.lower())
    if match is None:
        raise ValueError(f"{text!r} is not a size; write it like 500m or 1g")
    return int(match[1]) * {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[match[2]]


def _seconds(value: Any) -> float:
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|[smhd])?", str(value))
    if match is None or isinstance(value, bool) or float(match[1]) == 0:
        raise ValueError(f'{value!r} is not a time; write it like "60s"')
    return float(match[1]) * _UNITS[match[2]]


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}


_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_HOST = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


_PATTERN = re.compile(rf"\*|(\*\.)?{_HOST.pattern}")
_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}|[~/].*")
_SERVICE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_CAPABILITY = re.compile(r"[A-Z][A-Z_]{2,30}")


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


_RULES: dict[str, tuple[Callable[[Any], object], str]] = {
    "[init] domain": (
        lambda v: not v or _HOST.fullmatch(v),
        "is not a host name such as paas.example.com",
    ),
    "[init] email": (
        lambda v: not v or re.fullmatch(r"[^@\s,`]+@[^@\s,`]+", v),
        "is not an email address",
    ),
    "[ssh] max_connections": (lambda v: 1 <= v <= 10_000, "must lie between 1 and 10000"),
    "[ssh] max_startups": (lambda v: 2 <= v <= 10_000, "must lie between 2 and 10000"),
    "[http] acme_server": (
        lambda v: re.fullmatch(r"https?://[^\s`]+", v),
        "is not the url of an ACME directory",
    ),
    "[http] acme_challenge": (
        lambda v: v in ("http", "tls-alpn", "dns"),
        'is not a challenge; use "http", "tls-alpn" or "dns"',
    ),
    "[http] acme_dns_provider": (
        lambda v: not v or re.fullmatch(r"[a-z0-9]{1,40}", v),
        'is not a provider of the DNS as Traefik names it, such as "cloudflare"',
    ),
    "[http] acme_dns_resolvers": (
        lambda v: all(re.fullmatch(r"[A-Za-z0-9.:\[\]-]{1,260}", each) for each in v),
        'must be name servers, each like "1.1.1.1:53"',
    ),
    "[http] acme_lifetime": (lambda v: v >= 3600, "is less than an hour"),
    "[http] max_requests": (lambda v: v >= 0, "is less than none"),
    "[http] read_timeout": (lambda v: v >= 1, "is less than a second"),
    "[http] trusted_proxies": (
        lambda v: all(map(_is_network, v)),
        'must be addresses or networks, each like "10.0.0.0/8"',
    ),
    "[docker] namespace": (_NAME.fullmatch, "must be 1 to 31 of a-z, 0-9 and '-'"),
    "[docker] network": (
        lambda v: not v or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", v),
        "is not the name of a Docker network",
    ),
    "[docker] keep_releases": (lambda v: 1 <= v <= 1000, "must lie between 1 and 1000"),
    "[docker] builds": (lambda v: 1 <= v <= 100, "must lie between 1 and 100"),
    "[docker] builder": (
        lambda v: v in ("auto", "buildkit", "classic"),
        'is not supported; use "auto", "buildkit" or "classic"',
    ),
    "[docker] build_memory": (
        lambda v: v == 0 or v >= 6 << 20,
        'is less than any build needs, 6m; write "" for no cap',
    ),
    "[docker] build_cpus": (lambda v: 0 <= v <= 1024, "must lie between 0 (no cap) and 1024"),
    "[docker] engine": (lambda v: v == "docker", 'is not supported; use "docker"'),
    "[host] shared_volumes": (
        lambda v: all(map(_VOLUME.fullmatch, v)),
        "must be names of volumes, or directories",
    ),
    "[host] base_images": (
        lambda v: all(map(_SERVICE.fullmatch, v)),
        "must be names of services",
    ),
    "[host.defaults] pids": (
        lambda v: v == 0 or 16 <= v <= 1 << 22,
        "must lie between 16 and 4194304, or be 0 for no limit",
    ),
    "[host.defaults] capabilities": (
        lambda v: all(map(_CAPABILITY.fullmatch, v)),
        "must be names such as CHOWN or NET_BIND_SERVICE (capabilities(7), without CAP_)",
    ),
    "[git] branches": (
        lambda v: v and all(map(_REF.fullmatch, v)),
        "must name at least one branch, each like main or release/eu",
    ),
}


def _check(where: str, value: Any) -> None:
    """Refuse values of the right type that make no sense; raises ValueError."""
    accepts, complaint = _RULES.get(where, (lambda _: True, ""))
    if not accepts(value):
        raise ValueError(f"{value!r} {complaint}")


def _env(content: Mapping[str, Any]) -> Env:
    common: dict[str, str] = {}
    services: dict[str, dict[str, str]] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            services[key] = {
                inner: _secret(f"[env.{key}] {inner}", inner, each)
                for inner, each in value.items()
            }
        else:
            common[key] = _secret(f"[env] {key}", key, value)
    return Env(common, services)


def _secret(where: str, key: str, value: Any) -> str:
    """A variable's value; messages never show it."""
    try:
        VariableName.parse(key)
    except NameRefused as error:
        raise SettingsError(f"{where}: {error}") from None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise SettingsError(f"{where}: must be a text in quotes")
    if "\0" in str(value):
        raise SettingsError(f"{where}: holds a NUL character")
    return str(value)


def _near(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known are: {', '.join(sorted(known))}"


TEMPLATE = """\
# mypaas-git: the settings of this server. What stands behind a '#' is the default.
# Changes to [env] and [access] count from the next push, all others from the next start.

[init]
domain = {domain}  # the server's own name
email = {email}  # for Let's Encrypt; without it https uses a self-signed certificate

[ssh]
listen = {ssh}
# max_connections = 500  # how many may be logged in at once
# max_startups = 200  # how many may be on the way there, half of them from one address
# idle_timeout = "10m"  # how long somebody logged in may stay without a command

[http]
web = {web}
web_secure = {web_secure}
# acme_server = "https://acme-v02.api.letsencrypt.org/directory"
# acme_ca = ""  # a file of extra certificates to trust for acme_server
# acme_challenge = "http"  # how it sees whose host it is; or "tls-alpn", or "dns"
# acme_dns_provider = ""  # for "dns": the name that Traefik has for your DNS's host
# acme_dns_resolvers = []  # for "dns": name servers to ask; none means the host's own
# acme_lifetime = "90d"  # how long its certificates are valid
# acme_wait = "10s"  # how long a push waits for a first certificate
# hsts = "180d"  # how long browsers are to insist on https; "" leaves that to the apps
# http2 = true
# http3 = false  # opens the port of web_secure for UDP, too
# access_log = false  # of every request, in logs/traefik
# compress = false  # answers, for clients that like it
# dashboard = false  # Traefik's, at https://<domain>/dashboard/; its user is mypaas
# max_requests = ""  # how many of one client's address are served at a time
# read_timeout = "1h"  # how long a request may take to arrive, an upload with all of it
# trusted_proxies = []  # addresses whose word is taken for who the visitor is

# [http.acme_dns_env]  # what that provider's variables are
# CF_DNS_API_TOKEN = "..."

# [http.certificates."www.example.com"]  # a certificate of your own, instead of ACME's
# cert = "/etc/ssl/www.example.com.pem"  # with its chain
# key = "/etc/ssl/www.example.com.key"

[docker]
namespace = {namespace}  # label value and prefix of everything that is created
# network = "<namespace>-net"
# traefik_image = "traefik:v3.7"
# keep_releases = 5
# builder = "auto"  # BuildKit if a docker client can drive it, else "classic"; or "buildkit"
# build_timeout = "30m"
# build_memory = ""  # "2g" caps the steps of a build; only the classic builder can
# build_cpus = 0  # the same for CPUs
# health_timeout = "60s"  # how long a new release may take to get ready
# drain_timeout = "30s"  # how long requests in flight on an old replica may take to end
# stop_timeout = "10s"  # how long it may then take to stop
# builds = 2  # how many builds may run at once
# low_disk = "2g"  # a pusher is told when less is free before a build

[git]
# branches = ["main", "master"]  # a push to one of these deploys
# max_pack_size = "1g"

[host]  # what services may ask of this host
# volumes = ["~"]
# publish = "1024-65535"
# shared_volumes = []  # volumes that more than one service may use
# base_images = []  # services whose images others may build upon
# reach_ssh = false  # whether services may connect to this server's ssh

[host.defaults]  # what every container gets
# pids = 4096  # how many processes and threads it may have
# capabilities = [{capabilities}]

[host.urls]  # hosts that only these services, or pushes with these keys, may use
# "*.alice.example.com" = ["blog", "key:alice"]

[access]
# create = true  # whether a key without options may create services

[env]  # secrets, sampled by `# mypaas.env=KEY`
# API_TOKEN = "..."
# [env.hello-world]  # only for this service
# API_TOKEN = "..."
"""


def render(settings: Settings) -> str:
    """The text of a new ``config.toml`` that says what ``settings`` do."""
    values = {
        "domain": settings.init.domain,
        "email": settings.init.email,
        "ssh": str(settings.ssh.listen),
        "web": str(settings.http.web),
        "web_secure": str(settings.http.web_secure),
        "namespace": settings.docker.namespace,
    }
    encoder = toml.TomlEncoder()
    capabilities = ", ".join(f'"{each}"' for each in Defaults().capabilities)
    shown = {key: encoder.dump_value(value) for key, value in values.items()}
    return TEMPLATE.format(**shown, capabilities=capabilities)


def with_changes(settings: Settings, **sections: Mapping[str, Any]) -> Settings:
    """Return ``settings`` with keys of some sections replaced."""
    return dataclasses.replace(
        settings,
        **{
            name: dataclasses.replace(getattr(settings, name), **changes)
            for name, changes in sections.items()
        },
    )
