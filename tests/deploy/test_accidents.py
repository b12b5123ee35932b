"""Accidents and mischief in mid-deploy: what was live serves, and the next push works."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from support import engine
from support.apps import BASE, commit, make_app, unique, web_dockerfile
from support.net import free_port, wait_until
from support.paas import MYPAAS, Paas
from support.stockgit import clean_env, git

SLOW = f"""\
# mypaas.url=http://{{name}}.test
FROM {BASE}
CMD {{command}}
"""


def set_timeout(paas: Paas, seconds: int) -> None:
    config = paas.home / "config.toml"
    config.write_text(
        config.read_text().replace('# health_timeout = "60s"', f'health_timeout = "{seconds}s"')
    )


def route_of(paas: Paas, name: str) -> str:
    return str(paas.route(name))


def test_a_broken_config_shows_no_secret(paas: Paas, tmp_path: Path) -> None:
    """The library that reads config.toml would print the values of a table told twice (T57)."""
    name = unique()
    config = paas.home / "config.toml"
    before = config.read_text()
    config.write_text(before + 'TOKEN = "s3cr3t"\n[env]\nOTHER = "s3cr3t"\n')
    try:
        done = paas.push(make_app(tmp_path, web_dockerfile("env=TOKEN")), name)
    finally:
        config.write_text(before)
    assert done.returncode == 1
    assert "is not valid TOML: [env] stands there twice" in done.stderr
    assert "s3cr3t" not in done.stderr + paas.log()


def test_a_ledger_that_cannot_be_written_at_the_switch(
    new_paas: Callable[[], Paas], tmp_path: Path
) -> None:
    """The route leads back to what was live before the new containers go."""
    paas, name = new_paas(), unique()
    paas.start()
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", "scale=1"))
    paas.deploy(app, name)
    trigger = (
        "CREATE TRIGGER full BEFORE UPDATE ON releases WHEN NEW.state = 'live' "
        "BEGIN SELECT RAISE(ABORT, 'disk full'); END"
    )
    with sqlite3.connect(paas.home / "ledger.db") as db:
        db.execute(trigger)
    db.close()
    commit(app, {"x": "1"})
    done = paas.push(app, name)
    assert done.returncode == 1
    assert "ledger-fault: " in done.stderr
    assert paas.get(f"http://{name}.test/").text == "hello\n"
    assert f"{name}.v1.1" in route_of(paas, name)
    with sqlite3.connect(paas.home / "ledger.db") as db:
        db.execute("DROP TRIGGER full")
    db.close()
    paas.deploy(app, name)


def test_ctrl_c_at_the_gate(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """An interrupted server deploy ends at once, and the old container serves again."""
    paas, name = new_paas(), unique()
    paas.start()
    directory = tmp_path / "files"
    directory.mkdir()
    good = web_dockerfile(f"service={name}", f"url=http://{name}.test")
    (directory / "Dockerfile").write_text(good)
    assert paas.cli("server", "deploy", str(directory)).returncode == 0
    (directory / "Dockerfile").write_text(good.rsplit("CMD", 1)[0] + "CMD exec sleep 100\n")
    with subprocess.Popen(
        [MYPAAS, "server", "deploy", str(directory)],
        env=paas.env(),
        stderr=subprocess.PIPE,
        text=True,
    ) as deploying:
        assert deploying.stderr is not None
        for line in deploying.stderr:
            if "Starting 1 container" in line:
                break
        time.sleep(1)
        began = time.monotonic()
        deploying.send_signal(signal.SIGTERM)
        deploying.stderr.read()
    assert deploying.returncode == 130
    assert time.monotonic() - began < 30, "it waited for its timeout"
    assert paas.get(f"http://{name}.test/").text == "hello\n"
    assert "failed (cancelled)" in paas.cli("releases", name).stdout


def test_killed_with_a_port_published(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """What a killed deploy started does not keep the port from the release before."""
    paas, name, port = new_paas(), unique(), free_port()
    paas.start()
    directives = (f"url=http://{name}.test", f"publish=127.0.0.1:{port}:80")
    app = make_app(tmp_path, web_dockerfile(*directives))
    paas.deploy(app, name)
    stuck = web_dockerfile(*directives).rsplit("CMD", 1)[0] + "CMD exec sleep 100\n"
    commit(app, {"Dockerfile": stuck})
    with subprocess.Popen(
        ["git", "-C", str(app), "push", paas.url(name), "main"],
        env=clean_env(paas.git_env()),
        stderr=subprocess.DEVNULL,
    ) as pushing:
        new = f"{paas.namespace}.{name}.v2.1"
        wait_until(
            lambda: new in engine.docker("ps", "--format", "{{.Names}}").split(), "v2 runs"
        )
        paas.stop(signal.SIGKILL)
        pushing.wait(30)
    paas.start()
    wait_until(lambda: paas.get(f"http://{name}.test/").status == 200, "v1 serves again")
    assert engine.containers(paas.namespace, f"label=mypaas.service={name}") == [
        f"{paas.namespace}.{name}.v1.1"
    ]


def test_an_app_that_dribbles(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """Neither a byte now and then nor endless 1xx answers hold a deploy up (T59)."""
    paas = new_paas()
    set_timeout(paas, 3)
    paas.start()
    dribble = "while true; do printf x; sleep 0.3; done"
    endless = (
        "while true; do printf 'HTTP/1.1 100 Continue\\\\r\\\\n\\\\r\\\\n'; sleep 0.1; done"
    )
    for what in (dribble, endless):
        name = unique()
        command = f'echo "{what}" > /s; while true; do nc -l -p 80 -e sh /s; done'
        app = make_app(tmp_path, SLOW.format(name=name, command=command), name=name)
        done = paas.push(app, name, seconds=30)
        assert done.returncode == 1
        assert "(unhealthy: " in done.stderr


def test_a_replica_that_dies_while_others_start(paas: Paas, tmp_path: Path) -> None:
    """Healthy once is not enough: it has to run when the release goes live."""
    name = unique()
    fickle = (
        'if [ "${MYPAAS_CONTAINER##*.}" = 1 ]; then (sleep 1.5; kill -9 $$) & '
        "else sleep 4; fi; exec httpd -f -p 80 -h /www"
    )
    dockerfile = web_dockerfile(f"url=http://{name}.test", "scale=2").rsplit("CMD", 1)[0]
    # A shell stays process 1's parent: the kernel would spare process 1 itself.
    app = make_app(
        tmp_path,
        dockerfile + f"RUN echo '{fickle}' > /run.sh\nCMD sh /run.sh; exit 3\n",
    )
    done = paas.push(app, name)
    assert done.returncode == 1
    assert re.search(rf"\(start-failed: {name}\.v1\.1 exited", done.stderr), done.stderr


def test_labels_of_strangers(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """A container that only carries labels of ours is nobody's replica (T49)."""
    paas, name = new_paas(), unique()
    paas.start()
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test"))
    paas.deploy(app, name)
    stranger = f"stranger-{name}"
    labels = ("mypaas.role=replica", f"mypaas.service={name}", "mypaas.release=zzz")
    options = [part for each in labels for part in ("--label", each)]
    engine.docker("run", "-d", "--name", stranger, *options, f"{paas.namespace}/{name}:v1")
    try:
        assert paas.cli("services").returncode == 0
        paas.restart()
        commit(app, {"x": "1"})
        paas.deploy(app, name)
        assert engine.inspect(stranger)["State"]["Running"]
    finally:
        engine.docker("rm", "-f", stranger)


