"""Trees that resemble others: found good or bad as if each were looked at alone."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import packs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packs import BLOB, COMMIT, TREE, entry, object_id, pack

from mypaas_git.errors import TreeRefused
from mypaas_git.git.ingest import ingest
from mypaas_git.git.repository import Repositories
from mypaas_git.git.trees import Trees
from mypaas_git.names import ServiceName

Item = tuple[bytes, bytes, bytes]

NAMES = [b"a", b"a.b", b"a b", b"b", b"b.c", b"c", b"d"]
# Ids that look like the entries of a tree, too.
IDS = [bytes(20), b"\xff" * 20, b" a\0".ljust(20, b"x"), b"100644 a\0".rjust(20, b"x")]
# Mostly good ones, so that there is something to compare the bad ones with.
MODES = [*[b"100644"] * 6, *[b"40000"] * 3, b"777"]
ITEM = st.tuples(
    st.sampled_from(MODES), st.sampled_from([*NAMES * 3, b".git"]), st.sampled_from(IDS)
)
FIRST, LAST = (b"100644", b"!", bytes(20)), (b"100644", b"~", bytes(20))


class Wrong(Exception):
    pass


def check(_id: int, data: bytes) -> set[Item]:
    """All entries of a tree, one by one. Raises Wrong."""
    items: list[Item] = []
    while data:
        head, nul, rest = data.partition(b"\0")
        mode, space, name = head.partition(b" ")
        if not (nul and space and name and len(rest) >= 20):
            raise Wrong
        items.append((mode, name, rest[:20]))
        data = rest[20:]
    names = [name for _, name, _ in items]
    keys = [name + b"/" * (mode == b"40000") for mode, name, _ in items]
    bad = any(mode == b"777" or name == b".git" for mode, name, _ in items)
    if bad or keys != sorted(keys) or len(set(names)) != len(names):
        raise Wrong
    return set(items)


def check_new(id_: int, entries: list[bytes]) -> set[Item]:
    """All of some entries of a tree."""
    return set().union(*(check(id_, entry) for entry in entries))


def key(item: Item) -> bytes:
    return item[1] + b"/" * (item[0] == b"40000")


def in_order(items: list[Item]) -> list[Item]:
    return sorted({key(item): item for item in items}.values(), key=key)


@settings(max_examples=400)
@given(
    st.lists(
        st.tuples(
            st.lists(ITEM, max_size=3),
            st.integers(0, 3),
            st.sampled_from([in_order, in_order, in_order, list]),
            st.sampled_from([b"", b"", b"", b"", b"100644", b"100644 z\0z"]),
        ),
        max_size=10,
    )
)
def test_as_if_each_were_alone(
    versions: list[tuple[list[Item], int, Callable[[list[Item]], list[Item]], bytes]],
) -> None:
    """Whatever came before, the same trees are refused, and nothing of the others is missed."""
    trees, seen, wanted = Trees(check, check_new), set[Item](), set[Item]()
    items: list[Item] = []
    for number, (added, dropped, arranged, tail) in enumerate(versions):
        version = arranged([*items, *added])
        del version[:dropped]
        data = packs.tree(FIRST, *version, LAST) + tail
        try:
            wanted |= check(number, data)
        except Wrong:
            with pytest.raises(Wrong):
                trees.check(number, data)
        else:
            items = version
            seen |= trees.check(number, data)
        assert seen == wanted


def file(name: bytes, mode: bytes = b"100644") -> bytes:
    return packs.tree((mode, name, bytes(20)))


@pytest.mark.parametrize(
    "middle",
    [
        file(b"c") + file(b"b"),
        file(b"b") + file(b"b"),
        file(b"b") + file(b"b", b"777"),
        file(b"b") + file(b".git"),
        file(b"b") + file(b"b.c") + file(b"b", b"40000"),
        file(b"b") + b"\0" + file(b"c"),
        file(b"b") + b" " + file(b"c"),
    ],
    ids=lambda middle: repr(middle.replace(bytes(20), b"")),
)
def test_a_bad_version_of_a_good_tree(middle: bytes) -> None:
    """What is wrong is found, whether the version is as long as the good one or not."""
    first, last = file(b"!"), file(b"~")
    for good in (file(b"b") + file(b"c"), file(b"b"), b""):
        trees = Trees(check, check_new)
        trees.check(1, first + good + last)
        with pytest.raises(Wrong):
            trees.check(2, first + middle + last)


def many(count: int, changed: int) -> bytes:
    """A tree of ``count`` files, of which one has another id than usual."""
    return packs.tree(
        *(
            (b"100644", b"%06d" % at, (b"x" if at == changed else b"y") * 20)
            for at in range(count)
        )
    )


def test_only_what_is_new_is_looked_at() -> None:
    """Of a hundred versions of a directory, all entries are looked at once."""
    looked_at = 0

    def count(number: int, data: bytes) -> None:
        nonlocal looked_at
        looked_at += len(check(number, data))

    trees = Trees(count, lambda number, entries: count(number, b"".join(entries)))
    for version in range(100):
        trees.check(version, many(200, version))
    assert looked_at < 200 + 2 * 100


def test_time_is_in_proportion() -> None:
    """A large tree takes no longer for differing in every entry."""
    trees = Trees[int, None](lambda _id, _data: None, lambda _id, _entries: None)
    one = many(100_000, -1)
    start = time.monotonic()
    trees.check(1, one)
    trees.check(2, one.replace(b"y" * 20, b"z" * 20))
    trees.check(3, one.replace(b"100644", b"40000"))
    assert time.monotonic() - start < 60


def test_what_is_no_tree_is_soon_found() -> None:
    """Nor is an entry looked for at each byte of what resembles a good tree."""
    trees = Trees(check, check_new)
    first, last = file(b"!"), file(b"~")
    trees.check(1, first + last)
    start = time.process_time()
    with pytest.raises(Wrong):
        trees.check(2, first + b"x" * 60_000 + b"\0" * 40 + last)
    assert time.process_time() - start < 5


def test_a_bad_name_among_good_ones(tmp_path: Path) -> None:
    """A pack whose second version of a directory holds ``.git`` is refused."""
    blob = object_id(BLOB, b"a\n")
    good = [(b"100644", b"%d" % at, blob) for at in range(9)]
    first = packs.tree((b"100644", b"-", blob), *good)
    second = packs.tree((b"100644", b"-", blob), (b"40000", b".git", blob), *good)
    one = packs.commit(object_id(TREE, first))
    two = packs.commit(object_id(TREE, second), object_id(COMMIT, one))
    objects = [(BLOB, b"a\n"), (TREE, first), (TREE, second), (COMMIT, one), (COMMIT, two)]
    data = pack(*(entry(kind, text) for kind, text in objects))
    with (
        Repositories(tmp_path).open_or_create(ServiceName("hello")) as repository,
        pytest.raises(TreeRefused, match=r"\.git"),
    ):
        ingest(io.BytesIO(data).read, repository.objects, 1 << 30)
