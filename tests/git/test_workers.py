"""Large packs are taken in by a child process, whose memory and time are bounded."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import packs
import pytest
from gitserver import COMPILED, commit, uncovered
from packs import BLOB, COMMIT, OFS_DELTA, REF_DELTA, TREE, entry, object_id, pack
from support.stockgit import clean_env, git

from mypaas_git.errors import GitRefused, PackRefused, TreeRefused
from mypaas_git.git.ingest import Read, ingest
from mypaas_git.git.repository import Repositories, Repository
from mypaas_git.git.workers import Workers
from mypaas_git.names import ServiceName

GIB = 1 << 30
A = b"a\n"
A_ID = object_id(BLOB, A)
CHILD_MIB, SERVER_MIB = 300, 20
"""What a bomb may cost: all of the child, and what the server grows by."""


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repositories(tmp_path).open_or_create(ServiceName("hello")) as made:
        yield made


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    running = Workers()
    with uncovered():
        running.start()
    yield running
    running.close()


def take(
    workers: Workers, repository: Repository, data: bytes | Read, limit: int = GIB
) -> None:
    read = io.BytesIO(data).read if isinstance(data, bytes) else data
    ingest(read, repository.objects, limit, workers.take)


def helper(workers: Workers) -> int:
    assert workers._process
    return workers._process.pid


def children(pid: int) -> list[int]:
    """The processes whose parent is ``pid``."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in listed]


def memory(pid: int | str, field: str) -> int:
    """A figure of the kernel's on a process's memory, in KiB; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if field in line), 0)


def together(pids: list[int]) -> int:
    """KiB of memory that processes take, pages that they share counted once."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss: +(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
    return total


class Watch:
    """What the helper's children and this process take at most while it looks.

    The second process that a child may have counts with it.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.child = self.server = 0
        self.seen: set[int] = set()
        self.helped = False

    def look(self) -> None:
        for child in children(self._pid):
            self.seen.add(child)
            self.child = max(self.child, memory(child, "VmHWM"))
            with suppress(OSError):
                seconds = children(child)
                if seconds:
                    self.helped = True
                    self.child = max(self.child, together([child, *seconds]))
        self.server = max(self.server, memory("self", "VmRSS"))


@contextmanager
def watched(workers: Workers) -> Iterator[Watch]:
    watch, ended = Watch(helper(workers)), threading.Event()
    watch.look()
    before = watch.server

    def look() -> None:
        while not ended.wait(0.002):
            watch.look()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()
        watch.server -= before


def gone(workers: Workers) -> bool:
    """Whether no child is left, after a moment."""
    deadline = time.monotonic() + 10
    while children(helper(workers)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not children(helper(workers))


def noise_pack(size: int) -> bytes:
    """A good pack of one file that does not compress."""
    big = os.urandom(size)
    return packs.whole((b"100644", b"a", object_id(BLOB, big)), blobs=(big,))


def bomb_for_two() -> bytes:
    """Commits of a million parents, as deltas among so many others that two share them."""
    entries = []
    for number in range(4):
        few = packs.commit(number.to_bytes(20, "big"), *[b"\2" * 20] * 1200)
        begin, end = few.index(b"parent "), few.index(b"author ")
        size = len(few) + 999 * (end - begin)
        parents = packs.copy(begin, end - begin) * 1000
        ends = packs.copy(0, begin), packs.copy(end, len(few) - end)
        many = packs.varint(len(few)) + packs.varint(size) + ends[0] + parents + ends[1]
        entries.append(entry(COMMIT, few))
        entries.append(entry(REF_DELTA, many, base=object_id(COMMIT, few)))
        for each in range(1500):
            blob = b"%d %d" % (number, each)
            entries.append(entry(BLOB, blob))
            delta = packs.insert(blob, blob + b"!")
            entries.append(entry(REF_DELTA, delta, base=object_id(BLOB, blob)))
    return pack(*entries)


def untouched(repository: Repository) -> None:
    assert sorted(path.name for path in repository.objects.rglob("*")) == ["pack"]


def test_small_packs_stay_here(workers: Workers, repository: Repository) -> None:
    """No process is made for what takes a moment."""
    with watched(workers) as watch:
        take(workers, repository, packs.whole((b"100644", b"a", A_ID), blobs=(A,)))
        time.sleep(0.01)
    assert watch.seen == set()
    assert git(repository.path, "fsck", "--strict", "--full").returncode == 0


def test_large_packs_go_to_a_child(workers: Workers, repository: Repository) -> None:
    """The child's pack is as good as ours, and the child is gone when it is taken."""
    data = noise_pack(40 << 20)
    with watched(workers) as watch:
        take(workers, repository, data)
    assert len(watch.seen) == 1
    assert gone(workers)
    assert git(repository.path, "fsck", "--strict", "--full").returncode == 0
    assert watch.child < 60 << 10
    assert watch.server < 20 << 10
    assert not list(repository.objects.glob("incoming-*"))


