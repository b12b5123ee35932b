"""The deltas of a pack, resolved with a bound on what is in memory at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from hashlib import sha1
from mmap import mmap
from typing import Protocol

from dulwich.errors import ApplyDeltaError
from dulwich.pack import apply_delta, obj_sha, unpack_object_at

from mypaas_git.errors import PackRefused
from mypaas_git.git.packstream import MIB, Entry

MAX_HELD = 512 * MIB
"""Bytes of bases that wait in memory for their further deltas."""

_Waiting = list[tuple[int, int]]


class Found(Protocol):
    """Told of every object: its kind, raw id, offset and crc in the pack, and its contents."""

    def __call__(self, kind: int, id_: bytes, offset: int, crc: int, data: bytes) -> None: ...


class Deltas:
    """Collects a pack's deltas while it comes in, and resolves them afterwards."""

    def __init__(self, found: Found) -> None:
        self._found = found
        # By offset or raw id of the base: offset and crc of the deltas that need it.
        self._waiting: dict[int | bytes, _Waiting] = defaultdict(list)

    def add(self, entry: Entry) -> None:
        if entry.base is not None:
            self._waiting[entry.base].append((entry.offset, entry.crc))

    def wanted(self, offset: int, id_: bytes) -> bool:
        """Whether deltas wait for the object at ``offset``."""
        return offset in self._waiting or id_ in self._waiting

    def resolve(self, pack: mmap, kind: int, id_: bytes, offset: int) -> None:
        """Resolve what waits, directly or not, for the whole object at ``offset``."""
        if self.wanted(offset, id_):
            self._chain(pack, kind, inflate(pack, offset), self._take(offset, id_))

    def resolve_thin(
        self,
        pack: mmap,
        borrow: Callable[[bytes], tuple[int, bytes] | None],
    ) -> None:
        """Resolve what waits for objects outside of the pack, which ``borrow`` finds.

        Raises :class:`PackRefused` when deltas are left over.
        """
        for base in sorted(key for key in self._waiting if isinstance(key, bytes)):
            if base in self._waiting and (lent := borrow(base)):
                self._chain(pack, *lent, self._take(None, base))
        for left in self._waiting:
            shown = left.hex() if isinstance(left, bytes) else f"at offset {left}"
            raise PackRefused(f"the base {shown} of a delta is neither in the pack nor here")

    def _take(self, offset: int | None, id_: bytes) -> _Waiting:
        taken = self._waiting.pop(id_, [])
        return taken + self._waiting.pop(offset, []) if offset is not None else taken

    def _chain(self, pack: mmap, kind: int, data: bytes, waiting: _Waiting) -> None:
        """Resolve ``waiting`` on top of ``data``, then what waits for the results."""
        stack, held = [(data, waiting)], len(data)
        while stack:
            base, deltas = stack[-1]
            offset, crc = deltas.pop()
            if not deltas:
                stack.pop()
                held -= len(base)
            result = _apply(base, inflate(pack, offset))
            id_ = obj_sha(kind, result, sha1)
            self._found(kind, id_, offset, crc, result)
            if self.wanted(offset, id_):
                held += len(result)
                if held > MAX_HELD:
                    raise PackRefused(
                        f"the pack's deltas take more than {MAX_HELD // MIB} MiB to resolve"
                    )
                stack.append((result, self._take(offset, id_)))


def inflate(pack: mmap, offset: int) -> bytes:
    """The contents of the object at ``offset``, or the delta that is there."""
    return b"".join(unpack_object_at(pack, offset, sha1)[0].decomp_chunks)


def _apply(base: bytes, delta: bytes) -> bytes:
    try:
        return b"".join(apply_delta(base, delta))
    except (ApplyDeltaError, ValueError) as error:
        raise PackRefused(f"a delta of the pack cannot be applied: {error}") from None
