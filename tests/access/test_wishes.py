"""Hundreds of wishes that no service is granted, each through all that a push is read by.

The cases are in ``wishes.txt``. What would build, start and route is the real thing, with
an engine that notes who calls: nobody does, and no route is written.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mypaas_git.access.policy import Identity
from mypaas_git.app import App
from mypaas_git.directives.model import ServiceSpec
from mypaas_git.directives.parse import parse_dockerfile
from mypaas_git.errors import MypaasError
from mypaas_git.git.receive import RefUpdate
from mypaas_git.git.repository import Repository
from mypaas_git.hook import Push
from mypaas_git.names import ServiceName
from mypaas_git.progress import Tee

CORPUS = Path(__file__).with_name("wishes.txt")
APP = ServiceName.parse("app")
BOB = Identity("bob", services=frozenset({APP}))
CONFIG = """\
[init]
domain = "paas.test"
[ssh]
listen = "127.0.0.1:2222"
[http]
web = "127.0.0.1:8080"
web_secure = "127.0.0.1:8443"
[host.urls]
"*.alice.test" = ["blog"]
"ci.test" = ["key:ci"]
"nobody.test" = []
[env.shop]
SHOP_TOKEN = "hunter2hunter2"
"""
SHOP = b"""\
# mypaas.service=shop
# mypaas.url=http://shop.test
# mypaas.url=https://shop.test/api
# mypaas.url=http://api.shop.test/v1
# mypaas.volume=~/shop-data:/data
# mypaas.volume=~/shops/one:/one
# mypaas.volume=shop-db:/db
# mypaas.publish=127.0.0.1:7000:7000
# mypaas.publish=5353:53/udp
"""
# What may be had in the same world, so that the refusals are not for some other reason.
GRANTED = """\
# mypaas.url=http://x.test
# mypaas.url=https://alice.test/a.b/~c
# mypaas.volume=~/data:/data:ro
# mypaas.volume=~/to-data/sub:/sub
# mypaas.volume=app-db:/db
# mypaas.env=A=mypaas/shop
# mypaas.publish=9000:80
# mypaas.publish=127.0.0.1:7001:7000
ARG VERSION=1
FROM mypaas/app:v1 AS before
FROM x:$VERSION AS shop
COPY --from=before / /
COPY --from=shop / /
COPY --from=0 / /
LABEL org.opencontainers.image.title=mypaas.x
RUN echo 'FROM mypaas/shop' && cat <<EOF
FROM users
EOF
"""


class Case(NamedTuple):
    """``text`` is a Dockerfile, ``said`` part of the one line that refuses it."""

    item: str
    text: str
    said: str

    @property
    def dockerfile(self) -> bytes:
        # A lone key stands for a directive, and needs an image to be a Dockerfile.
        short = re.match(r"[A-Za-z_]+(=|$)", self.text)
        text = f"# mypaas.{self.text}\nFROM x\n" if short else self.text
        return text.encode("utf-8", "surrogateescape")


def cases() -> list[Case]:
    """What the corpus holds."""
    found = []
    for line in CORPUS.read_text().splitlines():
        if line and not line.startswith("# "):
            item, rest = line.split(" | ", 1)
            text, said = rest.rsplit(" | ", 1)
            plain = text.encode("ascii", "backslashreplace").decode("unicode_escape")
            found.append(Case(item, plain, said))
    return found


class Ear:
    """A socket that an engine could listen on; ``calls`` counts who tried it."""

    def __init__(self, path: Path) -> None:
        self.calls = 0
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.calls += 1
            connection.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


class World(NamedTuple):
    app: App
    ear: Ear
    repository: Repository
    commits: list[str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server with a neighbour, links that lead out, and every case as a commit."""
    root = tmp_path_factory.mktemp("host")
    user = root / "user"
    home = user / "_mypaas"
    home.mkdir(parents=True)
    (home / "config.toml").write_text(CONFIG)
    furnish(user)
    ear = Ear(root / "engine.sock")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(user))
        patch.setenv("DOCKER_HOST", f"unix://{root}/engine.sock")
        app = App.at(home)
        make_neighbour(app, parse_dockerfile(SHOP, default_service=None))
        texts = [*(each.dockerfile for each in cases()), GRANTED.encode()]
        with app.repositories.open_or_create(APP) as repository:
            commits = import_commits(repository.path, texts)
            yield World(app, ear, repository, commits)
        app.close()
    ear.close()


