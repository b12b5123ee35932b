"""config.toml: read strictly, every fault named by its path."""

from __future__ import annotations

from pathlib import Path

import pytest

from mypaas_git import settings
from mypaas_git.errors import SettingsError


def write(home: Path, text: str) -> Path:
    (home / "config.toml").write_text(text)
    return home


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    """Nothing in config.toml is required."""
    loaded = settings.load(write(tmp_path, ""))
    assert loaded.git.branches == ("main", "master")
    assert loaded.git.max_pack_size == 1 << 30
    assert str(loaded.ssh.listen) == "0.0.0.0:2222"
    assert loaded.network == "mypaas-net"


def test_the_rendered_template_reads_back(tmp_path: Path) -> None:
    """What init writes is what start reads."""
    wanted = settings.with_changes(
        settings.Settings(home=tmp_path),
        init={"domain": "paas.example.com", "email": "me@example.com"},
        docker={"namespace": "other"},
        ssh={"listen": settings.Address("::1", 2022)},
    )
    assert settings.load(write(tmp_path, settings.render(wanted))) == wanted


@pytest.mark.parametrize("builder", ["auto", "buildkit", "classic"])
def test_the_limits_of_builds(tmp_path: Path, builder: str) -> None:
    """Times in seconds, memory in bytes; nothing is no cap."""
    text = f'[docker]\nbuilder = "{builder}"\nbuild_timeout = "90m"\nbuild_cpus = 2\n'
    for memory, size in (("2g", 2 << 30), ("", 0), ("0", 0)):
        docker = settings.load(write(tmp_path, f'{text}build_memory = "{memory}"\n')).docker
        assert (docker.builder, docker.build_timeout) == (builder, 5400)
        assert (docker.build_memory, docker.build_cpus) == (size, 2)


def test_secrets_of_a_service_win_and_never_show(tmp_path: Path) -> None:
    """[env.<service>] wins over [env]; no repr of the settings carries a value."""
    loaded = settings.load(
        write(tmp_path, '[env]\nA = "common"\nB = "both"\n[env.hello]\nA = "own"\n')
    )
    assert loaded.env.lookup("hello", "A") == "own"
    assert loaded.env.lookup("hello", "B") == "both"
    assert loaded.env.lookup("other", "A") == "common"
    assert loaded.env.lookup("other", "C") is None
    assert "common" not in repr(loaded)


def test_what_services_may_ask_of_the_host(tmp_path: Path) -> None:
    """Hosts are reserved by patterns; the rest has careful defaults."""
    text = '[host.urls]\n"*.a.example.com" = ["blog", "key:alice"]\n"*" = []\n'
    host = settings.load(write(tmp_path, f"{text}[host.defaults]\npids = 0\n")).host
    assert host.urls == {"*.a.example.com": ("blog", "key:alice"), "*": ()}
    assert host.defaults.pids == 0
    assert "NET_RAW" not in host.defaults.capabilities


