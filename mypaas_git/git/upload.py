"""``git-upload-pack``: clone and fetch, on dulwich's handler.

Protocol: version 0 of git's ``gitprotocol-pack(5)``, "Fetching Data From a Server".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

import structlog
from dulwich.errors import GitProtocolError, HangupException
from dulwich.object_store import MissingObjectFinder
from dulwich.objects import ZERO_SHA, ObjectID, valid_hexsha
from dulwich.protocol import (
    CAPABILITY_OFS_DELTA,
    CAPABILITY_SIDE_BAND_64K,
    PEELED_TAG_SUFFIX,
    format_ref_line,
    symref_capabilities,
)
from dulwich.refs import Ref
from dulwich.repo import Repo
from dulwich.server import BackendRepo, DictBackend, UploadPackHandler, _ProtocolGraphWalker

from mypaas_git.errors import MypaasError
from mypaas_git.git.repository import Repositories, Repository
from mypaas_git.git.wire import AGENT, BUFFER, Stream, Wire, refuse
from mypaas_git.names import ServiceName

__all__ = ["Stream", "refuse", "upload_pack"]

MAX_REQUEST = 100_000
"""Lines of one request: what is wanted, and what is shallow."""
log = structlog.get_logger()

_MORE_CAPABILITIES = [
    # Whoever may fetch may have every object: partial clones ask for single ones.
    b"allow-tip-sha1-in-want",
    b"allow-reachable-sha1-in-want",
    AGENT,
]


def upload_pack(stream: Stream, repositories: Repositories, name: ServiceName) -> None:
    """Serve one clone or fetch; returns too when the client hangs up half-way.

    Raises :class:`RepositoryMissing` before anything is said.
    """
    wire = _Wire(stream)
    try:
        with repositories.open(name) as repository:
            _Handler(repository, wire).handle()
            wire.flush()
    except MypaasError:
        raise
    except HangupException:
        pass
    except (GitProtocolError, ValueError, AssertionError) as error:
        refuse(stream, f"the request cannot be served: {error}")
    except Exception:
        log.exception("fetch failed", service=name)
        refuse(stream, "internal error: the server's log has more")


class _Wire(Wire):
    """A wire whose request is read ahead of dulwich, and whose small packets are gathered."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self._request: deque[bytes | None] = deque()
        self._unsent = bytearray()
        self.write = self._gather

    def flush(self) -> None:
        """Send what was gathered; whoever reads does so first."""
        data = bytes(self._unsent)
        self._unsent.clear()
        if data:
            try:
                self._stream.write(data)
            except OSError as error:
                raise HangupException from error

    def _gather(self, data: bytes) -> None:
        self._unsent += data
        if len(self._unsent) >= BUFFER:
            self.flush()

    def _receive(self, size: int) -> bytes:
        self.flush()
        return super()._receive(size)

    def read_pkt_line(self) -> bytes | None:
        if self._request and self._readahead is None:
            return self._request.popleft()
        return super().read_pkt_line()

    def read_request(self) -> _Request:
        """Read the lines up to the flush, for dulwich to read them again."""
        lines: list[bytes] = []
        while line := super().read_pkt_line():
            if len(lines) >= MAX_REQUEST:
                raise GitProtocolError("too long")
            lines.append(line.removesuffix(b"\n"))
        request = _Request(lines)
        self._request.extend([*request.ordered(), None])
        return request