def furnish(user: Path) -> None:
    """What a container with a directory of this home could have planted in it."""
    for name in ("data", "shop-data", "shops/one", "deep", "own"):
        (user / name).mkdir(parents=True)
    links = {
        "to-etc": "/etc",
        "to-root": "/",
        "to-ssh": ".ssh",
        "to-state": "_mypaas",
        "to-proc": "/proc/1",
        "to-socket": "/run/docker.sock",
        "chain": "to-etc",
        "deep/up": "../../..",
        "to-shop": "shop-data",
        "to-data": "data",
        "to-own-socket": "socket",
    }
    for name, target in links.items():
        (user / name).symlink_to(target)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(user / "socket"))
    os.mkfifo(user / "pipe")


def make_neighbour(app: App, spec: ServiceSpec) -> None:
    """A service that is live, as far as the ledger knows."""
    begun = app.ledger.begin(spec, commit="0" * 40, branch="main", who="eve", fingerprint="")
    app.ledger.live(app.ledger.switching(app.ledger.starting(begun, "mypaas/shop:v1")))
    app.ledger.claim_volume("shop-db", spec.service)


def import_commits(path: Path, texts: list[bytes]) -> list[str]:
    """One commit each, with nothing but a Dockerfile; returns their ids."""
    stream = b""
    for number, text in enumerate(texts, 1):
        stream += b"commit refs/heads/c%d\nmark :%d\n" % (number, number)
        stream += b"committer A <a@example.com> 1700000000 +0000\ndata 1\nx\n"
        stream += b"M 100644 inline Dockerfile\ndata %d\n%b\n" % (len(text), text)
    marks = path.with_suffix(".marks")
    subprocess.run(
        ["git", "fast-import", "--quiet", f"--export-marks={marks}"],
        cwd=path,
        input=stream,
        check=True,
    )
    ids = dict(line.split() for line in marks.read_text().splitlines())
    return [ids[f":{number}"] for number in range(1, len(texts) + 1)]


def plan(world: World, commit: str) -> None:
    """What ``git push -o plan`` does once the commit is there."""
    push = Push(world.repository, RefUpdate("refs/heads/main", None, commit), BOB, Tee())
    world.app.hook.plan(push, APP)


def test_the_corpus_is_large() -> None:
    """Several of each item, none twice."""
    found = cases()
    assert len(found) >= 200
    assert len({each.text for each in found}) == len(found)
    items = [each.item for each in found]
    for item in ("T40", "T41", "T42", "T43", "T44", "T45", "T46", "T47", "T49", "T51"):
        assert items.count(item) >= 8, item


def test_nothing_of_the_corpus_is_granted(world: World) -> None:
    """Each answer names the line and what would do; engine and routes hear of nothing."""
    wrong = []
    for case, commit in zip(cases(), world.commits, strict=False):
        try:
            plan(world, commit)
        except MypaasError as error:
            said = [error.message, *error.details]
            at_line = all(re.search(r"\bline [0-9]+: ", each) for each in said)
            clean = all(each.isprintable() for each in said)
            if not at_line or not clean or not any(case.said in each for each in said):
                wrong.append(f"{case.item} {case.text!r}: {said}")
            assert "hunter2" not in str(said)
        else:
            wrong.append(f"{case.item} {case.text!r} was granted")
    assert wrong == []
    assert world.ear.calls == 0
    assert list((world.app.home.path / "routes").iterdir()) == []


def test_its_neighbour_is_granted(world: World) -> None:
    """The same world takes what is a service's own."""
    plan(world, world.commits[-1])
    assert world.ear.calls == 0
