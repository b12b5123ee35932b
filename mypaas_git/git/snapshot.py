"""A directory as git objects: what ``git add`` would see, without git and without an index.

File contents never lie in memory as a whole: a file is hashed once, chunk by
chunk, and read a second time only when its object is really written. Formats:
git's ``gitformat-pack(5)`` and the object headers of ``git-hash-object(1)``.
"""

from __future__ import annotations

import os
import stat
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from hashlib import sha1
from io import BytesIO
from pathlib import Path

from dulwich.ignore import IgnoreFilter, read_ignore_patterns
from dulwich.object_format import SHA1
from dulwich.objects import Blob, Commit, ObjectID, ShaFile, Tree, object_header
from dulwich.pack import pack_object_header, write_pack_index_v2
from dulwich.repo import Repo

from mypaas_git.errors import TreeRefused
from mypaas_git.files import temporary
from mypaas_git.git.ignore import DockerIgnore
from mypaas_git.progress import clean

CHUNK = 1 << 20
"""Bytes of a file that are in memory at once."""
FLUSH = 1 << 16
"""Bytes of a pack that are gathered before they are handed on."""
ALWAYS = frozenset({b"Dockerfile", b".dockerignore"})
"""What the server needs to read, whatever the ignore files say."""
FILE, EXECUTABLE, LINK, FOLDER = 0o100644, 0o100755, 0o120000, 0o040000


def snapshot(directory: Path) -> Snapshot:
    """Hash ``directory``, less what its ``.gitignore`` and ``.dockerignore`` files leave out.

    ``.git`` and empty directories are left out too. Raises :class:`TreeRefused`
    naming the path that cannot be read or that git has no kind of object for.
    """
    trees: dict[ObjectID, Tree] = {}
    blobs: dict[ObjectID, _Blob] = {}
    folders = _folders(os.fsencode(directory), blobs)
    for folder in reversed(folders):
        if folder.parent is None or len(folder.tree):
            trees[folder.tree.id] = folder.tree
        if folder.parent is not None and len(folder.tree):
            folder.parent.tree.add(folder.name, FOLDER, folder.tree.id)
    return Snapshot(folders[0].tree.id, trees, blobs)


class Snapshot:
    """A directory's trees, and where its blobs' contents are read from."""

    def __init__(
        self, tree: ObjectID, trees: dict[ObjectID, Tree], blobs: dict[ObjectID, _Blob]
    ) -> None:
        self._tree = tree
        self._trees = trees
        self._blobs = blobs

    @property
    def tree_id(self) -> str:
        """The id of the top tree, in hex."""
        return self._tree.decode("ascii")

    @property
    def ids(self) -> AbstractSet[ObjectID]:
        """The ids of all trees and blobs, in hex."""
        return self._trees.keys() | self._blobs.keys()

    def commit(self, parent: str | None, author: str, message: str) -> Commit:
        """Return a commit of this snapshot; ``author`` is ``Name <mail>``."""
        commit = Commit()
        commit.tree = self._tree
        commit.parents = [ObjectID(parent.encode("ascii"))] if parent else []
        commit.author = commit.committer = clean(author).encode("utf-8", "replace")
        commit.author_time = commit.commit_time = int(time.time())
        commit.author_timezone = commit.commit_timezone = 0
        commit.encoding = b"UTF-8"
        commit.message = message.encode("utf-8", "replace") + b"\n"
        return commit

    def pack(self, commit: Commit, have: AbstractSet[ObjectID]) -> Pack:
        """Return a pack of ``commit`` and of all objects that are not in ``have``."""
        objects = [_whole(commit)]
        objects += [_whole(tree) for id_, tree in self._trees.items() if id_ not in have]
        objects += [
            PackObject(id_, Blob.type_num, blob.size, blob.contents)
            for id_, blob in self._blobs.items()
            if id_ not in have
        ]
        return Pack(objects)

    def write_to(self, repository: Path, parent: str | None, author: str, message: str) -> str:
        """Write a commit with all that it needs into a bare repository; no ref moves.

        Returns the commit's id. Raises :class:`TreeRefused` when a file changed
        since it was hashed; nothing is left behind then.
        """
        commit = self.commit(parent, author, message)
        with Repo(os.fspath(repository)) as repo:
            have = {id_ for id_ in self.ids if id_ in repo.object_store}
        _store(self.pack(commit, have), repository / "objects" / "pack")
        return commit.id.decode("ascii")


