"""The table of rights, walked in full: every kind of key, every verb, every service."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import paramiko
import pytest
from support.apps import BASE, make_app
from support.keys import ssh_key
from support.paas import Paas

from mypaas_git.cli.push import push as push_command
from mypaas_git.cli.server import server as server_command
from mypaas_git.cli.serverstatus import remote_server
from mypaas_git.cli.tree import tree

OWN, OTHERS, MISSING, NAMED = "own", "other", "missing", "named"
TARGETS = (OWN, OTHERS, MISSING, NAMED)
"""The last two do not exist; ``named`` stands on the line of the key for some services."""
THERE = {OWN, OTHERS}

ANYONE, DEPLOYER, ADMIN = "anyone", "whoever may deploy the service", "admins"


@dataclass(frozen=True)
class Ask:
    """A verb as it is asked for, who may, and what they then see (a pattern).

    ``missing`` is what they see of a service that does not exist.
    """

    line: str
    who: str
    sees: str
    missing: str = "service-missing: there is no service"

    @property
    def targets(self) -> tuple[str, ...]:
        return TARGETS if "{}" in self.line else ("",)


NOTHING_LIVE = "service-missing: nothing of own|service-missing: nothing of other"
NOT_SET = "variable-missing: KEY is not set"
NONE_SET = "KEY was not set by mypaas config"
NO_INPUT = "usage: there is no KEY=VALUE on standard input"
# Nothing was ever live of the two services that are there, so that nothing takes its time.
VERBS = {
    "push": Ask("git-receive-pack '/{}'", DEPLOYER, "report-status", "report-status"),
    "fetch": Ask("git-upload-pack '/{}'", DEPLOYER, "multi_ack|^0000", "repository-missing"),
    "services": Ask("services --json", ANYONE, r"^\["),
    "status": Ask("status {}", DEPLOYER, "last attempt v1 failed"),
    "releases list": Ask("releases {}", DEPLOYER, r"\bv1 "),
    "releases output": Ask("releases output {}", DEPLOYER, "build-failed"),
    "logs": Ask("logs {}", DEPLOYER, "service-missing: no container of"),
    "rollback": Ask("rollback {}", DEPLOYER, NOTHING_LIVE),
    "redeploy": Ask("redeploy {}", DEPLOYER, NOTHING_LIVE),
    "restart": Ask("restart {}", DEPLOYER, NOTHING_LIVE),
    "stop": Ask("stop {}", DEPLOYER, NOTHING_LIVE),
    "start": Ask("start {}", DEPLOYER, NOTHING_LIVE),
    "maintenance on": Ask("maintenance on {}", DEPLOYER, NOTHING_LIVE),
    "maintenance off": Ask("maintenance off {}", DEPLOYER, NOTHING_LIVE),
    "run": Ask("run {} -- true", DEPLOYER, NOTHING_LIVE),
    "config list": Ask("config list {}", ADMIN, "has no variable"),
    "config get": Ask("config get {} KEY", ADMIN, NOT_SET, NOT_SET),
    "config set": Ask("config set {} -", ADMIN, NO_INPUT, NO_INPUT),
    "config unset": Ask("config unset {} KEY", ADMIN, NONE_SET, NONE_SET),
    "remove": Ask("remove {}", ADMIN, "usage: this ends"),
    "keys add": Ask("keys add new -", ADMIN, "key-refused: one public key was expected"),
    "keys list": Ask("keys list --json", ADMIN, "last_used"),
    "keys remove": Ask("keys remove nobody", ADMIN, "key-refused: there is no key"),
    "whoami": Ask("whoami", ANYONE, "SHA256:"),
    "server status": Ask("server status --json", ADMIN, "namespace"),
    "audit": Ask("audit --json", ADMIN, "fingerprint"),
    "audit --service": Ask("audit --service {} -n 1", ADMIN, "own|other", "exit code 0"),
}
NOT_COMMANDS = {"push", "fetch", "audit --service"}
SHELL_ONLY = {
    *("push", "server init", "server start", "server deploy", "server doctor"),
    *("server retire", "server post-receive", "server uninstall"),
}

LINES = {
    "admin": "admin ",
    "free": "",
    "free, may not create": "",
    "some services": f'services="{OWN},{NAMED}" ',
    "some branches": 'branches="release/*,main" ',
    "expired": 'expiry-time="20200101Z" ',
    "unknown": None,
    "removed": "",
}
LOCKED_OUT = {"expired", "unknown"}
EXIT = "exit code "
GONE = "your key has expired or was removed"
DENIALS = re.compile(
    r"access-denied: |has no right to the service|takes an admin's key|" + re.escape(GONE)
)


def expected(kind: str, verb: str, target: str) -> bool:
    """Whether a key of this kind may: docs/keys.rst, told once more and differently."""
    who = VERBS[verb].who
    if kind == "admin" or who == ANYONE:
        return True
    if who == ADMIN or (kind == "some services" and target not in {OWN, NAMED}):
        return False
    creates = verb == "push" and target not in THERE
    return not (creates and kind == "free, may not create")


@dataclass(frozen=True)
class Keys:
    """The private keys of each kind, and the server's file of the public ones."""

    paas: Paas
    paths: dict[str, Path]

    @property
    def file(self) -> Path:
        return self.paas.home / "authorized_keys"

    def line(self, kind: str) -> str:
        public = self.paths[kind].with_suffix(".pub").read_text().split()
        return f"{LINES[kind]}{public[0]} {public[1]} {_name(kind)}\n"

    def authorize(self, *kinds: str) -> None:
        """Have the file say what these kinds may, and nothing of others."""
        self.file.write_text("# by hand\n" + "".join(map(self.line, kinds)))


