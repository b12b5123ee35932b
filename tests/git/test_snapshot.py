from __future__ import annotations

import os
import socket
import subprocess
import tracemalloc
from pathlib import Path

import pytest
from support.stockgit import git

from mypaas_git.errors import TreeRefused
from mypaas_git.git.snapshot import snapshot

AUTHOR = "Alice <alice@example.com>"


def write(directory: Path, **files: str) -> None:
    """Write files whose names have ``__`` for ``/``."""
    for name, text in files.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def gits_tree(directory: Path, scratch: Path) -> str:
    """The tree that stock git makes of the directory."""
    work = ("--git-dir", str(scratch), "--work-tree", str(directory))
    git(scratch.parent, "init", "-q", "--bare", str(scratch))
    git(directory, *work, "add", "-A")
    return git(directory, *work, "write-tree").stdout.strip()


def paths(directory: Path, repository: Path) -> list[str]:
    """What a snapshot of the directory holds."""
    commit = snapshot(directory).write_to(repository, None, AUTHOR, "m")
    listed = git(repository, "ls-tree", "-r", "--name-only", "-z", commit).stdout
    return listed.rstrip("\0").split("\0")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    directory = tmp_path / "app"
    write(directory, Dockerfile="FROM scratch\n", src__server="print()\n")
    return directory


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    path = tmp_path / "bare"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(path))
    return path


def test_the_tree_is_gits_own(app: Path, tmp_path: Path) -> None:
    """Files, order, exec bits, symlinks, odd names and empty directories: as git has them."""
    write(app, a__b__c="1", a_b="2", empty="", **{"a.b": "3", "a0": "4"})
    (app / "src" / "server").chmod(0o700)
    (app / "nothing" / "here").mkdir(parents=True)
    (app / "link").symlink_to("./src/../src/")
    (app / "dangling").symlink_to("/nowhere")
    Path(os.fsdecode(os.fsencode(app) + b"/caf\xe9 \n")).write_text("latin")
    assert snapshot(app).tree_id == gits_tree(app, tmp_path / "scratch")


def test_gitignore_means_what_it_means_to_git(app: Path, tmp_path: Path) -> None:
    """Ignore files of all levels, with exceptions, anchors and directory patterns."""
    (app / ".gitignore").write_bytes(
        b"\xef\xbb\xbf*.log\r\n!keep.log\n/build\nnode_modules/\n**/cache/x\nsub/*.tmp\n"
        b"# none\n\\#hash\ntrailing\\ \nlocked/\n!locked/let-in\n"
    )
    write(app, **dict.fromkeys(("a.log", "keep.log", "build", "deep__build", "#hash"), "x"))
    write(
        app, node_modules__m="x", deep__node_modules__m="x", deep__cache__x="x", locked__a="x"
    )
    write(
        app,
        **{"locked__let-in": "x", "sub__a.tmp": "x", "sub__b__a.tmp": "x", "trailing ": "x"},
    )
    write(app, **{"sub__.gitignore": "!a.log\nb/\n", "sub__a.log": "x", "deep__a.log": "x"})
    write(app, deep__file__node_modules="a file, not a directory")
    (app / "deep" / ".gitignore").symlink_to("../.gitignore")
    assert snapshot(app).tree_id == gits_tree(app, tmp_path / "scratch")


def test_dockerignore_leaves_out_too(app: Path, bare: Path) -> None:
    """Both kinds of ignore file count; a ``!`` lets a file of a left-out directory in."""
    write(app, **{".dockerignore": "docs\n!docs/needed\n*.md\n", ".gitignore": "secret\n"})
    write(app, docs__a="x", docs__needed="x", **{"README.md": "x", "secret": "x"})
    assert paths(app, bare) == [
        ".dockerignore",
        ".gitignore",
        "Dockerfile",
        "docs/needed",
        "src/server",
    ]


def test_what_the_server_reads_is_always_sent(app: Path, bare: Path) -> None:
    """No ignore file can leave out the Dockerfile or .dockerignore."""
    write(app, **{".dockerignore": "**\n", ".gitignore": "*\n"})
    assert paths(app, bare) == [".dockerignore", "Dockerfile"]


