"""What goes from the disk by itself, what stays, and what was never ours to touch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support import engine
from support.agreement import containers, images, page
from support.apps import BASE, commit, files_dockerfile, make_app, unique, web_dockerfile
from support.net import wait_until
from support.paas import Paas
from support.stockgit import git


def configure(paas: Paas, *lines: str) -> None:
    """Have the [docker] section of config.toml say this, whatever it said of these keys."""
    config = paas.home / "config.toml"
    text = config.read_text()
    for line in lines:
        key = line.partition(" ")[0]
        text = re.sub(rf"^{key} = .*\n", "", text, flags=re.MULTILINE)
        text = text.replace("[docker]\n", f"[docker]\n{line}\n")
    config.write_text(text)


def versions(paas: Paas, directory: Path, count: int) -> tuple[Path, str]:
    """A service with ``count`` releases, whose pages are ``1``, ``2``, and so on."""
    name = unique()
    app = make_app(directory, files_dockerfile(name), name=name)
    for number in range(1, count + 1):
        commit(app, {"index.html": str(number)})
        paas.deploy(app, name)
    return app, name


def rolled_back(paas: Paas, name: str, *to: str) -> None:
    done = paas.ssh("rollback", name, *to)
    assert done.returncode == 0, done.stderr


def steps() -> str:
    """What was run to make the images that the engine has, untagged ones too."""
    ids = engine.docker("images", "-aq").split()
    # Others' may go in between.
    return engine.docker(
        "inspect", "-f", "{{.ContainerConfig.Cmd}}", *sorted(set(ids)), check=False
    )


def left(paas: Paas, name: str, *tags: str) -> None:
    """Wait until these images of a service are left, and no others."""
    wait_until(lambda: images(paas, name) == set(tags), f"{tags} of {images(paas, name)}")


def test_images_beyond_keep_releases_go(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """Those that served last stay, counted by image: a rollback makes an old one young.

    The live one always does, and a start of the server makes up for what was missed.
    """
    paas = new_paas()
    configure(paas, "keep_releases = 2")
    paas.start()
    app, name = versions(paas, tmp_path, 3)
    left(paas, name, "v2", "v3")
    rolled_back(paas, name)  # v4 runs what v2 built
    commit(app, {"index.html": "5"})
    assert paas.push(app, name, "main", "--force").returncode == 0
    left(paas, name, "v2", "v5")
    rolled_back(paas, name)  # v6 runs what v4 did: v2
    assert page(paas, name) == "2"
    rolled_back(paas, name, "v5")
    assert page(paas, name) == "5"
    left(paas, name, "v2", "v5")
    gone = paas.ssh("rollback", name, "v1")
    assert gone.returncode == 1
    assert "the image of v1 is gone; push its commit" in gone.stderr
    rolled_back(paas, name, "v2")
    paas.stop()
    configure(paas, "keep_releases = 1")
    paas.start()
    left(paas, name, "v2")  # however old, it serves
    assert page(paas, name) == "2"


def test_failed_attempts_cost_no_rollback_target(
    new_paas: Callable[[], Paas], tmp_path: Path
) -> None:
    """However many fail, in whatever way, what served stays and nothing of theirs does."""
    paas = new_paas()
    configure(paas, "keep_releases = 2", 'health_timeout = "8s"', 'builder = "classic"')
    paas.start()
    app, name = versions(paas, tmp_path, 2)
    good = (app / "Dockerfile").read_text()
    live = [f"{paas.namespace}.{name}.v2.1"]
    url = f"# mypaas.url=http://{name}.test\n"
    for what, code in (
        ("RUN echo on the way && false", "build-failed"),
        ("CMD false", "start-failed"),
        ("CMD sleep 60", "unhealthy"),
    ):
        commit(app, {"Dockerfile": f"FROM {BASE}\n{url}RUN echo {name} {code}\n{what}\n"})
        done = paas.push(app, name)
        assert f"({code}: " in done.stderr
        left(paas, name, "v1", "v2")
        wait_until(lambda: containers(paas, name) == live, "only v2's container is left")
    rolled_back(paas, name)
    assert page(paas, name) == "1"
    git(app, "fetch", "-q", paas.url(name), "main", env=paas.git_env())
    commit(app, {"Dockerfile": good})
    assert paas.push(app, name, "main", "--force").returncode == 0
    wait_until(lambda: name not in steps(), "the layers of failed builds are gone")


def test_a_low_disk_is_told_before_the_build(
    new_paas: Callable[[], Paas], tmp_path: Path
) -> None:
    """With the figures, where it is, and what to do."""
    paas = new_paas()
    configure(paas, 'low_disk = "900000g"')
    paas.start()
    name = unique()
    app = make_app(tmp_path, files_dockerfile(name), {"index.html": "x"})
    said = paas.deploy(app, name)
    root = engine.docker("info", "-f", "{{.DockerRootDir}}")
    warning = re.search(
        rf" !     only (\d+\.\d) of (\d+\.\d) GiB are free in {re.escape(root)}: the build may "
        r"fail; make room there, or keep fewer images \(\[docker\] keep_releases\)",
        said,
    )
    assert warning, said
    assert 0 < float(warning[1]) <= float(warning[2])
    assert warning.start() < said.index("Building")
    assert "GiB are free" in paas.cli("releases", "output", name).stdout


@contextmanager
def strangers(paas: Paas, name: str) -> Iterator[dict[str, str]]:
    """What others have in the same engine, some of it much like ours; by what it is, its id.

    None of it carries our label with our namespace.
    """
    label = ["--label", "mypaas.namespace=somebody-else"]
    dangling = engine.docker("build", "-q", "-", stdin=f"FROM {BASE}\nENV X={name}\n".encode())
    tag, near = f"stranger-{name}:v1", f"{paas.namespace}x/{name}:v1"
    engine.docker("tag", dangling, f"{tag}")
    engine.docker("build", "-q", "-t", near, "-", stdin=f"FROM {BASE}\nENV Y={name}\n".encode())
    loose = engine.docker("build", "-q", "-", stdin=f"FROM {BASE}\nENV Z={name}\n".encode())
    volume = f"{paas.namespace}-{name}-stranger"
    network = f"stranger-{name}"
    made = {
        "running": ("run", "-d", "--name", f"stranger-{name}-1", tag, "sleep", "600"),
        "stopped": ("create", "--name", f"{paas.namespace}.stranger-{name}", tag),
        "labelled": ("run", "-d", "--name", f"stranger-{name}-2", *label, tag, "sleep", "600"),
        "volume": ("volume", "create", volume),
        "network": ("network", "create", network),
    }
    try:
        yield {what: engine.docker(*argv) for what, argv in made.items()} | {
            "image": dangling,
            "near": near,
            "dangling": loose,
        }
    finally:
        names = (f"stranger-{name}-1", f"stranger-{name}-2", made["stopped"][2])
        engine.docker("rm", "-f", *names, check=False)
        engine.docker("volume", "rm", volume, check=False)
        engine.docker("network", "rm", network, check=False)
        engine.docker("rmi", "-f", tag, near, loose, check=False)


def unharmed(them: dict[str, str]) -> None:
    for what, id_ in them.items():
        kind = "volume" if what == "volume" else "network" if what == "network" else None
        engine.docker(*([kind] if kind else []), "inspect", id_)
    assert engine.inspect(them["running"])["State"]["Running"]
    assert engine.inspect(them["labelled"])["State"]["Running"]
    assert engine.inspect(them["stopped"])["State"]["Status"] == "created"


def test_strangers_are_unharmed(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """Deploys, pruning, failures, removal and a restart touch what carries our label alone."""
    paas = new_paas()
    configure(paas, "keep_releases = 1")
    paas.start()
    name = unique()
    volume = f"volume={name}-data:/data"
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", "scale=1", volume))
    with strangers(paas, name) as them:
        paas.deploy(app, name)
        unharmed(them)
        commit(app, {"x": "1"})
        paas.deploy(app, name)
        left(paas, name, "v2")
        commit(app, {"Dockerfile": f"FROM {BASE}\nRUN echo {name} && false\n"})
        assert paas.push(app, name).returncode == 1
        unharmed(them)
        paas.restart()
        unharmed(them)
        done = paas.ssh("remove", name, "--yes", "--with-repo")
        assert done.returncode == 0, done.stderr
        left(paas, name)
        paas.restart()
        unharmed(them)
        assert engine.docker("volume", "inspect", f"{paas.namespace}-{name}-data")
