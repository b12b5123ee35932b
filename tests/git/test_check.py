"""Objects one by one: what ``git fsck --strict`` rejects we reject, what it likes we take."""

from __future__ import annotations

import re
import time
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packs import BLOB, COMMIT, TAG, TREE, WHO, commit, object_id, tag, tree
from support.stockgit import git

from mypaas_git.errors import GitRefused, TreeRefused
from mypaas_git.git.check import NAMES, Seen, check_object
from mypaas_git.git.dotfiles import check_dotfile
from mypaas_git.git.treenames import ATTRIBUTES, MODULES, dotfile

A_ID = object_id(BLOB, b"a\n")
EMPTY = object_id(TREE, b"")
GOOD = commit(EMPTY)
TREE_LINE = b"tree %s\n" % EMPTY.hex().encode()


def people(author: bytes, committer: bytes = WHO, more: bytes = b"\nmessage\n") -> bytes:
    """A commit of these people."""
    return TREE_LINE + b"author " + author + b"\ncommitter " + committer + b"\n" + more


GOOD_COMMITS = [
    GOOD,
    commit(EMPTY, object_id(COMMIT, GOOD), object_id(COMMIT, GOOD + b"x")),
    people(WHO, more=b""),
    people(WHO, more=b"\n"),
    people(WHO, more=b"encoding latin-1\ngpgsig -----BEGIN\n a\n \n b\n\n\xff\xe9 no newline"),
    people(b" <> 0 +0000"),
    people(b"A \xff <a b@\xff> 9223372036854775807 -9999"),
    people(b"A <a> 1700000000 +0000", b"B  <b> 1 +1400"),
]
BAD_COMMITS = [
    b"",
    b"tree",
    TREE_LINE,
    GOOD.replace(b"tree ", b"Tree "),
    GOOD.replace(EMPTY.hex().encode(), b"1234"),
    GOOD.replace(b"author", b"parent 12\nauthor"),
    GOOD.replace(b"author", b"parent " + b"g" * 40 + b"\nauthor"),
    TREE_LINE + b"committer " + WHO + b"\n\nx\n",
    TREE_LINE + b"author " + WHO + b"\n\nx\n",
    people(WHO, WHO).replace(b"committer", b"author " + WHO + b"\ncommitter"),
    people(b"A <a@b> 1700000000"),
    people(b"A <a@b> 1700000000 "),
    people(b"A <a@b> 1700000000 +000"),
    people(b"A <a@b> 1700000000 +00000"),
    people(b"A <a@b> 1700000000 0000"),
    people(b"A <a@b> 1700000000 +00:0"),
    people(b"A <a@b> +0000"),
    people(b"A <a@b>  +0000"),
    people(b"A <a@b> x +0000"),
    people(b"A <a@b> 01700000000 +0000"),
    people(b"A <a@b> 9223372036854775808 +0000"),
    people(b"A <a@b> 99999999999999999999 +0000"),
    people(b"A <a@b> -1 +0000"),
    people(b"A <a@b>1700000000 +0000"),
    people(b"A <a@b 1700000000 +0000"),
    people(b"A a@b> 1700000000 +0000"),
    people(b"A<a@b> 1700000000 +0000"),
    people(b"<a@b> 1700000000 +0000"),
    people(b"A> <a@b> 1700000000 +0000"),
    people(b"A <a<@b> 1700000000 +0000"),
    people(b"A"),
    people(WHO, b"A <a@b> 1700000000 +0"),
    people(b"A\0 <a@b> 1700000000 +0000"),
    people(WHO, more=b"\nmess\0age\n"),
    people(WHO, more=b"x\0y\n\nmessage\n"),
    people(WHO, more=b"encoding x"),
    GOOD[:-20].partition(b"\n\n")[0],
]
GOOD_TAGS = [
    tag(A_ID, b"blob"),
    tag(EMPTY, b"tree").replace(b"\ntagger " + WHO, b""),
    tag(A_ID, b"blob").replace(b"message", b"mess\0age"),
    tag(A_ID, b"blob").replace(b"\n\nmessage\n", b"\n"),
    tag(A_ID, b"blob").replace(b"tag t\n", b"tag v1.0-\xff\n"),
]
BAD_TAGS = [
    b"",
    tag(A_ID, b"blob").replace(b"object", b"Object"),
    tag(A_ID, b"thing"),
    tag(A_ID, b"BLOB"),
    tag(A_ID, b"blob").replace(A_ID.hex().encode(), b"12"),
    tag(A_ID, b"blob").replace(b"tag t\n", b""),
    tag(A_ID, b"blob").replace(b"tagger " + WHO, b"tagger A <a>"),
    tag(A_ID, b"blob").replace(b"tagger " + WHO, b"tagger " + WHO + b"\0"),
    tag(A_ID, b"blob").replace(b"1700000000", b"0700000000"),
    b"object %s\ntype blob" % A_ID.hex().encode(),
    b"object %s\ntype blob\ntag t" % A_ID.hex().encode(),
]
F, D = b"100644", b"40000"
GOOD_TREES = [
    b"",
    tree((F, b"a-b", A_ID), (F, b"a.b", A_ID), (D, b"a", EMPTY)),
    tree((F, b"a", A_ID), (F, b"a.b", A_ID), (D, b"a0", EMPTY), (b"120000", b"b", A_ID)),
    tree((b"160000", b"module", b"\7" * 20)),
    tree((b"100664", b"a", A_ID)),
    tree((b"120000", b".gitattributes", A_ID), (b"120000", b".gitignore", A_ID)),
    tree((F, b"x" * 4096, A_ID)),
]
BAD_TREES = [
    b"100644",
    b"100644 a",
    b"100644 a\0",
    tree((F, b"a", A_ID))[:-1],
    tree((F, b"a", A_ID)) + b"x",
    tree((F, b"", A_ID)),
    tree((F, b"b", A_ID), (F, b"a", A_ID)),
    tree((F, b"a", A_ID), (F, b"a", A_ID)),
    tree((F, b"a", A_ID), (D, b"a", EMPTY)),
    tree((F, b"a", A_ID), (F, b"a-", A_ID), (F, b"a.b", A_ID), (D, b"a", EMPTY)),
    tree((D, b"a", EMPTY), (F, b"a.b", A_ID)),
    tree((b"0100644", b"a", A_ID)),
    tree((b"040000", b"a", EMPTY)),
    tree((F, b"a", bytes(20))),
    tree((b"160000", b"a", bytes(20))),
    tree((b"120000", b".gitmodules", A_ID)),
    tree((b"120000", b".GITMODULES .:x", A_ID)),
    tree((b"120000", b"gitmod~3", A_ID)),
    tree((b"120000", b"gi7eba~1", A_ID)),
    tree((b"120000", b"x\\.gitmodules", A_ID)),
    tree((b"120000", ".git\u200cmodules".encode(), A_ID)),
    *(tree((F, name, A_ID)) for name in (b".git", b".GIT", b"git~1", b".", b"..", b"a/b")),
    *(tree((F, name, A_ID)) for name in (b".git. ", b"a\\.git", ".g\u200dit".encode())),
]
# git takes these, and we do not: no git writes them, and programs choke on them.
STRICTER_TREES = [
    tree((b"100777", b"a", A_ID)),
    tree((b"644", b"a", A_ID)),
    tree((b"120777", b"a", A_ID)),
    tree((F, b"x" * 4097, A_ID)),
]
GOOD_OBJECTS = [
    *((COMMIT, data) for data in GOOD_COMMITS),
    *((TAG, data) for data in GOOD_TAGS),
    *((TREE, data) for data in GOOD_TREES),
]
BAD_OBJECTS = [
    *((COMMIT, data) for data in BAD_COMMITS),
    *((TAG, data) for data in BAD_TAGS),
    *((TREE, data) for data in BAD_TREES),
]
MODULE = b'[submodule "a"]\n\tpath = a\n\turl = '
GOOD_MODULES = [
    b"",
    b"# nothing\n",
    MODULE + b"https://example.com/a.git\n",
    MODULE + b"../sibling\n\tupdate = rebase\n[other]\nurl = -x\n",
    MODULE + b"git@example.com:a\n",
]
BAD_MODULES = [
    MODULE + b"-oProxyCommand=x\n",
    MODULE + b"x\n\tpath = -a\n",
    MODULE + b"x\n\tupdate = !rm\n",
    MODULE.replace(b'"a"', b'"../a"') + b"x\n",
    MODULE.replace(b'"a"', b'"a/.."') + b"x\n",
    MODULE.replace(b'"a"', b'""') + b"x\n",
    MODULE + b"https:///path\n",
    MODULE + b"http::x\n",
    MODULE + b"../../:x\n",
    MODULE + b"./%0ahost=x\n",
    MODULE + b'"https://a/%0ab"\n',
    MODULE + b"-x\n\turl = good\n",
    MODULE + b"good\n" + MODULE + b"-x\n",
    MODULE + b'"-\\\nx"\n',
    b'[SubModule "a"] URL=-x\n',
]
GOOD_ATTRIBUTES = [b"", b"* text\n" * 1000, b"x" * 2047 + b"\n"]
BAD_ATTRIBUTES = [b"x" * 2048, b"* text\n" + b"y" * 3000 + b"\n"]


