"""The client's side of one push: learn the server's tip, send what it lacks, hear the report.

Speaks version 0 of git's protocol (``gitprotocol-pack(5)``) over whatever opens
a stream to ``git-receive-pack`` and ``git-upload-pack``.
"""

from __future__ import annotations

import getpass
import re
import shlex
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Protocol as Interface

from dulwich.client import ReportStatusParser, read_pkt_refs_v1
from dulwich.errors import GitProtocolError, HangupException, SendPackError
from dulwich.object_store import BaseObjectStore
from dulwich.objects import ZERO_SHA, Commit, ObjectID, ShaFile, Tree
from dulwich.protocol import PktLineParser, Protocol
from dulwich.refs import Ref
from dulwich.repo import Repo

from mypaas_git.errors import GitRefused
from mypaas_git.git.snapshot import FOLDER, Pack, Snapshot
from mypaas_git.progress import clean, clean_lines

MAX_PARTIAL = 1 << 16
"""Bytes of a line of the server's that are kept while its end has not come."""


class Stream(Interface):
    """One command that runs on the server."""

    def read(self, size: int, /) -> bytes:
        """Return ``size`` bytes of its output, fewer only at the end."""

    def write(self, data: bytes, /) -> None:
        """Send it ``data``; OSError when it is gone."""

    def close(self) -> None: ...

    def complaint(self) -> str:
        """What it wrote to its standard error, to be asked once its output has ended."""


@dataclass(frozen=True)
class Outcome:
    """What became of a push: ``commit`` is the branch's new or unchanged tip, in hex.

    ``refused`` is the server's reason, and None when the push went well.
    """

    branch: str
    commit: str
    unchanged: bool = False
    refused: str | None = None


@dataclass(frozen=True)
class _Tip:
    """The server's newest commit, with the ids of all objects that it surely has."""

    commit: ObjectID
    tree: ObjectID
    objects: frozenset[ObjectID]


def send(
    snapshot: Snapshot,
    path: str,
    run: Callable[[str], Stream],
    *,
    show: Callable[[str], None],
    watch: Callable[[Pack], Iterable[bytes]] = iter,
) -> Outcome:
    """Push ``snapshot`` as one commit on top of what the repository at ``path`` has.

    ``run`` starts a command on the server. ``show`` gets the server's lines as
    they come. ``watch`` passes a pack's bytes on, so that it can count them.
    Raises :class:`GitRefused` when the server will not talk about this
    repository at all, and what :meth:`Snapshot.pack` raises.
    """
    with _session(run, "git-receive-pack", path) as receive:
        branch, tip_id = _branch(receive.refs)
        tip = _fetch(run, path, tip_id) if tip_id else None
        if tip and tip.tree.decode("ascii") == snapshot.tree_id:
            receive.end()
            return Outcome(branch, tip.commit.decode("ascii"), unchanged=True)
        commit = snapshot.commit(
            tip_id.decode("ascii") if tip_id else None,
            local_identity(),
            f"mypaas push from {_hostname()}",
        )
        ref = b"refs/heads/" + branch.encode("ascii")
        update = b"%s %s %s" % (tip_id or ZERO_SHA, commit.id, ref)
        receive.request(update, b"\0", {b"report-status"})
        receive.lines(None)
        pack = snapshot.pack(commit, tip.objects if tip else frozenset())
        # A server that refuses early hangs up: its report says more than the broken pipe.
        with suppress(OSError):
            for piece in watch(pack):
                receive.stream.write(piece)
        return Outcome(branch, commit.id.decode("ascii"), refused=_report(receive, ref, show))


