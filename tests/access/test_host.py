"""What a service may ask of the host."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mypaas_git.access.host import (
    HostRules,
    always_forbidden,
    check,
    check_path,
    expand,
    parse_publish_range,
)
from mypaas_git.directives import Publish, ServiceSpec, Url, Volume
from mypaas_git.errors import HostRefused, SettingsError
from mypaas_git.names import ServiceName

HOME = "/home/me"
STATE = "/home/me/_mypaas"
RULES = HostRules(
    volume_roots=(HOME, "/srv/data"),
    forbidden=always_forbidden(HOME, STATE),
    publish_low=1024,
    publish_high=65535,
    home=HOME,
)
# An administrator who opened everything: what is never opened stays closed.
OPEN = HostRules(("/",), ("/", *always_forbidden(HOME, STATE)), 1, 65535, HOME)


def spec(*wishes: Volume | Publish) -> ServiceSpec:
    """A service that wants these."""
    return ServiceSpec(
        ServiceName("hello"),
        volumes=tuple(each for each in wishes if isinstance(each, Volume)),
        publish=tuple(each for each in wishes if isinstance(each, Publish)),
    )


@pytest.mark.parametrize(
    "source",
    [
        "~/data",
        "~/sshx",
        "~/_mypaas2",
        "/home/me/data/x",
        "/srv/data",
        "/srv/data/x",
        "name",
        "~/ssh/.ssh",
        "/srv/data/etc",
        "~/a//b/./c/",
    ],
)
def test_volumes_within_the_roots(source: str) -> None:
    """What lies in an opened directory may be mounted, and so may every named volume."""
    check(spec(Volume(source, "/data")), RULES)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("/", "the whole host"),
        ("//", "the whole host"),
        ("/etc", "this host opens /home/me, /srv/data"),
        ("/home", "it holds /home/me/_mypaas"),
        ("~", "it holds /home/me/_mypaas"),
        ("~/", "it holds /home/me/_mypaas"),
        ("/home/me", "it holds /home/me/_mypaas"),
        ("~/.ssh", "/home/me/.ssh is never opened"),
        ("~/.ssh/", "/home/me/.ssh is never opened"),
        ("~/.ssh/id_ed25519", "/home/me/.ssh is never opened"),
        ("~/_mypaas", "/home/me/_mypaas is never opened"),
        ("~/_mypaas/ledger.db", "/home/me/_mypaas is never opened"),
        ("/home/me2", "this host opens"),
        ("/srv/database", "this host opens"),
        ("/srv", "this host opens"),
        ("/var/run/docker.sock", "never opened"),
        ("/run", "it holds /run/docker.sock"),
        ("/var", "it holds /var/run/docker.sock"),
        ("/proc", "never opened"),
        ("/proc/1/root", "never opened"),
        ("/sys/fs/cgroup", "never opened"),
        ("/var/lib/docker/volumes/x", "never opened"),
        ("~/../other", "without '..'"),
        ("/srv/data/../../etc", "without '..'"),
        ("~other/data", "not an absolute path"),
    ],
)
def test_volumes_refused(source: str, why: str) -> None:
    """T42, T43: outside the roots; in, at or around what is never opened."""
    with pytest.raises(HostRefused) as caught:
        check(spec(Volume(source, "/data")), RULES)
    assert why in str(caught.value)
    assert caught.value.details == (str(caught.value),)


def test_open_host() -> None:
    """The administrator's config opens the rest, and nothing opens what is never opened."""
    check(spec(Volume("/etc/ssl", "/data"), Publish(22, 22)), OPEN)
    for source in ("/", "/home", "~/.ssh", "/var/run/docker.sock", "/proc", "~/_mypaas/repos"):
        with pytest.raises(HostRefused):
            check(spec(Volume(source, "/data")), OPEN)


def test_closed_host() -> None:
    """A host without roots says that it opens nothing and what would do instead."""
    with pytest.raises(HostRefused, match="opens no directory at all; use a named volume"):
        check_path("/srv", HostRules((), (), 1, 2, HOME))


@pytest.mark.parametrize(
    ("source", "home", "path"),
    [
        ("~", "/home/me", "/home/me"),
        ("~/a", "/home/me/", "/home/me/a"),
        ("~/a", "/", "/a"),
        ("~", "/", "/"),
        ("/a/~", "/home/me", "/a/~"),
        ("~me", "/home/me", "~me"),
        ("name", "/home/me", "name"),
    ],
)
def test_expand(source: str, home: str, path: str) -> None:
    """Only a leading ``~`` stands for the server's home."""
    assert expand(source, HostRules((), (), 1, 2, home)) == path


