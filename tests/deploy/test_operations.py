"""Rollback, redeploy, restart, stop, start, remove: over ssh, by the real thing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support import engine
from support.apps import commit, make_app, unique, web_dockerfile
from support.keys import ssh_key
from support.net import wait_until
from support.paas import Paas
from support.stockgit import git


def releases(paas: Paas, name: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(paas.ssh("releases", name, "--json").stdout)
    return found


def tip(paas: Paas, app: Path, name: str) -> str:
    return git(app, "ls-remote", paas.url(name), "main", env=paas.git_env()).stdout[:40]


def deployed(paas: Paas, tmp_path: Path, *pages: str, scale: int = 1) -> tuple[Path, str]:
    """A service with one release a page."""
    name = unique()
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", f"scale={scale}"))
    for page in pages:
        directives = (f"url=http://{name}.test", f"scale={scale}", f"env=PAGE={page}")
        commit(app, {"Dockerfile": web_dockerfile(*directives, page=page)})
        paas.deploy(app, name)
    return app, name


def page(paas: Paas, name: str) -> str:
    return paas.get(f"http://{name}.test/").text


def containers(paas: Paas, name: str) -> list[str]:
    return engine.containers(paas.namespace, f"label=mypaas.service={name}")


@pytest.mark.parametrize("scale", [0, 2])
def test_rollback_serves_the_release_before(paas: Paas, tmp_path: Path, scale: int) -> None:
    """Old image, old spec, branch moved, nothing built, and it is a release of its own."""
    app, name = deployed(paas, tmp_path, "one", "two", scale=scale)
    done = paas.ssh("rollback", name)
    assert done.returncode == 0, done.stderr
    assert "Building" not in done.stderr
    assert f"{name} v3 is live in" in done.stderr
    assert page(paas, name) == "one"
    assert tip(paas, app, name) == git(app, "rev-parse", "HEAD^").stdout.strip()
    live, before = releases(paas, name)[:2]
    assert (live["release"], live["state"], live["action"], live["restores"]) == (
        "v3",
        "live",
        "rollback",
        "v1",
    )
    assert before["state"] == "retired"
    assert "PAGE=one" in engine.inspect(f"{paas.namespace}.{name}.v3.1")["Config"]["Env"]


def test_rollbacks_in_a_row_go_further_back(paas: Paas, tmp_path: Path) -> None:
    """Not to and fro: each restores what was before the one that the live release restores."""
    app, name = deployed(paas, tmp_path, "one", "two", "three")
    for expected in ("two", "one"):
        assert paas.ssh("rollback", name).returncode == 0
        assert page(paas, name) == expected
        assert paas.ssh("restart", name).returncode == 0, "which makes no difference"
    done = paas.ssh("rollback", name)
    assert done.returncode == 1
    assert "no release before v1, which v7 restores; name one" in done.stderr
    assert page(paas, name) == "one"
    assert paas.ssh("rollback", name, "v3").returncode == 0
    assert paas.ssh("rollback", name).returncode == 0
    assert page(paas, name) == "two", "before v3, whatever was live meanwhile"
    commit(app, {"Dockerfile": web_dockerfile(f"url=http://{name}.test", page="four")})
    paas.deploy(app, name)
    assert paas.ssh("rollback", name).returncode == 0
    assert page(paas, name) == "two", "what was live before the push"


def test_rollback_to_a_named_release_and_what_is_none(paas: Paas, tmp_path: Path) -> None:
    """Any release that served can be named; what cannot be restored is told in one line."""
    app, name = deployed(paas, tmp_path, "one", "two", "three")
    assert paas.ssh("rollback", name, "v1").returncode == 0
    assert page(paas, name) == "one"
    commit(app, {"Dockerfile": web_dockerfile(f"url=http://{name}.test", run="exit 1")})
    git(app, "fetch", "-q", paas.url(name), "main", env=paas.git_env())
    assert paas.push(app, name).returncode == 1
    for argument, said in (
        ("v4", "v4 is live"),
        ("v5", "v5 never was live (build-failed)"),
        ("v99", f"{name} has no release v99"),
        ("x", "'x' is not the name of a release"),
    ):
        done = paas.ssh("rollback", name, argument)
        assert done.returncode == (2 if argument == "x" else 1)
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert page(paas, name) == "one"


def test_the_next_push_is_told_of_the_rollback(paas: Paas, tmp_path: Path) -> None:
    """Whoever pushes on learns that their last commits were taken back, and by whom."""
    app, name = deployed(paas, tmp_path, "one", "two")
    assert paas.ssh("rollback", name).returncode == 0
    commit(app, {"x": "1"})
    said = paas.deploy(app, name)
    assert re.search(rf" !     {name} was rolled back by admin at .*: v3 restores v1", said)
    assert page(paas, name) == "two"


def test_a_first_release_has_none_before(paas: Paas, tmp_path: Path) -> None:
    """There is nothing to go back to, and it goes on serving."""
    _, name = deployed(paas, tmp_path, "one")
    done = paas.ssh("rollback", name)
    assert done.returncode == 1
    assert "there is no release before v1" in done.stderr
    assert page(paas, name) == "one"


def test_a_rollback_that_fails_changes_nothing(paas: Paas, tmp_path: Path) -> None:
    """An image that is gone is told with the commit to push."""
    app, name = deployed(paas, tmp_path, "one", "two")
    engine.docker("rmi", "-f", f"{paas.namespace}/{name}:v1")
    done = paas.ssh("rollback", name)
    assert done.returncode == 1
    commit_id = git(app, "rev-parse", "--short=7", "HEAD^").stdout.strip()
    assert f"the image of v1 is gone; push its commit {commit_id} again" in done.stderr
    assert "v2 still live" in done.stderr
    assert page(paas, name) == "two"
    assert tip(paas, app, name) == git(app, "rev-parse", "HEAD").stdout.strip()


def test_restarts_keep_the_images_of_earlier_releases(
    new_paas: Callable[[], Paas], tmp_path: Path
) -> None:
    """What counts for keep_releases is images: restarting often loses no rollback target."""
    paas = new_paas()
    config = paas.home / "config.toml"
    config.write_text(config.read_text().replace("# keep_releases = 5", "keep_releases = 2"))
    paas.start()
    _, name = deployed(paas, tmp_path, "one", "two")
    for _ in range(3):
        done = paas.ssh("restart", name)
        assert done.returncode == 0, done.stderr
    assert containers(paas, name)[-1].endswith(".v5.1")
    assert page(paas, name) == "two"
    done = paas.ssh("rollback", name)
    assert done.returncode == 0, done.stderr
    assert page(paas, name) == "one", "a restart is the same release still"


def test_redeploy_builds_with_the_variables_of_today(
    new_paas: Callable[[], Paas], tmp_path: Path
) -> None:
    """The same commit, a new image, the secret's new value; rollback brings the old one."""
    paas, name = new_paas(), unique()
    config = paas.home / "config.toml"
    before = config.read_text()
    config.write_text(before + 'TOKEN = "old"\n')
    paas.start()
    directives = (f"url=http://{name}.test", "scale=1", "env=TOKEN")
    app = make_app(tmp_path, web_dockerfile(*directives))
    paas.deploy(app, name)
    config.write_text(before + 'TOKEN = "new"\n')
    done = paas.ssh("redeploy", name)
    assert done.returncode == 0, done.stderr
    assert "Building" in done.stderr
    assert "TOKEN=new" in engine.inspect(f"{paas.namespace}.{name}.v2.1")["Config"]["Env"]
    assert tip(paas, app, name) == git(app, "rev-parse", "HEAD").stdout.strip()
    assert paas.ssh("rollback", name).returncode == 0
    assert "TOKEN=old" in engine.inspect(f"{paas.namespace}.{name}.v3.1")["Config"]["Env"]


