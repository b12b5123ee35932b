"""The bare repositories, one for each service, and what is read from and moved in them."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import structlog
from dulwich.errors import ChecksumMismatch, NotGitRepository, RefFormatError
from dulwich.file import FileLocked
from dulwich.graph import can_fast_forward
from dulwich.object_store import DiskObjectStore
from dulwich.objects import (
    S_ISGITLINK,
    ZERO_SHA,
    Blob,
    Commit,
    ObjectID,
    ShaFile,
    Tag,
    Tree,
    hex_to_sha,
)
from dulwich.refs import HEADREF, Ref
from dulwich.repo import Repo

from mypaas_git.errors import (
    GitRefused,
    NameRefused,
    RefRefused,
    RepositoryMissing,
    TreeRefused,
)
from mypaas_git.files import sync_directory, sync_tree
from mypaas_git.git.check import NAMES
from mypaas_git.git.context import context
from mypaas_git.git.reflocks import clear_stale
from mypaas_git.git.stored import Stored
from mypaas_git.names import ServiceName
from mypaas_git.progress import clean

log = structlog.get_logger()

_Kind = TypeVar("_Kind", Blob, Commit, Tree)

MAX_PEELS = 10
"""Tags of tags of tags that are followed to a commit."""
MAX_SUBJECT = 200
"""Characters of a commit's first line that are shown."""

_NEEDLESS = ("branches", "hooks", "info", "objects/info")
"""Directories of a new repository that git does without: the disk is waited for five times
less in a first push."""


class Repositories:
    """All services' repositories, as ``root/NAME.git``."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def exists(self, name: ServiceName) -> bool:
        return self._path(name).is_dir()

    def names(self) -> list[ServiceName]:
        """The names of the services that have a repository, sorted."""
        found = []
        for path in sorted(self._root.glob("*.git")):
            with suppress(NameRefused):
                found.append(ServiceName.parse(path.name.removesuffix(".git")))
        return found

    def open(self, name: ServiceName) -> Repository:
        """Raises :class:`RepositoryMissing`."""
        if not self.exists(name):
            raise RepositoryMissing(
                f"there is no repository '{name}' yet: the first push to it creates it"
            )
        return Repository.at(self._path(name))

    def open_or_create(self, name: ServiceName) -> Repository:
        """Open the repository; a new one appears whole or not at all."""
        if not self.exists(name):
            self._create(name)
        return self.open(name)

    @contextmanager
    def open_or_pretend(self, name: ServiceName) -> Iterator[Repository]:
        """Open the repository, or an empty one in its place that is gone afterwards."""
        if self.exists(name):
            with self.open(name) as repository:
                yield repository
            return
        self._root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self._root) as made:
            Repo.init_bare(made, default_branch=b"main").close()
            with Repository.at(Path(made)) as repository:
                yield repository

    def remove(self, name: ServiceName) -> None:
        """Remove the repository and all that was ever pushed to it, if there is one."""
        if self.exists(name):
            doomed = Path(tempfile.mkdtemp(prefix=".new-", dir=self._root))
            self._path(name).rename(doomed / "doomed")
            shutil.rmtree(doomed, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what a crash left half made; for a start, when nobody is making any."""
        for path in self._root.glob(".new-*"):
            shutil.rmtree(path, ignore_errors=True)

    def _create(self, name: ServiceName) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".new-", dir=self._root))
        try:
            Repo.init_bare(str(made), default_branch=b"main").close()
            for needless in _NEEDLESS:
                shutil.rmtree(made / needless, ignore_errors=True)
            sync_tree(made)
            made.rename(self._path(name))
            sync_directory(self._root)
        except OSError:
            # Somebody else's first push was quicker; a directory with files is not replaced.
            if not self.exists(name):
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def _path(self, name: ServiceName) -> Path:
        return self._root / f"{name}.git"


