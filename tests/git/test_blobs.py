"""Contents of files: small and large ones, in packs and beside them, and damaged ones."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from dulwich.object_store import DiskObjectStore
from dulwich.objects import ObjectID
from gitserver import commit
from support.stockgit import git

from mypaas_git.errors import GitRefused
from mypaas_git.git.blobs import CHUNK, SMALL, Blobs
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
