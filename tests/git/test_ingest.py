"""What comes in as a pack: taken whole when it is good, and otherwise not at all."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import time
import tracemalloc
from array import array
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from random import Random

import packs
import pytest
from gitserver import commit as commit_files
from packs import BLOB, COMMIT, OFS_DELTA, REF_DELTA, TAG, TREE, entry, object_id, pack
from support.stockgit import clean_env, git

from mypaas_git.errors import GitRefused, PackRefused, TreeRefused
from mypaas_git.git.contents import Contents
from mypaas_git.git.ingest import ingest, quarantined, take_within
from mypaas_git.git.limits import SMALL, Limits, Outgrown
from mypaas_git.git.packindex import write_index
from mypaas_git.git.packstream import PackStream
from mypaas_git.git.repository import Repositories, Repository
from mypaas_git.git.stored import Stored
from mypaas_git.names import ServiceName

A = b"a\n"
A_ID = object_id(BLOB, A)
GIB = 1 << 30


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repositories(tmp_path).open_or_create(ServiceName("hello")) as made:
        yield made


def take(repository: Repository, data: bytes, limit: int = GIB) -> None:
    ingest(io.BytesIO(data).read, repository.objects, limit)


def processor_time(repository: Repository, data: bytes) -> float:
    """Seconds that it takes to take a pack in, to be compared with those of another one."""
    begun = time.process_time()
    take(repository, data)
    return time.process_time() - begun


def untouched(repository: Repository) -> None:
    """Fail if anything of a refused pack was left."""
    objects = Path(os.fspath(repository.store.path))
    assert sorted(path.name for path in objects.rglob("*")) == ["pack"]


def refused(repository: Repository, data: bytes, why: str) -> None:
    with pytest.raises(GitRefused, match=why):
        take(repository, data)
    untouched(repository)


def test_good_pack(repository: Repository) -> None:
    """A pack made by hand is stored, and stock git finds no fault in it."""
    take(repository, packs.whole((b"100644", b"a", A_ID), blobs=(A,)))
    path = Path(repository.dulwich.path)
    assert git(path, "fsck", "--strict", "--full").returncode == 0
    index = next((path / "objects/pack").glob("*.idx"))
    assert git(path, "verify-pack", str(index)).returncode == 0
    assert index.stat().st_mode & 0o777 == 0o444


def test_a_pack_is_on_the_disk_before_it_counts(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pack and index are written through before their names are, and those are too (T67)."""
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watch(descriptor: int) -> None:
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def moved(path: Path, target: Path) -> Path:
        done.append(f"move {path.suffix}")
        return replace(path, target)

    monkeypatch.setattr("os.fsync", watch)
    monkeypatch.setattr(Path, "replace", moved)
    take(repository, packs.whole((b"100644", b"a", A_ID), blobs=(A,)))
    assert done == ["new.pack", "new.idx", "move .pack", "move .idx", "pack"]


def test_same_pack_twice(repository: Repository) -> None:
    """The very same pack may come again."""
    data = packs.whole((b"100644", b"a", A_ID), blobs=(A,))
    take(repository, data)
    take(repository, data)
    assert len(repository.store.packs) == 1


def test_empty_pack(repository: Repository) -> None:
    """git sends an empty pack when there is nothing to send."""
    take(repository, pack())
    untouched(repository)


def test_nothing_behind_the_pack_is_waited_for(repository: Repository) -> None:
    """Reading stops at the pack's end, since a client may keep its connection open."""
    data = packs.whole((b"100644", b"a", A_ID), blobs=(A,))
    left = [data[at : at + 5] for at in range(0, len(data), 5)]
    ingest(lambda _n: left.pop(0), repository.objects, GIB)
    assert left == []


def test_truncated_at_any_byte(repository: Repository) -> None:
    """Whatever the length at which a pack breaks off, it is refused (T17)."""
    data = packs.whole((b"100644", b"a", A_ID), blobs=(A,))
    for end in range(len(data)):
        with pytest.raises(PackRefused, match="ended early"):
            take(repository, data[:end])
    untouched(repository)


