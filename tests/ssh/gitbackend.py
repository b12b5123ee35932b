"""A backend that takes pushes for real and deploys nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from served import Obedient

from mypaas_git.access.policy import Identity, Verb, allow
from mypaas_git.errors import AccessDenied, MypaasError
from mypaas_git.git.receive import RefUpdate, receive_pack
from mypaas_git.git.repository import Repositories, Repository
from mypaas_git.git.upload import refuse, upload_pack
from mypaas_git.names import ServiceName
from mypaas_git.progress import Progress
from mypaas_git.server import service_of
from mypaas_git.ssh.session import GitVerb
from mypaas_git.ssh.stream import Stream


class GitBackend(Obedient):
    """Repositories below ``root``."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.repositories = Repositories(root / "repos")

    def command(self, identity: Identity, argv: list[str], stream: Stream) -> int:
        if argv[:1] != ["try"]:
            return super().command(identity, argv, stream)
        allowed = [verb.name for verb in Verb if _allowed(identity, verb, argv[1])]
        stream.write(json.dumps(allowed).encode())
        return 0

    def git(self, identity: Identity, verb: GitVerb, path: str, stream: Stream) -> int:
        try:
            service = service_of(path)
            if verb == "git-upload-pack":
                allow(identity, Verb.FETCH, service)
                upload_pack(stream, self.repositories, service)
                return 0
            allow(identity, Verb.PUSH, service)
            receive_pack(
                stream,
                self.repositories,
                service,
                branches=["main"],
                max_pack_size=1 << 30,
                deploy=_just_move,
                plan=lambda *_: None,
                push_id="p123",
            )
        except MypaasError as error:
            refuse(stream, f"{error.code}: {error.message}")
            return 1
        return 0


def _allowed(identity: Identity, verb: Verb, service: str) -> bool:
    try:
        allow(identity, verb, ServiceName.parse(service))
    except AccessDenied:
        return False
    return True


def _just_move(
    repository: Repository, update: RefUpdate, progress: Progress, move: Callable[[], None]
) -> None:
    move()