def test_stop_and_start(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """A stopped service stays stopped, over restarts of the server, until it is started."""
    paas = new_paas()
    paas.start()
    _, name = deployed(paas, tmp_path, "one", scale=2)
    assert f"{name} v1 runs already" in paas.ssh("start", name).stderr
    assert page(paas, name) == "one"
    assert paas.ssh("stop", name).stderr.endswith(f"=====> {name} v1 is stopped\n")
    assert f"{name} v1 is stopped already" in paas.ssh("stop", name).stderr
    assert paas.get(f"http://{name}.test/").status == 503
    assert json.loads(paas.ssh("status", name, "--json").stdout)["health"] == "stopped"
    doctor = paas.cli("server", "doctor")
    assert doctor.returncode == 0, "a stop is meant"
    assert re.search(rf"ok +{name} +stopped; mypaas start {name}", doctor.stdout)
    paas.restart()
    states = [engine.inspect(each)["State"]["Running"] for each in containers(paas, name)]
    assert states == [False, False]
    assert paas.get(f"http://{name}.test/").status == 503
    done = paas.ssh("start", name)
    assert done.returncode == 0, done.stderr
    assert "v1.2 healthy after" in done.stderr
    assert page(paas, name) == "one"
    assert paas.ssh("stop", name).returncode == 0
    assert paas.ssh("restart", name).returncode == 0
    assert page(paas, name) == "one"


def test_a_push_starts_a_stopped_service(paas: Paas, tmp_path: Path) -> None:
    """A deploy is meant to serve; what was stopped goes."""
    app, name = deployed(paas, tmp_path, "one")
    assert paas.ssh("stop", name).returncode == 0
    commit(app, {"x": "1"})
    paas.deploy(app, name)
    assert page(paas, name) == "one"
    wait_until(
        lambda: containers(paas, name) == [f"{paas.namespace}.{name}.v2.1"], "v1 is gone"
    )


def test_remove_leaves_repository_and_volumes(paas: Paas, tmp_path: Path) -> None:
    """Containers, images and routes go; a push brings the service back, under a new number."""
    name = unique()
    directives = (f"url=http://{name}.test", "scale=1", f"volume={name}-data:/data")
    app = make_app(tmp_path, web_dockerfile(*directives))
    paas.deploy(app, name)
    assert paas.ssh("remove", name).returncode == 2, "it has to be meant"
    assert page(paas, name) == "hello\n"
    done = paas.ssh("remove", name, "--yes")
    assert done.returncode == 0, done.stderr
    assert containers(paas, name) == []
    assert engine.docker("images", "-q", f"{paas.namespace}/{name}") == ""
    assert paas.get(f"http://{name}.test/").status == 404
    assert name not in paas.ssh("services").stdout
    assert engine.docker("volume", "ls", "-q", "--filter", f"name={paas.namespace}-{name}-data")
    assert (paas.home / "repos" / f"{name}.git").is_dir()
    commit(app, {"x": "1"})
    assert f"{name} v2 is live" in paas.deploy(app, name)


def test_a_removed_service_is_no_dead_end(paas: Paas, tmp_path: Path) -> None:
    """It is told to be removed, its history can be read, and what is kept be removed too."""
    app, name = deployed(paas, tmp_path, "one")
    assert paas.ssh("remove", name, "--yes").returncode == 0
    status = paas.ssh("status", name)
    assert re.search(r"health +removed\nkept +history, repository\n", status.stdout)
    assert f"mypaas remove {name} --yes --with-repo" in status.stderr
    told = json.loads(paas.ssh("status", name, "--json").stdout)
    assert (told["health"], told["kept"]) == ("removed", ["history", "repository"])
    history = paas.ssh("releases", name)
    assert "v1" in history.stdout
    assert f"{name} is removed; a push deploys it again, or: mypaas redeploy" in history.stderr
    assert f"{name} v1 is live" in paas.ssh("releases", "output", name).stdout
    assert name in paas.ssh("services", "--all").stdout
    assert name not in paas.ssh("services").stdout
    for verb in ("rollback", "restart", "logs"):
        done = paas.ssh(verb, name)
        assert done.returncode == 1
        assert f"{name} was removed; a push deploys it again" in done.stderr
    again = paas.ssh("remove", name, "--yes")
    assert again.returncode == 0
    assert "--with-repo removes what is kept: history, repository" in again.stderr
    assert "Everything up-to-date" in paas.push(app, name).stderr, "a push is no way back"
    done = paas.ssh("redeploy", name)
    assert done.returncode == 0, done.stderr
    assert page(paas, name) == "one"
    assert paas.ssh("remove", name, "--yes").returncode == 0
    assert "kept for the next push of" in paas.ssh("config", "set", name, "A=1").stderr
    done = paas.ssh("remove", name, "--yes", "--with-repo")
    assert done.returncode == 0, done.stderr
    for left in (f"repos/{name}.git", f"logs/{name}", f"config/{name}.json"):
        assert not (paas.home / left).exists()
    assert "there is no service" in paas.ssh("status", name).stderr
    assert "there is no service" in paas.ssh("remove", name, "--yes", "--with-repo").stderr
    assert f"{name} v1 is live" in paas.deploy(app, name)


def test_a_repository_that_was_never_deployed(paas: Paas, tmp_path: Path) -> None:
    """A first push that is refused leaves what it sent; that can be removed as well."""
    name = unique("unborn")
    app = make_app(tmp_path, files={"README": "no Dockerfile"})
    assert "dockerfile-missing" in paas.push(app, name).stderr
    assert "kept  " in paas.ssh("status", name).stdout
    done = paas.ssh("remove", name, "--yes", "--with-repo")
    assert done.returncode == 0, done.stderr
    assert not (paas.home / "repos" / f"{name}.git").exists()
    assert paas.ssh("status", name).returncode == 1


def test_remove_with_the_repository(paas: Paas, tmp_path: Path) -> None:
    """Nothing is left but volumes, and the name is as good as new."""
    app, name = deployed(paas, tmp_path, "one", "two")
    done = paas.ssh("remove", name, "--yes", "--with-repo")
    assert done.returncode == 0, done.stderr
    assert not (paas.home / "repos" / f"{name}.git").exists()
    assert not (paas.home / "logs" / name).exists()
    assert paas.ssh("releases", name).returncode == 1
    assert f"{name} v1 is live" in paas.deploy(app, name)


def test_only_admins_remove(paas: Paas, tmp_path: Path) -> None:
    """A plain deployer may roll back and restart, and remove nothing."""
    _, name = deployed(paas, tmp_path, "one")
    key = ssh_key(tmp_path, "bob")
    added = paas.ssh("keys", "add", "bob", "-", stdin=key.with_suffix(".pub").read_text())
    assert added.returncode == 0, added.stderr
    try:
        assert paas.ssh("restart", name, key=key).returncode == 0
        done = paas.ssh("remove", name, "--yes", key=key)
        assert done.returncode == 1
        assert "takes an admin's key" in done.stderr
        assert page(paas, name) == "one"
    finally:
        paas.ssh("keys", "remove", "bob")


def test_every_release_is_a_tag(paas: Paas, tmp_path: Path) -> None:
    """`git fetch --tags` tells what was live when, and who deployed it."""
    app, name = deployed(paas, tmp_path, "one", "two")
    assert paas.ssh("rollback", name).returncode == 0
    git(app, "fetch", "-q", "--tags", paas.url(name), env=paas.git_env())
    shown = git(app, "tag", "-l", "-n9", "release/*").stdout
    assert re.search(rf"release/v1 +{name} v1\n\s+Pushed by admin \(SHA256:", shown), shown
    assert re.search(r"Rollback of v1 by admin .*, live since 20\d\d-", shown), shown
    assert git(app, "cat-file", "-t", "release/v3").stdout.strip() == "tag"
    first, third = (
        git(app, "rev-parse", f"release/{label}^{{}}").stdout for label in ("v1", "v3")
    )
    assert first == third
    repository = paas.home / "repos" / f"{name}.git"
    assert git(repository, "fsck", "--strict").returncode == 0
