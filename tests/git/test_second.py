"""A second process takes a part of a large pack's deltas, and changes nothing but the time."""

from __future__ import annotations

import io
import multiprocessing
import os
import re
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha1
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import packs
import pytest
from packs import BLOB, COMMIT, OFS_DELTA, REF_DELTA, TAG, TREE, entry, object_id
from support.stockgit import git

from mypaas_git.errors import GitRefused
from mypaas_git.git import second
from mypaas_git.git.contents import Contents
from mypaas_git.git.incoming import MANY, Incoming
from mypaas_git.git.ingest import Quarantine, Read, ingest, take_within
from mypaas_git.git.limits import Limits, size_now
from mypaas_git.git.repository import Repositories, Repository
from mypaas_git.git.second import Second, Shares
from mypaas_git.git.stored import Stored
from mypaas_git.git.workers import Workers
from mypaas_git.names import ServiceName

GIB = 1 << 30
MIB = 1 << 20
GROUPS, LAST = 10, 9
LARGE = 100_000
"""Entries of a large tree."""
NOWHERE = b"\7" * 20
TOGETHER_MIB = 300
"""What the two may take together."""


class Maker:
    """Makes a pack, of whole objects and of deltas on top of them."""

    def __init__(self) -> None:
        self._entries: list[bytes] = []
        self._at = 12
        self._where: dict[bytes, int] = {}
        self.deltas = 0

    def whole(self, kind: int, data: bytes) -> bytes:
        self._where.setdefault(object_id(kind, data), self._at)
        self._put(entry(kind, data))
        return object_id(kind, data)

    def delta(self, kind: int, base: bytes, data: bytes, *, by_id: bool = False) -> bytes:
        """Add ``data`` as a delta of ``base``, which has the same beginning."""
        pairs = enumerate(zip(base, data, strict=False))
        same = next((at for at, (a, b) in pairs if a != b), min(len(base), len(data)))
        delta = b"".join(
            [
                packs.varint(len(base)) + packs.varint(len(data)),
                packs.copy(0, same) if same else b"",
                *(packs.text(data[at : at + 127]) for at in range(same, len(data), 127)),
            ]
        )
        id_ = object_id(kind, base)
        at = self._at
        self._put(
            entry(REF_DELTA, delta, base=id_)
            if by_id
            else entry(OFS_DELTA, delta, base=packs.distance(at - self._where[id_]))
        )
        self._where.setdefault(object_id(kind, data), at)
        self.deltas += 1
        return object_id(kind, data)

    def pack(self) -> bytes:
        return packs.pack(*self._entries)

    def _put(self, data: bytes) -> None:
        self._entries.append(data)
        self._at += len(data)


def text(group: int, version: int) -> bytes:
    beginning = sha1(b"%d" % group, usedforsecurity=False).hexdigest().encode() * 8
    return beginning + b"version %d\n" % version


def listing(*ids: bytes, names: tuple[bytes, ...] = (b"a", b"b")) -> bytes:
    return packs.tree(*((b"100644", name, id_) for name, id_ in zip(names, ids, strict=True)))


def history(
    groups: int, versions: int, faulty: Callable[[Maker, int], object] = lambda *_: None
) -> Maker:
    """Files and directories in many versions, those of one in chains of fifty.

    Each directory holds two files, of which the second is another's. ``faulty`` may add
    something to a group.
    """
    maker = Maker()
    for group in range(groups):
        other = (group * 7 + 3) % groups
        files = [text(group, 0)]
        trees = [listing(*[object_id(BLOB, text(each, 0)) for each in (group, other)])]
        maker.whole(BLOB, files[0])
        maker.whole(TREE, trees[0])
        top = maker.whole(COMMIT, packs.commit(object_id(TREE, trees[0])))
        for version in range(1, versions + 1):
            below = 0 if version % 50 == 0 else version - 1
            files.append(text(group, version))
            ids = [object_id(BLOB, text(each, version)) for each in (group, other)]
            trees.append(listing(*ids))
            by_id = version % 3 == 0
            maker.delta(BLOB, files[below], files[-1], by_id=by_id)
            maker.delta(TREE, trees[below], trees[-1], by_id=by_id)
        if group % 5 == 0:
            maker.whole(TAG, packs.tag(top, b"commit"))
        faulty(maker, group)
    return maker


