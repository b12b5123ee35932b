"""The table of rights as values; tests/cli/test_rights.py walks it over ssh."""

from __future__ import annotations

import pytest

from mypaas_git.access.policy import Identity, Right, Verb, allow, allow_ref, may
from mypaas_git.errors import AccessDenied
from mypaas_git.names import ServiceName

WEB, SHOP = ServiceName("web"), ServiceName("shop")
ADMIN = Identity("root", admin=True)
FREE = Identity("alice")
LIMITED = Identity("bob", services=frozenset({WEB}))
OF_ADMINS = {"remove", "config-read", "config-write", "keys", "audit", "server"}


def test_every_verb() -> None:
    """Admins may do all; what is theirs is nobody else's; the rest is for one's services."""
    for verb in Verb:
        assert may(ADMIN, verb, SHOP)
        assert may(FREE, verb, SHOP) is (verb.value[0] not in OF_ADMINS)
        assert may(LIMITED, verb, WEB) is (verb.value[0] not in OF_ADMINS)
        assert may(LIMITED, verb, SHOP) is (verb.right is Right.LOGIN)


def test_creation() -> None:
    """``create = false`` is for keys without a list: a list names what may be made."""
    for identity, service, allowed in (
        (ADMIN, WEB, True),
        (LIMITED, WEB, True),
        (LIMITED, SHOP, False),
        (FREE, WEB, False),
    ):
        try:
            allow(identity, Verb.CREATE, service, create=False)
            did = True
        except AccessDenied:
            did = False
        assert did is allowed, identity
    allow(FREE, Verb.CREATE, WEB, create=True)


@pytest.mark.parametrize(
    ("branches", "ref", "allowed"),
    [
        (("main",), "refs/heads/main", True),
        (("main",), "refs/heads/mainly", False),
        (("main",), "refs/heads/x/main", False),
        (("main",), "refs/tags/main", False),
        (("main",), "main", False),
        (("release/*",), "refs/heads/release/1.2", True),
        (("release/*",), "refs/heads/release/eu/1", False),
        (("release/*",), "refs/heads/release/", True),
        (("release/*",), "refs/heads/release", False),
        (("*",), "refs/heads/anything", True),
        (("*",), "refs/heads/any/thing", False),
        (("v*.x", "main"), "refs/heads/v1.x", True),
        (("v*.x",), "refs/heads/v1yx", False),
        (("main",), "refs/heads/main\n", False),
    ],
)
def test_branches(branches: tuple[str, ...], ref: str, allowed: bool) -> None:
    """A star stands for anything but a slash; tags are no branches."""
    identity = Identity("ci", branches=branches)
    if allowed:
        allow_ref(identity, ref)
    else:
        with pytest.raises(AccessDenied, match=r"may push to .* only"):
            allow_ref(identity, ref)
    allow_ref(FREE, ref)
    allow_ref(ADMIN, ref)
