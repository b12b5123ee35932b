"""BuildKit's story, told as the classic builder would."""

from __future__ import annotations

import time

import pytest

from mypaas_git.runtime.transcript import Flood, Transcript
from mypaas_git.runtime.vertices import HOLD, HOLD_BASE, Vertices


def told(text: str) -> tuple[list[str], str]:
    """The lines that are shown of BuildKit's, and the fault that they tell of."""
    shown: list[str] = []
    vertices = Vertices(Transcript(shown.append, {}, Flood()))
    for line in text.splitlines():
        vertices.take(line)
    vertices.flush()
    return shown, vertices.fault()


STAGES = """\
#4 [builder 1/3] FROM docker.io/library/python:3-slim@sha256:{digest}
#4 sha256:77073ce5d4cf35675b10e718c620d28deffa571d30bbcdef45189fadfd5b342e
#4 extracting sha256:77073ce5d4cf35675b10e718c620d28deffa571d30bbcdef45189fadfd5b342e 0.1s done
#4 DONE 0.0s

#5 [builder 2/3] RUN make
#5 0.100 compiling
#5 ...

#6 [stage-1 2/3] RUN fetch
#6 0.200 fetching
#6 DONE 0.2s

#5 [builder 2/3] RUN make
#5 0.300 linking
#5 DONE 0.3s
""".replace("{digest}", "0" * 64)


def test_stages_side_by_side() -> None:
    """Each step names its stage, and so does what it prints after another has begun."""
    assert told(STAGES)[0] == [
        "Step 1/3 : FROM python:3-slim [builder]",
        "Step 2/3 : RUN make [builder]",
        "compiling",
        "Step 2/3 : RUN fetch [stage-1]",
        "fetching",
        "[builder] linking",
    ]


def test_noise_is_not_told() -> None:
    """Neither what BuildKit does for itself nor times and sums."""
    noise = """\
#0 building with "default" instance using docker driver

#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 60B done
#1 DONE 0.0s

#2 [internal] load metadata for docker.io/library/busybox:latest
#2 DONE 0.1s

#3 [linux/amd64 1/1] FROM docker.io/library/busybox:latest
#3 resolve docker.io/library/busybox:latest done
#3 CACHED

#4 exporting to image
#4 exporting layers done
#4 writing image sha256:91483ccedaf10f13a020b16891b79acc7e312b43188bcf3f1e722bcb1e24760e done
#4 naming to docker.io/library/x:1 done
#4 DONE 0.0s

 1 warning found (use docker --debug to expand):
"""
    assert told(noise)[0] == ["FROM busybox"]


ANOTHERS = """\
#4 [{base}] FROM docker.io/library/busybox:latest
#4 CACHED

#5 [{step}] RUN make
#5 0.100 compiling
"""


@pytest.mark.parametrize(
    ("base", "step", "shown"),
    [
        ("1/3", "2/2", "Step 1/2 : FROM busybox"),
        ("theirs 1/3", "2/2", "Step 1/2 : FROM busybox"),
        ("theirs 1/3", "ours 2/2", "FROM busybox"),
        ("stage-1 1/3", "stage-1 2/2", "FROM busybox"),
        ("ours 1/2", "ours 2/2", "Step 1/2 : FROM busybox [ours]"),
    ],
)
def test_a_base_image_is_not_told_as_that_of_another_build(
    base: str, step: str, shown: str
) -> None:
    """BuildKit has one name for it, though builds of two services wait for it."""
    assert told(ANOTHERS.format(base=base, step=step))[0][0] == shown


def test_a_base_image_waits_for_a_step_of_ours() -> None:
    """Its number is known then; one that has to be pulled is told without."""
    shown: list[str] = []
    vertices = Vertices(Transcript(shown.append, {}, Flood()))
    vertices.take("#4 [1/3] FROM docker.io/library/busybox:latest")
    time.sleep(HOLD * 1.5)
    vertices.tick()
    assert shown == []
    vertices.take("#5 [2/2] RUN sleep 100")
    vertices.tick()
    assert shown == []  # the step has its own moment
    time.sleep(HOLD * 1.5)
    vertices.tick()
    assert shown == ["Step 1/2 : FROM busybox", "Step 2/2 : RUN sleep 100"]