@dataclass
class Taken:
    """What became of a pack, and how."""

    pack: bytes = b""
    index: bytes = b""
    refused: str = ""
    forks: int = 0
    reports: int = 0
    left: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> tuple[bytes, bytes, str]:
        return self.pack, self.index, self.refused


_Trouble = Callable[[], object]


def take(
    root: Path,
    data: bytes,
    trouble: _Trouble = lambda: None,
    first: bytes = b"",
    *,
    helped: bool = True,
    many: int = 100,
    pause: float = 0,
) -> Taken:
    """Take a pack in within this process, which pauses while the second one begins.

    ``trouble`` is made in the second.
    """
    taken = Taken()

    def within(read: Read, quarantine: Quarantine, limit: int) -> bytes | None:
        try:
            return take_within(
                read,
                quarantine,
                Limits(received=limit, helped=(lambda: True) if helped else None),
            )
        finally:
            own = {quarantine.path / "pack", quarantine.pack, quarantine.index}
            taken.left = [str(each) for each in set(quarantine.path.rglob("*")) - own]

    name = ServiceName(f"s{len(list(root.iterdir()))}")
    with Repositories(root).open_or_create(name) as repository:
        if first:
            ingest(io.BytesIO(first).read, repository.objects, GIB)
        before = set((repository.objects / "pack").iterdir())
        opened = _descriptors()
        with _watching(taken, trouble, pause), patch("mypaas_git.git.incoming.MANY", many):
            try:
                ingest(io.BytesIO(data).read, repository.objects, GIB, within)
            except GitRefused as error:
                taken.refused = error.message
        for path in set((repository.objects / "pack").iterdir()) - before:
            setattr(taken, "index" if path.suffix == ".idx" else "pack", path.read_bytes())
        taken.left += [each for each in _descriptors() if each not in opened]
        taken.left += _children(os.getpid())
    return taken


@contextmanager
def _watching(taken: Taken, trouble: _Trouble, pause: float) -> Iterator[None]:
    fork, report = os.fork, Second.report
    as_second, deal = Incoming._as_second, Shares.__iter__

    def watch_fork() -> int:
        pid = fork()
        taken.forks += 1
        time.sleep(pause if pid else 0)
        return pid

    def watch_report(self: Second) -> Any | None:
        found = report(self)
        taken.reports += found is not None
        return found

    def make_trouble(self: Incoming, *given: Any) -> Any:
        found = as_second(self, *given)
        trouble()
        return found

    def take_turns(self: Shares[Any]) -> Iterator[Any]:
        for thing in deal(self):
            time.sleep(0.001)
            yield thing

    with (
        patch("os.fork", watch_fork),
        patch.object(Second, "report", watch_report),
        patch.object(Incoming, "_as_second", make_trouble),
        patch.object(Shares, "__iter__", take_turns),
    ):
        yield


def _descriptors() -> list[str]:
    return [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.exists()]


def _children(pid: int | str) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return []