def test_git_directories_are_left_out(app: Path, bare: Path) -> None:
    """.git is not sent, nor that of a repository inside, whose files are."""
    write(app, **{".git__HEAD": "x", "lib__.git": "gitdir: x", "lib__file": "x"})
    assert paths(app, bare) == ["Dockerfile", "lib/file", "src/server"]


def test_an_empty_directory_has_gits_empty_tree(tmp_path: Path) -> None:
    """Nothing at all is a tree too."""
    assert snapshot(tmp_path).tree_id == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def test_what_git_cannot_hold_is_refused_by_name(app: Path) -> None:
    """A socket or a pipe is named, and is no matter once it is ignored."""
    os.mkfifo(app / "pipe")
    with pytest.raises(TreeRefused, match=r"^pipe is a named pipe, which git cannot hold: "):
        snapshot(app)
    (app / "pipe").unlink()
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(app)  # a socket's path must be short
        try:
            listener.bind("so\x1bcket")
        finally:
            os.chdir(here)
        with pytest.raises(TreeRefused, match=r"^so.*ket is a socket"):
            snapshot(app)
        write(app, **{".dockerignore": "so*\n"})
        snapshot(app)


def test_what_cannot_be_read_is_named(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file or directory without permission is one line."""
    (app / "src" / "server").chmod(0)
    for directory in (app, app / "src"):
        directory.chmod(0o755)
    monkeypatch.chdir(app)
    os.seteuid(65534)  # nobody
    try:
        with pytest.raises(TreeRefused, match=r"^cannot read src/server: Permission denied$"):
            snapshot(Path())
    finally:
        os.seteuid(0)
    (app / "src").chmod(0)
    os.seteuid(65534)
    try:
        with pytest.raises(TreeRefused, match=r"^cannot read src/: Permission denied$"):
            snapshot(Path())
    finally:
        os.seteuid(0)


def test_written_commits_are_sound(app: Path, bare: Path) -> None:
    """Stock git finds no fault, the parent is there, and nothing is stored twice."""
    first = snapshot(app).write_to(bare, None, AUTHOR, "first")
    write(app, src__other="new")
    second = snapshot(app).write_to(bare, first, AUTHOR, "second")
    git(bare, "update-ref", "refs/heads/main", second)
    assert git(bare, "fsck", "--strict", "--full").stderr == ""
    shown = git(bare, "log", "--format=%an <%ae> %s", "main").stdout
    assert shown == f"{AUTHOR} second\n{AUTHOR} first\n"
    # A commit, two trees and two blobs; then a commit, two trees and one blob.
    assert "in-pack: 9\npacks: 2\n" in git(bare, "count-objects", "-v").stdout
    assert not list((bare / "objects" / "pack").glob("tmp*"))


def test_a_file_that_changes_meanwhile_is_refused(app: Path, bare: Path) -> None:
    """Hashed once and written later: other contents are noticed, and nothing stays behind."""
    for other in ("other 1\n", "longer than it was\n", ""):
        write(app, src__server="print()\n")
        before = snapshot(app)
        write(app, src__server=other)
        with pytest.raises(TreeRefused, match=r"^src/server changed while it was sent: "):
            before.write_to(bare, None, AUTHOR, "m")
        assert list((bare / "objects" / "pack").iterdir()) == []


def test_large_files_are_streamed(app: Path, bare: Path) -> None:
    """A file of 64 MiB takes a few MiB of memory."""
    with (app / "large").open("wb") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    try:
        snapshot(app).write_to(bare, None, AUTHOR, "m")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_deep_trees_are_no_trouble(tmp_path: Path, bare: Path) -> None:
    """More directories inside each other than Python has stack for."""
    top = tmp_path / "deep"
    (top / "Dockerfile").parent.mkdir()
    path = f"{top}{'/d' * 1500}"
    subprocess.run(["mkdir", "-p", path], check=True)
    try:
        with open(f"{path}/f", "w") as file:  # noqa: PTH123 - a Path of this depth recurses
            file.write("x")
        commit = snapshot(top).write_to(bare, None, AUTHOR, "m")
        assert git(bare, "rev-parse", f"{commit}{':' + 'd/' * 1500}f").returncode == 0
    finally:
        subprocess.run(["rm", "-rf", str(top)], check=True)
