"""Lets Python's handlers of signals run where code is compiled.

That leaves them waiting until something interpreted is called, so this is never compiled.
"""

from __future__ import annotations


def hear() -> None:
    """Have handlers run of what was signalled meanwhile; they may raise."""