def test_a_real_history(workers: Workers, repository: Repository, tmp_path: Path) -> None:
    """What does not fit here, be it in bytes, objects or deltas, comes in whole elsewhere."""
    work = tmp_path / "work"
    text = "".join(f"line {number}\n" for number in range(60_000))
    for number in range(12):
        tip = commit(work, {"f": text.replace(f"line {number}\n", f"{number}!\n")})
    data = subprocess.run(
        ["git", "pack-objects", "--all", "--stdout", "-q", "--delta-base-offset"],
        cwd=work, env=clean_env(), capture_output=True, check=True, input=b"",
    ).stdout  # fmt: skip
    assert len(data) < 250_000
    with watched(workers) as watch:
        take(workers, repository, data)
    assert len(watch.seen) == 1
    assert (
        git(repository.path, "rev-list", "--objects", tip).stdout
        == git(work, "rev-list", "--objects", tip).stdout
    )
    assert git(repository.path, "fsck", "--strict", "--full").returncode == 0


def test_nothing_behind_the_pack_is_waited_for(
    workers: Workers, repository: Repository
) -> None:
    """Reading stops at the pack's end for a child, too."""
    data = noise_pack(1 << 20)
    left = [data[at : at + 50_000] for at in range(0, len(data), 50_000)]
    take(workers, repository, lambda _n: left.pop(0))
    assert left == []


ROOM = os.urandom(1 << 20)


@pytest.mark.parametrize(
    ("data", "error", "why"),
    [
        (noise_pack(5 << 20), PackRefused, "over the limit of 4000000 bytes"),
        (noise_pack(1 << 20)[:-1], PackRefused, "ended early"),
        (noise_pack(1 << 20)[:-1] + b"x", PackRefused, "checksum is wrong"),
        (
            packs.whole((b"100644", b".git", A_ID), blobs=(A, ROOM)),
            TreeRefused,
            "holds an entry '.git'",
        ),
        (
            packs.whole((b"100644", b"a", b"\1" * 20), blobs=(ROOM,)),
            PackRefused,
            "blob 0101.* is missing from the pack",
        ),
    ],
    ids=["too long", "cut", "checksum", "tree", "link"],
)
def test_a_childs_refusal(
    workers: Workers, repository: Repository, data: bytes, error: type[GitRefused], why: str
) -> None:
    """What a child refuses is refused in the very words that we would use."""
    with pytest.raises(GitRefused, match=why) as raised:
        take(workers, repository, data, 4_000_000)
    assert isinstance(raised.value, error)
    untouched(repository)
    assert gone(workers)


def numbered(kind: int, count: int) -> Iterator[bytes]:
    """So many tiny blobs, or deltas of what is not there."""
    for number in range(count):
        name = number.to_bytes(20, "big")
        yield (
            entry(kind, packs.insert(A, A), base=name)
            if kind == REF_DELTA
            else entry(kind, name)
        )


def with_deltas(count: int) -> Iterator[bytes]:
    """So many tiny blobs, each with a delta of it."""
    delta = packs.varint(20) + packs.varint(21) + packs.copy(0, 20) + packs.text(b"x")
    for number in range(count):
        whole = entry(BLOB, number.to_bytes(20, "big"))
        yield whole + entry(OFS_DELTA, delta, base=packs.distance(len(whole)))


