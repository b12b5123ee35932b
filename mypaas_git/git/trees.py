"""Trees, of which only the entries are checked that no tree before them had.

A history holds every directory in hundreds of versions, each of which differs from
another by an entry or two. To check all entries of all of them took three times as long
as everything else that is done with a pack.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Generic, NamedTuple, TypeVar

MAX_KNOWN = 8 << 20
"""Bytes of trees that are remembered at a time."""

# What is no entry is matched as a whole, so that none is looked for at each byte of it.
_ENTRY = re.compile(rb"([^ \0]+ [^\0]+\0.{20})|.+", re.DOTALL)
_ID = 20
_Id = TypeVar("_Id")
_Result = TypeVar("_Result")


class _Known(NamedTuple):
    """A tree that was found to be good: where its entries begin, and at last its end."""

    data: bytes
    starts: list[int]


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
        new = known and (_replaced(known, data) or _added(known, data))
        if new is None:
            result = self._check(id_, data)
            entries = _entries(data)
            starts = _starts(entries) if entries is not None else None
        else:
            entries, starts = new
            result = self._check_entries(id_, entries)
        if starts:
            self._remember(key, _Known(data, starts))
        return result

    def _remember(self, key: tuple[bytes, bytes], tree: _Known) -> None:
        before = self._known.get(key)
        self._size += len(tree.data) - (len(before.data) if before else 0)
        if self._size > MAX_KNOWN:
            self._known.clear()
            self._size = len(tree.data)
        self._known[key] = tree


_New = tuple[list[bytes], list[int]]
"""Entries that are to be checked, and where all of a tree begin."""


def _replaced(known: _Known, data: bytes) -> _New | None:
    """What is new in ``data`` if nothing but ids was replaced, as in most commits.

    Names and modes are the same, so that they are as well sorted as they were.
    """
    old, starts = known
    if len(old) != len(data):
        return None
    low, last = 0, len(starts) - 1
    high = last
    # Most often it is a single one, and then it is found in half the time.
    while high - low > 1:
        middle = (low + high) // 2
        at, end = starts[low], starts[middle]
        if old[at:end] == data[at:end]:
            low = middle
        else:
            high = middle
    behind = starts[high]
    ranges = [(low, high) if old[behind:] == data[behind:] else (low, last)]
    new = []
    while ranges:
        low, high = ranges.pop()
        at, end = starts[low], starts[high]
        if old[at:end] == data[at:end]:
            continue
        if high - low > 1:
            middle = (low + high) // 2
            ranges += [(middle, high), (low, middle)]
            continue
        if old[at : end - _ID] != data[at : end - _ID]:
            return None
        new.append(data[at:end])
    return new, starts


def _added(known: _Known, data: bytes) -> _New | None:
    """What is new in ``data``; None if its order or one of its names is not as it must be."""
    entries = _entries(data)
    if entries is None:
        return None
    old, starts = known
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