@pytest.mark.parametrize("path", ["data", "", "./data", "/srv/data/a\0b"])
def test_check_path_refuses_what_is_no_path(path: str) -> None:
    """A path that was resolved is absolute; anything else was not."""
    with pytest.raises(HostRefused, match="not an absolute path"):
        check_path(path, RULES)


@given(st.lists(st.sampled_from(["", ".", "..", "home", "me", ".ssh", "data", "_mypaas"])))
@settings(max_examples=300, deadline=None)
def test_what_is_never_opened_stays_closed(parts: list[str]) -> None:
    """No spelling of a path leads into, onto or around a forbidden directory."""
    path = "/" + "/".join(parts)
    try:
        check_path(path, OPEN)
    except HostRefused:
        return
    plain = [part for part in parts if part not in {"", "."}]
    for closed in (["home", "me", ".ssh"], ["home", "me", "_mypaas"]):
        shared = min(len(plain), len(closed))
        assert plain[:shared] != closed[:shared]
    assert ".." not in plain


@pytest.mark.parametrize(
    "publish",
    [
        Publish(80),
        Publish(80, 1024),
        Publish(80, 65535, "127.0.0.1"),
        Publish(80, 8080, "::1"),
        Publish(80, 8080, "::"),
        Publish(80, 8080, str(IPv4Address(0))),
        Publish(80, 8080, "192.168.1.5", "udp"),
        Publish(80, 8080, "2001:db8::1"),
        Publish(80, 1024, host_port_end=65535),
    ],
)
def test_published_ports(publish: Publish) -> None:
    """Ports in range, on any address that a host can have; port 0 is Docker's choice."""
    check(spec(publish), RULES)


@pytest.mark.parametrize(
    ("publish", "why"),
    [
        (Publish(22, 22), "the host port 22 cannot be published: this host opens 1024-65535"),
        (Publish(80, 80), "the host port 80 "),
        (Publish(80, 443, "127.0.0.1"), "the host port 443 "),
        (Publish(80, 1023), "the host port 1023 "),
        (Publish(80, 1000, host_port_end=2000), "the host port 1000-2000 "),
        (Publish(80, 8080, "224.0.0.1"), "224.0.0.1 is not an address"),
        (Publish(80, 8080, "255.255.255.255"), "255.255.255.255 is not an address"),
        (Publish(80, 8080, "ff02::1"), "ff02::1 is not an address"),
        (Publish(80, 8080, "example.com"), "'example.com' is not an address"),
        (Publish(80, 0, "240.0.0.1"), "240.0.0.1 is not an address"),
    ],
)
def test_published_ports_refused(publish: Publish, why: str) -> None:
    """T44: ports that the host keeps, addresses that no host has."""
    with pytest.raises(HostRefused) as caught:
        check(spec(publish), RULES)
    assert str(caught.value).startswith(why)


def test_range_ends_beyond_the_host() -> None:
    """A range is in only when its end is."""
    rules = HostRules((), (), 8000, 8100, HOME)
    with pytest.raises(HostRefused, match="8090-8101"):
        check(spec(Publish(80, 8090, host_port_end=8101)), rules)


RESERVED = {
    "www.a.test": ("web",),
    "*.a.test": ("blog", "key:alice"),
    "*.b.a.test": ("hello",),
    "*": (),
}


@pytest.mark.parametrize(
    ("host", "key", "granted"),
    [
        ("x.a.test", "alice", True),
        ("x.a.test", "bob", False),
        ("a.test", "alice", False),
        ("www.a.test", "alice", False),
        ("x.b.a.test", "bob", True),
        ("else.test", "alice", False),
    ],
)
def test_reserved_hosts(host: str, key: str, granted: bool) -> None:
    """The host's own entry decides, else the longest pattern that fits it."""
    rules = dataclasses.replace(RULES, reserved=RESERVED)
    wish = ServiceSpec(ServiceName("hello"), urls=(Url("http", host),))
    if granted:
        check(wish, rules, key=key)
        return
    with pytest.raises(HostRefused, match="this host reserves"):
        check(wish, rules, key=key)


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("*.c.test", ""),
        ("*.a.test", "reserves *.a.test for the service 'blog'"),
        ("*.b.a.test", ""),
        ("*.paas.test", ""),
        ("*.shop.test", "reserves www.shop.test for nobody"),
        ("*.test.example", "paas.test.example is the server's own name"),
    ],
)
def test_a_wildcard_takes_all_that_is_below_it(host: str, said: str) -> None:
    """It needs what each reserved host below it needs; others' wildcards are not below."""
    reserved = {"*.a.test": ("blog",), "*.b.a.test": ("hello",), "www.shop.test": ()}
    rules = dataclasses.replace(RULES, reserved=reserved, domain="paas.test.example")
    wish = ServiceSpec(ServiceName("hello"), urls=(Url("http", host),))
    if not said:
        check(wish, rules)
        return
    with pytest.raises(HostRefused) as caught:
        check(wish, rules)
    assert said in str(caught.value)