def local_identity() -> str:
    """Who is pushing, as git writes it: ``user <user@host>``."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name; KeyError before Python 3.13
        user = "unknown"
    user = "".join(c for c in clean(user) if c not in "<>")
    return f"{user} <{user}@{_hostname()}>"


def _hostname() -> str:
    return "".join(c for c in clean(socket.gethostname()) if c not in "<> ") or "localhost"


def _branch(refs: dict[Ref, ObjectID]) -> tuple[str, ObjectID | None]:
    """Return the branch to push to, ``main`` unless there is only ``master``, and its tip."""
    main, master = Ref(b"refs/heads/main"), Ref(b"refs/heads/master")
    if master in refs and main not in refs:
        return "master", refs[master]
    return "main", refs.get(main)


class _Session:
    """One git command on the server, from its list of refs on."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._proto = Protocol(stream.read, stream.write)
        with self._understood():
            self.refs, self.offers = read_pkt_refs_v1(iter(self.read_line, None))
            if self.offers and b"side-band-64k" not in self.offers:
                raise GitProtocolError("it does not offer side-band-64k")
            if b"object-format=sha256" in self.offers:
                raise GitProtocolError("its objects have SHA-256 ids")

    def end(self) -> None:
        """Say that nothing is wanted after all."""
        with suppress(OSError):
            self._proto.write_pkt_line(None)

    def request(self, line: bytes, separator: bytes, wanted: set[bytes]) -> None:
        """Send the first line of a request, with those of ``wanted`` that are on offer."""
        capabilities = sorted({b"side-band-64k"} | wanted & self.offers)
        with self._understood():
            self._proto.write_pkt_line(
                line + separator + b" ".join([*capabilities, b"agent=mypaas-git"])
            )

    def lines(self, *lines: bytes | None) -> None:
        """Send further lines; None is a flush."""
        with self._understood():
            for line in lines:
                self._proto.write_pkt_line(line)

    def read_line(self) -> bytes | None:
        """Return the next line, None at a flush. Raises the server's own refusal."""
        with self._understood():
            line = self._proto.read_pkt_line()
        if line is not None and line.startswith(b"ERR "):
            raise _refusal(line[4:])
        return line

    def bands(self, show: Callable[[str], None]) -> Iterator[bytes]:
        """Yield the data of the first band; the lines of the second go to ``show``."""
        output = _Lines(show)
        try:
            while packet := self.read_line():
                band, data = packet[0], packet[1:]
                if band == 1:
                    yield data
                elif band == 2:
                    output.feed(data)
                else:
                    raise GitRefused(f"the server gave up: {_plain(data)}")
        finally:
            output.end()

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Turn what goes wrong on the wire into one line, the server's own where it has one."""
        try:
            yield
        except (HangupException, OSError):
            raise GitRefused(
                clean(self.stream.complaint()) or "the server hung up without a word: try again"
            ) from None
        except (GitProtocolError, ValueError) as error:
            raise GitRefused(
                f"the server's answer cannot be understood: {clean(str(error))}"
            ) from None


@contextmanager
def _session(run: Callable[[str], Stream], command: str, path: str) -> Iterator[_Session]:
    stream = run(f"{command} {shlex.quote(path)}")
    try:
        yield _Session(stream)
    finally:
        stream.close()


class _Lines:
    """Puts the server's output together again, whole clean lines at a time."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._partial = b""

    def feed(self, data: bytes) -> None:
        *whole, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > MAX_PARTIAL:
            whole.append(self._partial)
            self._partial = b""
        for line in whole:
            self._show(_plain(line))

    def end(self) -> None:
        if self._partial:
            self.feed(b"\n")


def _refusal(line: bytes) -> GitRefused:
    """The server's refusal, under the reason code that our own server begins it with."""
    match = re.fullmatch(r"([a-z]+(?:-[a-z]+)*): (.+)", _plain(line))
    error = GitRefused(match[2] if match else _plain(line))
    if match:
        error.code = match[1]
    return error


def _plain(data: bytes) -> str:
    return clean_lines(data.decode("utf-8", "replace"))[0]


def _report(receive: _Session, ref: bytes, show: Callable[[str], None]) -> str | None:
    """Read the report on the push, and return why ``ref`` was refused, None if it was not."""
    report = ReportStatusParser()
    packets = PktLineParser(report.handle_packet)
    for data in receive.bands(show):
        packets.parse(data)
    try:
        statuses = dict(report.check())
    except SendPackError as error:
        return _plain(error.args[0])
    except (GitProtocolError, ValueError):
        statuses = {}
    if ref not in statuses:
        return "the server did not say what became of it"
    reason = statuses[ref]
    return None if reason is None else clean(reason)


def _fetch(run: Callable[[str], Stream], path: str, tip: ObjectID) -> _Tip:
    """Fetch the commit ``tip`` with its trees, without its parents and, if possible, blobs."""
    with (
        _session(run, "git-upload-pack", path) as upload,
        TemporaryDirectory(prefix="mypaas-push-") as scratch,
        closing(Repo.init_bare(scratch)) as repo,
    ):
        upload.request(
            b"want " + tip, b" ", {b"shallow", b"filter", b"ofs-delta", b"no-progress"}
        )
        shallow = b"shallow" in upload.offers
        if shallow:
            upload.lines(b"deepen 1")
        if b"filter" in upload.offers:
            upload.lines(b"filter blob:none")
        upload.lines(None)
        while shallow and upload.read_line():
            pass  # which commits are shallow does not matter here
        upload.lines(b"done")
        upload.read_line()  # NAK: there was nothing in common
        pack, commit, abort = repo.object_store.add_pack()
        try:
            for data in upload.bands(lambda _line: None):
                pack.write(data)
        except BaseException:
            abort()
            raise
        commit()
        return _tip(repo.object_store, tip)


def _tip(store: BaseObjectStore, tip: ObjectID) -> _Tip:
    commit = _object(store, tip)
    if not isinstance(commit, Commit):
        raise GitRefused("the server did not send the commit that its branch is at")
    objects, waiting = {commit.tree}, [commit.tree]
    while waiting:
        tree = _object(store, waiting.pop())
        for entry in tree.items() if isinstance(tree, Tree) else ():
            if entry.mode == FOLDER and entry.sha not in objects:
                waiting.append(entry.sha)
            objects.add(entry.sha)
    return _Tip(tip, commit.tree, frozenset(objects))


def _object(store: BaseObjectStore, id_: ObjectID) -> ShaFile | None:
    try:
        return store[id_]
    except KeyError:
        return None
