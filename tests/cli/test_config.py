"""``mypaas config``: secrets set, used, rolled back and unset, and where they are not."""

from __future__ import annotations

import contextlib
import json
import re
import stat
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import engine
from support.apps import BASE, commit, make_app, unique, web_dockerfile
from support.keys import ssh_key
from support.net import wait_until
from support.paas import Paas
from support.pushing import pushing

FIRST = "first-Zq8vT2-secret"
SECOND = 'second-"$Zq8vT2\\-secret'
THIRD = "third-Zq8vT2-line one\nthird-Zq8vT2-line two"
TELLING = re.compile(r"Zq8vT2")
"""Part of every secret here: whatever was done to the rest of it, this would be found."""


def ok(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, done.stderr
    return done


def live_env(paas: Paas, name: str) -> dict[str, str]:
    """What the containers of the live release have been given."""
    release = json.loads(paas.ssh("status", name, "--json").stdout)["release"]
    found = engine.inspect(f"{paas.namespace}.{name}.{release}.1")["Config"]["Env"]
    return dict(each.split("=", 1) for each in found)


def releases(paas: Paas, name: str) -> list[str]:
    found = json.loads(paas.ssh("releases", name, "--json").stdout)
    return [f"{each['release']} {each['action']} {each['state']}" for each in found]


def page(paas: Paas, name: str) -> str:
    return paas.get(f"http://{name}.test/").text


def leaks(paas: Paas, name: str, said: Sequence[str]) -> list[str]:
    """Where a secret has got to that is not its place; ``said`` is what commands printed.

    Its places are the ledger and the service's file, both 0600, and the environment of the
    containers that it is for.
    """
    told = {f"command {n}": text for n, text in enumerate(said)}
    places = {**told, **_commands(paas, name), **_engine(paas, name)}
    found = [where for where, text in places.items() if TELLING.search(text)]
    return [*found, *_files(paas), *_processes()]


def _files(paas: Paas) -> Iterator[str]:
    own = re.compile(r"home/(ledger\.db(-wal|-shm)?|config/[a-z0-9-]+\.json)")
    for path in (paas.root / "out", paas.root / "err", *paas.home.rglob("*")):
        if not path.is_file() or not TELLING.search(path.read_text("utf-8", "replace")):
            continue
        place = path.relative_to(paas.root).as_posix()
        if not own.fullmatch(place) or stat.S_IMODE(path.stat().st_mode) != 0o600:
            yield str(path)


def _commands(paas: Paas, name: str) -> dict[str, str]:
    """What is told of the service to whoever may ask."""
    labels = [each.split()[0] for each in releases(paas, name)]
    commands = [
        *(("releases", name), ("releases", name, "--json"), ("services", "--json")),
        *(("status", name, "--json"), ("config", "list", name)),
        ("config", "list", name, "--json"),
        *(("releases", "output", name, label) for label in labels),
    ]
    done = {" ".join(argv): paas.ssh(*argv) for argv in commands}
    return {argv: each.stdout + each.stderr for argv, each in done.items()}


def _engine(paas: Paas, name: str) -> dict[str, str]:
    """History and configuration of the images, labels of the containers."""
    images = engine.docker("images", "-a", "-q", f"{paas.namespace}/{name}").split()
    assert images
    found = {f"history of {i}": engine.docker("history", "--no-trunc", i) for i in images}
    found |= {f"image {i}": engine.docker("inspect", i) for i in images}
    ours = f"label=mypaas.namespace={paas.namespace}"
    labels = engine.docker("ps", "-a", "--filter", ours, "--format", "{{.Labels}}")
    return found | {"labels": labels}


def _processes() -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            if TELLING.search(process.read_text("utf-8", "replace")):
                yield str(process)


def test_a_secret_from_set_to_unset(paas: Paas, tmp_path: Path) -> None:
    """T57: it reaches the containers, comes back by rollback, goes by unset, leaks nowhere."""
    name, said = unique("secret"), []

    def told(done: subprocess.CompletedProcess[str]) -> str:
        said.append(done.stdout + done.stderr)
        return said[-1]

    # Known before the first deploy, and printed by the build.
    told(ok(paas.ssh("config", "set", name, "-", stdin=f"BUILT={FIRST}\n")))
    assert f"kept for the first push of {name}: no service of that name" in said[-1]
    said.append(ok(paas.ssh("config", "list", name)).stdout)
    directives = (f"url=http://{name}.test", "scale=2", "env=BUILT", "env=LITERAL=in-git")
    web = web_dockerfile(*directives, page="one").replace("RUN", "COPY . /x\nRUN cat /x/note;")
    app = make_app(tmp_path, web, {"note": f"using {FIRST}\n"})
    said.append(paas.deploy(app, name))
    assert "using [BUILT]" in said[-1]
    commit(app, {"Dockerfile": web_dockerfile(*directives, page="two")})
    said.append(paas.deploy(app, name))
    assert live_env(paas, name)["BUILT"] == FIRST

    lines = f"# a comment\nexport TOKEN='{SECOND}'\nCERT=\"{THIRD}\"\nLITERAL=from-config\n"
    told(ok(paas.ssh("config:set", name, "-", stdin=lines)))
    assert re.search(rf"{name} v3 is live in [0-9.]+ s, 0 s down", said[-1])
    env = live_env(paas, name)
    assert (env["TOKEN"], env["CERT"]) == (SECOND, THIRD)
    assert env["LITERAL"] == "from-config", "config set wins over the Dockerfile"
    assert page(paas, name) == "two"

    assert ok(paas.ssh("config", "get", name, "CERT")).stdout == THIRD + "\n"
    both = ok(paas.ssh("config", "get", name, "TOKEN", "CERT", "--json")).stdout
    assert json.loads(both) == {"TOKEN": SECOND, "CERT": THIRD}
    shown = ok(paas.ssh("config", "get", name, "TOKEN", "CERT")).stdout
    told(ok(paas.ssh("config", "set", name, "-", stdin=shown)))
    assert "v3 has it already" in said[-1], "what get shows is what set reads"

    told(ok(paas.ssh("rollback", name, "v2")))
    assert re.search(r"other values .* for .*LITERAL.*TOKEN", said[-1])
    assert "TOKEN" not in live_env(paas, name)
    assert re.search(
        "TOKEN +config set  from the next release", told(paas.ssh("config", "list", name))
    )
    told(ok(paas.ssh("rollback", name, "v3")))
    assert live_env(paas, name)["TOKEN"] == SECOND

    told(ok(paas.ssh("config", "unset", name, "TOKEN", "CERT", "NEVER")))
    assert "NEVER was not set" in said[-1]
    assert f"Restarting {name} v5 without TOKEN, CERT" in said[-1]
    env = live_env(paas, name)
    assert not {"TOKEN", "CERT"} & set(env)
    assert releases(paas, name)[:3] == [
        "v6 config live",
        "v5 rollback retired",
        "v4 rollback retired",
    ]
    assert leaks(paas, name, said) == []


def test_a_value_that_no_release_gets_live_with(paas: Paas, tmp_path: Path) -> None:
    """What is set is put back, the old release serves, and the app's last words are hidden."""
    name = unique("picky")
    start = (
        'CMD if [ -n "$BAD" ]; then echo "cannot use $BAD"; exit 3; fi; '
        "exec httpd -f -p 80 -h /www\n"
    )
    text = f"FROM {BASE}\n# mypaas.url=http://{name}.test\n# mypaas.scale=1\n"
    app = make_app(tmp_path, f"{text}COPY . /www/\n{start}", {"index.html": "fine"})
    paas.deploy(app, name)
    done = paas.ssh("config", "set", name, f"BAD={FIRST}", "OTHER=1")
    assert done.returncode == 1
    assert "cannot use [BAD]" in done.stderr
    assert "v1 still live" in done.stderr
    assert f"the variables of {name} are what they were before" in done.stderr
    assert paas.ssh("config", "list", name).stdout == ""
    assert page(paas, name) == "fine"
    assert leaks(paas, name, [done.stderr]) == []
    # Kept for a release that can take it, on purpose.
    kept = ok(paas.ssh("config", "set", name, f"BAD={FIRST}", "--no-restart"))
    assert "next push, redeploy or config set" in kept.stderr
    assert page(paas, name) == "fine"
    assert [each.split()[0] for each in releases(paas, name)] == ["v2", "v1"]
    ok(paas.ssh("config", "unset", name, "BAD"))
    assert [each.split()[0] for each in releases(paas, name)] == ["v2", "v1"]


def test_what_cannot_be_changed(paas: Paas, tmp_path: Path) -> None:
    """A needed variable, a bad name, no service, no admin: refused, nothing is stored."""
    name = unique("needs")
    ok(paas.ssh("config", "set", name, "NEEDED=yes"))
    app = make_app(tmp_path, web_dockerfile(f"url=http://{name}.test", "env=NEEDED"))
    paas.deploy(app, name)
    done = paas.ssh("config", "unset", name, "NEEDED")
    assert done.returncode == 1
    assert done.stderr == (
        "mypaas: directives-invalid: NEEDED: the server has no value for it; "
        f"an admin can set one: mypaas config set {name} NEEDED=…\n"
    )
    for argv, code, words in (
        (("set", name, "MYPAAS_PORT=1"), 2, "MYPAAS_PORT is reserved"),
        (("set", name, f"{FIRST}"), 2, "word 1 behind the service is not KEY=value"),
        (("set", name, "A=1", f"{FIRST}=2"), 2, "word 2 behind the service is not KEY=value"),
        (("set", name, "-"), 2, "there is no KEY=VALUE on standard input"),
        (("set", name), 2, "Missing argument"),
        (("get", name, "NOPE"), 1, "NOPE is not set"),
        (("list", "no-such-service"), 1, "there is no service"),
        (("set", "Web", "A=1"), 2, "'web' would do"),
    ):
        done = paas.ssh("config", *argv)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert words in done.stderr
        assert not TELLING.search(done.stderr)
        assert len(done.stderr.splitlines()) == 1
    assert not TELLING.search(paas.log())
    key = ssh_key(tmp_path, "bob")
    ok(paas.ssh("keys", "add", "bob", "-", stdin=key.with_suffix(".pub").read_text()))
    try:
        for argv in (
            ("list", name),
            ("get", name, "NEEDED"),
            ("set", name, "A=1"),
            ("unset", name, "NEEDED"),
        ):
            done = paas.ssh("config", *argv, key=key)
            assert (done.returncode, done.stdout) == (1, "")
            assert "takes an admin's key" in done.stderr
    finally:
        paas.ssh("keys", "remove", "bob")
    assert json.loads(paas.ssh("config", "list", name, "--json").stdout) == [
        {"key": "NEEDED", "source": "config set", "live": True}
    ]


def test_variables_before_the_first_push(paas: Paas, tmp_path: Path) -> None:
    """They are told to be without a service, listed to admins, and removed like one."""
    name = unique("ahead")
    said = ok(paas.ssh("config", "set", name, "A=1")).stderr
    assert f"kept for the first push of {name}: no service of that name is deployed" in said
    assert "no service of that name" in ok(paas.ssh("config", "list", name)).stderr
    assert re.search(rf"{name} +- +0 +not deployed yet", ok(paas.ssh("services")).stdout)
    status = ok(paas.ssh("status", name)).stdout
    assert re.search(r"health +not deployed yet\nkept +variables\n", status), status
    assert "nothing of" in ok(paas.ssh("releases", name)).stderr
    assert paas.ssh("releases", "output", name).returncode == 1
    doctor = paas.cli("server", "doctor").stdout
    assert re.search(rf"ok +{name} +not deployed yet; variables are kept", doctor), doctor
    bob = ssh_key(tmp_path, "bob")
    ok(paas.ssh("keys", "add", "bob", "-", stdin=bob.with_suffix(".pub").read_text()))
    try:
        assert name not in ok(paas.ssh("services", key=bob)).stdout
        assert "there is no service" in paas.ssh("status", name, key=bob).stderr
    finally:
        paas.ssh("keys", "remove", "bob")
    ok(paas.ssh("config", "set", name, "B=2"))
    unset = ok(paas.ssh("config", "unset", name, "B")).stderr
    assert unset == f"=====> unset B of {name}\n"
    kept = ok(paas.ssh("remove", name, "--yes"))
    assert "--with-repo removes what is kept: variables" in kept.stderr
    ok(paas.ssh("remove", name, "--yes", "--with-repo"))
    assert paas.ssh("config", "list", name).returncode == 1
    assert name not in paas.ssh("services", "--all").stdout


@pytest.fixture
def gate(paas: Paas) -> Path:
    """A directory that containers can have; what they wait for is a file ``open`` in it."""
    made = paas.user_home / unique("gate")
    made.mkdir()
    return made


def gated(gate: Path, name: str, start: str) -> str:
    """The Dockerfile of a page that is started by the shell command ``start``."""
    directives = (f"url=http://{name}.test", "scale=1", f"volume={gate}:/gate:ro")
    return f"{web_dockerfile(*directives).rsplit('CMD', 1)[0]}CMD {start}\n"


WAIT = "until [ -e /gate/open ]; do sleep 0.1; done"
SERVE = "exec httpd -f -p 80 -h /www"


def test_no_restart_waits_for_nobody(paas: Paas, gate: Path, tmp_path: Path) -> None:
    """What is kept for the next release is kept at once, whatever is being deployed."""
    name = unique("meanwhile")
    app = make_app(tmp_path, gated(gate, name, f"{WAIT}; {SERVE}"))
    with pushing(paas, app, name) as going:
        going.sees("Starting 1 container (v1)")
        kept = ok(paas.ssh("config", "set", name, "LATER=1", "--no-restart"))
        assert f"kept for the next push of {name}" in kept.stderr
        assert "Waiting" not in kept.stderr
        assert going.process.poll() is None
        (gate / "open").touch()
        assert going.end() == 0, going.said
    assert "LATER" not in live_env(paas, name)
    ok(paas.ssh("config", "set", name, "NOW=1"))
    env = live_env(paas, name)
    assert (env["LATER"], env["NOW"]) == ("1", "1")


def test_only_what_failed_is_put_back(paas: Paas, gate: Path, tmp_path: Path) -> None:
    """What somebody else has set while a change was tried, and then failed, stays set."""
    name = unique("putback")
    start = f'[ -z "$BAD" ] || {{ {WAIT}; exit 3; }}; {SERVE}'
    paas.deploy(make_app(tmp_path, gated(gate, name, start)), name)
    with ThreadPoolExecutor(1) as pool:
        trying = pool.submit(paas.ssh, "config", "set", name, "BAD=1")
        wait_until(lambda: "BAD" in paas.ssh("config", "list", name).stdout, "BAD is set")
        ok(paas.ssh("config", "set", name, "GOOD=1", "--no-restart"))
        (gate / "open").touch()
        assert trying.result().returncode == 1
    shown = json.loads(ok(paas.ssh("config", "list", name, "--json")).stdout)
    assert [each["key"] for each in shown] == ["GOOD"]


def test_two_admins_at_once(paas: Paas) -> None:
    """Nobody's change is lost: whoever comes second waits for the service's lock."""
    name = unique("rivals")
    keys = [f"KEY{n}" for n in range(6)]
    with ThreadPoolExecutor(len(keys)) as pool:
        for done in pool.map(lambda key: paas.ssh("config", "set", name, f"{key}=x"), keys):
            ok(done)
    shown = json.loads(ok(paas.ssh("config", "list", name, "--json")).stdout)
    assert [each["key"] for each in shown] == keys


@pytest.mark.parametrize("verb", ["list", "get", "set", "unset"])
def test_help(paas: Paas, verb: str) -> None:
    """Each explains itself, at either entrance."""
    assert "SERVICE" in ok(paas.ssh(f"config:{verb}", "--help")).stdout
    assert "SERVICE" in ok(paas.cli("config", verb, "--help")).stdout
