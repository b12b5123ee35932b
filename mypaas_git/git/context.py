"""The build context: a commit's tree as a tar stream, made without touching the disk.

What ``.dockerignore`` excludes is left out. Modes and symlinks are those of
the tree. Times are the commit's: no builder asks for them when it looks into
its cache, but a web server that makes its ETags of them does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain
from tarfile import BLOCKSIZE, DIRTYPE, SYMTYPE
from typing import TYPE_CHECKING, Final, NamedTuple

from dulwich.objects import ZERO_SHA, Blob, Tree, TreeEntry, hex_to_sha

from mypaas_git.errors import TreeRefused
from mypaas_git.git.blobs import Blobs, Contents
from mypaas_git.git.contents import MAX_MEMORY
from mypaas_git.git.ignore import DockerIgnore
from mypaas_git.git.stored import Stored
from mypaas_git.git.tarheaders import Headers
from mypaas_git.git.treenames import name_fault
from mypaas_git.progress import clean

if TYPE_CHECKING:
    from mypaas_git.git.repository import Repository

ALWAYS = frozenset({"Dockerfile", ".dockerignore"})
"""The builder needs these; it removes them itself if the ignore file says so."""
MAX_IGNORE_FILE = 1 << 20
MAX_LINK = 4095
"""Bytes of a symlink's target, Linux's PATH_MAX without its NUL."""
MAX_DEPTH = 2048
"""Directories within each other, as git's own core.maxTreeDepth."""
MAX_ENTRIES = 1_000_000
MAX_SENT: Final = 32 << 30
"""Bytes of all files together. A few objects can name each other a billion times over."""
MAX_POINTER: Final = 1024
"""Bytes that a pointer of Git LFS stays below, as its specification has it."""
POINTERS: Final = (
    b"version https://git-lfs.github.com/spec/v1\n",
    b"version https://hawser.github.com/spec/v1\n",
)
CHUNK: Final = 1 << 16
"""Bytes that are handed on at once."""
PADDING: Final = bytes(BLOCKSIZE)
FORMAT: Final = 0o170000
DIRECTORY: Final = 0o040000
SYMLINK: Final = 0o120000
GITLINK: Final = 0o160000


def context(repository: Repository, commit: str) -> Iterator[bytes]:
    """Yield the context of ``commit`` as a tar archive.

    Raises :class:`TreeRefused` naming the path that no context can hold, and
    :class:`GitRefused` when objects are missing.
    """
    ignore = repository.read_file(commit, ".dockerignore", MAX_IGNORE_FILE) or b""
    when = max(0, min(repository.commit(commit).commit_time, (1 << 33) - 1))
    tree = repository.tree_of(commit)
    return _stream(repository, DockerIgnore(_text(ignore)), when, tree)


def _stream(
    repository: Repository, ignore: DockerIgnore, when: int, tree: str
) -> Iterator[bytes]:
    with Stored(repository.store) as stored, Blobs(repository) as blobs:
        made = _Context(repository, stored, blobs, ignore, Headers(when))
        yield from made.stream(tree)


class _Directory(NamedTuple):
    """A directory that is being walked; its name and what is left of it, last first."""

    path: str
    entries: list[TreeEntry]