MANY = 600_000
BIG = b"\0" * 65_535
BIG_ID = object_id(BLOB, BIG)
LIE = packs.varint(len(BIG)) + packs.varint(1 << 40) + packs.text(b"x")
BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "declared size": ("at most 512 MiB", lambda: pack(entry(BLOB, A, size=1 << 40))),
    "declared objects": ("declares 4294967295", lambda: pack(entry(BLOB, A), count=2**32 - 1)),
    "declared delta": (
        "at most 512 MiB",
        lambda: pack(entry(BLOB, BIG), entry(REF_DELTA, LIE, base=BIG_ID)),
    ),
    "zeros behind the end": (
        "longer than it declares",
        lambda: pack(entry(BLOB, bytes(400 << 20), size=100)),
    ),
    "tree of 500 MB": ("at most 64 MiB", lambda: pack(entry(TREE, A, size=500 << 20))),
    "wide deltas": (
        "out of all proportion",
        lambda: pack(
            entry(BLOB, BIG),
            *(entry(REF_DELTA, packs.repeat(BIG, 8000 + n), base=BIG_ID) for n in range(40)),
        ),
    ),
    "tree of too many files": (
        "",
        lambda: pack(
            entry(BLOB, A),
            entry(TREE, packs.tree(*((b"100644", b"%07d" % n, A_ID) for n in range(MANY)))),
        ),
    ),
    "tree of too many missing files": (
        "of memory|is missing",
        lambda: pack(
            entry(
                TREE,
                packs.tree(
                    *(
                        (b"100644", b"%07d" % n, n.to_bytes(20, "big"))
                        for n in range(1, 1_700_000)
                    )
                ),
            )
        ),
    ),
    "commit of a million parents": (
        "of memory|is missing|as something else",
        lambda: pack(entry(COMMIT, packs.commit(b"\1" * 20, *[b"\2" * 20] * 1_250_000))),
    ),
    "a gigabyte of zeros": (
        "",
        lambda: pack(*(entry(BLOB, bytes(200 << 20 | n)) for n in range(5))),
    ),
    "too many tiny objects": ("", lambda: pack(*numbered(BLOB, MANY))),
    "deltas of nothing": ("of memory|neither in", lambda: pack(*numbered(REF_DELTA, MANY))),
}
"""Packs that want all of a machine, and why they are refused, if they must be."""
if COMPILED:  # which ended its process without a word when memory ran short
    BOMBS["too many deltas"] = (
        "more than 224 MiB of memory",
        lambda: pack(*with_deltas(450_000), count=900_000),
    )
    BOMBS["too many objects for an index"] = (
        "more than 224 MiB of memory",
        lambda: pack(*numbered(BLOB, 900_000)),
    )


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(workers: Workers, repository: Repository, name: str) -> None:
    """A bomb is refused with its reason, and costs what is granted at the most (T19, T29)."""
    why, make = BOMBS[name]
    data = make()
    said = ""
    with watched(workers) as watch:
        try:
            take(workers, repository, data)
        except GitRefused as error:
            said = error.message
    assert re.search(why, said)
    assert len(said) < 300
    assert watch.child < CHILD_MIB << 10
    assert watch.server < SERVER_MIB << 10
    assert gone(workers)
    assert not list(repository.objects.glob("incoming-*"))


def test_the_kernel_has_the_last_word(repository: Repository) -> None:
    """What no rule foresees ends at the limits of memory and time, in one line (T19)."""
    zeros = pack(*(entry(BLOB, bytes(100 << 20 | n)) for n in range(9)))
    tiny = pack(*numbered(BLOB, 200_000))
    for limits, data, why in (
        ({"seconds": 1}, zeros, "the pack takes more than 1 s of a processor to take in: "),
        ({"memory": 8 << 20}, tiny, "the pack takes more than 8 MiB of memory to take in: "),
    ):
        with closing(Workers(**limits)) as workers:
            with pytest.raises(PackRefused, match=why):
                take(workers, repository, data)
            untouched(repository)


def long_delta(instruction: bytes) -> bytes:
    """A pack whose delta has 40 million instructions to add one byte."""
    count = 40_000_000
    delta = packs.varint(len(BIG)) + packs.varint(count) + instruction * count
    return pack(entry(BLOB, BIG), entry(REF_DELTA, delta, base=BIG_ID))


