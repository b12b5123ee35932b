"""Directories of the host as they really are, behind symbolic links.

Between this look and Docker's own, which comes with every start of a container, nobody in
a container may be able to make a path lead elsewhere. So it is the path without links that
is mounted, and ``deploy.claims`` sees to it that no part of it lies in a directory that a
container can write: then only people on the host can change what it leads to.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mypaas_git.access.host import HostRules, check_path, expand
from mypaas_git.errors import HostRefused


def resolve(source: str, rules: HostRules) -> str:
    """Return the path, free of symbolic links, that a volume's ``source`` leads to.

    It need not exist. Raises HostRefused for one that may not be mounted, or that is
    neither a directory nor a file.
    """
    path = expand(source, rules)
    check_path(path, rules)
    real = os.path.realpath(path)
    try:
        check_path(real, rules)
    except HostRefused as error:
        if real == os.path.normpath(path):
            raise
        fault = f"{path!a} leads to another place: {error.message}"
        raise HostRefused(fault, details=[fault]) from None
    _check_kind(path, real)
    return real


def _check_kind(path: str, real: str) -> None:
    """A socket would give a service whatever listens there; Docker's is only one of them."""
    try:
        mode = Path(real).lstat().st_mode
    except OSError:
        return  # it is made when it is mounted
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        fault = f"{path!a} cannot be mounted: it is neither a directory nor a file"
        raise HostRefused(fault, details=[fault])
