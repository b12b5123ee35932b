"""Becomes a program that is ended, by SIGKILL, when who started it does, however.

Run as ``python -I -S tied.py PARENT PROGRAM ARGUMENTS``, where PARENT is the process id of
who starts it. The same between fork and exec would be Python in a copy of a process whose
other threads are gone, and their locks are not. Source: prctl(2), PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, *argv = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == int(parent):  # else it has died before we could ask to be told
        os.execvp(argv[0], argv)  # noqa: S606 - a list of arguments, and no shell


if __name__ == "__main__":
    main()