def disliked(path: Path, objects: list[tuple[int, bytes]]) -> set[str]:
    """The ids of those objects in which stock git finds an error."""
    git(path, "init", "-q", "--bare", "-b", "main")
    for kind, data in objects:
        id_ = object_id(kind, data).hex()
        loose = path / "objects" / id_[:2] / id_[2:]
        loose.parent.mkdir(exist_ok=True)
        loose.write_bytes(zlib.compress(b"%s %d\0" % (NAMES[kind].encode(), len(data)) + data))
    done = git(path, "fsck", "--strict", "--no-dangling", check=False)
    assert "fatal" not in done.stderr, done.stderr
    found = re.finditer(r"^error.*?([0-9a-f]{40})", done.stderr, re.MULTILINE)
    return {match[1] for match in found}


def taken(kind: int, data: bytes) -> bool:
    try:
        check_object(kind, object_id(kind, data), data)
    except GitRefused:
        return False
    return True


def test_good_objects(tmp_path: Path) -> None:
    """What git finds no fault in is taken, odd as it may be."""
    assert disliked(tmp_path, GOOD_OBJECTS) == set()
    assert [data for kind, data in GOOD_OBJECTS if not taken(kind, data)] == []


def test_bad_objects(tmp_path: Path) -> None:
    """Dates, zones, NULs, names, modes, order: what git rejects is refused (T30 to T33)."""
    bad = disliked(tmp_path, BAD_OBJECTS)
    ids = {object_id(kind, data).hex(): data for kind, data in BAD_OBJECTS}
    assert {id_: data for id_, data in ids.items() if id_ not in bad} == {}
    assert [data for kind, data in BAD_OBJECTS if taken(kind, data)] == []
    assert [data for data in STRICTER_TREES if taken(TREE, data)] == []


