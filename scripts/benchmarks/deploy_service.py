"""A service of the benchmark: a clone, and the server that it is pushed to."""

from __future__ import annotations

from support import rolling
from support.apps import commit, make_app
from support.load import Load
from support.paas import Paas
from support.rolling import Files
from support.stockgit import git


class Service:
    """``name`` on ``paas``, with version 1 live once it is made."""

    def __init__(self, paas: Paas, name: str, *, deaf: bool = False) -> None:
        self._paas = paas
        self._deaf = deaf
        self.name = name
        self.number = 1
        self._clone = make_app(paas.root, None, self._good(1), name=name)
        paas.deploy(self._clone, name)

    @property
    def version(self) -> str:
        """What the newest version that was made answers."""
        return f"v{self.number}"

    def load(self) -> Load:
        return Load((self._paas.address, self._paas.web), f"{self.name}.test", self._paas.root)

    def change(self) -> None:
        """Commit a good new version."""
        self.number += 1
        commit(self._clone, self._good(self.number))

    def spoil(self, kind: str) -> None:
        """Commit a version that cannot go live, of one of ``rolling.KINDS``."""
        self.number += 1
        commit(self._clone, rolling.bad(self.name, self.number, kind))

    def push(self) -> None:
        """Push, which must succeed."""
        self._paas.deploy(self._clone, self.name)

    def push_in_vain(self) -> str:
        """Push, which must fail; returns what the pusher saw."""
        done = self._paas.push(self._clone, self.name)
        if done.returncode != 1:
            raise RuntimeError(f"a bad deploy went through:\n{done.stderr}")
        return done.stderr

    def roll_back(self) -> None:
        """Serve the release before again."""
        done = self._paas.ssh("rollback", self.name)
        if done.returncode != 0:
            raise RuntimeError(f"rollback failed:\n{done.stderr}")

    def branch(self) -> str:
        """The commit that the server's branch names."""
        listed = git(
            self._clone,
            *("ls-remote", self._paas.url(self.name), "main"),
            env=self._paas.git_env(),
        )
        return listed.stdout[:40]

    def _good(self, number: int) -> Files:
        return rolling.version(self.name, number, deaf=self._deaf)