def test_images_of_strangers(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """An image that only has a name like ours outlives pruning; our own old ones do not."""
    paas, name = new_paas(), unique()
    config = paas.home / "config.toml"
    config.write_text(config.read_text().replace("# keep_releases = 5", "keep_releases = 1"))
    paas.start()
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test"))
    repository = f"{paas.namespace}/{name}"
    engine.docker("tag", BASE, f"{repository}:v99")
    for number in range(2):
        commit(app, {"x": str(number)})
        paas.deploy(app, name)

    def tags() -> set[str]:
        return set(engine.docker("images", repository, "--format", "{{.Tag}}").split())

    wait_until(lambda: "v1" not in tags(), "v1's image is gone")
    assert tags() == {"v2", "v99"}


def test_a_log_that_cannot_be_kept(paas: Paas, tmp_path: Path) -> None:
    """A good deploy is not failed by the disk of its log."""
    name = unique()
    (paas.home / "logs" / name).write_text("in the way")
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test"))
    assert f"{name} v1 is live" in paas.deploy(app, name)
    gone = paas.cli("releases", "output", name)
    assert gone.returncode == 1
    assert len(gone.stderr.splitlines()) == 1
    assert "cannot be read: Not a directory" in gone.stderr


def test_a_locked_branch(paas: Paas, tmp_path: Path) -> None:
    """Nothing is deployed that the branch could not name; an old lock is cleared (T28)."""
    name = unique()
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test"))
    paas.deploy(app, name)
    lock = paas.home / "repos" / f"{name}.git" / "refs" / "heads" / "main.lock"
    lock.touch()
    commit(app, {"x": "1"})
    done = paas.push(app, name)
    assert done.returncode == 1
    assert "locked by another program" in done.stderr
    assert "v1 still live" in done.stderr
    os.utime(lock, (time.time() - 3600,) * 2)
    paas.deploy(app, name)
    tip = git(app, "ls-remote", paas.url(name), "main", env=paas.git_env()).stdout[:40]
    assert tip == git(app, "rev-parse", "HEAD").stdout.strip()


def test_a_volume_that_cannot_be_made(paas: Paas, tmp_path: Path) -> None:
    """A file is mounted as a file; a directory below a file is refused with its path."""
    name = unique()
    (paas.user_home / name).write_text("a file\n")
    url = f"url=http://{name}.test"
    app = make_app(tmp_path, web_dockerfile(url, f"volume=~/{name}:/www/note:ro"))
    paas.deploy(app, name)
    assert paas.get(f"http://{name}.test/note").text == "a file\n"
    commit(app, {"Dockerfile": web_dockerfile(url, f"volume=~/{name}/below:/x")})
    done = paas.push(app, name)
    assert re.search(rf"start-failed: the volume \S+/{name}/below cannot be made", done.stderr)
    assert paas.get(f"http://{name}.test/").text == "hello\n"


def test_a_removed_traefik_comes_back(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """A push that finds no Traefik, or a silent one, waits until it is back."""
    paas, name = new_paas(), unique()
    paas.start()
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", "scale=1"))
    paas.deploy(app, name)
    for harm in (("rm", "-f"), ("pause",)):
        engine.docker(*harm, f"{paas.namespace}-traefik")
        commit(app, {"x": harm[0]})
        paas.deploy(app, name)
        assert paas.get(f"http://{name}.test/").text == "hello\n"


def test_a_dead_replica_is_brought_back_first(paas: Paas, tmp_path: Path) -> None:
    """A push finds the live release stopped: a failing deploy leaves it running."""
    name = unique()
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", "scale=1"))
    paas.deploy(app, name)
    engine.docker("stop", "-t", "0", f"{paas.namespace}.{name}.v1.1")
    commit(app, {"Dockerfile": f"FROM {BASE}\nRUN exit 1\n"})
    done = paas.push(app, name)
    assert done.returncode == 1
    wait_until(lambda: paas.get(f"http://{name}.test/").status == 200, "v1 serves again")


def test_a_release_that_cannot_be_brought_back(paas: Paas, tmp_path: Path) -> None:
    """With container and image gone there is nothing to repair, and the next push works."""
    name = unique()
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", "scale=1"))
    paas.deploy(app, name)
    engine.docker("rm", "-f", f"{paas.namespace}.{name}.v1.1")
    engine.docker("rmi", "-f", f"{paas.namespace}/{name}:v1")
    commit(app, {"x": "1"})
    paas.deploy(app, name)
    assert paas.get(f"http://{name}.test/").text == "hello\n"


def test_an_unforeseen_error_is_one_line(paas: Paas) -> None:
    """People get a line, the admin a file with the rest."""
    broken = paas.root / "broken"
    broken.mkdir()
    (broken / "config.toml").write_text("")
    (broken / "ledger.db").mkdir()
    done = subprocess.run(
        [MYPAAS, "services"],
        env=paas.env({"MYPAAS_HOME": str(broken)}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_rivals_for_a_url_at_once(paas: Paas, tmp_path: Path) -> None:
    """Of services that claim one address at the same time, one gets it (T47)."""
    host, names = unique("rival"), [unique() for _ in range(3)]
    pushing = []
    for name in names:
        app = make_app(
            tmp_path, web_dockerfile(f"url=http://{host}.test", page=name), name=name
        )
        pushing.append(
            subprocess.Popen(
                ["git", "-C", str(app), "push", paas.url(name), "main"],
                env=clean_env(paas.git_env()),
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    said = [each.communicate(timeout=120)[1] for each in pushing]
    won = [name for name, each in zip(names, pushing, strict=True) if each.returncode == 0]
    assert len(won) == 1, said
    assert paas.get(f"http://{host}.test/").text == won[0]
    assert sum(f"belongs to the service '{won[0]}'" in each for each in said) == 2


def test_what_a_crash_left_in_the_home(new_paas: Callable[[], Paas], tmp_path: Path) -> None:
    """A start removes what the dead were writing, and is kept up by none of it."""
    paas, name = new_paas(), unique()
    paas.start()
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", "scale=1"))
    paas.deploy(app, name)
    paas.stop()
    repository = paas.home / "repos" / f"{name}.git"
    tag = git(repository, "rev-parse", "refs/tags/release/v1").stdout.strip()
    git(repository, "tag", "-d", "release/v1")
    loose = repository / "objects" / tag[:2] / tag[2:]
    loose.unlink()
    left = [
        repository / "objects" / "incoming-dead",
        paas.home / "repos" / ".new-dead",
        repository / "refs" / "heads" / "main.lock",
        loose.with_name(f"{tag[2:]}.lock"),
        repository / "objects" / "pack" / "tmp_pack_dead",
        repository / "objects" / "pack" / f"pack-{'0' * 40}.pack",
        paas.home / ".authorized_keys.dead.new",
        paas.home / "routes" / "unfinished" / "._services.yml.dead.new",
        paas.home / "locks" / f".{name}.newest.dead.new",
    ]
    for path in left[:2]:
        path.mkdir()
    for path in left[2:]:
        path.touch()
    paas.start()
    assert [path for path in left if path.exists()] == []
    assert git(repository, "rev-parse", "refs/tags/release/v1").stdout.strip() == tag


def test_a_context_that_docker_cannot_take(paas: Paas, tmp_path: Path) -> None:
    """What the builder says late, about the files it got, is the build's failure."""
    name, long = unique(), "x" * 300
    app = make_app(tmp_path, web_dockerfile())
    # No file system has room for the name, so the tree is made without one.
    blob = git(app, "hash-object", "-w", "--stdin", stdin="x").stdout.strip()
    listed = git(app, "ls-tree", "HEAD").stdout + f"100644 blob {blob}\t{long}\n"
    tree = git(app, "mktree", stdin=listed).stdout.strip()
    made = git(app, "commit-tree", tree, "-m", "long").stdout.strip()
    done = paas.push(app, name, f"{made}:refs/heads/main")
    assert done.returncode == 1
    assert re.search(r"\(build-failed: .*file name too long", done.stderr), done.stderr


def test_a_pusher_who_stops_reading(paas: Paas, tmp_path: Path) -> None:
    """The deploy goes on without an audience, and the next pusher need not wait long (T14)."""
    name = unique()
    # Far more than the client's window and its pipe take, and never from the cache.
    line = f"{name}-" + "x" * 60
    run = f"i=0; while [ $i -lt 90000 ]; do i=$((i+1)); echo $i {line}; done"
    chatty = web_dockerfile(f"url=http://{name}.test", run=run)
    app = make_app(tmp_path, chatty)
    with subprocess.Popen(
        ["git", "-C", str(app), "push", paas.url(name), "main"],
        env=clean_env(paas.git_env()),
        stderr=subprocess.PIPE,  # and nobody reads it
    ) as pushing:
        try:
            wait_until(
                lambda: "live" in paas.cli("releases", name).stdout,
                "it is live",
                seconds=60,
                every=0.5,
            )
        finally:
            pushing.kill()
    assert paas.get(f"http://{name}.test/").text == "hello\n"