@pytest.mark.parametrize("rest", [b"x", b"x ", b"100644 a", b"100644 " + b"a" * 250])
def test_what_is_no_tree_is_soon_found(rest: bytes) -> None:
    """The time is in proportion to the length, as the server does nothing else (T36)."""
    begun = time.process_time()
    for end in (b"", b"\0"):
        with pytest.raises(GitRefused, match="malformed"):
            check_object(TREE, A_ID, b"100644 a\0" + A_ID + rest * 60_000 + end)
    assert time.process_time() - begun < 5


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [*[b"100644"] * 4, b"100755", b"120000", *[b"40000"] * 3, b"160000"]
            ),
            st.sampled_from(
                [b"a", b"a.b", b"a b", b"b", b"c", b"d e", b"a~1", b".x", b"x" * 256]
            ),
            st.sampled_from([A_ID, EMPTY, b"100644 a\0".ljust(20, b"x"), bytes(20)]),
        ),
        max_size=6,
    ),
    st.booleans(),
    st.sampled_from([b"", b"", b"", b"\0", b"100644 z\0"]),
)
def test_plain_trees(
    items: list[tuple[bytes, bytes, bytes]], ordered: bool, tail: bytes
) -> None:
    """What is checked in one go is refused, or leads elsewhere, as if it were not."""
    if ordered:
        items = sorted(items, key=lambda item: item[1] + b"/" * (item[0] == b"40000"))
    data = tree(*items) + tail

    def outcome() -> tuple[object, dict[bytes, int]]:
        seen = Seen()
        try:
            checked = check_object(TREE, EMPTY, data, seen)
            return (checked.links, checked.dotfiles), seen.heads
        except GitRefused as error:
            return str(error), {}

    at_once = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mypaas_git.git.check.MAX_PLAIN", -1)
        assert outcome() == at_once


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (people(b"A <a@b> x +0000"), "'author' has no date, or one that no calendar has"),
        (people(WHO, b"A <a@b> 1 0"), r"'committer' has no time zone such as \+0100"),
        (people(b"<a> 1 +0000"), "'author' has no name"),
        (people(b"A <a> 9999999999999999999 +0000"), "a date that no calendar has"),
        (GOOD[50:], "'tree' is missing where it must stand"),
        (GOOD + b"\0", "there is a NUL byte in it"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, why: str) -> None:
    """The pusher learns which object it is and what is wrong with it."""
    id_ = object_id(COMMIT, data)
    with pytest.raises(GitRefused, match=f"^the commit {id_.hex()} is malformed: .*{why}"):
        check_object(COMMIT, id_, data)


