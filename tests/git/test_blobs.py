"""Contents of files: small and large ones, in packs and beside them, and damaged ones."""

from __future__ import annotations

import random
from array import array
from pathlib import Path

import packs
import pytest
from dulwich.object_store import DiskObjectStore
from dulwich.objects import ObjectID
from gitserver import commit
from support.stockgit import git

from mypaas_git.errors import GitRefused
from mypaas_git.git.blobs import CHUNK, SMALL, Blobs
from mypaas_git.git.packindex import write_index
from mypaas_git.git.repository import Repository


def noise(size: int) -> str:
    """Text that deflate cannot make much smaller, always the same for a size."""
    seeded = random.Random(size)  # noqa: S311 - it is meant to be predictable
    return seeded.randbytes(size // 2).hex()


FILES = {
    "empty": "",
    "small": "a\n",
    "at the edge": "x" * SMALL,
    "over the edge": "x" * (SMALL + 1),
    "barely small": noise(SMALL),
    "large": noise(4 * CHUNK),
    "large changed": noise(4 * CHUNK) + "more",
    "flat": "y" * (3 * CHUNK),
}


def blob(work: Path, name: str) -> ObjectID:
    return ObjectID(git(work, "rev-parse", f"HEAD:{name}").stdout.strip().encode())


def read(work: Path, id_: ObjectID) -> bytes | None:
    with Repository.at(work / ".git") as repository, Blobs(repository) as blobs:
        found = blobs.read(id_)
        if found is None:
            return None
        data = b"".join(found[1])
        assert len(data) == found[0]
        return data


def test_every_size(tmp_path: Path) -> None:
    """What lies whole in a pack is read, whatever its size; a delta is left to others."""
    work = tmp_path / "work"
    commit(work, FILES)
    git(work, "repack", "-adfq")
    git(work, "prune-packed")
    deltas = 0
    for name, text in FILES.items():
        found = read(work, blob(work, name))
        deltas += found is None
        assert found in (None, text.encode()), name
    assert deltas < len(FILES) / 2


def test_loose_objects_are_left_to_others(tmp_path: Path) -> None:
    """Only packs are looked into."""
    work = tmp_path / "work"
    commit(work, {"small": "a"})
    assert read(work, blob(work, "small")) is None


def test_large_ones_come_in_pieces(tmp_path: Path) -> None:
    """No more than CHUNK bytes are in memory at once."""
    work = tmp_path / "work"
    commit(work, {"large": noise(4 * CHUNK), "flat": "y" * (3 * CHUNK)})
    git(work, "-c", "pack.window=0", "repack", "-adfq")
    with Repository.at(work / ".git") as repository, Blobs(repository) as blobs:
        for name in ("large", "flat"):
            found = blobs.read(blob(work, name))
            assert found
            assert max(map(len, found[1])) <= CHUNK


def test_other_objects(tmp_path: Path) -> None:
    """A tree is no blob, and what is not there is not there."""
    work = tmp_path / "work"
    commit(work, {"a/b": "c"})
    git(work, "repack", "-adq")
    assert read(work, blob(work, "a")) is None
    assert read(work, ObjectID(b"1" * 40)) is None


@pytest.mark.parametrize("name", ["small", "large", "flat"])
@pytest.mark.parametrize("keep_size", [True, False])
def test_damage_is_found(tmp_path: Path, name: str, keep_size: bool) -> None:
    """Contents are what their id says, or an error: never something else."""
    work = tmp_path / "work"
    commit(work, {name: FILES[name]})
    git(work, "-c", "core.compression=0", "-c", "pack.window=0", "repack", "-adfFq")
    id_ = blob(work, name)
    path = next((work / ".git/objects/pack").glob("*.pack"))
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    at = data.find(FILES[name].encode()[:200])
    assert at > 0
    if keep_size:
        data[at] ^= 1
    else:
        del data[at + 1 :]
    path.write_bytes(data)
    with pytest.raises(GitRefused, match="damaged"):
        read(work, id_)


def test_in_the_packs_of_an_alternate(tmp_path: Path) -> None:
    """A quarantine in front of the repository does not make its files slow to read."""
    work = tmp_path / "work"
    commit(work, {"file": "a\n"})
    git(work, "repack", "-adfq")
    git(work, "prune-packed")
    store = DiskObjectStore(tmp_path / "empty", alternates=[work / ".git/objects"])
    with (
        Repository.at(work / ".git") as repository,
        Blobs(repository.with_store(store)) as blobs,
    ):
        assert blobs.read(blob(work, "file")) == (2, (b"a\n",))


@pytest.mark.parametrize("lie", [-5, -1, 1, 90])
def test_a_size_that_is_not_true(tmp_path: Path, lie: int) -> None:
    """More or fewer bytes than the pack declares are no file for an archive."""
    data = b"x" * 60
    work = tmp_path / "work"
    commit(work, {"a": "a"})
    lying = packs.pack(packs.entry(packs.BLOB, data, size=len(data) + lie))
    index = work / ".git/objects/pack/pack-1.idx"
    index.parent.mkdir(exist_ok=True)
    index.with_suffix(".pack").write_bytes(lying)
    raw = packs.object_id(packs.BLOB, data)
    with index.open("wb") as file:
        write_index(file, [raw], array("Q", [12]), array("I", [0]), lying[-20:])
    with pytest.raises(GitRefused, match="is damaged on the server"):
        read(work, ObjectID(raw.hex().encode()))


def test_many_packs_take_no_descriptors(tmp_path: Path) -> None:
    """Before something is wanted of them."""
    work = tmp_path / "work"
    for number in range(8):
        commit(work, {"a": f"{number}"})
        git(work, "repack", "-dq")
    descriptors = Path("/proc/self/fd")
    with Repository.at(work / ".git") as repository:
        before = len(list(descriptors.iterdir()))
        with Blobs(repository) as blobs:
            assert blobs.read(blob(work, "a"))
            assert len(list(descriptors.iterdir())) == before + 1
        assert len(list(descriptors.iterdir())) == before
