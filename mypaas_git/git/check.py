"""Whether an object may come in: well formed, harmless to check out, links of the right kind.

As strict as ``git fsck --strict``, whose ``fsck.c`` says what it asks of each kind.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from dulwich.objects import Blob, Commit, Tag, Tree

from mypaas_git.errors import PackRefused, TreeRefused
from mypaas_git.git.treenames import MODULES, PLAIN_REST, PLAIN_START, dotfile, name_fault
from mypaas_git.progress import clean

BLOB: Final = Blob.type_num
COMMIT: Final = Commit.type_num
TAG: Final = Tag.type_num
TREE: Final = Tree.type_num
NAMES: Final = {COMMIT: "commit", TREE: "tree", BLOB: "blob", TAG: "tag"}
MODES = {b"100644", b"100664", b"100755", b"120000", b"40000", b"160000"}
FILES = {b"100644", b"100664", b"100755"}
LATEST = (1 << 63) - 1
"""The last second that git can tell the date of."""

MAX_SEEN: Final = 200_000
"""Entries of trees that are remembered."""
MAX_PLAIN: Final = 4 << 20
"""Bytes of a tree that is taken apart at once, which takes ten times as many."""

Link = tuple[bytes, int]
"""The raw id of an object that another one refers to, and the kind that it has to be."""


class Checked:
    """What an object links to, and those of its files that git itself would read.

    Of the latter the raw id, with MODULES or ATTRIBUTES.
    """

    __slots__ = ("dotfiles", "links")

    def __init__(self, links: list[Link], dotfiles: list[tuple[bytes, bytes]]) -> None:
        self.links = links
        self.dotfiles = dotfiles


class Seen:
    """Entries of trees that were found good, since those of a history have most in common.

    ``heads`` knows of an entry without its id to which kind of object it leads, unless it is
    more to git than a name.
    """

    def __init__(self) -> None:
        self.entries: set[bytes] = set()
        self.heads: dict[bytes, int] = {}

    def add(self, entry: bytes, checked: Checked) -> None:
        """Remember an entry that has just been noted in ``checked``."""
        if len(self.entries) < MAX_SEEN:
            self.entries.add(entry)
        if len(self.heads) < MAX_SEEN and len(checked.links) == 1 and not checked.dotfiles:
            self.heads[entry[:-_ID_SIZE]] = checked.links[0][1]

    def check_tree(self, id_: bytes, data: bytes) -> Checked:
        """:func:`check_object` for a tree."""
        return check_object(TREE, id_, data, self)

    def check_entries(self, id_: bytes, entries: list[bytes]) -> Checked:
        """Check entries of the tree with the raw id ``id_``, which are in order there.

        Nearly all are like one that was seen but for the id, and are through with one
        look-up.
        """
        links: list[Link] = []
        dotfiles: list[tuple[bytes, bytes]] = []
        for entry in entries:
            kind, link = self.heads.get(entry[:-_ID_SIZE]), entry[-_ID_SIZE:]
            if kind is not None and link != _NOWHERE:
                links.append((link, kind))
            elif entry not in self.entries:
                noted = self.check_tree(id_, entry)
                links.extend(noted.links)
                dotfiles.extend(noted.dotfiles)
        return Checked(links, dotfiles)


def check_object(kind: int, id_: bytes, data: bytes, seen: Seen | None = None) -> Checked:
    """Check a commit, tree or tag with the raw id ``id_``.

    What the entries that were ``seen`` lead to is told once. Raises :class:`TreeRefused` for
    a name or mode that no tree may hold, and :class:`PackRefused` for everything else that
    is wrong.
    """
    try:
        if kind == TREE:
            return _check_tree(id_, data, Seen() if seen is None else seen)
        return Checked(_check_commit(data) if kind == COMMIT else _check_tag(data), [])
    except _Malformed as error:
        raise PackRefused(f"the {NAMES[kind]} {id_.hex()} is malformed: {error}") from None


class _Malformed(Exception):
    """Why an object is none."""


# Commits and tags. Each is matched as a whole, and taken apart only to say what is wrong.

_ID = (rb"[0-9a-f]{40}\n", "no object's id stands behind '%s'")
_PERSON = [
    (rb"[^<>\n]* <", "'%s' has no name, or no space behind it"),
    (rb"[^<>\n]*> ", "'%s' has no address in <>, or no space behind it"),
    (rb"(?:0|[1-9][0-9]{0,18}) ", "'%s' has no date, or one that no calendar has"),
    (rb"[+-][0-9]{4}\n", "'%s' has no time zone such as +0100"),
]
_IDENT = b"".join(pattern for pattern, _ in _PERSON)
_COMMIT: Final = re.compile(
    rb"tree ([0-9a-f]{40})\n((?:parent [0-9a-f]{40}\n)*)author %scommitter %s"
    % (_IDENT, _IDENT)
)
_TYPES = {b"commit": COMMIT, b"tree": TREE, b"blob": BLOB, b"tag": TAG}
_TAG = re.compile(
    rb"object ([0-9a-f]{40})\ntype (commit|tree|blob|tag)\ntag [^\n]*\n"
    # Very old tags have no tagger, and go in as they are.
    rb"(?:tagger %s|(?!tagger ))" % _IDENT
)
_DATES: Final = re.compile(rb"> ([0-9]{19}) ")


def _check_commit(data: bytes) -> list[Link]:
    if b"\0" in data:
        raise _Malformed("there is a NUL byte in it")
    head = _COMMIT.match(data)
    if head is None:
        raise _Malformed(_why_no_commit(data))
    _check_head(data, head)
    parents = head[2].split()[1::2]
    return [(bytes.fromhex(head[1].decode()), TREE)] + [
        (bytes.fromhex(parent.decode()), COMMIT) for parent in parents
    ]


def _check_tag(data: bytes) -> list[Link]:
    if b"\0" in data.partition(b"\n\n")[0]:
        raise _Malformed("there is a NUL byte in its header")
    head = _TAG.match(data)
    if head is None:
        raise _Malformed(_why_no_tag(data))
    _check_head(data, head)
    return [(bytes.fromhex(head[1].decode()), _TYPES[head[2]])]


def _check_head(data: bytes, head: re.Match[bytes]) -> None:
    """Check what the pattern of a head cannot say."""
    if not data.endswith(b"\n") and b"\n\n" not in data[head.end() - 1 :]:
        raise _Malformed("its header does not end")
    if any(int(date) > LATEST for date in _DATES.findall(data, 0, head.end())):
        raise _Malformed("it has a date that no calendar has")


def _why_no_commit(data: bytes) -> str:
    reader = _Reader(data)
    reader.field(b"tree", [_ID])
    while reader.comes(b"parent"):
        reader.field(b"parent", [_ID])
    reader.field(b"author", _PERSON)
    if reader.comes(b"author"):
        return "it has two authors"
    reader.field(b"committer", _PERSON)
    return reader.fault


def _why_no_tag(data: bytes) -> str:
    reader = _Reader(data)
    reader.field(b"object", [_ID])
    reader.field(b"type", [(rb"(?:commit|tree|blob|tag)\n", "'%s' names no kind of object")])
    reader.field(b"tag", [(rb"[^\n]*\n", "'%s' does not end")])
    reader.field(b"tagger", _PERSON)
    return reader.fault


class _Reader:
    """Reads the fields of a header until the first that is wrong, whose ``fault`` it keeps."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self.fault = ""

    def comes(self, field: bytes) -> bool:
        return not self.fault and self._data.startswith(field + b" ", self._at)

    def field(self, field: bytes, parts: list[tuple[bytes, str]]) -> None:
        if not self.fault and not self.comes(field):
            self.fault = f"'{field.decode()}' is missing where it must stand"
        self._at += len(field) + 1
        for pattern, fault in parts if not self.fault else ():
            found = re.compile(pattern).match(self._data, self._at)
            if found is None:
                self.fault = fault % field.decode()
                return
            self._at = found.end()


