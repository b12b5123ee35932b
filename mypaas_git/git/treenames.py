"""Names of a tree's entries: which may be there, and which are git's own dotfiles.

``.git`` and ``.gitmodules`` count in every spelling that some file system takes for
them. Source: ``is_ntfs_dot_generic`` and ``is_hfs_dot_generic`` of git's own sources.
"""

from __future__ import annotations

import re

from dulwich.index import (
    HFS_IGNORABLE_CHARS,
    validate_path_element_hfs,
    validate_path_element_ntfs,
)

MAX_NAME = 4096
"""Bytes of one name in a tree, as ``git fsck`` has it."""
MODULES, ATTRIBUTES = b"gitmodules", b"gitattributes"

PLAIN_START, PLAIN_REST = rb"[A-Za-z0-9_-]", rb"[ -.0-\[\]-}]"
"""Patterns of what no file system can take for anything else: most names by far."""
_PLAIN = re.compile(PLAIN_START + PLAIN_REST + b"*")


def _ntfs(which: bytes, short: bytes, hashed: bytes) -> re.Pattern[bytes]:
    """A pattern of all names that NTFS takes for a dotfile, of which two are shorter."""
    # Where a long name does not do, NTFS offers six characters and a number, or a hash.
    names = [rb"\." + which, short + rb"~[1-4]"]
    names += [rb"%b~[1-9][0-9]{%d}" % (hashed[:size], 6 - size) for size in range(7)]
    # Windows takes what follows a backslash for a file below. What follows a colon is a
    # stream of the file; spaces and dots at the end are dropped.
    return re.compile(
        rb"(?:\A|(\\))(?:%b)[ .]*(?:\Z|:|(?(1)\\|\Z))" % b"|".join(names), re.IGNORECASE
    )


_NTFS = {
    MODULES: _ntfs(MODULES, b"gitmod", b"gi7eba"),
    ATTRIBUTES: _ntfs(ATTRIBUTES, b"gitatt", b"gi7d29"),
}
_IGNORED = re.compile("[" + "".join(map(chr, HFS_IGNORABLE_CHARS)) + "]")


def is_plain(name: bytes) -> bool:
    """Whether a name needs no further look, its length aside."""
    return _PLAIN.fullmatch(name) is not None


def name_fault(name: bytes) -> str | None:
    """Why no tree may hold an entry of this name, None when it may.

    ``.git`` is refused in every spelling that some file system takes for it.
    """
    if len(name) > MAX_NAME:
        return f"is longer than {MAX_NAME} bytes"
    if is_plain(name):
        return None
    if not name or name in (b".", b"..") or b"/" in name:
        return "leads out of its directory" if name else "is empty"
    if not validate_path_element_ntfs(name) or not _hfs_allows(name):
        return "some systems take for .git or the directory above"
    return None


def dotfile(name: bytes) -> bytes | None:
    """MODULES or ATTRIBUTES when a name stands for ``.gitmodules`` or ``.gitattributes``."""
    if is_plain(name) and b"~" not in name:
        return None
    for which, pattern in _NTFS.items():
        if pattern.search(name) or _hfs(name) == b"." + which:
            return which
    return None


def _hfs_allows(name: bytes) -> bool:
    """Whether HFS+ would not take ``name`` for ``.git``; it sees no further than UTF-8 goes."""
    seen = _valid(name)
    return not seen or validate_path_element_hfs(seen)


def _hfs(name: bytes) -> bytes:
    """The name as HFS+ compares it: without case, and without what cannot be seen."""
    return _IGNORED.sub("", _valid(name).decode()).lower().encode()


def _valid(name: bytes) -> bytes:
    """As much of ``name`` as is UTF-8."""
    try:
        name.decode()
    except UnicodeDecodeError as error:
        return name[: error.start]
    return name