@pytest.mark.parametrize(
    ("name", "which"),
    [
        (b".gitmodules", MODULES), (b".GitModules", MODULES), (b".gitmodules . ", MODULES),
        (b".gitmodules::$DATA", MODULES), (b"GITMOD~1", MODULES), (b"GI7EBA~9", MODULES),
        (b"GI7D29~1", ATTRIBUTES), (b"~1000000", MODULES), (b"gitatt~4", ATTRIBUTES),
        (".gitmod\u200cules".encode(), MODULES), (b".gitmodules\xff", MODULES),
        (b"a\\.gitmodules", MODULES), (b".gitattributes", ATTRIBUTES),
        (b".gitmodule", None), (b"gitmod~5", None), (b"gi7eba~0", None), (b"gitmodules", None),
        (b"gi7ebaa~1", None), (b".gitmodules.x", None), (b"gitmod~1x", None), (b"~100", None),
    ],
)  # fmt: skip
def test_dotfiles_in_disguise(name: bytes, which: bytes | None) -> None:
    """A name that some file system takes for .gitmodules is checked like it."""
    assert dotfile(name) == which


def test_a_name_with_many_parts() -> None:
    """That takes hardly longer than one without, be there as many as in a tree of 4 MiB."""
    begun = time.process_time()
    for name in (b"\\" * 4096, b"\\~1" * 1365, b"\\.gitmodules x" * 273):
        for _ in range(300):
            assert dotfile(name) is None
    assert time.process_time() - begun < 4


def in_trees(name: bytes, blobs: list[bytes]) -> list[tuple[int, bytes]]:
    """Each of the blobs under this name in a tree of its own."""
    trees = [(TREE, tree((F, name, object_id(BLOB, blob)))) for blob in blobs]
    return [*((BLOB, blob) for blob in blobs), *trees]


@pytest.mark.parametrize(
    ("name", "which", "good", "bad"),
    [
        (b".gitmodules", MODULES, GOOD_MODULES, BAD_MODULES),
        (b".gitattributes", ATTRIBUTES, GOOD_ATTRIBUTES, BAD_ATTRIBUTES),
    ],
)
def test_dotfiles(
    tmp_path: Path, name: bytes, which: bytes, good: list[bytes], bad: list[bytes]
) -> None:
    """Files that git itself reads cannot harm those who clone what was pushed."""
    ids = {object_id(BLOB, blob).hex() for blob in bad}
    assert disliked(tmp_path, in_trees(name, good + bad)) == ids
    for data in good:
        check_dotfile(which, data)
    for data in bad:
        with pytest.raises(TreeRefused, match=f"^{re.escape(name.decode())} "):
            check_dotfile(which, data)


def test_no_file_of_the_server_is_read(tmp_path: Path) -> None:
    """An include in .gitmodules leads nowhere: nobody learns what the server has."""
    (tmp_path / "hidden").write_text('[submodule ".."]\n')
    check_dotfile(MODULES, b"[include]\npath = %s\n" % str(tmp_path / "hidden").encode())