@pytest.fixture(scope="module")
def keys(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    """A server with two services that were tried and never live, and a key of each kind."""
    paas = Paas(tmp_path_factory.mktemp("rights"))
    try:
        paas.init()
        paas.start()
        app = make_app(paas.root, f"FROM {BASE}\nRUN echo broken && exit 1\n")
        for service in (OWN, OTHERS):
            assert "build-failed" in paas.push(app, service).stderr
        paths = {kind: ssh_key(paas.root, _name(kind)) for kind in LINES if kind != "admin"}
        made = Keys(paas, {**paths, "admin": paas.admin})
        made.authorize(*(kind for kind, line in LINES.items() if line is not None))
        yield made
    finally:
        paas.close()


@pytest.mark.parametrize("kind", [kind for kind in LINES if kind not in LOCKED_OUT])
def test_rights(keys: Keys, kind: str) -> None:
    """Whoever logs in may do what the table says, and nothing else."""
    with _creating(keys.paas, kind != "free, may not create"), _asking(keys, kind) as ask:
        cells = [(verb, target) for verb, it in VERBS.items() for target in it.targets]
        wrong = {}
        for verb, target in cells:
            seen = ask(VERBS[verb].line.format(target))
            if not _as_told(kind, verb, target, seen):
                wrong[verb, target] = seen
    assert not wrong, "\n".join(f"{cell}: {seen}" for cell, seen in wrong.items())


@pytest.mark.parametrize("kind", sorted(LOCKED_OUT))
def test_no_login(keys: Keys, kind: str) -> None:
    """Whoever has expired or is not known does not even get to ask."""
    with pytest.raises(paramiko.AuthenticationException), _client(keys, kind):
        pass


def test_nothing_is_given_away(keys: Keys) -> None:
    """What another's service answers and what no service answers is the same."""
    with _asking(keys, "some services") as ask:
        for it in VERBS.values():
            if it.who == DEPLOYER:
                others, missing = (
                    re.sub(r"^\w{4}ERR", "", ask(it.line.format(target)).replace(target, "X"))
                    for target in (OTHERS, MISSING)
                )
                assert others == missing
        listed = json.loads(ask("services --json").partition(EXIT)[0])
        assert [each["service"] for each in listed] == [OWN]


def test_commands_of_the_shell(keys: Keys) -> None:
    """What belongs to the server's own shell is nobody's over ssh."""
    for kind in ("admin", "free"):
        with _asking(keys, kind) as ask:
            for words in sorted(SHELL_ONLY):
                assert "No such command" in ask(words), words


def test_no_verb_is_left_out() -> None:
    """Each command that there is stands in the table, or is the shell's."""
    assert set(_leaves(tree(remote_server))) == set(VERBS) - NOT_COMMANDS
    everything = set(_leaves(tree(server_command, push_command)))
    assert everything == set(VERBS) - NOT_COMMANDS | SHELL_ONLY


def test_branches(keys: Keys, tmp_path: Path) -> None:
    """A key for some branches may push these and no tag; a wrong one is told which."""
    app = make_app(tmp_path, files={"README": "no Dockerfile"})
    key = keys.paths["some branches"]
    assert "dockerfile-missing" in keys.paas.push(app, OWN, key=key).stderr
    for refspec in ("HEAD:master", "HEAD:release/eu/x", "HEAD:refs/tags/v1", "HEAD:mainly"):
        refused = keys.paas.push(app, OWN, refspec, key=key).stderr
        assert "access-denied: the key 'some-branches' may push to" in refused, refspec
        assert "release/* and main only" in refused
    assert "only main and master deploy" in keys.paas.push(app, OWN, "HEAD:release/eu").stderr


def test_creating(keys: Keys, tmp_path: Path) -> None:
    """A first push makes the service, unless the admin has closed that to free keys."""
    app = make_app(tmp_path, files={"README": "no Dockerfile"})
    free, limited = keys.paths["free"], keys.paths["some services"]
    with _creating(keys.paas, False):
        refused = keys.paas.push(app, "fresh", key=free)
        assert "may not create one" in refused.stderr
        assert not (keys.paas.home / "repos" / "fresh.git").exists()
        assert "dockerfile-missing" in keys.paas.push(app, NAMED, key=limited).stderr
    assert "dockerfile-missing" in keys.paas.push(app, "fresh", key=free).stderr
    # What is not deployed any more, or was never, comes back by a redeploy as little.
    with _creating(keys.paas, False):
        assert "may not create one" in keys.paas.ssh("redeploy", "fresh", key=free).stderr
    assert "nothing of fresh is live" in keys.paas.ssh("redeploy", "fresh", key=free).stderr


def test_audit(keys: Keys, tmp_path: Path) -> None:
    """Who did what, from where, how it ended and why not; for admins, in order."""
    paas, started = keys.paas, time.time()
    app = make_app(tmp_path, files={"README": "no Dockerfile"})
    paas.push(app, OWN, key=keys.paths["free"])
    paas.ssh("restart", OTHERS, key=keys.paths["some services"])
    paas.ssh("whoami", key=keys.paths["unknown"])
    public = Path(f"{ssh_key(tmp_path, 'dora')}.pub").read_text()
    assert paas.ssh("keys", "add", "dora", "-", "--service", "x", stdin=public).returncode == 0
    assert paas.cli("keys", "remove", "dora").returncode == 0
    found = [
        each
        for each in json.loads(paas.cli("audit", "--json", "-n", "100").stdout)
        if each["at"] >= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(started))
    ][-5:]
    push, denied, stranger, added, removed = found
    assert (push["who"], push["verb"], push["service"]) == ("free", "push", OWN)
    assert (push["outcome"], push["code"]) == ("failed", "dockerfile-missing")
    assert push["detail"]["ref"] == "refs/heads/main"
    assert push["address"].startswith("127.0.0.1:")
    assert (denied["verb"], denied["outcome"]) == ("restart", "refused")
    assert "has no right to the service 'other'" in denied["why"]
    assert (stranger["who"], stranger["verb"], stranger["outcome"]) == ("", "login", "refused")
    assert stranger["fingerprint"].startswith("SHA256:")
    assert (added["verb"], added["outcome"]) == ("keys add", "ok")
    assert added["detail"]["key"] == "dora"
    assert added["detail"]["rights"] == "deploys x"
    assert (removed["who"], removed["address"], removed["outcome"]) == ("root", "", "ok")
    told = paas.ssh("audit", "--service", OTHERS).stdout.splitlines()
    assert all("other" in line for line in told)
    assert "refused: the key 'some-services' has no right" in told[-1]