def test_every_flipped_byte(repository: Repository) -> None:
    """Damage anywhere is noticed (T18)."""
    data = packs.whole((b"100644", b"a", A_ID), blobs=(A,))
    for at in range(len(data)):
        damaged = data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]
        with pytest.raises(PackRefused):
            take(repository, damaged)
    untouched(repository)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"PACK\0\0\0\4" + bytes(24), "no pack of version 2 or 3"),
        (b"GET / HTTP/1.1\r\n\r\n" + bytes(20), "no pack"),
        (pack(entry(BLOB, A), count=2**32 - 1), "declares 4294967295 objects"),
        (pack(entry(BLOB, A), count=2), "impossible base|damaged|ended early|unknown"),
        (pack(entry(BLOB, A))[:-1] + b"\0", "checksum is wrong"),
        (pack(entry(BLOB, A, size=1)), "longer than it declares"),
        (pack(entry(BLOB, A, size=3)), "shorter than it declares"),
        (pack(entry(BLOB, A), entry(BLOB, A)), "twice"),
        (pack(entry(5, A)), "unknown type 5"),
        (pack(entry(0, A)), "unknown type 0"),
        (pack(b"\xb0" + b"\xff" * 40 + b"\0"), "impossible size"),
    ],
)
def test_malformed(repository: Repository, data: bytes, why: str) -> None:
    """Headers and sizes that lie are refused (T18)."""
    refused(repository, data, why)


def ref_delta(base: bytes, delta: bytes) -> bytes:
    return entry(REF_DELTA, delta, base=base)


def test_deltas(repository: Repository) -> None:
    """Deltas on deltas, before and behind their bases, are resolved as git does (T19)."""
    b, c, d = b"b" * 100, b"c" * 90, b"d" * 80
    first = entry(BLOB, A)
    chain = entry(OFS_DELTA, packs.insert(A, b), base=bytes([len(first)]))
    top = packs.tree(
        *(
            (b"100644", n, object_id(BLOB, x))
            for n, x in ((b"a", A), (b"b", b), (b"c", c), (b"d", d))
        )
    )
    take(
        repository,
        pack(
            first,
            chain,
            ref_delta(object_id(BLOB, c), packs.insert(c, d)),
            ref_delta(object_id(BLOB, b), packs.insert(b, c)),
            entry(TREE, top),
            entry(COMMIT, packs.commit(object_id(TREE, top))),
        ),
    )
    assert repository.store[object_id(BLOB, d).hex().encode()].as_raw_string() == d  # type: ignore[index] # plain bytes are ids too
    assert git(Path(repository.dulwich.path), "fsck", "--strict", "--full").returncode == 0


@pytest.mark.parametrize("stays", [False, True])
def test_thin_pack(repository: Repository, *, stays: bool) -> None:
    """A thin pack is completed with the bases that the repository has (T20).

    They may still be part of the tree.
    """
    take(repository, packs.whole((b"100644", b"a", A_ID), blobs=(A,)))
    b = b"b" * 50
    others = [(b"100644", b"a", A_ID)] if stays else []
    top = packs.tree(*others, (b"100644", b"b", object_id(BLOB, b)))
    thin = pack(
        ref_delta(A_ID, packs.insert(A, b)),
        entry(TREE, top),
        entry(COMMIT, packs.commit(object_id(TREE, top))),
    )
    take(repository, thin)
    path = Path(repository.dulwich.path)
    for index in (path / "objects/pack").glob("*.idx"):
        git(path, "verify-pack", str(index))
    assert git(path, "fsck", "--strict", "--full").returncode == 0