def crooked_tree(count: int) -> bytes:
    """A pack of a tree whose names each need a closer look."""
    entries = ((b"100644", b"~%07d" % number, A_ID) for number in range(count))
    return pack(entry(TREE, packs.tree(*entries)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: long_delta(b"\1x"),
        lambda: long_delta(b"\x90\1"),
        lambda: crooked_tree(1_500_000),
    ],
    ids=["texts", "copies", "tree"],
)
def test_a_single_object_that_takes_long(
    repository: Repository, make: Callable[[], bytes]
) -> None:
    """The end of the processor time is told of in the midst of it, compiled or not (T19)."""
    data = make()
    with closing(Workers(seconds=1)) as workers:
        begun = time.monotonic()
        with pytest.raises(PackRefused, match="more than 1 s of a processor"):
            take(workers, repository, data)
        # Of the processor; others may be at work on it.
        assert time.monotonic() - begun < 8
    untouched(repository)


def test_a_child_that_is_killed(workers: Workers, repository: Repository) -> None:
    """The pusher hears of it, the quarantine is gone, the next push works (T66)."""
    data = noise_pack(8 << 20)
    left = [data[at : at + 100_000] for at in range(0, len(data), 100_000)]

    def read(_size: int) -> bytes:
        if len(left) == 10:
            for child in children(helper(workers)):
                os.kill(child, signal.SIGKILL)
        return left.pop(0)

    with pytest.raises(PackRefused, match="short of memory"):
        take(workers, repository, read)
    untouched(repository)
    take(workers, repository, data)


def test_a_helper_that_is_killed(repository: Repository) -> None:
    """Another one is started when it is needed, and none is left at the end (T66)."""
    workers = Workers()
    take(workers, repository, noise_pack(1 << 20))
    first = helper(workers)
    os.kill(first, signal.SIGKILL)
    take(workers, repository, noise_pack(1 << 20))
    second = helper(workers)
    assert second != first
    workers.close()
    assert not Path(f"/proc/{second}").exists()


def test_a_server_that_is_killed(tmp_path: Path) -> None:
    """Helper and child end with the server, in the middle of a pack (T62)."""
    Repositories(tmp_path).open_or_create(ServiceName("hello")).close()
    (tmp_path / "pack").write_bytes(noise_pack(4 << 20))
    script = f"""
import os, signal
from pathlib import Path
from mypaas_git.git.ingest import ingest
from mypaas_git.git.workers import Workers
root = Path({str(tmp_path)!r})
workers, file = Workers(), (root / "pack").open("rb")
workers.start()
helper = workers._process.pid
def read(size):
    if file.tell() > 2 << 20:
        children = Path(f"/proc/{{helper}}/task/{{helper}}/children").read_text()
        (root / "processes").write_text(f"{{helper}} {{children}}")
        os.kill(os.getpid(), signal.SIGKILL)
    return file.read(size)
ingest(read, root / "hello.git/objects", 1 << 30, workers.take)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    processes = (tmp_path / "processes").read_text().split()
    assert len(processes) == 2
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in processes):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_no_descriptor_is_left(workers: Workers, repository: Repository) -> None:
    """Neither here nor in the helper, whatever becomes of a pack."""

    def opened(pid: int | str) -> int:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))

    take(workers, repository, noise_pack(1 << 20))
    assert gone(workers)
    before = opened("self"), opened(helper(workers))
    for data in (noise_pack(1 << 20), noise_pack(1 << 20)[:-9], BOMBS["wide deltas"][1]()):
        with suppress(GitRefused):
            take(workers, repository, data)
    assert gone(workers)
    assert (opened("self"), opened(helper(workers))) == before


def test_side_by_side(workers: Workers, tmp_path: Path) -> None:
    """Several packs come in at once, each in a child of its own."""
    repositories = Repositories(tmp_path / "repos")
    failed: list[BaseException] = []

    def push(number: int) -> None:
        try:
            with repositories.open_or_create(ServiceName(f"s{number}")) as repository:
                take(workers, repository, noise_pack(2 << 20))
                assert len(repository.store.packs) == 1
        except BaseException as error:  # noqa: BLE001 - the test fails with it
            failed.append(error)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_a_bomb_for_two(workers: Workers, repository: Repository) -> None:
    """What fills both processes of a pack has no more memory than one would have (T19)."""
    data = bomb_for_two()
    why = "MiB of memory to take in"
    with watched(workers) as watch, pytest.raises(PackRefused, match=why):
        take(workers, repository, data)
    assert watch.helped
    assert watch.child < CHILD_MIB << 10
    assert watch.server < SERVER_MIB << 10
    assert gone(workers)
    untouched(repository)
