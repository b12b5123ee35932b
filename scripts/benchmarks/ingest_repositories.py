"""What is pushed: repositories made from a seed, with the same objects on every machine."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.stockgit import clean_env, git

VERSION = 2
"""Raised whenever the same name stands for something else, so that nothing old is reused."""
MIB = 1 << 20

_TEXT = (
    "account address amount answer archive batch branch buffer build cache channel chunk "
    "client close commit config connect count create cursor data date default delete deploy "
    "digest entry error event field file filter flush format frame group handle header host "
    "index input item join key label level limit line link list load lock log map match "
    "merge message mode model name node number object offset open option order owner pack "
    "page parse patch path peer plan port prefix print process query queue range rate read "
    "record ref release remote report request result retry route row rule scan schema scope "
    "score search select send server session shard size slot source stack start state "
    "status step store stream sum table tag target task tenant text token total trace tree "
    "type unit update user value vector version view watch window worker write zone"
)
_WORDS = _TEXT.split()


class _Author:
    """Writes source files and changes them, always the same ones for a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - it is meant to be predictable

    def below(self, limit: int) -> int:
        return self._random.randrange(limit)

    def noise(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def line(self) -> str:
        choice, pick = self._random.randrange(6), self._random.choice
        one, two, three = pick(_WORDS), pick(_WORDS), pick(_WORDS)
        indent = "    " * self._random.randrange(1, 4)
        return (
            f"{indent}{one} = self.{two}_{three}({one}, {self._random.randrange(10_000)})",
            f"{indent}if {one}.{two} is None or {three} > {self._random.randrange(100)}:",
            f"{indent}return {one}_{two}[{three}]",
            f"{indent}# The {one} of a {two} is kept until its {three} has ended.",
            f"{indent}for {one} in {two}.{three}s():",
            "",
        )[choice]

    def file(self, lines: int) -> list[str]:
        names = [self._random.choice(_WORDS) for _ in range(3)]
        head = [f'"""The {names[0]} of a {names[1]}."""', "", f"import {names[2]}", ""]
        return [*head, *(self.line() for _ in range(self._random.randrange(lines // 4, lines)))]

    def edit(self, file: list[str]) -> None:
        """Change a few lines somewhere, as one commit of many does."""
        for _ in range(self._random.randrange(1, 4)):
            at = self._random.randrange(len(file))
            new = [self.line() for _ in range(self._random.randrange(1, 5))]
            file[at : at + self._random.randrange(3)] = new


class _Import:
    """A stream of commits for ``git fast-import``."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._count = 0

    def commit(self, files: dict[str, bytes]) -> None:
        """Put a commit that sets ``files`` on top of main."""
        self._count += 1
        who = b"Alice <alice@example.com> %d +0000" % (1_500_000_000 + 600 * self._count)
        self._write(b"commit refs/heads/main\nauthor %s\ncommitter %s\n" % (who, who))
        message = b"Change %d\n\nBecause of what was found out.\n" % self._count
        self._write(b"data %d\n%s" % (len(message), message))
        for path, data in files.items():
            self._write(b"M 100644 inline %s\ndata %d\n" % (path.encode(), len(data)))
            self._write(data + b"\n")

    def branch(self, name: str) -> None:
        """Leave a branch where main is now."""
        self._write(b"reset refs/heads/%s\nfrom refs/heads/main\n\n" % name.encode())


def _tiny(stream: _Import) -> None:
    stream.commit(
        {
            "Dockerfile": b"FROM python:3-slim\n# mypaas.service=hello\nCOPY . .\n",
            "app.py": b"print('hello')\n",
            "README.md": b"Hello\n",
        }
    )


def _work(stream: _Import, author: _Author, commits: int) -> None:
    """Let a project grow: most commits change a file or two, every eighth adds one."""
    files: dict[str, list[str]] = {}
    for number in range(commits):
        changed = set()
        if number % 8 == 0:
            where = f"{_WORDS[author.below(12)]}/{_WORDS[author.below(len(_WORDS))]}"
            path = f"src/{where}_{number}.py"
            files[path] = author.file(300)
            changed.add(path)
        paths = list(files)
        for _ in range(author.below(2) + (number % 8 != 0)):
            path = paths[author.below(len(paths))]
            author.edit(files[path])
            changed.add(path)
        stream.commit({path: "\n".join(files[path]).encode() for path in sorted(changed)})


def _five_thousand(stream: _Import) -> None:
    author = _Author(5)
    _work(stream, author, 5000)
    stream.branch("base")
    stream.commit({"src/added.py": "\n".join(author.file(300)).encode()})


def _history(stream: _Import) -> None:
    _work(stream, _Author(7), 12_000)


def _big_file(stream: _Import) -> None:
    author = _Author(11)
    data = b"".join(author.noise(MIB) for _ in range(200))
    stream.commit({"model.bin": data, "Dockerfile": b"FROM scratch\nCOPY model.bin /\n"})


def _many_files(stream: _Import) -> None:
    author = _Author(13)
    files = {"Dockerfile": b"FROM scratch\nCOPY . /\n"}
    for number in range(100_000):
        folder = f"{_WORDS[number // 10_000]}/{_WORDS[number // 250 % 40]}"
        files[f"{folder}/{_WORDS[number % 100]}_{number}.py"] = "\n".join(
            author.file(24)
        ).encode()
    stream.commit(files)


MAKERS: dict[str, Callable[[_Import], None]] = {
    "tiny": _tiny,
    "five-thousand": _five_thousand,
    "history": _history,
    "big-file": _big_file,
    "many-files": _many_files,
}


def repository(cache: Path, name: str) -> Path:
    """The bare repository of this name, made below ``cache`` unless it is there."""
    path = cache / f"{name}-{VERSION}.git"
    if not path.exists():
        made = cache / f".{name}-{os.getpid()}"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        try:
            _make(made, MAKERS[name])
            made.rename(path)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return path


def _make(path: Path, maker: Callable[[_Import], None]) -> None:
    git(path, "init", "-q", "--bare", "-b", "main")
    git(path, "config", "core.bigFileThreshold", "100m")
    with _importing(path) as stream:
        maker(stream)
    # Packed well it is sent as it is, so that a push is not the client's work alone.
    git(path, "repack", "-adfq", "--window=10", "--depth=50", seconds=600)


@contextmanager
def _importing(path: Path) -> Iterator[_Import]:
    with tempfile.TemporaryFile() as stream:
        yield _Import(stream.write)
        stream.seek(0)
        subprocess.run(
            ["git", "fast-import", "--quiet"],
            cwd=path,
            env=clean_env(),
            stdin=stream,
            check=True,
        )
