"""Every kind of key, in every state, at every entrance, by stock ssh and git.

The entrances are ``git push``, ``git fetch`` and a command that tries every verb there is.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from gitbackend import GitBackend
from served import Served, serving
from support.hardware import Token, agent
from support.keys import ssh_key
from support.stockgit import git, ssh_command

from mypaas_git.access.policy import Right, Verb

TOKENS = ("ed25519-sk", "ecdsa-sk")
USABLE = ("ed25519", "ecdsa-256", "ecdsa-384", "ecdsa-521", "rsa-2048", "rsa-3072", *TOKENS)
UNUSABLE = ("rsa-1024", "dsa", "certificate")
OPTIONS = {
    "unknown": None,
    "revoked": None,
    "expired": 'services="app",expiry-time="20200101Z" ',
    "wrong service": 'services="other" ',
    "right": 'services="app" ',
    "every service": "",
    "admin": "admin ",
}
EVERY_VERB = {verb.name for verb in Verb}
OF_ADMINS = {verb.name for verb in Verb if verb.right is Right.ADMIN}
OF_ALL = {"WHOAMI", "SERVICES"}
DENIED = "Permission denied (publickey)."


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("matrix")


@pytest.fixture(scope="module")
def served(root: Path) -> Iterator[Served]:
    """One server for all cells, with a repository that has something to fetch."""
    with serving(root, GitBackend(root)) as running:
        git(root, "init", "-q", "-b", "main", "work")
        git(root / "work", "commit", "-q", "--allow-empty", "-m", "first")
        assert _push(running, running.new_key("founder"), "founder") == ""
        yield running


@pytest.fixture(scope="module")
def pairs(root: Path) -> Iterator[dict[str, Path]]:
    """The key pairs that were made so far; the tokens are plugged in."""
    tokens = [Token(root, kind, kind) for kind in TOKENS]
    with agent(root / "agent", *tokens):
        yield {token.path.name: token.path for token in tokens}


@pytest.mark.parametrize("state", OPTIONS)
@pytest.mark.parametrize("kind", [*USABLE, *UNUSABLE])
def test_cell(served: Served, pairs: dict[str, Path], kind: str, state: str) -> None:
    """Whom the server cannot verify or does not know stays out; the rest do what they may."""
    if kind not in pairs:
        pairs[kind] = _pair(served.root, kind)
    key, name = pairs[kind], state.replace(" ", "-")
    if state == "revoked" and kind in USABLE:
        _authorize(served, key, 'services="app" ', name)
        assert _push(served, key, name) == ""
    _authorize(served, key, OPTIONS[state], name)
    if kind in UNUSABLE or state in {"unknown", "revoked", "expired"}:
        assert DENIED in _push(served, key, name)
        assert DENIED in _fetch(served, key)
        assert _verbs(served, key) is None
    elif state == "wrong service":
        for refusal in (_push(served, key, name), _fetch(served, key)):
            assert "the key 'wrong-service' has no right to the service 'app'" in refusal
        assert _verbs(served, key) == OF_ALL
    else:
        assert _push(served, key, name) == _fetch(served, key) == ""
        allowed = EVERY_VERB if state == "admin" else EVERY_VERB - OF_ADMINS
        assert _verbs(served, key) == allowed


def _pair(root: Path, kind: str) -> Path:
    directory = root / kind
    directory.mkdir()
    if kind == "certificate":
        return _certificate(directory)
    algorithm, _, bits = kind.partition("-")
    return ssh_key(directory, "key", kind=algorithm, bits=bits)


def _certificate(directory: Path) -> Path:
    """A key that can be offered only as the certificate that an authority made of it."""
    key, authority = ssh_key(directory, "key"), ssh_key(directory, "authority")
    sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "x", "-n", "anybody", f"{key}.pub"]
    subprocess.run(sign, check=True)
    key.with_name("key-cert.pub").replace(key.with_name("key.pub"))
    return key


def _authorize(served: Served, key: Path, options: str | None, name: str) -> None:
    """Write the line by hand, as no command of ours would for an unusable key."""
    public = key.with_suffix(".pub").read_text().split()
    line = "" if options is None else f"{options}{public[0]} {public[1]} {name}\n"
    served.keys.path.write_text("# by hand\n" + line)


def _options(served: Served, key: Path) -> list[str]:
    # The first of two values counts.
    return [*_more(served), *served.options(key)]


def _more(served: Served) -> tuple[str, ...]:
    where = f"IdentityAgent={served.root / 'agent'}"
    return ("-o", "PubkeyAcceptedAlgorithms=+ssh-dss", "-o", where)


def _push(served: Served, key: Path, message: str) -> str:
    """Push a new commit; return what was said when it was refused."""
    work = served.root / "work"
    git(work, "commit", "-q", "--allow-empty", "-m", message)
    env = ssh_command(_options(served, key))
    done = git(work, "push", "-q", _remote(served), "main", env=env, check=False)
    return done.stderr if done.returncode else ""


def _fetch(served: Served, key: Path) -> str:
    env = ssh_command(_options(served, key))
    copy = served.root / "work"
    done = git(copy, "fetch", "-q", _remote(served), "main", env=env, check=False)
    return done.stderr if done.returncode else ""


def _verbs(served: Served, key: Path) -> set[str] | None:
    """What this key may do to the service; None when it does not even log in."""
    done = served.ssh("try app", key=key, more=_more(served))
    if done.returncode == 255:
        assert DENIED in done.stderr.decode()
        return None
    return set(json.loads(done.stdout))


def _remote(served: Served) -> str:
    return f"ssh://anybody@127.0.0.1:{served.port}/app"
