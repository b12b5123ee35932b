"""What holds of a build whichever builder makes it."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.apps import BASE, unique
from support.builds import Bench, tar
from support.engine import docker
from support.net import wait_until
from support.relay import Relay

from mypaas_git.errors import BuildFailed, Cancelled, EngineDown
from mypaas_git.runtime.builder import Limits
from mypaas_git.runtime.transcript import Flood


def running(words: str) -> bool:
    """Whether any process, in a container too, was started as ``words``."""
    return (
        subprocess.run(["pgrep", "-fx", words], capture_output=True, check=False).returncode
        == 0
    )


def test_only_the_pushers_own_steps_are_told(bench: Bench) -> None:
    """Neither our label's step nor the builder's ids are shown, and the count is right."""
    bench.build(f"FROM {BASE}\nRUN echo {unique()} && echo two\n")
    assert bench.lines[0] == f"Step 1/2 : FROM {BASE}"
    assert bench.lines[1].startswith("Step 2/2 : RUN echo app-")
    assert bench.lines[2].startswith("app-")
    assert bench.lines[3:] == ["two"]


def test_cached_steps_say_so_in_their_order(bench: Bench) -> None:
    """A second build tells each step, and that it was there already."""
    steps = [f"RUN echo {unique()}", "RUN true", "COPY Dockerfile /", "WORKDIR /x"]
    dockerfile = "\n".join([f"FROM {BASE}", *steps]) + "\n"
    bench.build(dockerfile)
    bench.build(dockerfile)
    expected = [f"Step 1/5 : FROM {BASE}"]
    for number, step in enumerate(steps, 2):
        expected += [f"Step {number}/5 : {step}", " ---> Using cache"]
    assert bench.lines == expected


def test_the_image_has_the_label(bench: Bench) -> None:
    """What is built is ours to remove."""
    image = bench.client.image(bench.build(f"FROM {BASE}\nCMD echo\n"))
    assert image is not None
    assert image["Config"]["Labels"]["mypaas.namespace"] == "mypaas-test-builds"


@pytest.mark.parametrize(
    ("dockerfile", "said"),
    [
        (f"FROM {BASE}\nRUN exit 3\n", r"^Step 2/2 : RUN exit 3 returned 3$"),
        (f"FROM {BASE}\nRUN echo why && exit 7\n", r"^Step 2/2 : .* returned 7 \(why\)$"),
        (f"FROM {BASE}\nRUN echo a\nRUN echo b; exit 1\n", r"^Step 3/3 .* returned 1 \(b\)$"),
        (f"FROM {BASE}\nRUN printf b; exit 1\n", r"^Step 2/2 : .* returned 1 \(b\)$"),
        (f"FROM {BASE}\nRUN echo b; echo; exit 1\n", r"^Step 2/2 .* returned 1 \(b\)$"),
        (f"FROM {BASE}\nCOPY gone /\n", r"^Step 2/2 : COPY gone /: .*gone"),
        (f"FROM {BASE}\nFROMM x\n", r"^Dockerfile line 2: unknown instruction: FROMM"),
        (f"FROM {BASE}\nCOPY a\n", r"^Dockerfile line 2: COPY requires at least two arg"),
        (
            "FROM 127.0.0.1:9/no/such:1\n",
            r"^Dockerfile line 1: .*/no/such:1 cannot be pulled",
        ),
        (f"FROM {BASE}\nCOPY --from=127.0.0.1:9/no /a /\n", r"127\.0\.0\.1:9/no"),
        ("RUN echo\n", "no build stage in current context"),
        ("# nothing\n", "file with no instructions"),
        ("", "empty"),
    ],
)
def test_faults_name_their_step(bench: Bench, dockerfile: str, said: str) -> None:
    """The step, its code and its last line; or the Dockerfile's line."""
    with pytest.raises(BuildFailed, match=said) as caught:
        bench.build(dockerfile)
    assert len(caught.value.message) < 600


@pytest.mark.parametrize(
    "line", ["Step 2/3 : RUN forged", "#1 ERROR: forged", " ---> Using cache"]
)
def test_a_command_cannot_pose_as_the_builder(bench: Bench, line: str) -> None:
    """What looks like the builder's own line is shown as what the command printed."""
    with pytest.raises(BuildFailed, match=r"^Step 2/2 : .* returned 1 \(last\)$"):
        bench.build(f"FROM {BASE}\nRUN echo '{line}'; echo '{unique()}'; echo last; exit 1\n")
    assert bench.lines[2] == line


def test_secrets_are_hidden(bench: Bench) -> None:
    """A value appears as its name, in the output and in the error; short ones stay (T57)."""
    secrets = {"TOKEN": "s3cret-value", "PEM": "first line\nsecond line\n", "N": "1"}
    with pytest.raises(BuildFailed, match=r"returned 1 \(\[TOKEN\]\)") as caught:
        bench.build(
            f"FROM {BASE}\nRUN echo {unique()} 1 second line; echo s3cret-value; exit 1\n",
            secrets=secrets,
        )
    assert bench.lines[-1] == "[TOKEN]"
    assert bench.lines[-2].endswith(" 1 [PEM]")
    assert not any("s3cret" in text for text in [*bench.lines, str(caught.value)])


