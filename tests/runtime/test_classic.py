"""What only the classic builder does: layers to clear up, and caps."""

from __future__ import annotations

import pytest
from support.apps import BASE, unique
from support.builds import Bench

from mypaas_git.errors import BuildFailed
from mypaas_git.runtime.builder import Limits
from mypaas_git.runtime.classic import Caps


def test_every_new_layer_is_told_of(classic: Bench) -> None:
    """Those of the base image and of builds before are not this build's."""
    made = f"FROM {BASE}\nRUN echo {unique()} > /x\nENV A=1\n"
    with pytest.raises(BuildFailed):
        classic.build(f"{made}RUN exit 1\n")
    first = list(classic.kept)
    assert len(first) == 2
    parents = [(classic.client.image(layer) or {})["Parent"] for layer in first]
    assert parents[1] == first[0]
    with pytest.raises(BuildFailed):
        classic.build(f"{made}ENV B={unique()}\nRUN exit 1\n")
    assert len(classic.kept) == 1
    assert classic.kept[0] not in first


def test_no_layer_can_be_forged(classic: Bench) -> None:
    """A command that prints an image's id does not have it removed."""
    base = (classic.client.image(BASE) or {})["Id"].removeprefix("sha256:")[:12]
    with pytest.raises(BuildFailed):
        classic.build(
            f"FROM {BASE}\nRUN echo {unique()}; echo ' ---> {base}'; "
            "echo ' ---> 0123456789ab'; exit 1\n"
        )
    assert classic.kept == []


def test_caps_hold_for_every_step(classic: Bench) -> None:
    """A step sees as much memory and as many CPUs as it may use."""
    files = "/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max"
    limits = Limits(caps=Caps(memory=100 << 20, cpus=1))
    run = f"RUN echo {unique()}; cat {files} 2>/dev/null; nproc\n"
    classic.build(f"FROM {BASE}\n{run}", limits=limits)
    assert classic.lines[3:] == [str(100 << 20), "1"]


def test_more_cpus_than_there_are_is_no_cap(classic: Bench) -> None:
    """The engine would refuse them."""
    classic.build(f"FROM {BASE}\nRUN true\n", limits=Limits(caps=Caps(cpus=1000)))


def test_a_step_beyond_its_memory_is_killed(classic: Bench) -> None:
    """It fails as any other step does."""
    limits = Limits(caps=Caps(memory=20 << 20))
    with pytest.raises(BuildFailed, match=r"^Step 2/2 : RUN .* returned "):
        classic.build(f"FROM {BASE}\nRUN head -c 90m /dev/zero | tail\n", limits=limits)