class _Request:
    """What a client asks for."""

    def __init__(self, lines: list[bytes]) -> None:
        self._wants = [line for line in lines if line.startswith(b"want ")]
        self._filters = [line for line in lines if line.startswith(b"filter ")]
        self._shallow = [line for line in lines if line.startswith(b"shallow ")]
        known = (b"want ", b"filter ", b"shallow ")
        self._rest = [line for line in lines if not line.startswith(known)]

    @property
    def wants(self) -> set[ObjectID]:
        return {ObjectID(line.split(b" ")[1]) for line in self._wants}

    @property
    def shallow(self) -> set[ObjectID]:
        """Where the client's history ends, if it does not ask for that to change."""
        ids = {ObjectID(line.split(b" ")[1]) for line in self._shallow}
        return set() if self._rest else {id_ for id_ in ids if valid_hexsha(id_)}

    def ordered(self) -> list[bytes]:
        """The lines as dulwich expects them.

        It looks for a filter right behind the wants, where git sends it last,
        and takes shallow commits for a request to deepen.
        """
        return self._wants + self._filters + (self._shallow + self._rest if self._rest else [])


class _Handler(UploadPackHandler):
    """dulwich's handler, with the opening of the conversation done for it."""

    def __init__(self, repository: Repository, wire: _Wire) -> None:
        served: dict[str, BackendRepo] = {"": _Served(repository.dulwich, wire, self)}
        super().__init__(DictBackend(served), [""], wire)

    @classmethod
    def required_capabilities(cls) -> tuple[bytes, ...]:
        """Less than dulwich's own, which never sends thin packs after all."""
        return (CAPABILITY_SIDE_BAND_64K, CAPABILITY_OFS_DELTA)


class _Served:
    """The repository as dulwich's handler sees it."""

    def __init__(self, repo: Repo, wire: _Wire, handler: _Handler) -> None:
        # dulwich looks for `repo` when a client wants the tags that come with commits.
        self.repo = repo
        self.object_store = repo.object_store
        self.refs = repo.refs
        self.object_format = repo.object_format
        self.get_refs = repo.get_refs
        self.get_peeled = repo.get_peeled
        self._wire = wire
        self._handler = handler

    def find_missing_objects(
        self,
        determine_wants: Callable[[Mapping[Ref, ObjectID], int | None], list[ObjectID]],
        graph_walker: _ProtocolGraphWalker,
        progress: Callable[[bytes], None] | None,
        *,
        get_tagged: Callable[[], dict[ObjectID, ObjectID]] | None = None,
        depth: int | None = None,
    ) -> MissingObjectFinder | None:
        """Find out what the client wants and lacks, in dulwich's way save for the opening."""

        def wants(refs: Mapping[Ref, ObjectID], depth: int | None) -> list[ObjectID]:
            self._advertise(refs)
            request = self._wire.read_request()
            present = {id_ for id_ in request.wants if self._has(id_)}
            # dulwich takes what it would have advertised, and advertises nothing more.
            offered = {Ref(b"refs/wanted/" + id_): id_ for id_ in present}
            graph_walker.stateless_rpc = True
            wanted = determine_wants(offered, depth)
            graph_walker.stateless_rpc = False
            graph_walker.shallow.update(request.shallow)
            if not present <= set(refs.values()):
                # Somebody who names a blob wants it, whatever is to be left out otherwise.
                self._handler.filter_spec = None
            return wanted

        return self.repo.find_missing_objects(
            wants, graph_walker, progress, get_tagged=get_tagged, depth=depth
        )

    def _has(self, id_: ObjectID) -> bool:
        return id_ == id_.lower() and valid_hexsha(id_) and id_ in self.object_store

    def _advertise(self, refs: Mapping[Ref, ObjectID]) -> None:
        capabilities = [
            *self._handler.capabilities(),
            *symref_capabilities(self.refs.get_symrefs().items()),
            *_MORE_CAPABILITIES,
        ]
        lines: list[tuple[bytes, ObjectID]] = []
        for ref, id_ in sorted(refs.items()):
            lines.append((ref, id_))
            peeled = self.get_peeled(ref)
            if peeled != id_:
                lines.append((ref + PEELED_TAG_SUFFIX, peeled))
        for number, (name, id_) in enumerate(lines or [(b"capabilities^{}", ZERO_SHA)]):
            line = format_ref_line(name, id_, None if number else capabilities)
            self._wire.write_pkt_line(line)
        self._wire.write_pkt_line(None)
