"""The builder's messages become lines for people."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator

import pytest
from support.apps import BASE, unique

from mypaas_git.errors import BuildFailed
from mypaas_git.runtime.builder import build
from mypaas_git.runtime.client import Client

LABEL = ("mypaas.test", "builder")


@pytest.fixture
def run(engine: None) -> Iterator[Callable[..., list[str]]]:
    """Builds a Dockerfile by the real engine and returns what it said; the image goes."""
    client = Client()
    images = []

    def run(dockerfile: str) -> list[str]:
        images.append(f"mypaas-test/{unique()}:v1")
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            info = tarfile.TarInfo("Dockerfile")
            info.size = len(dockerfile)
            tar.addfile(info, io.BytesIO(dockerfile.encode()))
        lines: list[str] = []
        build(client.api, iter([file.getvalue()]), images[-1], LABEL, lines.append)
        return lines

    yield run
    for image in images:
        if client.api.images(image):
            client.api.remove_image(image)
    client.close()


def test_only_the_pushers_own_steps_are_told(run: Callable[..., list[str]]) -> None:
    """Neither our label's step nor the builder's ids are shown, and the count is right."""
    lines = run(f"FROM {BASE}\nRUN echo one && echo two\n")
    assert lines[0] == f"Step 1/2 : FROM {BASE}"
    assert lines[1] == "Step 2/2 : RUN echo one && echo two"
    assert [line for line in lines[2:] if line != " ---> Using cache"] in ([], ["one", "two"])
    assert not any("mypaas.test" in line for line in lines)


@pytest.mark.parametrize(
    ("dockerfile", "said"),
    [
        (f"FROM {BASE}\nRUN exit 3\n", r"^Step 2/2 : RUN exit 3 returned 3$"),
        (f"FROM {BASE}\nRUN echo a\nRUN echo b; exit 1\n", r"Step 3/3 .* returned 1 \(b\)$"),
        (f"FROM {BASE}\nCOPY gone /\n", r"^Step 2/2 : COPY gone /: .*gone"),
        (f"FROM {BASE}\nFROMM x\n", r"^Dockerfile line 2: unknown instruction: FROMM$"),
        ("", "empty"),
    ],
)
def test_faults_name_their_step(
    run: Callable[..., list[str]], dockerfile: str, said: str
) -> None:
    """The step, its code and its last line; or the Dockerfile's line."""
    with pytest.raises(BuildFailed, match=said):
        run(dockerfile)
