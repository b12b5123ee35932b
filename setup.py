"""Compiles what reads packs, by mypyc, when the package is built.

They also run uncompiled: whatever is missing for it, such as a C compiler or the headers of
Python, and with MYPAAS_PURE=1, the package is built without. An editable install is never
compiled, so that what is edited counts at once.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# Compiled code has Python's handlers of signals wait until something interpreted is called.
# Those of worker.py (SIGXCPU) and second.py (SIGALRM) are heard because signals.py, which is
# called for every object that is taken, ingest.py, which goes through those of a pack that is
# refused, too, and worker.py, which gives every piece, are not compiled. Let these be.
MODULES = [
    f"mypaas_git/git/{name}.py"
    for name in (
        *("blobs", "check", "contents", "context", "deltas", "dotfiles", "incoming"),
        *("limits", "packfile", "packindex", "packstream", "tarheaders", "thin"),
        *("treenames", "trees"),
    )
]
# The same whatever is installed where it is compiled.
MYPY = ["--config-file=", "--no-site-packages", "--ignore-missing-imports"]


class BuildCompiled(build_ext):
    """Compiles MODULES, or warns in one line and leaves nothing of it behind."""

    def run(self):
        self._clear()
        try:
            self._compile()
        # mypyc exits when it cannot go on.
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the next best is built
            self._clear()
            sys.stderr.write(f"warning: not compiled, so large pushes take longer: {error!r}\n")
            self._be_pure()

    def _compile(self):
        if self.inplace or getattr(self, "editable_mode", False):
            raise RuntimeError("the install is editable")
        if os.environ.get("MYPAAS_PURE") == "1":
            raise RuntimeError("MYPAAS_PURE is set")
        from mypyc.build import mypycify  # noqa: PLC0415 - it may be missing

        self.distribution.ext_modules = mypycify(
            MYPY + MODULES, group_name="mypaas_git", opt_level="2", debug_level="0"
        )
        self.swig_opts = None  # is split here, which takes it as it was
        self.finalize_options()
        super().run()

    def _clear(self):
        """Remove what this or an earlier build has compiled."""
        for path in Path(self.build_lib).rglob("*.so"):
            path.unlink()

    def _be_pure(self):
        self.extensions = []
        self.distribution.ext_modules = None
        wheel = self.distribution.get_command_obj("bdist_wheel", create=False)
        if wheel:
            wheel.root_is_pure = True


# What is compiled stands there from the moment that it is to be built.
setup(
    ext_modules=[Extension("mypaas_git__mypyc", [])],
    cmdclass={"build_ext": BuildCompiled},
)
