"""What a container can do to the host, the server and its neighbours: it tries."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import engine
from support.apps import BASE, commit, make_app, unique, web_dockerfile
from support.keys import ssh_key
from support.machine import Machine, traefik_images
from support.paas import Paas
from support.pushing import pushing

from mypaas_git.settings import Defaults

ACCOUNTS = "root:x:0:0::/:/bin/sh\\nnobody:x:65534:65534::/:/bin/sh\\n"
# Bits of capabilities(7) that an ordinary app keeps.
KEPT = {0, 1, 3, 4, 5, 6, 7, 8, 10, 18}


def page_of(paas: Paas, tmp_path: Path, name: str, script: str, *directives: str) -> str:
    """Deploy an app that runs ``script`` as root when it starts, and return what it printed."""
    dockerfile = "\n".join(
        [
            f"FROM {BASE}",
            f"# mypaas.url=http://{name}.test",
            *(f"# mypaas.{each}" for each in directives),
            f"RUN mkdir -p /etc /www && printf '{ACCOUNTS}' > /etc/passwd",
            "COPY try.sh /try.sh",
            "CMD sh /try.sh > /www/index.html 2>&1; exec httpd -f -p 80 -h /www",
        ]
    )
    app = make_app(tmp_path, dockerfile + "\n", {"try.sh": script}, name=name)
    paas.deploy(app, name)
    return paas.get(f"http://{name}.test/").text


def test_capabilities_and_limits(paas: Paas, tmp_path: Path) -> None:
    """No new privileges, few capabilities; port 80, chown and su are as usual (T52)."""
    name = unique()
    script = (
        "grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status\n"
        "touch /x; chown nobody /x && echo chowned\n"
        "su nobody -c 'echo su to $(id -u)'\n"
        "mknod /disk b 8 0 || echo no device\n"
        "mount -t tmpfs none /mnt || echo no mount\n"
    )
    said = page_of(paas, tmp_path, name, script)
    for which in ("CapEff", "CapBnd"):
        found = re.search(rf"{which}:\s*([0-9a-f]+)", said)
        assert found, said
        assert {bit for bit in range(64) if int(found[1], 16) >> bit & 1} == KEPT
    assert len(KEPT) == len(Defaults().capabilities)
    assert "NoNewPrivs:\t1" in said
    for each in ("chowned", "su to 65534", "no device", "no mount"):
        assert each in said, said
    host = engine.inspect(f"{paas.namespace}.{name}.v1.1")["HostConfig"]
    assert host["PidsLimit"] == 4096
    assert host["Privileged"] is False
    assert not any("docker.sock" in str(each) for each in host.get("Mounts") or [])


@pytest.fixture(scope="module")
def away(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paas]:
    """A server whose ssh listens where containers would find it."""
    with Machine([BASE, *traefik_images()]) as machine:
        paas = Paas(tmp_path_factory.mktemp("away"), machine)
        try:
            paas.init()
            paas.configure("pids", "64")
            paas.start()
            yield paas
        finally:
            paas.close()


def test_what_a_container_reaches(away: Paas, tmp_path: Path) -> None:
    """Not Traefik's API, by whatever name; not the engine; not the server's ssh (T52)."""
    machine = away.machine
    assert machine is not None
    name = unique()
    proxy = f"{away.namespace}-traefik"
    data = json.loads(machine.docker("inspect", proxy))[0]
    (network,) = data["NetworkSettings"]["Networks"].values()
    (api,) = data["NetworkSettings"]["Ports"]["8080/tcp"]
    password = (away.home / "traefik.password").read_text()
    url = "/api/http/routers"
    inside = [f"http://{each}:8080{url}" for each in (proxy, network["IPAddress"])]
    tries = [*inside, *(each.replace("//", f"//mypaas:{password}@") for each in inside)]
    hosts = (network["Gateway"], machine.address)
    tries += [f"http://{each}:{api['HostPort']}{url}" for each in hosts]
    tries += [f"http://{each}:{port}/version" for each in hosts for port in (2375, 2376)]
    tries += ["http://169.254.169.254/latest/meta-data/"]
    lines = [f"timeout 4 wget -q -O - '{each}' && echo REACHED '{each}'" for each in tries]
    lines += [f"echo ssh: $(nc -w 3 {each} {away.ssh_port} </dev/null)" for each in hosts]
    lines += ["ls /var/run/docker.sock /run/docker.sock && echo REACHED the engine"]
    lines += ["i=0; while [ $i -lt 100 ]; do sleep 2 & i=$((i+1)); done; echo forked them all"]
    said = page_of(away, tmp_path, name, "\n".join(lines) + "\n")
    assert "REACHED" not in said, said
    assert "routers" not in said.replace(url, ""), said
    assert "403 Forbidden" in said, said
    assert said.count("ssh:") == 2, said
    assert "SSH-2.0" not in said, said
    assert "can't fork" in said, said
    assert "an unwelcome peer" in away.log()
    with socket.create_connection((machine.address, away.ssh_port), timeout=10) as host:
        assert host.recv(7) == b"SSH-2.0"


def test_a_directory_that_a_container_made_a_link_of(paas: Paas, tmp_path: Path) -> None:
    """T43: neither what it leads to nor what it might lead to later can be mounted."""
    name, other = unique(), unique("other")
    ours = f"volume=~/{name}:/data"
    said = page_of(
        paas, tmp_path, name, "ln -s / /data/root; mkdir /data/dir; ls /data\n", ours
    )
    assert "root" in said
    assert (paas.user_home / name / "root").readlink() == Path("/")
    for inner, why in (
        ("root/etc", "leads to another place"),
        ("root", "leads to another place"),
        ("dir", "could make the inner one lead elsewhere"),
        ("new", "could make the inner one lead elsewhere"),
    ):
        app = make_app(
            tmp_path,
            web_dockerfile(f"volume=~/{name}/{inner}:/x"),
            name=f"{other}-{inner[:3]}{len(inner)}",
        )
        done = paas.push(app, other)
        assert done.returncode == 1
        assert "host-refused: Dockerfile line 2: mypaas.volume: " in done.stderr
        assert why in done.stderr
        assert "Building" not in done.stderr
    assert not (paas.user_home / name / "new").exists()
    # The service itself might do it to its next release.
    own = tmp_path / name
    commit(own, {"Dockerfile": web_dockerfile(f"volume=~/{name}/dir:/x")})
    assert "lead elsewhere" in paas.push(own, name).stderr


def test_a_named_volume_is_whose_it_was_first(paas: Paas, tmp_path: Path) -> None:
    """Also when its service is gone with all that is known of it: the data are still there."""
    name, other = unique(), unique("other")
    dockerfile = web_dockerfile(f"volume={name}:/data")
    app = make_app(tmp_path, dockerfile, name=name)
    paas.deploy(app, name)
    rival = make_app(tmp_path, dockerfile, name=other)
    for _ in range(2):
        done = paas.push(rival, other)
        assert f"the volume {name} belongs to the service '{name}'" in done.stderr
        paas.ssh("remove", name, "--yes", "--with-repo")
    assert f"{name} v1 is live" in paas.deploy(app, name)


def test_a_host_and_who_may_join_it(paas: Paas, tmp_path: Path) -> None:
    """A longer path under another's host takes a key for both, and is kept with one (T47)."""
    owner, guest = unique("owner"), unique("guest")
    with ExitStack() as stack:
        keys = {}
        for who, services in (("only", (guest,)), ("both", (guest, owner))):
            keys[who] = ssh_key(tmp_path, who)
            flags = [part for each in services for part in ("--service", each)]
            added = paas.cli("keys", "add", who, f"{keys[who]}.pub", *flags)
            assert added.returncode == 0, added.stderr
            stack.callback(paas.cli, "keys", "remove", who)
        dockerfile = web_dockerfile(f"url=http://{owner}.test", page="owner\n")
        paas.deploy(make_app(tmp_path, dockerfile, name="o"), owner)
        joins = web_dockerfile(f"url=http://{owner}.test/guest", "scale=1", "healthcheck=/")
        app = make_app(tmp_path, joins, name="g")
        done = paas.push(app, guest, key=keys["only"])
        assert "route-refused: Dockerfile line 2: mypaas.url: " in done.stderr
        assert (
            f"belongs to the service '{owner}', to which this key has no right" in done.stderr
        )
        paas.deploy(app, guest, key=keys["both"])
        commit(app, {"x": "1"})
        paas.deploy(app, guest, key=keys["only"])
    assert paas.get(f"http://{owner}.test/").text == "owner\n"


def test_rivals_with_different_keys(paas: Paas, tmp_path: Path) -> None:
    """T47: two keys, two services, one url, at once: one wins, the other is told who has it."""
    host, names = unique("rival"), [unique("left"), unique("right")]
    with ExitStack() as stack:
        going = {}
        for name in names:
            key = ssh_key(tmp_path, name)
            added = paas.cli("keys", "add", name, f"{key}.pub", "--service", name)
            assert added.returncode == 0, added.stderr
            stack.callback(paas.cli, "keys", "remove", name)
            app = make_app(
                tmp_path,
                web_dockerfile(f"url=http://{host}.test", page=name),
                name=f"app-{name}",
            )
            going[name] = stack.enter_context(pushing(paas, app, name, key=key))
        codes = {name: each.end() for name, each in going.items()}
    (won,) = [name for name, code in codes.items() if code == 0]
    (lost,) = [name for name in names if name != won]
    assert (
        f"http://{host}.test belongs to the service '{won}'; choose another url"
        in going[lost].refused
    )
    assert "route-refused: Dockerfile line 2: mypaas.url: " in going[lost].refused
    assert paas.get(f"http://{host}.test/").text == won