def test_secrets_are_no_build_arguments(bench: Bench) -> None:
    """Nothing of a secret is in the image or in a command's environment."""
    image = bench.build(
        f"FROM {BASE}\nARG TOKEN=none\nRUN echo {unique()}; echo got $TOKEN; env\n",
        secrets={"TOKEN": "s3cret-value"},
    )
    assert "got none" in bench.lines
    assert not any("[TOKEN]" in line for line in bench.lines)
    assert "s3cret" not in docker("history", "--no-trunc", image)


def test_cancel_while_nothing_is_printed(bench: Bench) -> None:
    """The build ends long before its step would, and so does its process in the engine."""
    seconds = f"{300 + time.time() % 1:.6f}"
    words = f"sleep {seconds}"
    ended: list[float] = []

    def cancelled() -> bool:
        # BuildKit's client may tell a moment after the process has begun.
        told = any(line.startswith("Step 2/2") for line in bench.lines)
        if not ended and told and running(words):
            ended.append(time.monotonic())
        return bool(ended)

    with pytest.raises(
        Cancelled, match=rf"^the build was cancelled: Step 2/2 : RUN exec {words}"
    ):
        bench.build(f"FROM {BASE}\nRUN exec {words}\n", cancelled=cancelled)
    assert time.monotonic() - ended[0] < 30
    wait_until(lambda: not running(words), "its process is gone")


def test_cancel_while_the_context_is_sent(bench: Bench) -> None:
    """A context without end is not waited for."""
    began = float("inf")  # a first build may have to find its client before

    def slow() -> Iterator[bytes]:
        nonlocal began
        began = time.monotonic()
        yield tar(f"FROM {BASE}\n")[:512]
        while True:
            time.sleep(0.05)
            yield bytes(512)

    with pytest.raises(Cancelled, match="before its first step"):
        bench.build("", context=slow(), cancelled=lambda: time.monotonic() > began + 0.5)
    assert time.monotonic() - began < 30


def test_what_the_context_raises_is_raised(bench: Bench) -> None:
    """A fault of the repository is not taken for one of the build."""

    def broken() -> Iterator[bytes]:
        yield tar(f"FROM {BASE}\n")[:512]
        raise KeyError("the tree is gone")

    with pytest.raises(KeyError, match="the tree is gone"):
        bench.build("", context=broken())


def test_timeout(bench: Bench) -> None:
    """A build that takes too long fails, and says in which step."""
    said = r"^the build took longer than 2 s \(build_timeout\) in Step 2/2 : RUN echo x; sleep"
    with pytest.raises(BuildFailed, match=said):
        bench.build(f"FROM {BASE}\nRUN echo x; sleep 301\n", limits=Limits(timeout=2))
    assert bench.lines[-1] == "x"
    wait_until(lambda: not running("sleep 301"), "its process is gone")


def test_a_flood_is_cut_and_still_ends(bench: Bench) -> None:
    """A build that prints for ever is shown so far, and ended by the time-out (T54)."""
    limits = Limits(timeout=3, flood=Flood(lines=50))
    with pytest.raises(BuildFailed, match="took longer than 3 s"):
        bench.build(f"FROM {BASE}\nRUN yes {unique()}\n", limits=limits)
    assert len(bench.lines) == 51
    assert bench.lines[-1] == "… more output is not shown"
    wait_until(lambda: not running("yes .*"), "its process is gone")


def test_the_last_line_needs_no_newline(bench: Bench) -> None:
    """It is shown as any other."""
    bench.build(f"FROM {BASE}\nRUN echo {unique()}; printf two\nRUN echo three\n")
    assert bench.lines[3:] == ["two", "Step 3/3 : RUN echo three", "three"]


def test_a_line_without_end_is_cut(bench: Bench) -> None:
    """Its beginning is shown, and what comes after it."""
    endless = f"head -c 100000 /dev/zero | tr '\\0' x; echo; echo {unique()}"
    bench.build(f"FROM {BASE}\nRUN {endless}\n")
    assert all(len(line) <= 2000 for line in bench.lines)
    assert bench.lines[-1].startswith("app-")


# The SDK forgets to close a socket that could not be connected.
@pytest.mark.parametrize("choice", ["classic", "buildkit"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_engine_goes_away(
    engine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    """A build that ends with its engine is no fault of the Dockerfile."""
    relay = Relay(tmp_path / "docker.sock")
    relay.open()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{relay.path}")
    words = f"sleep {302 + time.time() % 1:.6f}"
    with contextlib.closing(Bench(choice)) as bench:
        bench.build(f"FROM {BASE}\n")

        def cut() -> None:
            wait_until(lambda: running(words), "it runs")
            relay.close()

        down = threading.Thread(target=cut)
        down.start()
        with pytest.raises(EngineDown):
            bench.build(f"FROM {BASE}\nRUN exec {words}\n")
        down.join()
        relay.open()
        wait_until(lambda: not running(words), "its process is gone")
    relay.close()
    gc.collect()


def test_no_client_for_buildkit(engine: None) -> None:
    """Who asked for BuildKit is told what to install; "auto" builds without."""
    strict, lenient = Bench("buildkit", "/nonexistent"), Bench("auto", "/nonexistent")
    with pytest.raises(BuildFailed, match="install Docker's buildx plugin"):
        strict.build(f"FROM {BASE}\n")
    lenient.build(f"FROM {BASE}\n")
    assert lenient.lines == [f"Step 1/1 : FROM {BASE}"]
    strict.close()
    lenient.close()