def test_keys_in_use(keys: Keys) -> None:
    """``keys list`` tells when a key was last used; a hand's mistake is told by number."""
    keys.paas.ssh("whoami", key=keys.paths["free"])
    listed = json.loads(keys.paas.ssh("keys", "list", "--json").stdout)
    used = {each["name"]: each["last_used"] for each in listed}
    assert used["expired"] is None
    now = time.strftime("%Y-%m-%dT%H", time.gmtime())
    assert used["free"][:10] == now[:10]
    before = keys.file.read_text()
    try:
        keys.file.write_text(f"{before}nonsense ssh-ed25519 x y\n")
        keys.paas.ssh("whoami")
        number = len(before.splitlines()) + 1
        assert f"authorized_keys line {number}" in keys.paas.cli("server", "doctor").stdout
        (line,) = [each for each in keys.paas.log().splitlines() if "broken line" in each]
        assert f"line={number}" in line
    finally:
        keys.file.write_text(before)


def _as_told(kind: str, verb: str, target: str, seen: str) -> bool:
    """Whether the answer is that of the table: a refusal, or the verb's own."""
    it = VERBS[verb]
    if kind == "removed":
        return GONE in seen and seen.endswith(f"{EXIT}1")
    if not expected(kind, verb, target):
        return DENIALS.search(seen) is not None and seen.endswith(f"{EXIT}1")
    pattern = it.sees if target in THERE or not target else it.missing
    return re.search(pattern, seen, re.MULTILINE) is not None and not DENIALS.search(seen)


