"""What services have, and others may not take."""

from __future__ import annotations

import pytest

from mypaas_git.deploy.claims import Directory, directory_fault, port_fault, url_fault
from mypaas_git.directives.model import Publish, Redirect, ServiceSpec, Url
from mypaas_git.names import ServiceName

APP, SHOP = ServiceName.parse("app"), ServiceName.parse("shop")


def anybody(_: ServiceName) -> bool:
    return True


def nobody(_: ServiceName) -> bool:
    return False


def on(host: str, path: str = "/") -> Url:
    return Url("http", host, path)


SHOPS = [ServiceSpec(SHOP, urls=(on("shop.test"), on("shop.test", "/api")))]


def test_a_url_is_its_owners() -> None:
    """The scheme does not matter, nor the key."""
    for each in (on("shop.test"), Url("https", "shop.test", "/api")):
        assert "belongs to the service 'shop'; choose" in str(
            url_fault(each, SHOPS, [], anybody)
        )


def test_where_a_redirect_comes_from_is_its_owners() -> None:
    """As a url is, for urls and redirects of others."""
    moved = ServiceSpec(SHOP, redirects=(Redirect(on("www.shop.test"), on("shop.test")),))
    assert "belongs to the service 'shop'; choose" in str(
        url_fault(on("www.shop.test"), [moved], [], anybody)
    )
    assert "no right" in str(url_fault(on("www.shop.test", "/x"), [moved], [], nobody))


def test_who_may_join_a_host() -> None:
    """With a right to all that are on it; what it has already, a service keeps."""
    new = on("shop.test", "/new")
    assert url_fault(new, SHOPS, [], anybody) is None
    assert "to which this key has no right" in str(url_fault(new, SHOPS, [], nobody))
    assert url_fault(new, SHOPS, [Url("https", "shop.test", "/new")], nobody) is None
    assert url_fault(on("x.shop.test"), SHOPS, [], nobody) is None


def test_a_wildcard_is_one_services() -> None:
    """Who wants a host below it needs a right to that, and the other way round."""
    everything = [ServiceSpec(SHOP, urls=(on("*.shop.test"),))]
    assert "belongs to the service 'shop'; choose" in str(
        url_fault(on("*.shop.test", "/new"), everything, [], anybody)
    )
    below = on("a.shop.test")
    assert "*.shop.test belongs to" in str(url_fault(below, everything, [], nobody))
    assert url_fault(below, everything, [], anybody) is None
    for free in ("shop.test", "a.b.shop.test", "*.b.shop.test"):
        assert url_fault(on(free), everything, [], nobody) is None
    assert "a.shop.test belongs to" in str(
        url_fault(on("*.shop.test"), [ServiceSpec(SHOP, urls=(below,))], [], nobody)
    )


@pytest.mark.parametrize(
    ("wish", "taken"),
    [
        (Publish(80, 7000), True),
        (Publish(80, 7000, "127.0.0.1"), True),
        (Publish(80, 7000, "127.0.0.2"), False),
        (Publish(80, 7000, "::"), True),
        (Publish(80, 7000, protocol="udp"), False),
        (Publish(80, 7001), False),
        (Publish(80, 7000, host_port_end=7010), False),
        (Publish(80), False),
    ],
)
def test_ports(wish: Publish, taken: bool) -> None:
    """An address that means all of them meets every other one."""
    others = [ServiceSpec(SHOP, publish=(Publish(1, 7000, "127.0.0.1"), Publish(2)))]
    assert bool(port_fault(wish, others)) == taken


@pytest.mark.parametrize(
    ("path", "read_only", "theirs", "their_ro", "refused"),
    [
        ("/d/a", False, "/d/b", False, False),
        ("/d/a", False, "/d/ab", False, False),
        ("/d/a", False, "/d/a", False, False),
        ("/d/a/b", False, "/d/a", False, True),
        ("/d/a/b", True, "/d/a", False, True),
        ("/d/a/b", False, "/d/a", True, False),
        ("/d/a", False, "/d/a/b", False, True),
        ("/d/a", True, "/d/a/b", False, False),
    ],
)
def test_nothing_lies_in_what_a_container_writes(
    path: str, read_only: bool, theirs: str, their_ro: bool, refused: bool
) -> None:
    """T43: the outer directory is read-only, or there is none, whoever has which."""
    for owner in (APP, SHOP):
        found = [Directory(owner, theirs, their_ro)]
        fault = directory_fault(Directory(APP, path, read_only), found, anybody)
        assert bool(fault) == refused
        if refused:
            assert "lead elsewhere" in str(fault)


def test_directories_of_others_take_a_right() -> None:
    """Also to be read only, in part, or with what is around them."""
    found = [Directory(SHOP, "/d/a", read_only=True)]
    for path in ("/d/a", "/d/a/b", "/d"):
        wish = Directory(APP, path, read_only=True)
        assert "the service 'shop' has" in str(directory_fault(wish, found, nobody))
        assert directory_fault(wish, found, anybody) is None
