"""How much a pack may take of the server before it is refused.

What a pack declares is believed only as far as these limits go, so that a few bytes
cannot unfold to gigabytes.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mypaas_git.errors import PackRefused

MIB: Final = 1 << 20
MAX_OBJECT: Final = 512 * MIB
"""Bytes of one object; git itself treats what is bigger specially."""
MAX_PARSED: Final = 64 * MIB
"""Bytes of one commit, tree or tag."""
DEFLATE_RATIO = 1032
"""How many bytes zlib can make of one."""
RESERVE: Final = 8 * MIB
"""Bytes that more objects than are taken in between two looks do not take."""
SMALL_PACK = 256 << 10
"""Bytes of a pack that is taken in without a process of its own."""


class PackBroken(PackRefused):
    """What is left of the stream cannot be told from the pack any more."""


class Outgrown(PackBroken):
    """The pack is too large to be taken in here, which says nothing against it."""


@dataclass(frozen=True)
class Limits:
    """``received`` is in bytes of the pack, ``unfolded`` in bytes of all objects together.

    Of the latter as many more are let through as deflate can make of the pack, ``ratio``
    times its length. ``held`` is in bytes of bases that wait in memory for their deltas,
    ``base`` in bytes of one that is here already, ``reread`` in bytes of all that is here
    already and is looked into, what its deltas are based on included. What goes beyond is
    a ``fault``. ``helped`` says whether a large pack may be shared with a second process,
    which only who has a single thread may start.
    """

    received: int
    objects: int = 2_000_000
    unfolded: int = 256 * MIB
    ratio: int = DEFLATE_RATIO
    held: int = 48 * MIB
    base: int = MAX_OBJECT
    reread: int = 1 << 62
    fault: type[PackBroken] = PackBroken
    helped: Callable[[], bool] | None = None


SMALL = Limits(
    received=SMALL_PACK,
    objects=2000,
    unfolded=4 * MIB,
    ratio=0,
    held=4 * MIB,
    base=4 * MIB,
    reread=256 * MIB,
    fault=Outgrown,
)


def need_room() -> None:
    """Raise MemoryError when this process has little left of the memory that it may take.

    Compiled code that finds none for a number ends the process, which could have told why,
    or gone on otherwise.
    """
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY and most - size_now() < RESERVE:
        raise MemoryError


def size_now() -> int:
    """Bytes of the address space that this process takes."""
    pages = Path("/proc/self/statm").read_text("ascii").split()[0]
    return int(pages) * resource.getpagesize()
