"""The rules of .dockerignore, by hand and against Docker's own client."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mypaas_git.errors import TreeRefused
from mypaas_git.git.ignore import DockerIgnore

FILES = [
    "Dockerfile",
    "a.py",
    "b.pyc",
    "README.md",
    "README-secret.md",
    ".env",
    ".hidden/x",
    "src/a.py",
    "src/b.pyc",
    "src/lib/c.pyc",
    "src/lib/d.py",
    "src/lib/README.md",
    "logs/one.log",
    "logs/keep/two.log",
    "[b]",
    "node_modules/m/index.js",
    "x/node_modules/n.js",
    "temp",
    "tempa",
    "x/temp",
    "x/y/temp",
    "foo.d/bar",
    "foo/bar",
    "q/foo/bar/baz",
]
# Docker's clients disagree on `**log`: 20.10 finds it at the top only, newer ones anywhere.
TEXTS = [
    "*.pyc\n*/temp*\ntemp?\n",
    "**/*.pyc\n**/node_modules\n",
    "*.md\n!README*.md\nREADME-secret.md\n",
    "*\n!src\n**/*.pyc\n!Dockerfile\n",
    "logs/*\n!logs/keep\n",
    "# a comment\n\n  src/  \n/x\n./foo\n\\[b]\n",
    "**/foo/**\n",
    "src/**/d.py\nq/**\nx/[n-z]*\n[^a-z.R]*\n",
    "**\n!a.py\n!src/lib\n",
    "Dockerfile\n.dockerignore\n",
    "**/*.p*y\n*o*/b?r\n*a*a*\n",
]


@pytest.mark.parametrize(
    ("text", "path", "excluded"),
    [
        ("*.log", "a.log", True),
        ("*.log", "d/a.log", False),
        ("**/*.log", "a.log", True),
        ("**/*.log", "d/e/a.log", True),
        ("**.log", "d/a.log", True),
        ("d", "d/e/f", True),
        ("d/", "d/e", True),
        ("/d", "d", True),
        ("./d/../e", "e/f", True),
        ("d", "e/d", False),
        ("d\n!d/e", "d/e/f", False),
        ("d\n!d/e\nd/e/f", "d/e/f", True),
        ("!d\nd", "d", True),
        ("#d", "#d", False),
        (" #d", "#d", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("a*c", "a/c", False),
        ("a/**/c", "a/c", True),
        ("a/**/c", "a/x/y/c", True),
        ("a/**/c", "ac", False),
        ("a/**", "a", False),
        ("a/**", "a/b", True),
        ("**", ".x", True),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[^a-c]x", "dx", True),
        (r"\*x", "*x", True),
        (r"\*x", "ax", False),
        ("a.b", "axb", False),
        ("a+(b)|{c}$", "a+(b)|{c}$", True),
        ("\ufeffa", "a", True),
        ("a\r\nb", "a", True),
        ("é*", "éa", True),
        ("!!a\na", "a", True),
        ("a**b", "ab", True),
        ("a**b", "ax/b", True),
        ("a**b", "axb", False),
        ("**/a*/**/*.b*.c*", "q/ax/z/foo.bb.cc", True),
        ("**/a*/**/*.b*.c*", "q/x/z/foo.bb.cc", False),
        ("*a*b*c*d", "xaxbxcxd", True),
        ("*a*b*c*d", "xaxbxc/d", False),
    ],
)
def test_rules(text: str, path: str, excluded: bool) -> None:
    """Patterns mean what Docker's documentation says."""
    assert DockerIgnore(text).excludes(path) is excluded


@pytest.mark.parametrize("line", ["a[", "[]", "[^]", "!", "! ", "a\\", "[z-a]"])
def test_what_is_no_pattern(line: str) -> None:
    """A malformed pattern is named with its line."""
    with pytest.raises(TreeRefused, match=r"^\.dockerignore:2: .* is not a pattern$"):
        DockerIgnore(f"ok\n{line}\n")


def test_hostile_patterns_take_no_time() -> None:
    """Many stars cannot be used to keep the server busy."""
    ignore = DockerIgnore("*a" * 30 + "b\n" + "**/*a" * 30 + "b\n")
    assert not ignore.excludes("a" * 250)
    assert not ignore.excludes("/".join(["a" * 20] * 50) + "/b")


@given(st.text(alphabet="ab/*?[]!^\\-#. \n~&|", max_size=30), st.text("ab/.", max_size=12))
def test_any_text(text: str, path: str) -> None:
    """Whatever the file holds, it is read or refused."""
    with suppress(TreeRefused):
        DockerIgnore(text).excludes(path)


@given(st.text(alphabet="ab/*?[]", max_size=8), st.text("ab/", max_size=8))
def test_both_ways_agree(pattern: str, path: str) -> None:
    """The automaton that many stars need finds what the regex finds."""
    try:
        few, many = DockerIgnore(pattern), DockerIgnore(pattern)
    except TreeRefused:
        return
    with pytest.MonkeyPatch.context() as patch:
        before = few.excludes(path)
        patch.setattr("mypaas_git.git.ignore.MAX_REGEX_STARS", -1)
        assert many.excludes(path) == before


def test_against_docker(engine: None, tmp_path: Path) -> None:
    """What reaches an image by way of Docker's own client is what we say."""
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(file)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    for text in TEXTS:
        (tmp_path / ".dockerignore").write_text(text)
        ignore = DockerIgnore(text)
        ours = {file for file in [*FILES, ".dockerignore"] if not ignore.excludes(file)}
        assert _in_image(tmp_path) == ours, text


def _in_image(directory: Path) -> set[str]:
    """The files of an image that is built from ``directory``."""
    tag = f"mypaas-test/ignore-{uuid.uuid4().hex[:12]}"
    try:
        _docker("build", "-q", "-t", tag, str(directory))
        container = _docker("create", tag, "none").decode().strip()
        try:
            archive = _docker("export", container)
        finally:
            _docker("rm", container)
    finally:
        _docker("rmi", "-f", tag)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {member.name for member in tar if member.isfile()}
    return {name for name in files if not name.startswith((".dockerenv", "etc/", "dev/"))}


def _docker(*args: str) -> bytes:
    return subprocess.run(
        ["docker", *args], check=True, capture_output=True, timeout=120,
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
    ).stdout  # fmt: skip