def alone(function: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    """What a function returns in a process of its own, which has a single thread."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, function, arguments, more))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        ours.close()
        process.join()
        process.close()


def _answer(
    connection: Connection,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    more: dict[str, Any],
) -> None:
    connection.send(function(*arguments, **more))


def each_way(root: Path, data: bytes, first: bytes = b"") -> list[Taken]:
    """What becomes of a pack when the second does most, when both do half, and without."""
    return [
        take(root, data, first=first, pause=0.1),
        take(root, data, first=first),
        take(root, data, first=first, helped=False),
    ]


def same(*ways: Taken) -> Taken:
    """What became of a pack in each way, the last of which was without a second process."""
    without = ways[-1]
    assert [taken.forks for taken in ways] == [1] * (len(ways) - 1) + [0]
    for taken in ways:
        assert taken.outcome == without.outcome
        assert taken.left == []
    return without


def test_the_result_is_the_same(tmp_path: Path) -> None:
    """Pack and index are, to the byte; and nothing is left of the second process."""
    maker = history(12, 120)
    ways = alone(each_way, tmp_path, maker.pack())
    assert same(*ways).index
    assert [taken.reports for taken in ways] == [1, 1, 0]
    for path in tmp_path.glob("*.git"):
        assert git(path, "fsck", "--strict", "--full").returncode == 0


def _same_twice(maker: Maker, group: int) -> None:
    if group in (0, LAST):
        maker.delta(BLOB, text(group, 1), b"the same")


def _whole_and_delta(maker: Maker, group: int) -> None:
    if group == 0:
        maker.whole(BLOB, b"the same")
    if group == LAST:
        maker.delta(BLOB, text(group, 1), b"the same")


def _tree(maker: Maker, group: int, mode: bytes, name: bytes, id_: bytes) -> None:
    """Add a tree as a delta of one that is good."""
    base = packs.tree((b"100644", b"%d" % group, object_id(BLOB, text(group, 1))))
    maker.whole(TREE, base)
    maker.delta(TREE, base, packs.tree((mode, name, id_)))


def _bad_name(maker: Maker, group: int) -> None:
    if group == LAST:
        _tree(maker, group, b"100644", b".git", object_id(BLOB, text(0, 1)))


def _missing(maker: Maker, group: int) -> None:
    if group == 0:
        _tree(maker, group, b"100644", b"x", NOWHERE)


def _two_kinds(maker: Maker, group: int) -> None:
    if group in (0, LAST):
        _tree(maker, group, b"100644" if group else b"40000", b"x", NOWHERE)


def _other_kind(maker: Maker, group: int) -> None:
    if group == 0:
        _tree(maker, group, b"40000", b"x", object_id(BLOB, b"a lone file"))
    if group == LAST:
        maker.delta(BLOB, text(group, 1), b"a lone file")


def _other_kind_in_the_first_place(maker: Maker, group: int) -> None:
    """What a whole object links to turns out to be something else."""
    if group == 0:
        maker.whole(TREE, packs.tree((b"40000", b"x", object_id(BLOB, b"a lone file"))))
    if group == LAST:
        maker.delta(BLOB, text(group, 1), b"a lone file")


def _other_kind_later(maker: Maker, group: int) -> None:
    if group == LAST:
        _tree(maker, group, b"40000", b"x", object_id(BLOB, text(0, 2)))


def _no_base(maker: Maker, group: int) -> None:
    if group == LAST:
        maker.delta(BLOB, b"what is nowhere", b"what", by_id=True)


def _circle(maker: Maker, group: int) -> None:
    if group == LAST:
        maker.delta(BLOB, b"one", b"other", by_id=True)
        maker.delta(BLOB, b"other", b"one", by_id=True)


def _hostile_file(maker: Maker, group: int) -> None:
    bad = b'[submodule "a"]\n\turl = -oProxyCommand=x\n'
    if group == 0:
        maker.delta(BLOB, text(0, 1), bad)
    if group == LAST:
        _tree(maker, group, b"100644", b".gitmodules", object_id(BLOB, bad))


def _many_faults(maker: Maker, group: int) -> None:
    for fault in (_bad_name, _same_twice, _other_kind):
        fault(maker, group)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (_same_twice, "is in the pack twice"),
        (_whole_and_delta, "is in the pack twice"),
        (_bad_name, "holds an entry '.git'"),
        (_missing, "is missing from the pack"),
        (_two_kinds, "is linked to as a blob and as something else"),
        (_other_kind, "is a blob where a tree must be"),
        (_other_kind_in_the_first_place, "is a blob where a tree must be"),
        (_other_kind_later, "is a blob where a tree must be"),
        (_no_base, "neither in the pack nor here"),
        (_circle, "neither in the pack nor here"),
        (_hostile_file, "that git would take for an option"),
        (_many_faults, "."),
    ],
)
def test_a_fault_is_found_as_it_would_be(
    tmp_path: Path, fault: Callable[[Maker, int], None], why: str
) -> None:
    """The reason is the same, whichever of the two comes upon the fault, or neither."""
    taken = same(*alone(each_way, tmp_path, history(GROUPS, 20, fault).pack()))
    assert re.search(why, taken.refused)
    assert not taken.index


def _with_a_collision(root: Path, data: bytes, first: bytes, id_: bytes) -> Any:
    contents = Stored.contents
    with patch.object(
        Stored,
        "contents",
        lambda self, each: Contents.of(b"x") if each == id_ else contents(self, each),
    ):
        return each_way(root, data, first)


@pytest.mark.parametrize("group", [0, LAST])
def test_objects_that_are_here_are_compared(tmp_path: Path, group: int) -> None:
    """What is here already may come again, and nothing that poses as it, in either process."""
    data = history(GROUPS, 20).pack()
    again = packs.pack(*(entry(BLOB, text(each, 5)) for each in (0, LAST)))
    assert same(*alone(each_way, tmp_path, data, again)).index
    id_ = object_id(BLOB, text(group, 5))
    taken = same(*alone(_with_a_collision, tmp_path, data, again, id_))
    assert taken.refused == f"{id_.hex()} is not the object of that id that is here already"


def test_a_thin_pack(tmp_path: Path) -> None:
    """What is based on objects that are here is resolved once the rest is."""

    def thin(maker: Maker, group: int) -> None:
        maker.delta(BLOB, b"%d is here" % group, b"%d was not" % group, by_id=True)
        maker.delta(BLOB, b"%d was not" % group, b"%d was not either" % group, by_id=True)

    here = packs.pack(*(entry(BLOB, b"%d is here" % group) for group in range(GROUPS)))
    assert same(*alone(each_way, tmp_path, history(GROUPS, 20, thin).pack(), here)).index


# What may become of a second process.


def _is_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _runs_out_of_memory() -> None:
    bytearray(128 * MIB)


def _fills_the_disk() -> None:
    # As good: no file may grow.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _has_no_time_left() -> None:
    while True:
        pass


def _crashes() -> None:
    raise RuntimeError


def _in_trouble(root: Path, data: bytes, trouble: Callable[[], None]) -> tuple[Taken, Taken]:
    most = size_now() + 220 * MIB
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    seconds = int(time.process_time()) + 4
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    taken = take(root, data, trouble)
    assert resource.getrlimit(resource.RLIMIT_AS) == (most, most)
    return taken, take(root, data, helped=False)


@pytest.mark.parametrize(
    "trouble", [_is_killed, _runs_out_of_memory, _fills_the_disk, _has_no_time_left, _crashes]
)
def test_a_second_process_that_fails(tmp_path: Path, trouble: Callable[[], None]) -> None:
    """The first does its part as well, and the push is none the worse for it (T66)."""
    with_second, without = alone(_in_trouble, tmp_path, history(GROUPS, 20).pack(), trouble)
    same(with_second, without)
    assert with_second.reports == 0
    assert with_second.index


def _without_memory(root: Path, data: bytes) -> tuple[Taken, Taken]:
    """Have the first process run out of memory when it has done all by itself."""
    with (
        patch.object(Second, "report", side_effect=MemoryError),
        patch.object(Incoming, "_as_second", lambda *_: ({}, {}, set())),
    ):
        with_second = take(root, data)
        assert with_second.reports == 0
    return with_second, take(root, data, helped=False)


@pytest.mark.parametrize(("fault", "why"), [(lambda *_: None, "^$"), (_missing, "missing")])
def test_a_first_process_that_needs_more_memory(
    tmp_path: Path, fault: Callable[[Maker, int], None], why: str
) -> None:
    """It does everything anew with what both had, and forgets no link of what it had seen."""
    data = history(GROUPS, 20, fault).pack()
    assert re.search(why, same(*alone(_without_memory, tmp_path, data)).refused)


def _not_forked(root: Path, data: bytes) -> list[Taken]:
    """What is taken where a second process is not to be had, or would not pay."""
    taken = [take(root, data, many=2000), take(root, packs.pack(entry(BLOB, b"x")), many=0)]
    with patch("os.fork", side_effect=BlockingIOError):
        taken.append(take(root, data))
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    taken.append(take(root, data))
    os.sched_setaffinity(0, processors)
    most = size_now() + second.ROOM - MIB
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    taken.append(take(root, data))
    return taken


def test_one_process_is_enough(tmp_path: Path) -> None:
    """There is no second one for little, for one processor, without memory, or unasked."""
    for taken in alone(_not_forked, tmp_path, history(GROUPS, 20).pack()):
        assert taken.forks == 0
        assert taken.index
        assert taken.left == []
    assert Limits(received=1).helped is None


def _hung(root: Path, data: bytes) -> None:
    take(root, data, partial(time.sleep, 60))


def test_a_first_process_that_is_killed(tmp_path: Path) -> None:
    """The second ends soon after it (T62)."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_hung, args=(tmp_path, history(GROUPS, 20).pack()))
    process.start()
    assert process.pid
    deadline = time.monotonic() + 30
    while not (found := _children(process.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.join()
    deadline = time.monotonic() + 5
    while _alive(found[0]):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


# The real child of a server's helper.


@dataclass
class Watch:
    """``together`` is in KiB, shared pages counted once; ``seconds`` are process ids."""

    seconds: set[str] = field(default_factory=set)
    together: int = 0


@contextmanager
def watched(workers: Workers) -> Iterator[Watch]:
    """What the helper's children and theirs take while the block runs."""
    assert workers._process
    helper, watch, ended = workers._process.pid, Watch(), threading.Event()

    def look() -> None:
        while not ended.wait(0.002):
            firsts = _children(helper)
            below = [each for first in firsts for each in _children(int(first))]
            watch.seconds.update(below)
            watch.together = max(watch.together, sum(map(_memory, [*firsts, *below])))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()


def _memory(pid: str) -> int:
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return 0


@pytest.fixture
def workers() -> Iterator[Workers]:
    running = Workers()
    running.start()
    yield running
    running.close()


def by_child(workers: Workers, root: Path, data: bytes) -> tuple[Watch, str]:
    """Have a child take a pack in; how it went, and why the pack was refused."""
    said = ""
    with (
        Repositories(root).open_or_create(ServiceName("hello")) as repository,
        watched(workers) as watch,
    ):
        try:
            ingest(io.BytesIO(data).read, repository.objects, GIB, workers.take)
        except GitRefused as error:
            said = error.message
        assert not list(repository.objects.glob("incoming-*"))
    return watch, said


def test_a_real_child_is_helped(workers: Workers, tmp_path: Path) -> None:
    """The child of a server's helper shares a large pack."""
    maker = history(GROUPS, 350)
    assert maker.deltas >= MANY
    watch, said = by_child(workers, tmp_path, maker.pack())
    assert said == ""
    assert len(watch.seconds) == 1
    assert not any(map(_alive, watch.seconds))
    assert git(tmp_path / "hello.git", "fsck", "--strict", "--full").returncode == 0


def test_packs_come_before_second_processes(workers: Workers, tmp_path: Path) -> None:
    """While other packs keep the processors busy, one is resolved by one process."""
    data = history(GROUPS, 350).pack()
    processors = range(len(os.sched_getaffinity(0)))
    busy = [Repositories(tmp_path).open_or_create(ServiceName(f"s{n}")) for n in processors]
    begun, ended = threading.Semaphore(0), threading.Event()

    def slowly(_size: int) -> bytes:
        begun.release()
        ended.wait()
        return b""

    def push(repository: Repository) -> None:
        with repository, suppress(GitRefused):
            ingest(source(), repository.objects, GIB, workers.take)

    def source() -> Read:
        large = io.BytesIO(data)
        return lambda size: large.read(min(size, len(data) - 100 - large.tell())) or slowly(0)

    threads = [threading.Thread(target=push, args=(each,)) for each in busy]
    for thread in threads:
        thread.start()
    for _ in threads:
        begun.acquire()
    try:
        watch, said = by_child(workers, tmp_path, data)
    finally:
        ended.set()
    for thread in threads:
        thread.join()
    for each in busy:
        each.close()
    assert said == ""
    assert watch.seconds == set()


def _large_trees(maker: Maker, group: int) -> None:
    """A directory that takes much memory to be checked, as a delta."""
    ids = [object_id(BLOB, text(group, 1)) for _ in range(LARGE)]
    base = packs.tree((b"100644", b"%d" % group, ids[0]))
    maker.whole(TREE, base)
    data = packs.tree(*((b"100644", b"%d-%07d" % (group, n), id_) for n, id_ in enumerate(ids)))
    maker.delta(TREE, base, data)


def test_the_two_together(workers: Workers, tmp_path: Path) -> None:
    """They take no more memory than one is granted (T19)."""
    data = history(4, 700, _large_trees).pack()
    watch, said = by_child(workers, tmp_path, data)
    assert len(watch.seconds) == 1
    assert re.search("^$|of memory", said)
    assert watch.together < TOGETHER_MIB << 10
