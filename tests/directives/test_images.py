"""Which images a Dockerfile names, in every way that a builder may read it."""

from __future__ import annotations

import time

import pytest

from mypaas_git.directives.images import (
    ImageRules,
    Use,
    fault_of,
    uses,
    uses_of_trigger,
)
from mypaas_git.names import ServiceName

APP = ServiceName.parse("app")


def named(text: str) -> list[str]:
    """The references of a Dockerfile at which nothing is wrong."""
    found, faults = uses(text.encode())
    assert faults == []
    return [each.reference for each in found]


@pytest.mark.parametrize(
    ("text", "references"),
    [
        ("FROM python:3.12-slim\n", ["python:3.12-slim"]),
        ("ARG V=3.12\nFROM python:${V}-slim\n", ["python:3.12-slim"]),
        ("ARG V\nFROM python:${V:-3}\n", ["python:3"]),
        ("ARG V=1\nFROM a:${V:+x}${V:-y}\n", ["a:x1"]),
        ("ARG R=reg:5000/a\nFROM $R@sha256:ab AS x\n", ["reg:5000/a@sha256:ab"]),
        ("FROM scratch\nCOPY a /\n", []),
        ("FROM a AS Base\nFROM base\nCOPY --from=BASE / /\nCOPY --from=0 / /\n", ["a"]),
        ("FROM a AS b-amd64\nFROM b-${TARGETARCH}\n", ["a", "b-"]),
        ("FROM --platform=$BUILDPLATFORM a\n", ["a"]),
        ("FROM a\nCOPY --chown=1 --from=nginx:1 /x /\n", ["a", "nginx:1"]),
        ("FROM a\nRUN --mount=type=bind,from=b,target=/x true\n", ["a", "b"]),
        ("FROM a\nRUN --mount=type=cache,target=/x pip install --from=b c\n", ["a"]),
        ('FROM a\nCOPY --from="nginx:1" --link /x /\n', ["a", "nginx:1"]),
        ("FROM a\nRUN psql <<E\nSELECT 1\nFROM users;\nE\n", ["a"]),
        ("FROM a\nONBUILD COPY --from=b / /\n", ["a", "b"]),
        ("FROM \\\n # why\n\n a\n", ["a"]),
        ("FROM a\nRUN <<E\nFROM x import y\nE\n", ["a"]),
        ("FROM a\r\nRUN true\r\n", ["a"]),
        ("# syntax=docker/dockerfile:1.7-labs\nFROM a\n", ["a"]),
    ],
)
def test_images_that_are_named(text: str, references: list[str]) -> None:
    """Variables are replaced, stages left out, whatever the spelling."""
    assert named(text) == references


def test_what_a_heredoc_quotes() -> None:
    """It is an instruction to the builder that knows no heredocs, and is marked as such."""
    found, _ = uses(b"FROM a\nRUN cat <<E\nFROM users\nE\nRUN echo 'x <<F'\nFROM b\n")
    assert found == [
        Use(1, "a", base=True),
        Use(3, "users", base=True, quoted=True),
        Use(6, "b", base=True),
    ]


@pytest.mark.parametrize(
    ("reference", "refused"),
    [
        ("mypaas/app:v1", False),
        ("mypaas/open", False),
        ("mypaas/shop", True),
        ("docker.io/mypaas/shop:v1", True),
        ("other.io/mypaas/shop", False),
        ("mypaas", False),
        ("mypaasx/shop", False),
        ("library/mypaas/shop", False),
        ("f" * 64, True),
        ("f" * 12, False),
    ],
)
def test_whose_an_image_is(reference: str, refused: bool) -> None:
    """The service's own and the open ones may be used, and everybody else's images."""
    fault = fault_of(reference, APP, ImageRules("mypaas", frozenset({"open"})))
    assert bool(fault) == refused


@pytest.mark.parametrize(
    ("trigger", "references", "faulty"),
    [
        ("COPY --from=mypaas/shop / /", ["mypaas/shop"], False),
        ("COPY\t--from=mypaas/shop / /", ["mypaas/shop"], False),
        ("CO\\\nPY --from=mypaas/shop / /", ["mypaas/shop"], False),
        ("ONBUILD COPY --from=mypaas/shop / /", ["mypaas/shop"], False),
        ("COPY --fr\\om=mypaas/shop / /", [], True),
        ("COPY --from=$X / /", [], True),
        ('ARG X="say \\"hi\\""', [], False),
        ("RUN make", [], False),
    ],
)
def test_what_a_base_image_does(trigger: str, references: list[str], faulty: bool) -> None:
    """Its ONBUILD instructions are read as those of a Dockerfile, within a stage."""
    found, faults = uses_of_trigger(trigger)
    assert [use.reference for use in found] == references
    assert bool(faults) == faulty


DECOYS = {
    "a stage": b"RUN echo x \\\nFROM scratch AS ns/b:v2\nFROM ns/b:v2\n",
    "a stage to copy from": b"RUN x \\\nFROM scratch AS ns/b:v2\nCOPY --from=ns/b:v2 / /\n",
    "a variable": b'ARG A="x \\\nARG B=busybox \\\nARG C="\nFROM ${B:-ns/b:v2}\n',
}


@pytest.mark.parametrize("decoy", DECOYS)
def test_a_reading_does_not_vouch_for_another(decoy: str) -> None:
    """What stands in a continued line for one builder is nothing that another one knows."""
    start = b"# hello\n# escape=`\n" + (b"" if decoy == "a variable" else b"FROM busybox\n")
    found, _ = uses(start + DECOYS[decoy])
    assert "ns/b:v2" in [use.reference for use in found]


