"""hooks/post-receive in a bare repository that another git server exposes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import engine
from support.apps import BASE, commit, make_app, unique, web_dockerfile
from support.net import wait_until
from support.paas import MYPAAS, Paas
from support.sshd import Sshd
from support.stockgit import clean_env, git, ssh_command, ssh_options

from mypaas_git.directives.model import EnvVar, ServiceSpec
from mypaas_git.errors import DirectivesInvalid
from mypaas_git.hook import PostReceive
from mypaas_git.names import ServiceName

HOOK = Path(__file__).resolve().parent.parent / "hooks" / "post-receive"


@pytest.fixture
def bare(paas: Paas, tmp_path: Path) -> Path:
    """A bare repository of stock git, with our hook."""
    path = tmp_path / f"{unique()}.git"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(path))
    (path / "hooks" / "post-receive").symlink_to(HOOK)
    return path


def hook_env(paas: Paas) -> dict[str, str]:
    return paas.env({"MYPAAS": MYPAAS})


def test_a_push_to_a_path_deploys(paas: Paas, bare: Path, tmp_path: Path) -> None:
    """git push /srv/app.git main deploys as our own server does."""
    name = bare.stem
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test"))
    done = git(app, "push", str(bare), "main", env=hook_env(paas), check=False)
    assert done.returncode == 0
    assert f"=====> {name} v1 is live" in done.stderr
    assert paas.get(f"http://{name}.test/").text == "hello\n"


def test_a_failed_deploy_puts_the_branch_back(paas: Paas, bare: Path, tmp_path: Path) -> None:
    """Also a new branch; the same commit can be pushed again, and a good one deploys."""
    name = bare.stem
    app = make_app(tmp_path, f"FROM {BASE}\nRUN exit 1\n")
    done = git(app, "push", str(bare), "main", env=hook_env(paas), check=False)
    assert "build-failed" in done.stderr
    assert "nothing is live yet" in done.stderr
    assert git(bare, "branch", "--list").stdout == ""

    good = commit(app, {"Dockerfile": web_dockerfile(f"url=http://{name}.test")})
    git(app, "push", str(bare), "main", env=hook_env(paas))
    commit(app, {"Dockerfile": f"FROM {BASE}\n# mypaas.ulr=x\n"})
    for _ in range(2):
        done = git(app, "push", str(bare), "main", env=hook_env(paas), check=False)
        assert "did you mean 'mypaas.url'" in done.stderr
        assert "still live" in done.stderr
        assert git(bare, "rev-parse", "main").stdout.strip() == good
    assert paas.get(f"http://{name}.test/").text == "hello\n"


def test_without_a_usable_home(paas: Paas, bare: Path, tmp_path: Path) -> None:
    """A hook that cannot deploy says so, and the branch does not pretend otherwise."""
    app = make_app(tmp_path, web_dockerfile())
    env = hook_env(paas) | {"MYPAAS_HOME": str(tmp_path / "nowhere")}
    done = git(app, "push", str(bare), "main", env=env, check=False)
    assert "remote:  !     settings-invalid: there is no" in done.stderr
    assert "nothing was deployed" in done.stderr
    assert "main is not there again" in done.stderr
    assert git(bare, "branch", "--list").stdout == ""


def test_a_tag_needs_no_home(paas: Paas, bare: Path, tmp_path: Path) -> None:
    """What would not be deployed anyway is stored, whatever state the home is in."""
    app = make_app(tmp_path, web_dockerfile())
    git(app, "tag", "v1.0")
    env = hook_env(paas) | {"MYPAAS_HOME": str(tmp_path / "nowhere")}
    git(app, "push", str(bare), "v1.0", env=env)
    assert git(bare, "tag", "--list").stdout.strip() == "v1.0"


def test_the_pusher_does_not_wait_for_old_containers(
    paas: Paas, bare: Path, tmp_path: Path
) -> None:
    """They stop in the background, also when no server of ours takes the push."""
    name = bare.stem
    stubborn = web_dockerfile(f"url=http://{name}.test", "scale=1") + "STOPSIGNAL SIGTERM\n"
    app = make_app(tmp_path, stubborn)
    git(app, "push", str(bare), "main", env=hook_env(paas))
    commit(app, {"x": "1"})
    git(app, "push", str(bare), "main", env=hook_env(paas))
    ours = f"label=mypaas.service={name}"
    old, new = (f"{paas.namespace}.{name}.v{n}.1" for n in (1, 2))
    assert engine.containers(paas.namespace, ours) == [old, new]
    wait_until(lambda: engine.containers(paas.namespace, ours) == [new], "v1 is gone")


def test_two_branches_at_once(paas: Paas, bare: Path, tmp_path: Path) -> None:
    """One that fails does not keep the other from being deployed."""
    name = bare.stem
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test"))
    git(app, "branch", "master")
    commit(app, {"Dockerfile": f"FROM {BASE}\nRUN exit 1\n"})
    done = git(app, "push", str(bare), "main", "master", env=hook_env(paas), check=False)
    assert "build-failed" in done.stderr
    assert "is live in" in done.stderr
    assert git(bare, "branch", "--list").stdout.split()[-1] == "master"


def test_the_dockerfile_may_name_the_service(paas: Paas, bare: Path, tmp_path: Path) -> None:
    """A foreign repository's name is nobody's business; other branches are only stored."""
    name = unique("named")
    app = make_app(tmp_path, web_dockerfile(f"service={name}", f"url=http://{name}.test"))
    done = git(app, "push", str(bare), "main:feature", env=hook_env(paas))
    assert "feature is stored; a push to main or master deploys" in done.stderr
    git(app, "push", str(bare), "main", env=hook_env(paas))
    assert paas.get(f"http://{name}.test/").status == 200


def test_over_openssh(paas: Paas, tmp_path: Path) -> None:
    """The same hook behind OpenSSH's server and git-receive-pack."""
    name = unique()
    (tmp_path / "sshd").mkdir()
    server = Sshd(tmp_path / "sshd")
    bare = server.repo(f"{name}.git")
    (bare / "hooks" / "post-receive").write_text(
        f"#!/bin/sh\nexport MYPAAS={MYPAAS} MYPAAS_HOME={paas.home}\nexec {HOOK}\n"
    )
    (bare / "hooks" / "post-receive").chmod(0o755)
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test"))
    with server.running():
        known = tmp_path / "known_hosts"
        known.write_text(server.known_hosts_line)
        server.authorize(paas.admin)
        env = ssh_command(ssh_options(paas.admin, known))
        url = f"ssh://root@127.0.0.1:{server.port}/{bare.name}"
        done = git(app, "push", url, "main", env=clean_env(env), check=False)
    assert done.returncode == 0, done.stderr
    assert f"remote: =====> {name} v1 is live" in done.stderr
    assert paas.get(f"http://{name}.test/").text == "hello\n"


def test_which_of_several_values_counts() -> None:
    """config set, then config.toml for what is sampled, then the Dockerfile."""
    lookup = {"SAMPLED": "toml", "BOTH": "toml", "LITERAL": "toml", "UNNAMED": "toml"}.get
    stored = {"BOTH": "set", "OVER": "set", "ALONE": "set"}
    nothing: Any = None  # no engine is asked
    hook = PostReceive(
        nothing,
        lookup=lambda _, key: lookup(key),
        stored=lambda _: stored,
        rules=nothing,
        image_rules=nothing,
    )
    env = (
        *(EnvVar("SAMPLED", None), EnvVar("BOTH", None), EnvVar("MISSING", None)),
        *(EnvVar("LITERAL", "git"), EnvVar("OVER", "git")),
    )
    spec = ServiceSpec(ServiceName("web"), env=env)
    assert hook.values_of(spec) == {
        "SAMPLED": "toml",
        "BOTH": "set",
        "MISSING": None,
        "LITERAL": "git",
        "OVER": "set",
        "ALONE": "set",
    }
    with pytest.raises(DirectivesInvalid, match="MISSING: the server has no value"):
        hook.env_of(spec)
    assert hook.env_of(spec, {"MISSING": "set"})["BOTH"] == "toml"