def test_a_secure_wildcard_needs_a_certificate() -> None:
    """By DNS-01, or of the admin's own."""
    wish = ServiceSpec(ServiceName("hello"), urls=(Url("https", "*.a.test"),))
    with pytest.raises(HostRefused, match='acme_challenge = "dns"'):
        check(wish, RULES)
    check(wish, dataclasses.replace(RULES, wildcards=True))
    check(wish, dataclasses.replace(RULES, certificates=frozenset({"*.a.test"})))


def test_what_a_key_brought_stays() -> None:
    """Somebody else's push does not lose a host that a key was given."""
    rules = dataclasses.replace(RULES, reserved=RESERVED)
    wish = ServiceSpec(ServiceName("hello"), urls=(Url("http", "x.a.test"),))
    check(wish, rules, key="bob", kept=wish.urls)


def test_the_servers_own_name_and_ports() -> None:
    """They are nobody's, unless config.toml gives the name away (T44, T47)."""
    wish = ServiceSpec(ServiceName("hello"), urls=(Url("http", "paas.test", "/x"),))
    rules = dataclasses.replace(RULES, domain="paas.test", own_ports=frozenset({2222}))
    with pytest.raises(HostRefused, match="is the server's own name"):
        check(wish, rules)
    check(wish, dataclasses.replace(rules, reserved={"paas.test": ("hello",)}))
    for publish in (Publish(1, 2222), Publish(1, 2200, host_port_end=2300)):
        with pytest.raises(HostRefused, match="the host port 2222 is the server's own"):
            check(spec(publish), rules)


@pytest.mark.parametrize("path", ["/api", "/api/x", "/dashboard", "/dashboard/x"])
def test_the_dashboards_paths(path: str) -> None:
    """Of the server's own name they are nobody's, also when the name is somebody's (T47)."""
    rules = dataclasses.replace(
        RULES,
        domain="paas.test",
        own_paths=("/api", "/dashboard"),
        reserved={"paas.test": ("hello",)},
    )

    def wish(host: str, path: str) -> ServiceSpec:
        return ServiceSpec(ServiceName("hello"), urls=(Url("http", host, path),))

    with pytest.raises(HostRefused, match="belongs to the server's dashboard"):
        check(wish("paas.test", path), rules)
    check(wish("other.test", path), rules)
    check(wish("paas.test", f"/x{path}"), rules)
    check(wish("paas.test", path.replace("/", "/a", 1)), rules)
    check(wish("paas.test", path), dataclasses.replace(rules, own_paths=()))


def test_all_faults_at_once() -> None:
    """One line for people, one detail for each fault."""
    wishes = spec(Volume("/etc", "/a"), Volume("~/x", "/b"), Volume("/", "/c"), Publish(22, 22))
    with pytest.raises(HostRefused) as caught:
        check(wishes, RULES)
    error = caught.value
    assert [each.partition(" ")[0] for each in error.details] == ["'/etc'", "'/'", "the"]
    assert str(error) == f"{error.details[0]} (and 2 more)"
    assert error.code == "host-refused"


@pytest.mark.parametrize(
    ("text", "limits"),
    [("1024-65535", (1024, 65535)), ("8080", (8080, 8080)), ("1-1", (1, 1))],
)
def test_publish_range(text: str, limits: tuple[int, int]) -> None:
    """Two ports or one."""
    assert parse_publish_range(text) == limits


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "80-",
        "-80",
        "90-80",
        "0-80",
        "1-65536",
        "1-2-3",
        "1 - 2",
        "\uff18\uff10-90",
        "1_0-20",
        "any",
    ],
)
def test_publish_range_refused(text: str) -> None:
    """T39: what is no range names the setting that holds it."""
    with pytest.raises(SettingsError, match=r"^\[host\] publish: "):
        parse_publish_range(text)