def test_a_base_image_that_takes_long_is_told() -> None:
    """Without a number, which nothing bears out."""
    shown: list[str] = []
    vertices = Vertices(Transcript(shown.append, {}, Flood()))
    vertices.take("#4 [1/3] FROM docker.io/library/busybox:latest")
    time.sleep(HOLD_BASE + HOLD)
    vertices.tick()
    assert shown == ["FROM busybox"]


PROCESS = 'process "/bin/sh -c echo why && exit 7" did not complete successfully: exit code: 7'
NEWER = f"""\
#5 [2/2] RUN echo why && exit 7
#5 0.210 why
#5 ERROR: {PROCESS}
------
 > [2/2] RUN echo why && exit 7:
0.210 why
------
Dockerfile:4
--------------------
   3 |     FROM busybox
   4 | >>> RUN echo why && exit 7
--------------------
ERROR: failed to build: failed to solve: {PROCESS}
"""


def test_newer_words_for_a_failed_step() -> None:
    """Other versions say it in other words."""
    assert told(NEWER)[1] == "Step 2/2 : RUN echo why && exit 7 returned 7 (why)"


def test_newer_words_for_a_fault_of_the_dockerfile() -> None:
    """The line's number stands in front."""
    fault = (
        "ERROR: failed to solve: dockerfile parse error on line 4: unknown instruction: RUNN"
    )
    assert told(f"Dockerfile:4\n-----\n   4 | >>> RUNN\n-----\n{fault}\n")[1] == (
        "Dockerfile line 4: unknown instruction: RUNN"
    )


def test_newer_words_for_a_missing_file() -> None:
    """Where it was looked for is told, in fewer words."""
    error = 'ERROR: failed to calculate checksum of ref a::b: "/gone": not found'
    lines = f"#5 [2/2] COPY {{}}gone /\n#5 {error}\n"
    assert told(lines.format(""))[1] == (
        "Step 2/2 : COPY gone /: /gone is not in the commit, or .dockerignore leaves it out"
    )
    assert told(lines.format("--from=b "))[1].endswith("/gone is not in what --from names")


def test_a_missing_base_image_is_named() -> None:
    """Even though no step has begun."""
    lines = """\
#2 [internal] load metadata for docker.io/library/gone:1
#2 ERROR: docker.io/library/gone:1: not found
------
 > [internal] load metadata for docker.io/library/gone:1:
------
ERROR: failed to solve: gone:1: docker.io/library/gone:1: not found
"""
    assert told(lines)[1] == "FROM gone:1: docker.io/library/gone:1: not found"


def test_the_first_fault_counts() -> None:
    """What was stopped because of it is not told."""
    lines = """\
#5 [a 2/2] RUN one
#6 [b 2/2] RUN two
#6 ERROR: rpc error: code = Canceled desc = context canceled
#5 ERROR: executor failed running [/bin/sh -c one]: exit code: 127
#6 CANCELED
"""
    assert told(lines)[1] == "Step 2/2 : RUN one [a] returned 127"


def test_a_step_is_shown_though_it_says_nothing() -> None:
    """It waits a moment, for whether it is in the cache after all."""
    shown: list[str] = []
    vertices = Vertices(Transcript(shown.append, {}, Flood()))
    vertices.take("#5 [3/3] RUN sleep 100")
    vertices.take("#6 [2/3] RUN true")
    vertices.take("#6 CACHED")
    vertices.tick()
    assert shown == []
    time.sleep(HOLD * 1.5)
    vertices.tick()
    assert shown == ["Step 2/3 : RUN true", " ---> Using cache", "Step 3/3 : RUN sleep 100"]
