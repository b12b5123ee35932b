"""Why a build has to end before it is done."""

from __future__ import annotations

import threading

import pytest

from mypaas_git.errors import BuildFailed, Cancelled
from mypaas_git.runtime.watch import Watch, Watcher


def test_nothing_is_wrong_with_a_build_that_is_wanted() -> None:
    """Neither over nor an error."""
    watch = Watch(lambda: False, 60)
    assert not watch.over()
    watch.check("Step 1/1 : RUN x")


@pytest.mark.parametrize(
    ("timeout", "step", "said"),
    [
        (0, "", "longer than 0 s (build_timeout) before its first step"),
        (-90, "Step 1/1 : x", "longer than -90 s (build_timeout) in Step 1/1 : x"),
    ],
)
def test_a_build_takes_too_long(timeout: float, step: str, said: str) -> None:
    """The setting is named, and the step that took it."""
    watch = Watch(lambda: False, timeout)
    assert watch.over()
    with pytest.raises(BuildFailed) as caught:
        watch.check(step)
    assert said in caught.value.message


def test_a_build_is_cancelled() -> None:
    """That is told even when its time is over too."""
    with pytest.raises(Cancelled, match="the build was cancelled: Step 1/1 : x"):
        Watch(lambda: True, 0).check("Step 1/1 : x")


def test_the_watcher_ends_what_is_over() -> None:
    """From another thread, once, and never after the work is done."""
    ended = threading.Event()
    with Watcher(Watch(ended.is_set, 0.3), ended.set):
        assert ended.wait(5)
    late = threading.Event()
    with Watcher(Watch(lambda: False, 0.1), late.set):
        pass
    assert not late.wait(0.5)
