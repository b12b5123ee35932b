"""What only BuildKit can do."""

from __future__ import annotations

import contextlib
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.apps import BASE, unique
from support.builds import Bench
from support.engine import docker
from support.net import wait_until

from mypaas_git.errors import BuildFailed


def test_a_cache_mount_lasts(buildkit: Bench) -> None:
    """What one build puts there the next one of the service finds, and no other service."""
    cache = f"--mount=type=cache,id={unique()},target=/cache"
    mine, other = unique(), unique("other")
    seen = []
    for number, service in enumerate((mine, mine, other), 1):
        run = f"echo {number} >> /cache/log; tr '\\n' ' ' < /cache/log"
        buildkit.build(f"FROM {BASE}\nRUN {cache} {run}\n", service=service, release=number)
        seen.append(buildkit.lines[-1])
    assert seen == ["1", "1 2", "3"]


def test_secrets_can_be_mounted(buildkit: Bench) -> None:
    """Their values come neither into the image nor into the output, nor to the client's own
    variables of the same name.
    """
    secrets = {"TOKEN": "s3cret-value", "PATH": "/s3cret", "DOCKER_HOST": "tcp://s3cret:1"}
    mounts = " ".join(f"--mount=type=secret,id={key}" for key in secrets)
    image = buildkit.build(
        f"FROM {BASE}\nRUN {mounts} echo {unique()}; cat /run/secrets/TOKEN; echo; "
        "wc -c < /run/secrets/PATH; wc -c < /run/secrets/DOCKER_HOST; env\n",
        secrets=secrets,
    )
    assert buildkit.lines[3:6] == ["[TOKEN]", "7", "14"]
    assert not any("s3cret" in line for line in buildkit.lines)
    assert "s3cret" not in docker("history", "--no-trunc", image)
    assert "s3cret" not in str(buildkit.client.image(image))


def test_secrets_are_on_no_command_line(buildkit: Bench) -> None:
    """While a build runs, nobody on the host can read one off the list of processes."""
    seen: list[tuple[bool, bool]] = []

    def cancelled() -> bool:
        listed = subprocess.run(
            ["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True
        )
        seen.append(("id=TOKEN" in listed.stdout, "s3cret-value" in listed.stdout))
        return False

    buildkit.build(
        f"FROM {BASE}\nRUN sleep 0.5; echo {unique()}\n",
        secrets={"TOKEN": "s3cret-value"},
        cancelled=cancelled,
    )
    assert (True, False) in seen
    assert not any(leaked for _, leaked in seen)


def test_a_secret_that_is_not_there(buildkit: Bench) -> None:
    """It is named, with the step that wants it."""
    with pytest.raises(BuildFailed, match=r"^Step 2/2 : RUN .*: secret NOPE not found"):
        buildkit.build(f"FROM {BASE}\nRUN --mount=type=secret,id=NOPE,required true\n")


def test_stages_are_named(buildkit: Bench) -> None:
    """Each step says to which it belongs."""
    buildkit.build(
        f"FROM {BASE} AS base\nRUN echo {unique()} > /x\nFROM {BASE}\nCOPY --from=base /x /\n"
    )
    steps = [line for line in buildkit.lines if line.startswith("Step ")]
    assert any(f"FROM {BASE}" in line for line in buildkit.lines)
    assert any(step.endswith(" [base]") and "RUN echo" in step for step in steps)
    assert steps[-1] == "Step 2/2 : COPY --from=base /x / [stage-1]"


def test_builds_at_the_same_time_do_not_mix(buildkit: Bench) -> None:
    """What they share BuildKit gives the name of the first; none is shown another's count."""
    with contextlib.closing(Bench("buildkit")) as other, ThreadPoolExecutor(1) as pool:
        longer = f"FROM {BASE} AS theirs\nRUN sleep 2; echo {unique()}\nRUN true\n"
        going = pool.submit(other.build, longer)
        wait_until(lambda: len(other.lines) > 1, "the other build is at its second step")
        buildkit.build(f"FROM {BASE}\nRUN echo {unique()}\n")
        assert not going.done()
        going.result()
    assert buildkit.lines[0] == f"Step 1/2 : FROM {BASE}"


def test_a_failed_build_leaves_no_layers(buildkit: Bench) -> None:
    """There is nothing to be kept in mind: BuildKit's cache is the engine's to clear up."""
    with pytest.raises(BuildFailed):
        buildkit.build(f"FROM {BASE}\nRUN echo {unique()} > /x\nRUN exit 1\n")
    assert buildkit.kept == []