# Trees.

# Behind an entry comes the next, or a rest that is none. Were that not matched as well, an
# entry would be looked for at each byte of it, up to its end every time.
_REST = rb"|.+"
_ENTRY = re.compile(rb"([^ \0]+) ([^\0]*)\0(.{20})" + _REST, re.DOTALL)
_ID_SIZE: Final = 20
_KINDS: Final = {b"40000": TREE} | dict.fromkeys([*FILES, b"120000"], BLOB)
# An entry of these kinds whose name needs no further look.
_PLAIN: Final = re.compile(
    rb"(%b) (%b%b{0,254})\0(.{20})" % (b"|".join(sorted(_KINDS)), PLAIN_START, PLAIN_REST)
    + _REST,
    re.DOTALL,
)
_NOWHERE: Final = bytes(_ID_SIZE)


class _Entry(NamedTuple):
    mode: bytes
    name: bytes
    id: bytes


def _check_tree(id_: bytes, data: bytes, seen: Seen) -> Checked:
    plain = _check_plain(data, seen)
    if plain is not None:
        return plain
    checked = Checked([], [])
    order = _Order()
    for found in _ENTRY.finditer(data):
        if found[1] is None:
            raise _Malformed("an entry of it is cut short")
        entry = _Entry._make(found.groups())
        fault = order.fault(entry.name, entry.mode == b"40000")
        if fault is None and found[0] in seen.entries:
            continue
        fault = fault or _entry_fault(entry)
        if fault:
            raise TreeRefused(
                f"the tree {id_.hex()[:12]} holds an entry '{_shown(entry)}' that {fault}"
            )
        noted = _noted(entry)
        seen.add(found[0], noted)
        checked.links.extend(noted.links)
        checked.dotfiles.extend(noted.dotfiles)
    return checked