def test_numbers() -> None:
    """COPY names stages by numbers, and never an image; FROM and mounts do the opposite."""
    assert named("ARG B=7\nFROM ${B}9\n") == ["79"]
    copies = "FROM a\nFROM b\nCOPY --from=0 / /\nCOPY --from=7 / /\n"
    assert named(copies) == ["a", "b"]
    assert named("FROM a\nRUN --mount=from=0,target=/x true\n") == ["a", "0"]


def test_stages_have_names_of_stages() -> None:
    """No stage hides a service's image by having its name."""
    found, _ = uses(b"FROM busybox AS ns/b:v2\nFROM ns/b:v2\n")
    assert [use.reference for use in found] == ["busybox", "ns/b:v2"]


def test_a_stage_is_none_before_the_next() -> None:
    """A stage that copies from its own name copies from the image of that name."""
    text = "FROM a AS beef\nCOPY --from=beef / /\nFROM beef\nCOPY --from=beef / /\n"
    assert named(text) == ["a", "beef"]


@pytest.mark.parametrize("stage", ["beefzz", "beef-amd64"])
def test_variables_of_the_platform(stage: str) -> None:
    """They are empty to the classic builder, which then takes no stage but an image."""
    found, _ = uses(f"FROM a AS {stage}\nFROM beef$TARGETARCH\n".encode())
    assert [(use.reference, use.quoted) for use in found] == [("a", False), ("beef", True)]


THEIRS = "mypaas/shop:v1"
COPIED = f"={THEIRS} /secret /stolen\n"
HIDDEN = {
    "an escape in a flag": "FROM x\nCOPY --fr\\om" + COPIED,
    "quotes in a flag": 'FROM x\nCOPY --"from"' + COPIED,
    "an escape in a mount": f"FROM x\nRUN --mount=type=bind,fr\\om={THEIRS},target=/m true\n",
    "a byte that is a blank": "FROM x\nCOPY --chown=0\u00e0--from" + COPIED,
    "another": "FROM x\nCOPY --chown=0\u00c5--from" + COPIED,
    "such a byte behind a platform": f"FROM --platform=linux\u00a0--x={THEIRS} {THEIRS}\n",
    "a blank before an image": f"FROM \u00a0 {THEIRS}\n",
    "a blank behind an image": f"FROM {THEIRS} \u2003\n",
    "a blank between a platform and an image": f"FROM --platform=linux/amd64 \u00a0 {THEIRS}\n",
    "a blank before what is triggered": "FROM x\nONBUILD \u0085COPY --from" + COPIED,
    "such a blank before FROM": f"FROM x\n\u2003FROM {THEIRS}\n",
    "a blank that parts nothing": f"ARG B={THEIRS}\nFROM ${{B:-a\u2003b}}\n",
    "an escape before AS": f"FROM {THEIRS}\\ AS b\n",
    "a platform that is set": f"FROM x AS y\nFROM ${{TARGETARCH:+{THEIRS}}}\n",
    "a platform that is not": f"FROM x AS y\nFROM ${{TARGETARCH:-{THEIRS}}}\n",
    "the end of a heredoc": f'FROM x\nRUN : <<"FROM {THEIRS}"\nFROM {THEIRS}\n',
    "the end of another heredoc": f"FROM x\nRUN : <<E\nFROM x AS y\n\tE\nFROM {THEIRS}\nE\n",
    "a comment that is none": f"FROM x\nRUN true \\\n\x1c# x\nFROM {THEIRS}\n",
    "a separator in an ARG": f"ARG X=a\x1cB=x\nFROM ${{B:-{THEIRS}}}\n",
    "quotes around a name": f'ARG BASE=x\nARG "BASE"={THEIRS}\nFROM $BASE\n',
    "a variable used at once": "ARG A=x B=${A:-mypaas/}shop\nFROM $B\n",
    "a backslash that escapes nothing": (
        '# escape=`\nARG A="\\" B=mypaas/shop C=""\nFROM ${B:-x}\n'
    ),
    "a backtick that escapes": f'# escape=`\nARG A="`" B=x C="\nFROM ${{B:-{THEIRS}}}\n',
    "a letter after a name": 'ARG A="$Bä"\nFROM mypaas${A:+x}/shop\n',
    "a variable of no value": "ARG X\nFROM ${X+mypaas/}shop\n",
    "a variable that the server sets": (
        "ARG BUILDKIT_CACHE_MOUNT_NS=\nFROM ${BUILDKIT_CACHE_MOUNT_NS:+mypaas/}shop\n"
    ),
    "a variable that the client sets": "ARG http_proxy=\nFROM ${http_proxy:+mypaas/}shop\n",
    "quotes within quotes": "ARG A=\"''\"\nFROM mypaas${A:-x}/shop\n",
    "JSON after a hashbang": '#!/bin/sh\n{"syntax": "evil/frontend"}\n',
}


@pytest.mark.parametrize("way", HIDDEN)
def test_what_is_hidden(way: str) -> None:
    """No spelling that some builder takes brings in the image of another service."""
    found, faults = uses(HIDDEN[way].encode())
    rules = ImageRules("mypaas")
    assert faults or any(fault_of(use.reference, APP, rules) for use in found)


@pytest.mark.parametrize("line", ["# a=x" + " " * 60000 + "y", "ARG " + "A" * 60000 + "'"])
def test_a_long_line_takes_no_long_time(line: str) -> None:
    """The server reads whatever is pushed: the work grows with the length, not its square."""
    before = time.process_time()
    uses((line + "\n").encode() * 16 + b"FROM x\n")
    assert time.process_time() - before < 20
