"""Whether an object may come in: well formed, harmless to check out, links of the right kind.

Formats: git's ``gitformat-pack(5)`` and what ``git fsck`` asks of objects.
"""

from __future__ import annotations

from collections.abc import Iterator

from dulwich.errors import ChecksumMismatch, ObjectFormatException
from dulwich.index import validate_path_element_hfs, validate_path_element_ntfs
from dulwich.objects import (
    S_ISGITLINK,
    Blob,
    Commit,
    ObjectID,
    ShaFile,
    Tag,
    Tree,
    key_entry,
    parse_tree,
)

from mypaas_git.errors import PackRefused, TreeRefused
from mypaas_git.progress import clean

BLOB, COMMIT, TAG, TREE = Blob.type_num, Commit.type_num, Tag.type_num, Tree.type_num
NAMES = {COMMIT: "commit", TREE: "tree", BLOB: "blob", TAG: "tag"}
MODES = {0o100644, 0o100664, 0o100755, 0o120000, 0o040000, 0o160000}
MAX_NAME = 4096
"""Bytes of one name in a tree, as ``git fsck`` has it."""

Link = tuple[ObjectID, int]
"""The id of an object that another one refers to, and the kind that it has to be."""


def check_object(kind: int, id_: ObjectID, data: bytes) -> list[Link]:
    """Check a commit, tree or tag, and return what it links to.

    Raises :class:`TreeRefused` for a name or mode that no tree may hold, and
    :class:`PackRefused` for everything else that is wrong.
    """
    try:
        if kind == TREE:
            return _check_tree(id_, data)
        found = ShaFile.from_raw_string(kind, data)
        found.check()
        return list(_links(found))
    except (ObjectFormatException, ChecksumMismatch, ValueError, AssertionError) as error:
        raise PackRefused(
            f"the {NAMES[kind]} {_text(id_)} is malformed: {clean(str(error))[:200]}"
        ) from None


def name_fault(name: bytes) -> str | None:
    """Why no tree may hold an entry of this name, None when it may.

    ``.git`` is refused in every spelling that some file system takes for it.
    """
    if not name or name in (b".", b"..") or b"/" in name:
        return "leads out of its directory" if name else "is empty"
    if len(name) > MAX_NAME:
        return f"is longer than {MAX_NAME} bytes"
    if not validate_path_element_ntfs(name) or not _hfs_allows(name):
        return "some systems take for .git or the directory above"
    return None


def _hfs_allows(name: bytes) -> bool:
    """Whether HFS+ would not take ``name`` for ``.git``; it sees no further than UTF-8 goes."""
    try:
        name.decode("utf-8")
    except UnicodeDecodeError as error:
        name = name[: error.start]
    return not name or validate_path_element_hfs(name)


def _check_tree(id_: ObjectID, data: bytes) -> list[Link]:
    links: list[Link] = []
    names: set[bytes] = set()
    last = b""
    for name, mode, sha in parse_tree(data, 20, strict=True):
        fault = name_fault(name) or (None if mode in MODES else f"has the mode {mode:o}")
        if fault or name in names:
            shown = clean(name[:200].decode("utf-8", "backslashreplace"))
            raise TreeRefused(
                f"the tree {_text(id_)[:12]} holds an entry '{shown}' that "
                f"{fault or 'is there twice'}"
            )
        names.add(name)
        key = key_entry((name, (mode, ObjectID(sha))))
        if key < last:
            raise ObjectFormatException("its entries are not sorted")
        last = key
        # A submodule's commit lives elsewhere.
        if not S_ISGITLINK(mode):
            links.append((ObjectID(sha), TREE if mode == 0o040000 else BLOB))
    return links


def _links(found: ShaFile) -> Iterator[Link]:
    if isinstance(found, Commit):
        yield found.tree, TREE
        for parent in found.parents:
            yield parent, COMMIT
    elif isinstance(found, Tag):
        kind, target = found.object
        yield target, kind.type_num


def _text(id_: bytes) -> str:
    return id_.decode("ascii", "replace")