@pytest.mark.parametrize("in_memory", [1 << 20, 0])
def test_bad_deltas(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    """Deltas without a base, of themselves, in circles or malformed are refused (T19, T20)."""
    for module in ("contents", "deltas"):
        monkeypatch.setattr(f"mypaas_git.git.{module}.MAX_MEMORY", in_memory)
    ids = [b"\1" * 20, b"\2" * 20]
    refused(repository, pack(ref_delta(ids[0], packs.insert(A, A))), "neither in the pack")
    itself = object_id(BLOB, b"itself")
    refused(repository, pack(ref_delta(itself, packs.insert(b"itself", b"itself"))), "neither")
    circle = pack(
        ref_delta(object_id(BLOB, b"x"), packs.insert(b"x", b"y")),
        ref_delta(object_id(BLOB, b"y"), packs.insert(b"y", b"x")),
    )
    refused(repository, circle, "neither")
    refused(repository, pack(entry(OFS_DELTA, packs.insert(A, A), base=b"\x7f")), "neither")
    refused(repository, pack(entry(OFS_DELTA, packs.insert(A, A), base=b"\0")), "neither")
    for delta in (
        b"",
        b"\2",
        b"\2\5\0",
        b"\3\1\1x",
        b"\2\5\1x",
        b"\2\1\x91\x70\1",
        b"\x80" * 40,
        # git asks for every instruction to make sense, needed or not.
        packs.insert(A, b"x") + packs.copy(1000, 10),
        packs.insert(A, b"x") + b"\0",
        packs.insert(A, b"x") + b"\x91",
        packs.insert(A, b"x") + packs.copy(0, 1),
        packs.insert(A, b"x")[:-1],
        packs.varint(2) + packs.varint(3) + packs.copy(0, 3),
    ):
        refused(repository, pack(entry(BLOB, A), ref_delta(A_ID, delta)), "delta")


def test_bombs_are_cheap(repository: Repository) -> None:
    """A few bytes that unfold to gigabytes are refused before they do (T19)."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    big = b"\0" * 65_535
    refused(repository, pack(entry(BLOB, A, size=1 << 40)), "at most 512 MiB")
    refused(repository, pack(entry(TREE, A, size=1 << 29)), "at most 64 MiB")
    lie = packs.varint(2) + packs.varint(2 << 30) + b"\1a"
    refused(repository, pack(entry(BLOB, A), ref_delta(A_ID, lie)), "at most 512 MiB")
    bomb = [entry(BLOB, big), ref_delta(object_id(BLOB, big), packs.repeat(big, 3000))]
    bomb += [ref_delta(object_id(BLOB, big), packs.repeat(big, 3000 + n)) for n in range(9)]
    refused(repository, pack(*bomb), "out of all proportion")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 200 * 1024  # KiB


def test_deltas_of_what_is_here(repository: Repository) -> None:
    """What is here already cannot hide that deltas are based on each other (T19).

    Such a pack would send whoever reads it round in circles, git and us.
    """
    b, c = b"b" * 60, b"c" * 50
    ids = {data: object_id(BLOB, data) for data in (A, b, c)}
    take(
        repository,
        packs.whole(*((b"100644", data[:1], ids[data]) for data in (A, b, c)), blobs=(A, b, c)),
    )
    before = sorted(repository.objects.rglob("*"))

    def delta(base: bytes, result: bytes) -> bytes:
        return ref_delta(ids[base], packs.insert(base, result))

    for circle in (
        [delta(A, A)],
        [delta(A, b), delta(b, A)],
        [delta(A, b), delta(b, c), delta(c, A)],
        [delta(A, b), delta(c, c)],
    ):
        with pytest.raises(PackRefused, match="of the pack is based on itself"):
            take(repository, pack(*circle))
    assert sorted(repository.objects.rglob("*")) == before
    # To send again what is here is no harm.
    for good in ([delta(A, b), delta(A, c)], [delta(A, b), delta(b, c)], [delta(c, b)]):
        for order in (good, good[::-1]):
            take(repository, pack(*order))
    path = repository.path
    assert git(path, "fsck", "--strict", "--full").returncode == 0
    for index in (path / "objects/pack").glob("*.idx"):
        git(path, "verify-pack", str(index))


def test_a_long_row_of_loans(repository: Repository) -> None:
    """That it is no circle is found in a time in proportion to its length (T19)."""
    blobs = sorted(
        (b"%d" % number for number in range(12_000)), key=lambda b: object_id(BLOB, b)
    )
    first = processor_time(repository, pack(*(entry(BLOB, blob) for blob in blobs)))
    row = [
        entry(REF_DELTA, packs.insert(base, blob), base=object_id(BLOB, base))
        for blob, base in pairwise(blobs)
    ]
    # To go on to the end of the row from each was more than a hundred times as much.
    assert processor_time(repository, pack(*row)) < 50 * first


def deep_chain(blobs: list[bytes]) -> bytes:
    """A pack of blobs, each a delta of the one before."""
    chain = [entry(BLOB, blobs[0])]
    for base, blob in pairwise(blobs):
        distance = packs.distance(len(chain[-1]))
        chain.append(entry(OFS_DELTA, packs.insert(base, blob), base=distance))
    return pack(*chain)


def test_objects_at_the_end_of_a_deep_chain(repository: Repository) -> None:
    """A small pack of what takes long to compare is one for a child, which has an end (T19)."""
    blobs = [b"%d" % number for number in range(10_000)]
    take(repository, deep_chain(blobs))
    again = pack(*(entry(BLOB, blob) for blob in blobs[-10:]))
    with pytest.raises(Outgrown), quarantined(repository.objects) as quarantine:
        take_within(io.BytesIO(again).read, quarantine, SMALL)
    take(repository, again)


def test_links_into_a_deep_chain(repository: Repository) -> None:
    """A chain that many links lead into is not followed to its end for each (T19)."""
    blobs = [b"%d" % number for number in range(10_000)]
    first = processor_time(repository, deep_chain(blobs))
    items = [(b"100644", blob, object_id(BLOB, blob)) for blob in blobs[-2000:]]
    # To follow it to its end from each was more than a hundred times as much.
    assert processor_time(repository, pack(entry(TREE, packs.tree(*items)))) < 20 * first


def test_a_circle_on_the_disk(repository: Repository, tmp_path: Path) -> None:
    """A pack that goes round in circles, whoever brought it, is told of and left (T70)."""
    data = pack(ref_delta(A_ID, packs.insert(A, A)))
    target = repository.objects / "pack" / "pack-x.pack"
    target.write_bytes(data)
    with target.with_suffix(".idx").open("wb") as file:
        write_index(file, [A_ID], array("Q", [12]), array("I", [0]), data[-20:])
    with Stored(repository.store) as stored:
        for ask in (stored.kind, stored.contents):
            with pytest.raises(PackRefused, match="damaged: a delta has no base"):
                ask(A_ID)


@pytest.mark.parametrize(("held", "in_memory"), [(1 << 20, 1 << 20), (500, 1 << 20), (0, 50)])
def test_deltas_in_little_memory(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, held: int, in_memory: int
) -> None:
    """Bases that have no room are worked out again, large ones lie on the disk (T19)."""
    for module in ("contents", "deltas"):
        monkeypatch.setattr(f"mypaas_git.git.{module}.MAX_MEMORY", in_memory)
    base = b"line\n" * 60
    texts, entries = [base], [entry(BLOB, base)]
    for number in range(200):
        # Wide and deep: a delta of one of the last texts, or of one long ago.
        below = texts[-1 - number % 7] if number % 11 else texts[number // 3]
        texts.append(b"%d " % number + below[:200] + b"end" * (number % 20))
        delta = packs.varint(len(below)) + packs.varint(len(texts[-1]))
        delta += packs.text(b"%d " % number) + packs.copy(0, len(below[:200]))
        entries.append(
            ref_delta(object_id(BLOB, below), delta + packs.text(b"end" * (number % 20)))
        )
    top = packs.tree(
        *sorted((b"100644", b"%d" % n, object_id(BLOB, text)) for n, text in enumerate(texts))
    )
    data = pack(*entries, entry(TREE, top), entry(COMMIT, packs.commit(object_id(TREE, top))))
    limits = Limits(received=GIB, held=held)
    ingest(
        io.BytesIO(data).read,
        repository.objects,
        GIB,
        lambda read, quarantine, _limit: take_within(read, quarantine, limits),
    )
    assert git(repository.path, "fsck", "--strict", "--full").returncode == 0
    with Stored(repository.store) as stored:
        for text in texts:
            with closing(stored.contents(object_id(BLOB, text))) as contents:
                assert contents.whole() == text
            assert stored.size(object_id(BLOB, text)) == len(text)


def thin_pack(work: Path, revisions: str) -> bytes:
    """What stock git would send of ``revisions``."""
    return subprocess.run(
        ["git", "pack-objects", "--revs", "--thin", "--stdout", "-q"],
        cwd=work, env=clean_env(), input=revisions.encode(), capture_output=True, check=True,
    ).stdout  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_a_project_pushed_bit_by_bit(repository: Repository, tmp_path: Path, seed: int) -> None:
    """Files and directories are edited, copied, moved, removed and put back as they were."""
    work, bare = tmp_path / "work", repository.path
    random = Random(seed)  # noqa: S311 - no secret
    was, tip = [dict[str, str]()], ""
    for number in range(40):
        tree = changed(random, was)
        for name in was[-1].keys() - tree.keys():
            (work / name).unlink()
        tip, old = commit_files(work, tree, f"change {number}"), tip
        take(repository, thin_pack(work, f"{tip}\n^{old}\n" if old else f"{tip}\n"))
        was.append(tree)
    git(bare, "update-ref", "refs/heads/main", tip)
    assert git(bare, "fsck", "--strict", "--full").returncode == 0
    objects = ("rev-list", "--objects", "--all", "--in-commit-order")
    assert git(bare, *objects).stdout == git(work, *objects).stdout


def changed(random: Random, was: list[dict[str, str]]) -> dict[str, str]:
    """The files of a project after one more change; ``was`` is how they were before."""
    tree = was[-1].copy()
    directory = random.choice(["", "a/", "a/b/", "c/"])
    name = f"{directory}{random.randrange(6)}"
    kind = random.choice(
        ["new", "new", "edit", "edit", "keep", "copy", "move", "remove", "back"]
    )
    if kind == "back":
        return random.choice(was).copy()
    if kind == "new" or len(tree) < 9:
        tree[name] = "".join(f"{random.random()}\n" for _ in range(random.randrange(60)))
        return tree
    source = random.choice(sorted(tree))
    if kind == "edit":
        tree[source] += f"{random.random()}\n"
    elif kind == "keep":
        tree[source + "~"] = tree[source]
        tree[source] += f"{random.random()}\n"
    elif kind == "copy":
        above = source.rpartition("/")[0]
        copied = {each: text for each, text in tree.items() if each.startswith(above)}
        more = random.choice(["", "more\n"])
        tree |= {f"d{random.randrange(3)}/{each}": text + more for each, text in copied.items()}
    else:
        text = tree.pop(source)
        if kind == "move":
            tree[name] = text + random.choice(["", "more\n"])
    return tree


def test_large_files_that_change(repository: Repository, tmp_path: Path) -> None:
    """A large file takes little memory, and so does a thin delta of it (T20)."""
    work, bare = tmp_path / "work", repository.path
    noise = os.urandom(24 << 20)
    (work).mkdir()
    tips = []
    for number in range(3):
        (work / "big").write_bytes(noise[number << 20 :] + b"more" * number)
        tips.append(commit_files(work, {"n": str(number)}))
    tracemalloc.start()
    for old, new in (("", tips[0]), (f"^{tips[0]}", tips[1]), (f"^{tips[1]}", tips[2])):
        data = thin_pack(work, f"{new}\n{old}\n")
        assert old == "" or len(data) < 10_000
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        take(repository, data)
        assert tracemalloc.get_traced_memory()[1] - before < 8 << 20
    tracemalloc.stop()
    git(bare, "update-ref", "refs/heads/main", tips[2])
    assert git(bare, "fsck", "--strict", "--full").returncode == 0


def test_a_large_file_again(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large blob that is here already is compared, without being in memory twice."""
    big = os.urandom(3 << 20)
    data = packs.whole((b"100644", b"a", object_id(BLOB, big)), blobs=(big,))
    take(repository, data)
    take(repository, packs.whole((b"100644", b"b", object_id(BLOB, big)), blobs=(big,)))
    other = b"x" * len(big)
    monkeypatch.setattr(Stored, "contents", lambda *_: Contents.of(other))
    with pytest.raises(PackRefused, match="is not the object of that id"):
        take(repository, data)


def test_long_chain(repository: Repository) -> None:
    """A chain of thousands of deltas is resolved without recursion (T19)."""
    entries, base = [entry(BLOB, b"0")], b"0"
    for number in range(1, 5000):
        text = b"%d" % number
        entries.append(ref_delta(object_id(BLOB, base), packs.insert(base, text)))
        base = text
    take(repository, pack(*entries))
    assert object_id(BLOB, b"4999").hex().encode() in repository.store  # type: ignore[operator] # as above


@pytest.mark.parametrize(
    "name",
    [
        b".git", b".GIT", b".Git ", b".git.", b"git~1", b"GIT~1", b".git::$INDEX_ALLOCATION",
        ".g\u200cit".encode(), ".\ufeffgit".encode(), b"..", b".", b"", b"a/b", b"/etc",
        b"a\\.git\\b", b".git\xff", b"...", b". .",
    ],
)  # fmt: skip
def test_names_that_no_tree_may_hold(repository: Repository, name: bytes) -> None:
    """.git in any spelling, and what leads out of the tree, is refused and named (T30)."""
    with pytest.raises(
        TreeRefused, match=r"^the tree [0-9a-f]{12} holds an entry '[^\x00-\x1f]*'"
    ):
        take(repository, packs.whole((b"100644", name, A_ID), blobs=(A,)))
    untouched(repository)


@pytest.mark.parametrize(
    "name",
    [b".gitignore", b".github", b"git", b"a b", "é".encode(), b"\xff\xfe", b"a\nb",
     b"x\x1b[31m", b"x" * 300, b"..a", b"git~2", b"aux", b"a\\b"],
)  # fmt: skip
def test_names_that_are_odd_but_allowed(repository: Repository, name: bytes) -> None:
    """Names that only look strange are let in (T34)."""
    take(repository, packs.whole((b"100644", name, A_ID), blobs=(A,)))
    assert git(Path(repository.dulwich.path), "fsck", "--strict", "--full").returncode == 0


@pytest.mark.parametrize(
    "items",
    [
        ((b"100777", b"a", A_ID),),
        ((b"0100644", b"a", A_ID),),
        ((b"644", b"a", A_ID),),
        ((b"120777", b"a", A_ID),),
        ((b"100644", b"a", A_ID), (b"100644", b"a", A_ID)),
        ((b"100644", b"a", A_ID), (b"100644", b"a.b", A_ID), (b"40000", b"a", A_ID)),
        ((b"100644", b"b", A_ID), (b"100644", b"a", A_ID)),
        ((b"40000", b"a", A_ID),),
        ((b"100644", b"a", b"\0" * 19),),
        ((b"100644", b"a", b"\5" * 20),),
    ],
)
def test_bad_trees(
    repository: Repository, items: tuple[tuple[bytes, bytes, bytes], ...]
) -> None:
    """Odd modes, duplicates, disorder, wrong kinds and missing objects (T21, T32, T33)."""
    with pytest.raises(GitRefused):
        take(repository, packs.whole(*items, blobs=(A,)))
    untouched(repository)


def test_hostile_dotfiles(repository: Repository) -> None:
    """A .gitmodules that would harm who clones is refused, also one that is here already."""
    bad = b'[submodule "a"]\n\turl = -oProxyCommand=x\n'
    blob = object_id(BLOB, bad)
    why = r"^\.gitmodules has a url for 'a' that git would take for an option"
    for name in (b".gitmodules", b"GITMOD~1"):
        refused(repository, packs.whole((b"100644", name, blob), blobs=(bad,)), why)
    take(repository, packs.whole((b"100644", b"harmless", blob), blobs=(bad,)))
    with pytest.raises(TreeRefused, match=why):
        take(repository, packs.whole((b"100644", b".gitmodules", blob)))
    long = b"#" * (1 << 20) + b"\n"
    with pytest.raises(TreeRefused, match=r"^\.gitmodules is over 1 MiB long"):
        take(
            repository,
            packs.whole((b"100644", b".gitmodules", object_id(BLOB, long)), blobs=(long,)),
        )


def test_submodule_entries_are_let_in(repository: Repository) -> None:
    """A submodule's commit lives elsewhere; the build context refuses it later (T35)."""
    take(repository, packs.whole((b"160000", b"sub", b"\7" * 20)))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (COMMIT, b""),
        (COMMIT, b"tree " + b"1" * 40 + b"\n"),
        (COMMIT, b"garbage"),
        (COMMIT, packs.commit(b"\1" * 20)),
        (COMMIT, packs.commit(A_ID)),
        (TAG, packs.tag(A_ID, b"commit")),
        (TAG, packs.tag(b"\1" * 20, b"blob")),
        (TAG, b"object x\n"),
        (TREE, b"100644"),
        (TREE, b"100644 a\0short"),
        (TREE, b"999999 a\0" + A_ID),
    ],
)
def test_bad_commits_tags_and_trees(repository: Repository, kind: int, data: bytes) -> None:
    """What does not parse, or links to nothing or to the wrong kind, is refused (T21)."""
    why = "malformed|missing|is a|has the mode"
    refused(repository, pack(entry(BLOB, A), entry(kind, data)), why)


