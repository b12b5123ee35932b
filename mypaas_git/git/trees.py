"""Trees, of which only the entries are checked that no tree before them had.

A history holds every directory in hundreds of versions, each of which differs from
another by an entry or two. To check all entries of all of them took three times as long
as everything else that is done with a pack.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Final, Generic, TypeVar

MAX_KNOWN: Final = 8 << 20
"""Bytes of trees that are remembered at a time."""

# What is no entry is matched as a whole, so that none is looked for at each byte of it.
_ENTRY: Final = re.compile(rb"([^ \0]+ [^\0]+\0.{20})|.+", re.DOTALL)
_ID: Final = 20
_Id = TypeVar("_Id")
_Result = TypeVar("_Result")


class _Known:
    """A tree that was found to be good: where its entries begin, and at last its end."""

    __slots__ = ("data", "starts")

    def __init__(self, data: bytes, starts: list[int]) -> None:
        self.data = data
        self.starts = starts


class Trees(Generic[_Id, _Result]):
    """Checks the trees of one pack with ``check``, which gets a tree's id and data.

    It raises for what is wrong with a tree, and returns what there is to know of each of
    its entries. Of a tree that is another version of one that was good, only the new
    entries are checked, by ``check_entries``: what was returned for the others stands, and
    that all of them are in order is known.
    """

    def __init__(
        self,
        check: Callable[[_Id, bytes], _Result],
        check_entries: Callable[[_Id, list[bytes]], _Result],
    ) -> None:
        self._check = check
        self._check_entries = check_entries
        self._known: dict[tuple[bytes, bytes], _Known] = {}
        self._size = 0

    def check(self, id_: _Id, data: bytes) -> _Result:
        key = _directory(data)
        known = self._known.get(key)
        new: _New | None = None
        if known is not None:
            new = _replaced(known, data) or _one_more(known, data) or _added(known, data)
        if new is None:
            result = self._check(id_, data)
            entries = _entries(data)
            starts = _starts(entries) if entries is not None else None
        else:
            entries, starts = new
            result = self._check_entries(id_, entries)
        if starts:
            self._remember(key, known, _Known(data, starts))
        return result

    def _remember(self, key: tuple[bytes, bytes], before: _Known | None, tree: _Known) -> None:
        self._size += len(tree.data) - (len(before.data) if before else 0)
        if self._size > MAX_KNOWN:
            self._known.clear()
            self._size = len(tree.data)
        self._known[key] = tree


_New = tuple[list[bytes], list[int]]
"""Entries that are to be checked, and where all of a tree begin."""


def _replaced(known: _Known, data: bytes) -> _New | None:
    """What is new in ``data`` if nothing but ids was replaced, as in most commits."""
    if len(known.data) != len(data):
        return None
    new = _with_new_ids(known, data, 0, len(known.starts) - 1, 0)
    return None if new is None else (new, known.starts)


def _one_more(known: _Known, data: bytes) -> _New | None:
    """What is new in ``data`` if ids were replaced, and one entry came or went."""
    old, starts = known.data, known.starts
    count, grown = len(starts) - 1, len(data) - len(old)
    place = _alike(known, data)
    begin = starts[place]
    came = data[begin : begin + max(0, grown)]
    behind = place if grown > 0 else place + 1
    gone = starts[behind] - begin if behind <= count else 0
    if not grown or gone != max(0, -grown):
        return None
    if came and not _fits(known, data, place, came):
        return None
    first = _with_new_ids(known, data, 0, place, 0)
    last = None if first is None else _with_new_ids(known, data, behind, count, grown)
    if first is None or last is None:
        return None
    new = [came] if came else []
    further = [start + grown for start in starts[behind:]]
    return first + new + last, starts[: place + len(new)] + further


def _alike(known: _Known, data: bytes) -> int:
    """How many entries at the beginning have the modes and names that they had."""
    old, starts = known.data, known.starts
    low, high = 0, len(starts) - 1
    while low < high:
        middle = (low + high) // 2
        at, end = starts[middle], starts[middle + 1] - _ID
        if data.startswith(old[at:end], at):
            low = middle + 1
        else:
            high = middle
    return low


def _fits(known: _Known, data: bytes, place: int, came: bytes) -> bool:
    """Whether ``came`` is an entry with its place there, and a name that no other has."""
    if _entries(came) != [came]:
        return False
    old, starts = known.data, known.starts
    key = _key(came)
    if place > 0 and _key(old[starts[place - 1] : starts[place]]) >= key:
        return False
    if place + 1 < len(starts) and key >= _key(old[starts[place] : starts[place + 1]]):
        return False
    # A file and a directory of one name need not be neighbours.
    return data.count(came[came.index(b" ") : -_ID]) == 1


def _key(entry: bytes) -> bytes:
    """What an entry is sorted by: a directory as if its name ended in a slash."""
    mode, _, name = entry[: -_ID - 1].partition(b" ")
    return name + b"/" if mode == b"40000" else name


def _with_new_ids(
    known: _Known, data: bytes, low: int, last: int, shift: int
) -> list[bytes] | None:
    """Those that have new ids of some entries, which are ``shift`` bytes further on now.

    None when anything else is new. Names and modes being the same, they are as well sorted
    as they were.
    """
    old, starts = known.data, known.starts
    high = last
    # Most often it is a single one, and then it is found in half the time.
    while high - low > 1:
        middle = (low + high) // 2
        at, end = starts[low], starts[middle]
        if old[at:end] == data[at + shift : end + shift]:
            low = middle
        else:
            high = middle
    at, end = starts[high], starts[last]
    same = old[at:end] == data[at + shift : end + shift]
    ranges = [] if same else [(high, last)]
    new = []
    while True:
        at, end = starts[low], starts[high]
        entries = data[at + shift : end + shift]
        if old[at:end] != entries:
            if high - low > 1:
                middle = (low + high) // 2
                ranges += [(middle, high), (low, middle)]
            elif old[at : end - _ID] == entries[:-_ID]:
                new.append(entries)
            else:
                return None
        if not ranges:
            return new
        low, high = ranges.pop()


def _added(known: _Known, data: bytes) -> _New | None:
    """What is new in ``data``; None if its order or one of its names is not as it must be."""
    entries = _entries(data)
    if entries is None:
        return None
    old, starts = known.data, known.starts
    before = {old[at:end] for at, end in pairwise(starts)}
    heads = [entry[: -_ID - 1].partition(b" ") for entry in entries]
    names = {name for _, _, name in heads}
    # A directory is sorted as if its name ended in a slash.
    order = [name + b"/" if mode == b"40000" else name for mode, _, name in heads]
    if len(names) != len(entries) or order != sorted(order):
        return None
    return [entry for entry in entries if entry not in before], _starts(entries)


def _entries(data: bytes) -> list[bytes] | None:
    """All entries of a tree, None if it consists of anything else."""
    entries = _ENTRY.findall(data)
    return None if entries and not entries[-1] else entries


def _starts(entries: list[bytes]) -> list[int]:
    return list(accumulate(map(len, entries), initial=0))


def _directory(data: bytes) -> tuple[bytes, bytes]:
    """The names of the first and the last entry: a guess at which directory this is.

    A wrong one costs time, and nothing else.
    """
    end = max(0, len(data) - _ID - 1)
    # Compiled, a slice that begins behind its end is an error.
    return data[: data.find(b"\0")], data[max(0, data.rfind(b" ", 0, end)) : end]
