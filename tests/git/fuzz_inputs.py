"""Pushes that no client would send: good ones, bent in one place or in several.

Everything follows from a random generator's seed. Most pushes are consistent, with ids and
checksums that fit, since the others are refused before they get anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha1
from random import Random

import packs
from packs import BLOB, COMMIT, OFS_DELTA, REF_DELTA, TAG, TREE, WHO

ZERO = "0" * 40
INTERESTING = bytes([0, 1, 0x0A, 0x20, 0x2F, 0x30, 0x7F, 0x80, 0xFF])

NAMES = [
    b"Dockerfile", b".dockerignore", b".gitmodules", b".gitattributes", b"a", b"a.b", b"a-b",
    b"b", b"d", b".git", b".GIT", b".git ", b"git~1", b"GITMOD~1", b".", b"..", b"", b"a/b",
    b"a\\b", b"a\\.git", b"x" * 255, b"x" * 4097, b"\xff\xfe", b"a\nb", b"\x1b[31m", b"con",
    "é".encode(), ".g\u200cit".encode(), ".gitmodule\u200ds".encode(), b"-rf", b"a:b", b" ",
]  # fmt: skip
MODES = [
    b"100644", b"100755", b"40000", b"120000", b"160000", b"100664", b"040000", b"100777", b"0",
    b"", b"644", b"1" * 30, b"170000",
]  # fmt: skip
PEOPLE = [
    WHO, b"A <a> 0 +0000", b" <> 1 -1200", b"A <a> -1 +0000", b"A <a> 1 +00", b"<a> 1 +0000",
    b"A a 1 +0000", b"A <a> 99999999999999999999 +0000", b"A <a> 9223372036854775807 +9999",
    b"A <a> 01 +0000", b"A\0 <a> 1 +0000", b"", b"A <a> 1700000000", b"\xff <\xfe> 1 +0000",
]  # fmt: skip
TEXTS = [
    b"", b"FROM scratch\n", b"# mypaas.service=hello\nFROM x\n", b"*\n!a\n",
    b'[submodule "a"]\n',
    b'[submodule "../a"]\n\turl = x\n', b'[submodule "a"]\n\turl = -x\n', b"x" * 5000,
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"**/" * 40, b"a" * 2048,
    b"[include]\n\tpath = /etc/passwd\n", b"\0" * 70_000, b"[a\n", b'[submodule "a"] url=a\\\n',
]  # fmt: skip
REFS = [
    "refs/heads/main", "refs/heads/master", "refs/heads/other", "refs/tags/a", "refs/tags/a/b",
    "refs/tags/v1", "refs/tags/release/v1", "refs/notes/x", "HEAD", "refs/heads/../x", "",
    "refs/tags/a.lock", "refs/tags/\udcff", "refs/tags/a b", "refs/tags/" + "x" * 300, "refs/x",
    "refs/tags/\x1b[31m", "refs/heads/main/x", "refs/tags/@{", "../../x", "refs/tags/é",
]  # fmt: skip
CAPABILITIES = [
    "report-status", "report-status-v2", "side-band-64k", "atomic", "quiet", "ofs-delta",
    "push-options", "delete-refs", "object-format=sha1", "agent=fuzz",
]  # fmt: skip


@dataclass
class Known:
    """What the server has, as far as its pusher knows: refs, and contents by kind."""

    refs: dict[str, str] = field(default_factory=dict)
    objects: dict[int, list[bytes]] = field(default_factory=dict)

    def add(self, kind: int, data: bytes) -> None:
        """Remember an object; not all of them, and not for ever."""
        kept = self.objects.setdefault(kind, [])
        kept.append(data)
        del kept[:-20]


@dataclass
class Sent:
    """The bytes of one push, and the objects that are in it."""

    data: bytes
    objects: list[tuple[int, bytes]]


class Maker:
    """Makes one push with one generator."""

    def __init__(self, random: Random, known: Known) -> None:
        self._random = random
        self._known = known
        self._objects: list[tuple[int, bytes]] = []

    def push(self) -> Sent:
        """Commands and a pack, bent somewhere or not at all."""
        random = self._random
        tip = self._commit() if random.random() < 0.85 else self._tag()
        commands = self._commands(tip)
        body = commands + (self._pack() if random.random() < 0.95 else b"")
        if random.random() < 0.25:
            body = self._bent(body)
        return Sent(body, self._objects)

    # Objects.

    def _pick(self, common: bytes | str, odd: list[bytes]) -> bytes:
        """Mostly what is common, since one fault hides all others."""
        if self._random.random() < 0.98:
            return common.encode() if isinstance(common, str) else common
        return self._random.choice(odd)

    def _note(self, kind: int, data: bytes) -> bytes:
        if self._random.random() < 0.02:
            data = self._bent(data)
        if (kind, data) not in self._objects:
            self._objects.append((kind, data))
        return packs.object_id(kind, data)

    def _blob(self) -> bytes:
        common = b"%d\n" % self._random.randrange(1000) * self._random.randrange(1, 30)
        return self._note(BLOB, self._pick(common, TEXTS))

    def _tree(self, depth: int = 0) -> bytes:
        items = {}
        for _ in range(self._random.choice([0, 1, 2, 3, 8])):
            mode, id_ = self._entry(depth)
            items[self._pick(b"f%d" % self._random.randrange(50), NAMES)] = (mode, id_)
        if depth == 0:
            items.setdefault(b"Dockerfile", (b"100644", self._blob()))
        listed = [(mode, name, id_) for name, (mode, id_) in items.items()]
        listed.sort(key=lambda item: item[1] + (b"/" if item[0] == b"40000" else b""))
        if self._random.random() < 0.02:
            self._random.shuffle(listed)
        if listed and self._random.random() < 0.02:
            listed.append(self._random.choice(listed))
        return self._note(TREE, packs.tree(*listed))

    def _entry(self, depth: int) -> tuple[bytes, bytes]:
        if depth < 3 and self._random.random() < 0.2:
            return self._pick(b"40000", MODES), self._tree(depth + 1)
        if self._random.random() < 0.03:
            return self._pick(b"160000", MODES), b"\7" * 20
        if self._random.random() < 0.05:
            return self._pick(b"120000", MODES), self._blob()
        return self._pick(b"100644", MODES), self._blob()

    def _commit(self) -> bytes:
        tree = self._tree() if self._random.random() < 0.97 else self._blob()
        parents = [bytes.fromhex(self._known_tip())] if self._random.random() < 0.7 else []
        parents = [parent for parent in parents if parent != bytes(20)]
        lines = [b"tree " + tree.hex().encode()]
        lines += [b"parent " + parent.hex().encode() for parent in parents]
        lines += [b"author " + self._pick(WHO, PEOPLE), b"committer " + self._pick(WHO, PEOPLE)]
        message = self._pick(b"%d\n" % self._random.getrandbits(40), TEXTS)
        return self._note(COMMIT, b"\n".join([*lines, b"", message]))

    def _tag(self) -> bytes:
        target = self._commit()
        kind = self._pick(b"commit", [b"tree", b"blob", b"tag", b"x", b""])
        lines = [b"object " + target.hex().encode(), b"type " + kind, b"tag v1"]
        lines.append(b"tagger " + self._pick(WHO, PEOPLE))
        return self._note(TAG, b"\n".join([*lines, b"", b"message\n"]))

    def _known_tip(self) -> str:
        return self._random.choice(list(self._known.refs.values()) or [ZERO])

    # Packs.

    def _pack(self) -> bytes:
        random, entries = self._random, []
        offsets: dict[tuple[int, bytes], int] = {}
        order = list(self._objects)
        if random.random() < 0.3:
            random.shuffle(order)
        if order and random.random() < 0.03:
            order.pop(random.randrange(len(order)))
        at = 12
        for kind, data in order:
            made = self._packed(kind, data, at, offsets)
            offsets[kind, data] = at
            entries.append(made)
            at += len(made)
        count = len(entries) if random.random() < 0.98 else random.randrange(1 << 32)
        body = b"PACK\0\0\0\2" + count.to_bytes(4, "big") + b"".join(entries)
        if random.random() < 0.08:
            body = self._bent(body)
        return body + sha1(body, usedforsecurity=False).digest()

    def _packed(
        self, kind: int, data: bytes, at: int, offsets: dict[tuple[int, bytes], int]
    ) -> bytes:
        """An object as it is, or as a delta of one of this pack or of one that is there."""
        here = [(each, place) for (of, each), place in offsets.items() if of == kind]
        there = self._known.objects.get(kind, [])
        choice = self._random.random()
        if choice < 0.25 and here:
            base, place = self._random.choice(here)
            distance = packs.distance(at - place)
            return packs.entry(OFS_DELTA, self._delta(base, data), base=distance)
        if choice < 0.4 and (here or there):
            base = self._random.choice([*(each for each, _ in here), *there])
            id_ = packs.object_id(kind, base)
            return packs.entry(REF_DELTA, self._delta(base, data), base=id_)
        lie = self._random.randrange(1 << 40) if self._random.random() < 0.01 else None
        return packs.entry(kind, data, size=lie)

    def _delta(self, base: bytes, data: bytes) -> bytes:
        same = 0
        while same < min(len(base), len(data), 60_000) and base[same] == data[same]:
            same += 1
        delta = packs.varint(len(base)) + packs.varint(len(data))
        delta += packs.copy(0, same) if same else b""
        for start in range(same, len(data), 127):
            delta += packs.text(data[start : start + 127])
        return self._bent(delta) if self._random.random() < 0.02 else delta

    # Commands.

    def _commands(self, tip: bytes) -> bytes:
        random = self._random
        ref = "refs/heads/main" if random.random() < 0.85 else random.choice(REFS)
        asked = [(ref, tip.hex())]
        while random.random() < 0.15:
            asked.append((random.choice(REFS), random.choice([tip.hex(), ZERO, "1" * 40])))
        capabilities = " ".join(each for each in CAPABILITIES if random.random() < 0.5)
        lines = [f"shallow {tip.hex()}".encode()] if random.random() < 0.03 else []
        for number, (name, new) in enumerate(asked):
            old = self._known.refs.get(name, ZERO) if random.random() < 0.95 else "2" * 40
            line = f"{old} {new} {name}".encode("utf-8", "surrogateescape")
            lines.append(line if number else line + b"\0 " + capabilities.encode())
        framed = b"".join(_pkt(line) for line in lines) + b"0000"
        if "push-options" in capabilities:
            options = random.choice(
                [[], [], [], [], [], [b"plan"], [b"x\n"], [b"plan", b"\xff" * 300]]
            )
            framed += b"".join(_pkt(option) for option in options) + b"0000"
        return framed

    # Damage.

    def _bent(self, data: bytes) -> bytes:
        """The same bytes with something done to them."""
        return self._random.choice(_BENDERS)(self._random, data)


def _pkt(line: bytes) -> bytes:
    return f"{len(line) + 4:04x}".encode() + line


def _flip(random: Random, data: bytes) -> bytes:
    if not data:
        return data
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def _put(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + bytes([random.choice(INTERESTING)]) + data[at + random.randrange(2) :]


def _cut(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _drop(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + data[at + random.randrange(1, 30) :]


def _double(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    piece = data[at : at + random.randrange(1, 200)]
    return data[:at] + piece * random.randrange(1, 4) + data[at:]


def _noise(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.randbytes(random.randrange(1, 40)) + data[at:]


_BENDERS: list[Callable[[Random, bytes], bytes]] = [_flip, _put, _cut, _drop, _double, _noise]