@dataclass(frozen=True)
class PackObject:
    """An object for a pack; ``size`` counts the bytes that ``contents`` will yield."""

    id: ObjectID
    kind: int
    size: int
    contents: Callable[[], Iterator[bytes]]


class Pack:
    """A pack of whole objects that is made while it is read, once.

    ``written`` objects and ``read`` bytes of their contents say how far it is;
    ``index`` and ``checksum`` are complete at the end.
    """

    def __init__(self, objects: Sequence[PackObject]) -> None:
        self._objects = objects
        self.size = sum(each.size for each in objects)
        self.written = 0
        self.read = 0
        self.index: list[tuple[bytes, int, int]] = []
        self.checksum = b""

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[bytes]:
        digest, offset = sha1(usedforsecurity=False), 0
        buffer = bytearray(b"PACK" + (2).to_bytes(4, "big") + len(self).to_bytes(4, "big"))
        for each in self._objects:
            start, crc = offset + len(buffer), 0
            for piece in self._record(each):
                crc = zlib.crc32(piece, crc)
                buffer += piece
                if len(buffer) >= FLUSH:
                    digest.update(buffer)
                    offset += len(buffer)
                    yield bytes(buffer)
                    buffer.clear()
            self.index.append((bytes.fromhex(each.id.decode("ascii")), start, crc))
            self.written += 1
        digest.update(buffer)
        self.checksum = digest.digest()
        yield bytes(buffer) + self.checksum

    def _record(self, each: PackObject) -> Iterator[bytes]:
        yield bytes(pack_object_header(each.kind, None, each.size, SHA1))
        deflate = zlib.compressobj()
        for chunk in each.contents():
            self.read += len(chunk)
            yield deflate.compress(chunk)
        yield deflate.flush()


def _whole(obj: ShaFile) -> PackObject:
    raw = obj.as_raw_string()
    return PackObject(obj.id, obj.type_num, len(raw), lambda: iter([raw]))


def _store(pack: Pack, directory: Path) -> None:
    """Write ``pack`` and its index into ``directory``, the index last: it makes it visible."""
    with (
        temporary(directory, "tmp_pack_") as data,
        temporary(directory, "tmp_idx_") as index,
    ):
        for piece in pack:
            data[1].write(piece)
        write_pack_index_v2(index[1], sorted(pack.index), pack.checksum)
        for (path, file), suffix in ((data, "pack"), (index, "idx")):
            file.flush()
            os.fchmod(file.fileno(), 0o444)
            os.fsync(file.fileno())
            target = directory / f"pack-{pack.checksum.hex()}.{suffix}"
            if not target.exists():
                os.link(path, target)


@dataclass(frozen=True)
class _Blob:
    """A file's or a symlink's contents, as they were when they were hashed."""

    path: bytes
    shown: str
    size: int
    id: ObjectID
    link: bool

    def contents(self) -> Iterator[bytes]:
        """Yield the contents again; :class:`TreeRefused` when they are others by now."""
        digest = sha1(object_header(Blob.type_num, self.size), usedforsecurity=False)
        size = 0
        for chunk in _read(self.path, self.shown, link=self.link):
            size += len(chunk)
            if size > self.size:
                break
            digest.update(chunk)
            yield chunk
        if digest.hexdigest().encode("ascii") != self.id or size != self.size:
            raise TreeRefused(f"{self.shown} changed while it was sent: try again")


@dataclass
class _Folder:
    """A directory that is kept; its tree gets its subdirectories in the end.

    ``rules`` are the .gitignore files from the top down to it, each with the
    length of the path that its patterns do not see.
    """

    path: bytes  # below the top, with a slash at its end, or empty
    name: bytes
    parent: _Folder | None
    rules: tuple[tuple[int, IgnoreFilter], ...]
    tree: Tree = field(default_factory=Tree)


