"""Directories of the host, behind links that lead anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mypaas_git.access.directories import resolve
from mypaas_git.access.host import HostRules
from mypaas_git.directives.values import BadValue, volume
from mypaas_git.errors import HostRefused
from mypaas_git.runtime.directories import ensure

NAMES = ["a", "b", "up", "away", "state", "self", ".ssh", "new", ".", "", "..", " ", "a b"]


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with links to its own and to other places."""
    root = Path(os.path.realpath(tmp_path_factory.mktemp("host")))
    home = root / "user"
    for each in ("a/b", "b", ".ssh", "_mypaas/repos"):
        (home / each).mkdir(parents=True)
    (root / "secret").mkdir()
    for directory in (home, home / "a", home / "a/b"):
        (directory / "up").symlink_to("..")
        (directory / "away").symlink_to(root / "secret")
        (directory / "state").symlink_to(home / "_mypaas")
        (directory / "self").symlink_to(home / "b")
    return home


def rules(home: Path) -> HostRules:
    forbidden = (f"{home}/.ssh", f"{home}/_mypaas")
    return HostRules((str(home),), forbidden, 1, 65535, str(home))


@given(st.lists(st.sampled_from(NAMES), max_size=6), st.sampled_from(["~/", "/", "~", ""]))
@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_is_taken_lies_within(user: Path, parts: list[str], start: str) -> None:
    """T42, T43: a volume that is granted is a real path below a root, in nothing forbidden."""
    prefix = f"{user}/" if start == "/" else start
    try:
        found = volume(f"{prefix}{'/'.join(parts)}:/x")
    except BadValue:
        return
    if found.named:
        assert "/" not in found.source
        return
    try:
        path = Path(resolve(found.source, rules(user)))
    except HostRefused:
        return
    assert Path(os.path.realpath(path)) == path
    assert user in path.parents
    for forbidden in (user / ".ssh", user / "_mypaas"):
        assert forbidden != path
        assert forbidden not in path.parents
        assert path not in forbidden.parents


def test_a_directory_is_made_with_those_above_it(tmp_path: Path) -> None:
    """A second time, or where a file is, there is nothing to do."""
    path = Path(os.path.realpath(tmp_path)) / "a" / "b"
    for _ in range(2):
        ensure(str(path))
    assert path.is_dir()
    (path / "file").touch()
    ensure(str(path / "file"))
    with pytest.raises(NotADirectoryError):
        ensure(str(path / "file" / "x"))


@pytest.mark.parametrize("below", ["link", "link/x", "link/x/y"])
def test_a_link_that_appeared_since_is_not_followed(tmp_path: Path, below: str) -> None:
    """T43: nothing is made behind it."""
    here = Path(os.path.realpath(tmp_path))
    (here / "elsewhere").mkdir()
    (here / "link").symlink_to("elsewhere")
    with pytest.raises(OSError, match="a symbolic link appeared"):
        ensure(str(here / below))
    assert list((here / "elsewhere").iterdir()) == []