class Repository:
    """One bare repository, opened for one thread; object ids are hex strings."""

    def __init__(self, repo: Repo) -> None:
        self.dulwich = repo
        self.store.fsync_object_files = True
        self._stored: Stored | None = None

    @classmethod
    def at(cls, path: Path) -> Repository:
        """Open any bare repository.

        Raises :class:`RepositoryMissing`, and :class:`GitRefused` for a ``config`` that
        dulwich cannot read.
        """
        try:
            return cls(Repo(str(path)))
        except (NotGitRepository, FileNotFoundError) as error:
            raise RepositoryMissing(f"there is no git repository at {path}") from error
        except ValueError as error:
            raise GitRefused(
                f"{path / 'config'} cannot be read ({error}): give sizes as plain numbers, "
                f"such as 104857600 for 100m"
            ) from error

    def with_store(self, store: DiskObjectStore) -> Repository:
        """The same repository, with objects that it does not have, or not yet."""
        return Repository(Repo(str(self.path), object_store=store))

    def __enter__(self) -> Repository:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._stored is not None:
            self._stored.close()
        self.dulwich.close()

    @property
    def path(self) -> Path:
        """The bare repository's directory."""
        return Path(self.dulwich.controldir())

    @property
    def objects(self) -> Path:
        """The directory of its objects."""
        return Path(os.fspath(self.store.path))

    @property
    def store(self) -> DiskObjectStore:
        store = self.dulwich.object_store
        if not isinstance(store, DiskObjectStore):
            raise GitRefused("the repository's objects are not on this disk")
        return store

    def refs(self) -> dict[str, str]:
        """Everything below ``refs/`` with the object that it names."""
        return {
            _text(name): _text(sha)
            for name, sha in sorted(self.dulwich.refs.as_dict().items())
            if name.startswith(b"refs/")
        }

    def ref(self, name: str) -> str | None:
        try:
            return _text(self.dulwich.refs[Ref(_bytes(name))])
        except KeyError:
            return None

    def move_ref(self, name: str, old: str | None, new: str | None) -> None:
        """Set ``name`` to ``new`` provided that it still is ``old``; None means no such ref.

        The move is durable. Raises :class:`RefRefused` when it is not, when somebody
        holds its lock file, and when its name collides with another's.
        """
        path = self.path / name
        rearranges = new is None or not path.parent.is_dir()
        try:
            moved = self._swap_unlocked(Ref(_bytes(name)), _id(old), _id(new))
        except FileLocked as error:
            raise RefRefused(
                f"{clean(name)} is locked: another program holds {_lock_name(error)}; "
                f"try again in a minute"
            ) from None
        except (NotADirectoryError, IsADirectoryError, FileExistsError):
            raise RefRefused(
                f"{clean(name)} cannot be there: a longer or shorter name is in its way"
            ) from None
        except (RefFormatError, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:
                raise
            raise RefRefused(f"{clean(name)[:80]} is not a name for a ref") from None
        if not moved:
            raise RefRefused(f"{clean(name)} moved meanwhile: fetch it, merge, and push again")
        self._settle(path, rearranges)

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Whether everything that led to the commit ``older`` led to ``newer`` as well."""
        try:
            return can_fast_forward(self.dulwich, _id(older), _id(newer))
        except KeyError:
            return False

    def check_there(self, id_: str) -> None:
        """Raise :class:`RepositoryMissing` unless ``id_`` is in what has this path now.

        While somebody waited, the repository may have been removed, and even made anew.
        """
        try:
            with Repository.at(self.path) as now:
                now.kind(id_)
        except GitRefused:
            raise RepositoryMissing(
                "the repository was removed in the meantime; push again to create it anew"
            ) from None

    def check_movable(self, name: str) -> None:
        """Raise :class:`RefRefused` when a lock file keeps ``name`` from being moved."""
        if not clear_stale(self.path / f"{name}.lock", self.path):
            raise RefRefused(
                f"{clean(name)} is locked by another program; try again in a minute"
            )

    def _swap_unlocked(self, name: Ref, old: ObjectID, new: ObjectID) -> bool:
        """Swap, once more if only a lock that a crash has left was in the way."""
        try:
            return self._swap(name, old, new)
        except FileLocked as error:
            if not clear_stale(_lock_path(error), self.path):
                raise
            return self._swap(name, old, new)

    def _settle(self, ref: Path, rearranged: bool) -> None:
        """Make a ref's name durable; ``rearranged``: other names than its own changed, too."""
        for directory in ref.parents if rearranged else [ref.parent]:
            if directory.is_dir():
                sync_directory(directory)
            if directory == self.path:
                break

    def _swap(self, name: Ref, old: ObjectID, new: ObjectID) -> bool:
        refs = self.dulwich.refs
        if new == ZERO_SHA:
            return refs.remove_if_equals(name, old)
        # None would mean "whatever it is"; the zero id means "not there".
        return refs.set_if_equals(name, old, new)

    def has_tag(self, name: str) -> bool:
        return self.ref(f"refs/tags/{name}") is not None

    def set_tag(
        self, name: str, commit: str, message: str, *, tagger: str, when: float
    ) -> bool:
        """Make the annotated tag ``name`` of a commit, unless there is one of that name.

        Returns whether there was none. ``when`` is in seconds since the epoch. Raises
        :class:`RefRefused` as :meth:`move_ref` does, and :class:`GitRefused` when the commit
        is missing.
        """
        if self.has_tag(name):
            return False
        tag = Tag()
        tag.name, tag.tagger = name.encode(), _author(tagger)
        tag.message = message.encode("utf-8", "replace")
        tag.tag_time, tag.tag_timezone = int(when), 0
        tag.object = (Commit, self.commit(commit).id)
        try:
            self.store.add_object(tag)
        except FileLocked as error:
            raise RefRefused(f"the tag {clean(name)} is locked: {_lock_name(error)}") from None
        loose = self.path / "objects" / _text(tag.id)[:2]
        sync_directory(loose)
        sync_directory(loose.parent)
        self.move_ref(f"refs/tags/{name}", None, _text(tag.id))
        return True

    def adopt_head(self, ref: str) -> None:
        """Point a HEAD that leads nowhere to ``ref``, so that clones check something out."""
        if self.ref("HEAD") is None:
            self.dulwich.refs.set_symbolic_ref(HEADREF, Ref(_bytes(ref)))

    def tree_of(self, commit: str) -> str:
        """The id of the tree of ``commit``, which may be a tag of one.

        Raises :class:`GitRefused` when it is missing or not a commit.
        """
        return _text(self.commit(commit).tree)

    def commit_subject(self, commit: str) -> str:
        """The first line of the commit's message, clean and not too long."""
        # A commit that ends with its header has no message, whatever its type says.
        message = (self.commit(commit).message or b"").lstrip().split(b"\n", 1)[0]
        return clean(message.decode("utf-8", "replace"))[:MAX_SUBJECT]

    def read_file(self, commit: str, path: str, limit: int) -> bytes | None:
        """Return a file's contents, None when there is no such path.

        Raises :class:`TreeRefused` for what is no file, or longer than ``limit`` bytes.
        """
        mode, sha = self._entry(commit, path)
        if sha is None:
            return None
        kind = _not_a_file(mode)
        if kind:
            raise TreeRefused(f"{clean(path)} is a {kind}: it must be a regular file")
        data = _expect(self.object(_text(sha)), Blob, clean(path)).data
        if len(data) > limit:
            raise TreeRefused(
                f"{clean(path)} is {len(data)} bytes long: at most {limit} are read"
            )
        return data

    def context(self, commit: str) -> Iterator[bytes]:
        """The build context of ``commit`` as a tar stream: see ``context.py``."""
        return context(self, commit)

    def commit(self, commit: str) -> Commit:
        """Return the commit; tags are peeled. Raises :class:`GitRefused`."""
        found = self.object(commit)
        for _ in range(MAX_PEELS):
            if not isinstance(found, Tag):
                break
            found = self.object(_text(found.object[1]))
        return _expect(found, Commit, commit)

    def tree(self, tree: str) -> Tree:
        """Raises :class:`GitRefused` when it is missing or something else."""
        return _expect(self.object(tree), Tree, tree)

    def kind(self, id_: str) -> str:
        """``commit``, ``tree``, ``blob`` or ``tag``. Raises :class:`GitRefused`."""
        try:
            return NAMES[self._kind(hex_to_sha(_id(id_)))]
        except (KeyError, ValueError):
            raise GitRefused(f"the object {clean(id_)} is missing") from None

    def _kind(self, id_: bytes) -> int:
        if self._stored is None:
            self._stored = Stored(self.store)
            self._stored.refresh()
        if id_ not in self._stored:
            self._stored.refresh()
        return self._stored.kind(id_)

    def check_tag(self, id_: str) -> None:
        """Raise :class:`GitRefused` for a tag of too many tags."""
        for _ in range(MAX_PEELS):
            if self.kind(id_) != "tag":
                return
            found = self.object(id_)
            if isinstance(found, Tag):
                id_ = _text(found.object[1])
        raise GitRefused(f"a tag of a tag, more than {MAX_PEELS} times, is not stored here")

    def clear_locks(self) -> None:
        """Remove the lock files of refs and objects; for a start, when nobody can hold one."""
        patterns = ("*.lock", "refs/**/*.lock", "objects/??/*.lock")
        for path in (path for pattern in patterns for path in self.path.glob(pattern)):
            log.warning("stale-lock-removed", path=str(path))
            path.unlink(missing_ok=True)

    def object(self, id_: str) -> ShaFile:
        """Raises :class:`GitRefused` when it is missing or damaged."""
        try:
            return self.store[_id(id_)]
        except (KeyError, ValueError, AssertionError):  # the latter two: no id at all
            raise GitRefused(f"the object {clean(id_)} is missing") from None
        except ChecksumMismatch:
            raise GitRefused(f"the object {clean(id_)} is damaged on the server") from None

    def _entry(self, commit: str, path: str) -> tuple[int, ObjectID | None]:
        """Return the mode and id of what is at ``path``, the id None when nothing is."""
        mode, sha = 0o40000, ObjectID(_bytes(self.tree_of(commit)))
        for name in path.split("/"):
            if _not_a_file(mode) != "directory":
                return 0, None
            try:
                mode, sha = self.tree(_text(sha))[_bytes(name)]
            except KeyError:
                return 0, None
        return mode, sha


def _not_a_file(mode: int) -> str | None:
    """What an entry of this mode is, None when it is a file."""
    if S_ISGITLINK(mode):
        return "submodule"
    return {0o040000: "directory", 0o120000: "symlink"}.get(mode & 0o170000)


def _expect(found: ShaFile, kind: type[_Kind], shown: str) -> _Kind:
    if not isinstance(found, kind):
        raise GitRefused(
            f"{clean(shown)} is a {_text(found.type_name)}, not a {_text(kind.type_name)}"
        )
    return found


def _lock_path(error: FileLocked) -> Path:
    return Path(os.fsdecode(error.lockfilename))


def _lock_name(error: FileLocked) -> str:
    return clean("/".join(_lock_path(error).parts[-4:]))


def _author(name: str) -> bytes:
    """``name`` as git writes people; git itself drops the same characters."""
    plain = re.sub(r"[<>\x00-\x1f]", "", name).strip() or "unknown"
    return f"{plain} <{plain.replace(' ', '.')}@mypaas>".encode()


def _id(hex_id: str | None) -> ObjectID:
    return ZERO_SHA if hex_id is None else ObjectID(hex_id.encode("ascii", "replace"))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
