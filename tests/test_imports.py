"""The import table of docs/design.rst, read off the sources."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "mypaas_git"
BOTTOM = {"errors", "names", "files", "failpoints", "redact"}
MAY_IMPORT = {
    "errors": set(),
    "files": set(),
    "names": {"errors"},
    "failpoints": {"errors"},
    "redact": set(),
    "progress": BOTTOM,
    "settings": BOTTOM,
    "config": BOTTOM,
    "directives": BOTTOM,
    "access": BOTTOM | {"directives"},
    "git": BOTTOM | {"progress"},
    "ssh": BOTTOM | {"access", "git", "progress"},
    "runtime": BOTTOM | {"directives", "progress"},
    "routing": BOTTOM | {"directives"},
    "ledger": BOTTOM | {"directives"},
    "deploy": BOTTOM | {"ledger", "runtime.base", "routing", "directives", "progress"},
    "hook": BOTTOM | {"access", "directives", "deploy", "git", "ledger", "progress", "routing"},
    "operations": BOTTOM
    | {"access", "config", "deploy", "git", "hook", "ledger", "progress", "runtime.base"},
}
# The composition root, the server that it makes, and the commands know everybody.
UNBOUND = {"app", "server", "cli"}
ONLY_IN = {
    "dulwich": {"git"},
    "paramiko": {"ssh", "access/publickey.py"},
    "docker": {"runtime"},
    "click": {"cli"},
}


def imports(source: str) -> set[str]:
    """Every module that ``source`` imports anywhere, functions included."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where something comes from"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def faults(path: str, source: str) -> list[str]:
    """What the table forbids of the imports of the file at ``path`` below mypaas_git."""
    room = path.split("/", maxsplit=1)[0].removesuffix(".py")
    names = imports(source)
    wrong = [
        f"{path} imports {library}"
        for library, places in ONLY_IN.items()
        if any(name.split(".")[0] == library for name in names)
        and not any(path == place or path.startswith(place + "/") for place in places)
    ]
    if room in UNBOUND or room == "__init__":
        return wrong
    allowed = MAY_IMPORT[room] | {room}
    for name in sorted(names):
        if not name.startswith("mypaas_git."):
            continue
        inner = name.removeprefix("mypaas_git.")
        if not any(inner == ok or inner.startswith(ok + ".") for ok in allowed):
            wrong.append(f"{path} imports {name}")
    return wrong


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.name))
def test_import_table(path: Path) -> None:
    """No file imports a room or a library that its own room may not know."""
    assert faults(path.relative_to(ROOT).as_posix(), path.read_text()) == []


def test_forbidden_imports_are_found() -> None:
    """The check itself fails where it should."""
    assert faults("git/receive.py", "from mypaas_git.deploy import engine")
    assert faults("git/receive.py", "from mypaas_git import hook")
    assert faults("deploy/engine.py", "from mypaas_git.runtime.docker import DockerRuntime")
    assert faults("hook.py", "def f():\n    import docker")
    assert not faults("deploy/engine.py", "from mypaas_git.runtime.base import Runtime")
