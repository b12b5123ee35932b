"""Which images a Dockerfile names, in every way that a builder may read it."""

from __future__ import annotations

import pytest

from mypaas_git.directives.images import (
    ImageRules,
    Use,
    fault_of,
    label_faults,
    uses,
    uses_of_triggers,
)
from mypaas_git.directives.instructions import one_instruction
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
        ("ARG V=1\nFROM a:${V:+x}${V+y}\n", ["a:xy"]),
        ("ARG R=reg:5000/a\nFROM $R@sha256:ab AS x\n", ["reg:5000/a@sha256:ab"]),
        ("FROM scratch\nCOPY a /\n", []),
        ("FROM a AS Base\nFROM base\nCOPY --from=BASE / /\nCOPY --from=0 / /\n", ["a"]),
        ("FROM a AS b-amd64\nFROM b-${TARGETARCH}\n", ["a"]),
        ("FROM --platform=$BUILDPLATFORM a\n", ["a"]),
        ("FROM a\nCOPY --chown=1 --from=nginx:1 /x /\n", ["a", "nginx:1"]),
        ("FROM a\nRUN --mount=type=bind,from=b,target=/x true\n", ["a", "b"]),
        ("FROM a\nRUN --mount=type=cache,target=/x pip install --from=b c\n", ["a", "b"]),
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


def test_triggers_and_what_they_hide() -> None:
    """An ONBUILD instruction that cannot be read counts as one that takes something."""
    texts = ["COPY --from=mypaas/shop / /", "RUN make", "COPY --from=$X / /", "COPY . /"]
    assert uses_of_triggers(map(one_instruction, texts)) == ["mypaas/shop", "?"]


def test_labels_in_their_many_forms() -> None:
    """Both forms of LABEL, quoted or not; a value that speaks of us is none of our business."""
    text = b"FROM a\nLABEL b=traefik.x 'mypaas.y'=1\nLABEL traefik.z on\nLABEL c mypaas.d\n"
    assert [each.number for each in label_faults(text)] == [2, 3]


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
    """``--from`` may name an earlier stage by its number; FROM names an image's id by it."""
    assert [use.reference for use in uses(b"ARG B=7\nFROM ${B}9\n")[0]] == ["79"]
    copies = b"FROM a\nFROM b\nCOPY --from=0 / /\nCOPY --from=1 / /\nCOPY --from=7 / /\n"
    assert [use.reference for use in uses(copies)[0]] == ["a", "b", "1", "7"]


def test_stages_have_names_of_stages() -> None:
    """No stage hides a service's image by having its name."""
    found, _ = uses(b"FROM busybox AS ns/b:v2\nFROM ns/b:v2\n")
    assert [use.reference for use in found] == ["busybox", "ns/b:v2"]