def test_how_https_is_had(tmp_path: Path) -> None:
    """Times in seconds, secrets unseen, files by their host."""
    text = (
        '[http]\nacme_challenge = "dns"\nacme_dns_provider = "exec"\nacme_lifetime = "6d"\n'
        'hsts = ""\n[http.acme_dns_env]\nTOKEN = "hunter2"\n'
        '[http.certificates."*.a.test"]\ncert = "/c"\nkey = "/k"\n'
    )
    http = settings.load(write(tmp_path, text)).http
    assert (http.acme_lifetime, http.hsts, http.acme_wait) == (6 * 86400, 0, 10)
    assert http.acme_dns_env == {"TOKEN": "hunter2"}
    assert "hunter2" not in repr(http)
    assert http.certificates == {"*.a.test": settings.CertificateFiles("/c", "/k")}
    assert settings.load(write(tmp_path, '[http]\nhsts = "1h"\n')).http.hsts == 3600


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[http]\nacme_challenge = 'mail'\n", "[http] acme_challenge: 'mail' is not a"),
        ("[http]\nacme_challenge = 'dns'\n", '[http] acme_challenge: "dns" needs acme_dns_p'),
        ("[http]\ndashboard = true\n", "[http] dashboard: true needs the server's own name"),
        ("[http]\nacme_dns_provider = 'a b'\n", "[http] acme_dns_provider: 'a b' is not"),
        ("[http]\nacme_dns_resolvers = ['a b']\n", "[http] acme_dns_resolvers: ('a b',) must"),
        ("[http]\nacme_lifetime = '5m'\n", "[http] acme_lifetime: 300.0 is less than an hour"),
        ("[http]\nacme_dns_env = 'x'\n", "write it as a section, [http.acme_dns_env]"),
        ("[http.acme_dns_env]\n'a b' = 'x'\n", "[http.acme_dns_env] a b"),
        ("[http.certificates.'a b']\ncert = '/c'\n", "'a b': write a section for each host"),
        ("[http.certificates]\n'a.b' = 'x'\n", "'a.b': write a section for each host"),
        ("[http.certificates.'a.b']\ncert = '/c'\n", "key: write the absolute path of a PEM"),
        ("[http.certificates.'a.b']\nkeys = '/c'\n", "did you mean 'key'?"),
        ("[http]\nhsts = true\n", "[http] hsts: True is not a time"),
        ("[dokcer]\n", "unknown section [dokcer]; did you mean 'docker'?"),
        ("[docker]\nkeep_release = 3\n", "did you mean 'keep_releases'?"),
        ("[docker]\nkeep_releases = 0\n", "[docker] keep_releases: 0 must lie between"),
        ("[docker]\nkeep_releases = true\n", "[docker] keep_releases: True is not"),
        ("[docker]\nkeep_releases = '1_0'\n", "'1_0' is not a size"),
        ('[ssh]\nlisten = "2222"\n', "[ssh] listen: '2222' is not an address"),
        ('[ssh]\nlisten = "0.0.0.0:99999"\n', "[ssh] listen"),
        ("[ssh]\nmax_connections = 0\n", "[ssh] max_connections: 0 must lie"),
        ("[ssh]\nmax_startups = 1\n", "[ssh] max_startups: 1 must lie"),
        ("[ssh]\nidle_timeout = 0\n", "[ssh] idle_timeout: 0 is not a time"),
        ("[host]\nreach_ssh = 'no'\n", "[host] reach_ssh: 'no' is not true or false"),
        ("[host]\ndefaults = 3\n", "[host] defaults: write it as a section"),
        ("[host]\nbase_images = ['A']\n", "[host] base_images: ('A',) must be names"),
        ("[host]\nshared_volumes = ['-x']\n", "[host] shared_volumes: ('-x',) must be"),
        ("[host.defaults]\npids = 3\n", "[host.defaults] pids: 3 must lie between"),
        ("[host.defaults]\ncapabilities = ['all']\n", "[host.defaults] capabilities"),
        ("[host.defaults]\npid = 99\n", "did you mean 'pids'?"),
        ("[host.urls]\n'a b' = ['x']\n", "[host] urls: 'a b' is not a host"),
        ("[host.urls]\n'a.b' = 'x'\n", "[host] urls: a.b: 'x' is not a list"),
        ("[host.urls]\n'a.b' = ['X']\n", "is not a list of services and keys"),
        ("[git]\nbranches = []\n", "[git] branches"),
        ('[git]\nbranches = ["-f"]\n', "[git] branches"),
        ('[init]\ndomain = "a b"\n', "[init] domain"),
        ('[init]\ndomain = "x`) || Host(`y"\n', "[init] domain"),
        ('[docker]\nhealth_timeout = "soon"\n', "[docker] health_timeout"),
        ('[docker]\nengine = "swarm"\n', "[docker] engine"),
        ('[docker]\nbuilder = "kaniko"\n', "[docker] builder: 'kaniko' is not supported"),
        ('[docker]\nbuild_timeout = "0s"\n', "[docker] build_timeout: '0s' is not a time"),
        ('[docker]\nbuild_memory = "1m"\n', "[docker] build_memory: 1048576 is less than"),
        ('[docker]\nbuild_memory = "much"\n', "[docker] build_memory: 'much' is not a size"),
        ("[docker]\nbuild_memory = false\n", "[docker] build_memory: False is not"),
        ("[docker]\nbuild_cpus = 0.5\n", "[docker] build_cpus: 0.5 is not a whole number"),
        ("[docker]\nbuild_cpus = -1\n", "[docker] build_cpus: -1 must lie between 0"),
        ("[env]\n'a b' = 'x'\n", "[env] a b"),
        ("domain = 'x'\n", "'domain' must stand in a section"),
        ("[init\n", "is not valid TOML"),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, said: str) -> None:
    """Each fault is one line with the path to it."""
    with pytest.raises(SettingsError) as caught:
        settings.load(write(tmp_path, text))
    assert said in caught.value.message
    assert "\n" not in caught.value.message


def test_a_bad_secret_is_not_shown(tmp_path: Path) -> None:
    """A fault in [env] names the key, never the value."""
    with pytest.raises(SettingsError) as caught:
        settings.load(write(tmp_path, "[env]\nTOKEN = ['hunter2']\n"))
    assert "TOKEN" in caught.value.message
    assert "hunter2" not in caught.value.message


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    """A home without a config is no traceback."""
    with pytest.raises(SettingsError, match="mypaas server init"):
        settings.load(tmp_path)
