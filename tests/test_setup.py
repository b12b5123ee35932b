"""Whatever keeps the package from being compiled, it is built as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CLONE = Path(__file__).parents[1]
SOURCES = ("setup.py", "setup.cfg", "pyproject.toml", "README.rst", "LICENSE")

GIVES_UP = "def mypycify(*_, **__): raise SystemExit(1)"
IS_LEFT_HALFWAY = """
from setuptools import Extension
def mypycify(*_, **__):
    return [Extension("mypaas_git.git." + each, [each + ".c"]) for each in ("good", "bad")]
"""


def built(root: Path, kind: str, mypyc: str, **env: str) -> tuple[Path, str]:
    """What comes of building the package with another mypyc, and what is said of it."""
    for name in SOURCES:
        shutil.copy(CLONE / name, root)
    shutil.copytree(CLONE / "mypaas_git", root / "mypaas_git")
    (root / "good.c").write_text("int PyInit_good;\n")
    (root / "bad.c").write_text("#error\n")
    (root / "other/mypyc").mkdir(parents=True)
    (root / "other/mypyc/__init__.py").touch()
    (root / "other/mypyc/build.py").write_text(mypyc)
    done = subprocess.run(
        [sys.executable, "-c", f"from setuptools import build_meta as b; b.{kind}('out')"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root / "other"), **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    (wheel,) = (root / "out").iterdir()
    return wheel, done.stderr


@pytest.mark.parametrize(
    ("mypyc", "env", "why"),
    [
        (GIVES_UP, {}, "SystemExit(1)"),
        (IS_LEFT_HALFWAY, {}, "CompileError"),
        (IS_LEFT_HALFWAY, {"MYPAAS_PURE": "1"}, "MYPAAS_PURE is set"),
        ("raise ImportError('none')", {}, "none"),
    ],
    ids=["gives up", "is left halfway", "is not wanted", "is missing"],
)
def test_not_compiled(tmp_path: Path, mypyc: str, env: dict[str, str], why: str) -> None:
    """The wheel is one for every machine, with nothing in it of what failed."""
    wheel, said = built(tmp_path, "build_wheel", mypyc, **env)
    (warning,) = (line for line in said.splitlines() if line.startswith("warning: not comp"))
    assert why in warning
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not any(name.endswith(".so") for name in zipfile.ZipFile(wheel).namelist())
    script = "import mypaas_git.git.ingest as i; assert '.whl' in i.__file__"
    subprocess.run(
        [sys.executable, "-c", script], cwd="/", env={"PYTHONPATH": str(wheel)}, check=True
    )


def test_an_editable_install(tmp_path: Path) -> None:
    """It is never compiled, so that what is edited counts."""
    _, said = built(tmp_path, "build_editable", GIVES_UP)
    assert "the install is editable" in said
    assert not list(tmp_path.rglob("*.so"))