def _check_plain(data: bytes, seen: Seen) -> Checked | None:
    """Check a tree of nothing but plain names in order; None for any other.

    Nearly all trees are such: of a history's processor time, this saves a third.
    """
    if len(data) > MAX_PLAIN:
        return None
    found = _PLAIN.findall(data)
    if found and not found[-1][0]:
        return None
    names = {name for _, name, _ in found}
    # A directory is sorted as if its name ended in a slash.
    order = [name + b"/" if mode == b"40000" else name for mode, name, _ in found]
    links = [(id_, _KINDS[mode]) for mode, _, id_ in found]
    nowhere = any(id_ == _NOWHERE for id_, _ in links)
    if nowhere or len(names) != len(found) or order != sorted(order):
        return None
    for mode, name, _ in found[: max(0, MAX_SEEN - len(seen.heads))]:
        seen.heads[b"%b %b\0" % (mode, name)] = _KINDS[mode]
    return Checked(links, [])


def _entry_fault(entry: _Entry) -> str | None:
    fault = name_fault(entry.name)
    if fault:
        return fault
    if entry.mode not in MODES:
        return f"has the mode {clean(entry.mode[:20].decode('ascii', 'replace'))}"
    if entry.id == _NOWHERE:
        return "leads to no object"
    return None


def _noted(entry: _Entry) -> Checked:
    """What is to be looked at of an entry once all objects are there."""
    noted = Checked([], [])
    # A submodule's commit lives elsewhere.
    if entry.mode != b"160000":
        noted.links.append((entry.id, TREE if entry.mode == b"40000" else BLOB))
    which = dotfile(entry.name)
    if which is None or (which != MODULES and entry.mode == b"120000"):
        return noted
    if entry.mode not in FILES:
        raise TreeRefused(f"{_shown(entry)} must be a file")
    noted.dotfiles.append((entry.id, which))
    return noted


def _shown(entry: _Entry) -> str:
    return clean(entry.name[:200].decode("utf-8", "backslashreplace"))


class _Order:
    """Whether entries come sorted, and each name once.

    A directory sorts as if its name ended in a slash, so that between a file and a
    directory of one name others may stand; their names all begin with it.
    """

    def __init__(self) -> None:
        self._last = b""
        self._files: list[bytes] = []

    def fault(self, name: bytes, is_tree: bool) -> str | None:
        key = name + b"/" if is_tree else name
        if key <= self._last:
            return "is there twice" if key == self._last else "is out of order"
        self._last = key
        files = self._files
        while files and not name.startswith(files[-1]):
            files.pop()
        if is_tree:
            return "is there twice" if name in files else None
        files.append(name)
        return None