class _Context:
    """One tar stream in the making."""

    def __init__(
        self,
        repository: Repository,
        stored: Stored,
        blobs: Blobs,
        ignore: DockerIgnore,
        headers: Headers,
    ) -> None:
        self._repository = repository
        self._stored = stored
        self._blobs = blobs
        self._ignore = ignore
        self._headers = headers
        # Directories whose own header was written.
        self._made = {""}
        self._seen = 0
        self._sent = 0

    def stream(self, tree: str) -> Iterator[bytes]:
        pieces: list[bytes] = []
        size = 0
        for piece in self._pieces(tree):
            pieces.append(piece)
            size += len(piece)
            if size >= CHUNK:
                yield b"".join(pieces)
                pieces, size = [], 0
        # Two empty blocks end an archive.
        yield b"".join([*pieces, bytes(2 * BLOCKSIZE)])

    def _pieces(self, tree: str) -> Iterator[bytes]:
        """Yield headers and contents, walking the tree without recursion."""
        walk = [self._directory("", tree)]
        while walk:
            directory = walk[-1]
            if not directory.entries:
                walk.pop()
                continue
            entry = directory.entries.pop()
            self._count_entry()
            path = directory.path + _text(_name(directory.path, entry))
            excluded = path not in ALWAYS and self._ignore.excludes(path)
            if entry.mode == DIRECTORY:
                if excluded and not self._ignore.has_exceptions:
                    continue
                if len(walk) > MAX_DEPTH:
                    raise TreeRefused(
                        f"{_shown(path)[:80]}… is over {MAX_DEPTH} directories deep"
                    )
                if not excluded:
                    yield from self._make(path)
                walk.append(self._directory(path + "/", _text(entry.sha or b"")))
            elif not excluded:
                yield from self._make(directory.path.rstrip("/"))
                yield from self._file(path, entry)

    def _count_entry(self) -> None:
        self._seen += 1
        if self._seen > MAX_ENTRIES:
            raise TreeRefused(f"the tree holds more than {MAX_ENTRIES} files and directories")

    def _directory(self, path: str, tree: str) -> _Directory:
        found: Tree = self._repository.tree(tree)
        return _Directory(path, list(found.iteritems())[::-1])

    def _make(self, path: str) -> Iterable[bytes]:
        """The headers of a directory and of those above it that have none yet."""
        if path in self._made:
            return ()
        missing: list[str] = []
        while path not in self._made:
            missing.append(path)
            self._made.add(path)
            path = path.rpartition("/")[0]
        return [self._headers.any(each + "/", DIRTYPE, 0o755) for each in reversed(missing)]

    def _file(self, path: str, entry: TreeEntry) -> Iterable[bytes]:
        mode = entry.mode or 0
        if mode & FORMAT == GITLINK:
            raise TreeRefused(
                f"{_shown(path)} is a submodule, whose files are not pushed: commit them "
                f"in its place, or name it in .dockerignore"
            )
        size, pieces = self._blobs.read(entry.sha or ZERO_SHA) or self._blob(path, entry)
        if mode == SYMLINK:
            target = b"".join(pieces) if size <= MAX_LINK else b""
            return (self._headers.any(path, SYMTYPE, 0o777, link=_target(path, target)),)
        if size < MAX_POINTER:
            pieces = (_no_pointer(path, b"".join(pieces)),)
        self._sent += size
        if self._sent > MAX_SENT:
            raise TreeRefused(f"the tree's files take more than {MAX_SENT >> 30} GiB")
        header = self._headers.file(path, 0o755 if mode & 0o100 else 0o644, size)
        return chain((header,), pieces, (PADDING[: -size % BLOCKSIZE],))

    def _blob(self, path: str, entry: TreeEntry) -> Contents:
        """A file that does not lie whole in a pack; a large one never lies in memory."""
        id_ = hex_to_sha(entry.sha or ZERO_SHA)
        try:
            size = self._stored.size(id_)
        except KeyError:
            size = 0
        if size > MAX_MEMORY and self._stored.kind(id_) == Blob.type_num:
            return size, self._read_out(id_)
        blob = self._repository.object(_text(entry.sha or b""))
        if not isinstance(blob, Blob):
            raise TreeRefused(f"{_shown(path)} is no file, although its tree says so")
        return len(blob.data), iter([blob.data])

    def _read_out(self, id_: bytes) -> Iterator[bytes]:
        with closing(self._stored.contents(id_)) as contents:
            yield from contents.chunks()


def _name(directory: str, entry: TreeEntry) -> bytes:
    """The entry's name; a repository that another server fills may hold anything."""
    name: bytes = entry.path or b""
    fault = name_fault(name)
    if fault:
        raise TreeRefused(f"{_shown(directory + _text(name))} has a name that {fault}")
    return name


def _no_pointer(path: str, data: bytes) -> bytes:
    """``data``, unless it only says where Git LFS keeps the file that was meant."""
    if data.startswith(POINTERS):
        raise TreeRefused(
            f"{_shown(path)} is a pointer of Git LFS, whose files cannot be pushed here yet: "
            f"commit the file itself (git lfs untrack, then git add --renormalize), or name "
            f"it in .dockerignore"
        )
    return data


def _target(path: str, data: bytes) -> str:
    if not data or len(data) > MAX_LINK or b"\0" in data:
        raise TreeRefused(f"{_shown(path)} is a symlink with an impossible target")
    return _text(data)


def _shown(path: str) -> str:
    return clean(path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