def _name(kind: str) -> str:
    return re.sub(r"[^a-z]+", "-", kind)


@contextmanager
def _creating(paas: Paas, create: bool) -> Iterator[None]:
    """Have ``[access] create`` say so for a while; it counts from the next push."""
    config = paas.home / "config.toml"
    before = config.read_text()
    shown = "# create = true"
    assert shown in before
    config.write_text(before.replace(shown, f"create = {str(create).lower()}"))
    try:
        yield
    finally:
        config.write_text(before)


class _Asking:
    """One connection for all questions; a removed key gets a new one for each."""

    def __init__(self, keys: Keys, kind: str) -> None:
        self._keys = keys
        self._kind = kind
        self._client: paramiko.SSHClient | None = None

    def __call__(self, line: str) -> str:
        if self._kind != "removed":
            self._client = self._client or _connect(self._keys, self._kind)
            return _ask(self._client, line)
        before = self._keys.file.read_text()
        with _client(self._keys, self._kind) as client:
            own = self._keys.line(self._kind)
            self._keys.file.write_text(before.replace(own, ""))
            try:
                return _ask(client, line)
            finally:
                self._keys.file.write_text(before)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


@contextmanager
def _asking(keys: Keys, kind: str) -> Iterator[_Asking]:
    asking = _Asking(keys, kind)
    try:
        yield asking
    finally:
        asking.close()


@contextmanager
def _client(keys: Keys, kind: str) -> Iterator[paramiko.SSHClient]:
    client = _connect(keys, kind)
    try:
        yield client
    finally:
        client.close()


def _connect(keys: Keys, kind: str) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    client.load_host_keys(str(keys.paas.known_hosts))
    try:
        client.connect(
            keys.paas.address,
            keys.paas.ssh_port,
            "mypaas",
            key_filename=str(keys.paths[kind]),
            allow_agent=False,
            look_for_keys=False,
        )
    except paramiko.SSHException:
        client.close()
        raise
    return client


def _ask(client: paramiko.SSHClient, line: str) -> str:
    """Everything that is said by one command without input, and its exit code behind."""
    stdin, stdout, stderr = client.exec_command(line, timeout=60)
    stdin.channel.shutdown_write()
    said = stdout.read() + stderr.read()
    code = stdout.channel.recv_exit_status()
    stdin.channel.close()
    return f"{said.decode('utf-8', 'replace')}{EXIT}{code}".replace("\0", " ")


def _leaves(group: click.Group, *above: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _leaves(command, *above, name)
        else:
            yield " ".join((*above, name))