def test_parent_of_the_wrong_kind_here_already(repository: Repository) -> None:
    """Links into the repository are checked for their kind too (T21)."""
    take(repository, packs.whole((b"100644", b"a", A_ID), blobs=(A,)))
    for tree_id, parent in (
        (A_ID, None),
        (object_id(TREE, packs.tree((b"100644", b"a", A_ID))), A_ID),
    ):
        bad = packs.commit(tree_id, *([parent] if parent else []))
        with pytest.raises(PackRefused, match="is a blob where a"):
            take(repository, pack(entry(COMMIT, bad)))


def test_file_that_is_a_tree_here_already(repository: Repository) -> None:
    """T21: an entry cannot pass off as a file what the store holds as something else."""
    take(repository, packs.whole((b"100644", b"a", A_ID), blobs=(A,)))
    inner = object_id(TREE, packs.tree((b"100644", b"a", A_ID)))
    before = sorted(Path(os.fspath(repository.store.path)).rglob("*"))
    with pytest.raises(PackRefused, match="is a tree where a blob must be"):
        take(repository, packs.whole((b"100644", b"bad", inner)))
    assert sorted(Path(os.fspath(repository.store.path)).rglob("*")) == before
    # Good links into the store are let in, to deltas too.
    take(repository, packs.whole((b"100644", b"b", A_ID), (b"40000", b"c", inner)))