def _folders(top: bytes, blobs: dict[ObjectID, _Blob]) -> list[_Folder]:
    """Return all directories that are kept, parents first, with their files hashed."""
    docker = _dockerignore(top)
    folders: list[_Folder] = []
    waiting = [_Folder(b"", b"", None, _gitignore(top, b"", ()))]
    while waiting:
        folder = waiting.pop()
        folders.append(folder)
        for entry in _entries(top, folder):
            path = folder.path + entry.name
            is_dir = entry.is_dir(follow_symlinks=False)
            if _left_out(path, folder, docker, is_dir=is_dir):
                continue
            if is_dir:
                rules = _gitignore(top, path + b"/", folder.rules)
                waiting.append(_Folder(path + b"/", entry.name, folder, rules))
            else:
                mode, blob = _hashed(entry, path)
                folder.tree.add(entry.name, mode, blob.id)
                blobs[blob.id] = blob
    return folders


def _entries(top: bytes, folder: _Folder) -> list[os.DirEntry[bytes]]:
    try:
        with os.scandir(top + b"/" + folder.path) as entries:
            return [entry for entry in entries if entry.name != b".git"]
    except OSError as error:
        raise _unreadable(_shown(folder.path) if folder.path else _shown(top), error) from None


def _left_out(path: bytes, folder: _Folder, docker: DockerIgnore, *, is_dir: bool) -> bool:
    if path in ALWAYS:
        return False
    if _gitignored(path, folder.rules, is_dir=is_dir):
        return True
    if is_dir and docker.has_exceptions:
        return False  # something below may be let in again: each file is asked for itself
    return docker.excludes(os.fsdecode(path))


def _gitignored(
    path: bytes, rules: tuple[tuple[int, IgnoreFilter], ...], *, is_dir: bool
) -> bool:
    """Whether the last pattern that matches, from the deepest .gitignore up, excludes."""
    for skipped, rule in reversed(rules):
        for pattern in reversed(rule.patterns):
            if pattern.matches(path[skipped:], is_dir):
                return pattern.is_exclude
    return False


def _gitignore(
    top: bytes, folder: bytes, rules: tuple[tuple[int, IgnoreFilter], ...]
) -> tuple[tuple[int, IgnoreFilter], ...]:
    text = _text(top, folder + b".gitignore")
    if text is None:
        return rules
    lines = BytesIO(text.removeprefix(b"\xef\xbb\xbf"))
    return (*rules, (len(folder), IgnoreFilter(read_ignore_patterns(lines))))


def _dockerignore(top: bytes) -> DockerIgnore:
    text = _text(top, b".dockerignore") or b""
    return DockerIgnore(text.decode("utf-8", "surrogateescape"))


def _text(top: bytes, path: bytes) -> bytes | None:
    """Return an ignore file's text; as git has it, a symlink does not count."""
    full = top + b"/" + path
    try:
        if not stat.S_ISREG(os.lstat(full).st_mode):
            return None
    except OSError:
        return None
    return b"".join(_read(full, _shown(path), link=False))


def _hashed(entry: os.DirEntry[bytes], path: bytes) -> tuple[int, _Blob]:
    """Return the mode and contents of a file or symlink."""
    shown = _shown(path)
    try:
        info = entry.stat(follow_symlinks=False)
    except OSError as error:
        raise _unreadable(shown, error) from None
    link = stat.S_ISLNK(info.st_mode)
    if not link and not stat.S_ISREG(info.st_mode):
        raise TreeRefused(
            f"{shown} is {_kind(info.st_mode)}, which git cannot hold: "
            f"remove it, or name it in .dockerignore"
        )
    digest, size = sha1(object_header(Blob.type_num, info.st_size), usedforsecurity=False), 0
    for chunk in _read(entry.path, shown, link=link):
        size += len(chunk)
        digest.update(chunk)
    if size != info.st_size:
        raise TreeRefused(f"{shown} changed while it was read: try again")
    mode = LINK if link else EXECUTABLE if info.st_mode & stat.S_IXUSR else FILE
    id_ = ObjectID(digest.hexdigest().encode("ascii"))
    return mode, _Blob(entry.path, shown, size, id_, link)


def _read(path: bytes, shown: str, *, link: bool) -> Iterator[bytes]:
    try:
        if link:
            yield os.readlink(path)  # noqa: PTH115 - a Path would tidy up where it leads
            return
        # A path that became a symlink or a pipe meanwhile is neither followed nor waited for.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise _unreadable(shown, error) from None


def _unreadable(shown: str, error: OSError) -> TreeRefused:
    return TreeRefused(f"cannot read {shown}: {error.strerror}")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a named pipe"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _shown(path: bytes) -> str:
    return clean(path.decode("utf-8", "backslashreplace"))