def test_kinds_without_unfolding(repository: Repository, tmp_path: Path) -> None:
    """What git packs as deltas is of the kind of its base."""
    path = tmp_path / "real"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    lines = [f"line {number}\n" for number in range(500)]
    for number in range(20):
        lines[number] = f"changed {number}\n"
        commit_files(path, {"file": "".join(lines), f"dir/{number}": str(number)})
    data = subprocess.run(
        ["git", "-C", str(path), "pack-objects", "--stdout", "--revs", "-q"],
        input=b"HEAD\n",
        capture_output=True,
        check=True,
        env=clean_env(),
    ).stdout
    take(repository, data)
    listed = git(
        path, "cat-file", "--batch-check=%(objectname) %(objecttype)", "--batch-all-objects"
    ).stdout
    for line in listed.splitlines():
        id_, kind = line.split()
        assert repository.kind(id_) == kind


def test_limit(repository: Repository) -> None:
    """A pack that is too long names the figure and the setting (T29)."""
    with pytest.raises(PackRefused, match=r"limit of 50 bytes \(\[git\] max_pack_size\)"):
        take(repository, packs.whole((b"100644", b"a", A_ID), blobs=(A,)), limit=50)
    untouched(repository)


def test_colliding_object(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that has the id of another one is not taken for it."""
    take(repository, packs.whole((b"100644", b"a", A_ID), blobs=(A,)))
    # No two contents with one SHA-1 fit in here, so the one that is stored is misread.
    monkeypatch.setattr(Stored, "contents", lambda *_: Contents.of(b"not a\n"))
    with pytest.raises(PackRefused, match="is not the object of that id"):
        take(repository, pack(entry(BLOB, A)))
    monkeypatch.setattr(Stored, "contents", lambda *_: Contents.of(A))
    monkeypatch.setattr(Stored, "kind", lambda *_: TREE)
    with pytest.raises(PackRefused, match="is not the object of that id"):
        take(repository, pack(entry(BLOB, A)))


def test_dead_quarantines_are_swept(repository: Repository) -> None:
    """What a crash left behind goes with the next push, what is fresh stays (T62)."""
    objects = Path(os.fspath(repository.store.path))
    for name, age in (("incoming-old", 4000), ("incoming-fresh", 10)):
        (objects / name).mkdir()
        (objects / name / "new.pack").touch()
        then = time.time() - age
        for path in (objects / name / "new.pack", objects / name):
            os.utime(path, (then, then))
    take(repository, packs.whole((b"100644", b"a", A_ID), blobs=(A,)))
    assert [path.name for path in objects.glob("incoming-*")] == ["incoming-fresh"]


def test_a_real_history(repository: Repository, tmp_path: Path) -> None:
    """A history with merges, renames and many deltas, repacked by git, comes in whole."""
    work = tmp_path / "work"
    text = "".join(f"line {number}\n" for number in range(400))
    for number in range(30):
        files = {f"d{number % 5}/f.txt": text.replace(f"line {number}\n", f"{number}!\n")}
        tip = commit_files(work, files, f"change {number}")
    data = subprocess.run(
        ["git", "pack-objects", "--all", "--stdout", "-q", "--delta-base-offset", "--depth=40"],
        cwd=work, env=clean_env(), capture_output=True, check=True, input=b"",
    ).stdout  # fmt: skip
    take(repository, data)
    path = Path(repository.dulwich.path)
    assert (
        git(path, "rev-list", "--objects", tip).stdout
        == git(work, "rev-list", "--objects", tip).stdout
    )
    assert git(path, "fsck", "--strict", "--full").returncode == 0


@pytest.mark.parametrize("size", [1, 5, 9, 28, 100, 1000])
def test_nothing_is_announced_that_does_not_come(size: int) -> None:
    """Whoever is told that more will be read need not fear to wait for it in vain."""
    data = pack(*(entry(BLOB, b"") for _ in range(200)))
    read = io.BytesIO(data).read
    announced = unused = 0

    def piece(_: int) -> bytes:
        nonlocal unused
        unused = 0
        return read(size)

    def ahead() -> None:
        nonlocal announced, unused
        announced, unused = announced + 1, unused + 1

    stream = PackStream(piece, len, Limits(GIB), ahead=ahead)
    assert len(list(stream.entries())) == 200
    assert unused == 0
    # But for the first and the last, all of its pieces can be known of.
    assert announced >= (len(data) - 60) // size - 2
