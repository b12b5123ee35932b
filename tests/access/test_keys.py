"""The authorized_keys file, as the server and as people write it."""

from __future__ import annotations

import base64
import stat
import subprocess
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support.keys import ssh_key

from mypaas_git.access.expiry import parse_expiry
from mypaas_git.access.keyline import KeyEntry, Rights
from mypaas_git.access.keys import KeyFile
from mypaas_git.access.policy import Identity
from mypaas_git.access.publickey import parse_public_key
from mypaas_git.errors import KeyRefused, SettingsError, UsageError
from mypaas_git.names import ServiceName

NOW = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)
WEB = ServiceName.parse("web")
SHOP = ServiceName.parse("shop")


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "authorized_keys")


@pytest.fixture(scope="module")
def publics(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The text of five public key files."""
    root = tmp_path_factory.mktemp("publics")
    paths = [ssh_key(root, f"key{number}") for number in range(5)]
    return [path.with_suffix(".pub").read_text() for path in paths]


def bare(public: str) -> str:
    """A public key without its comment."""
    return " ".join(public.split()[:2])


def add(
    file: KeyFile,
    name: str,
    public: str,
    *,
    admin: bool = False,
    services: list[ServiceName] | None = None,
    expires: datetime | None = None,
) -> KeyEntry:
    granted = None if services is None else frozenset(services)
    return file.add(name, public, Rights(admin, granted, expires=expires))


def test_missing_file(file: KeyFile) -> None:
    """No file means no keys: nobody gets in, and nothing breaks."""
    assert file.entries() == []
    assert file.broken() == []
    assert file.find(b"anything", NOW) is None


def test_add_and_find(file: KeyFile, publics: list[str], tmp_path: Path) -> None:
    """What was added is found again, with ssh-keygen's fingerprint and its rights."""
    admin = add(file, "admin", publics[0], admin=True)
    alice = add(file, "alice", publics[1], services=[WEB, SHOP])
    bob = add(file, "bob@laptop", publics[2])
    assert file.entries() == [admin, alice, bob]
    assert [entry.line for entry in file.entries()] == [1, 2, 3]
    (tmp_path / "pub").write_text(publics[1])
    told = subprocess.check_output(["ssh-keygen", "-lf", str(tmp_path / "pub")], text=True)
    assert file.find(alice.blob, NOW) == Identity(
        "alice", told.split()[1], admin=False, services=frozenset({WEB, SHOP})
    )
    assert file.find(admin.blob, NOW) == Identity("admin", admin.fingerprint, admin=True)
    assert file.find(bob.blob, NOW) == Identity("bob@laptop", bob.fingerprint)
    assert file.find(bob.blob[:-1], NOW) is None


def test_what_is_written(file: KeyFile, publics: list[str]) -> None:
    """The file is OpenSSH's format, private, and nothing else is left beside it."""
    soon = datetime(2026, 12, 31, tzinfo=timezone(timedelta(hours=1)))
    add(file, "a", publics[0], admin=True)
    add(file, "b", publics[1], services=[WEB, SHOP], expires=soon)
    assert file.path.read_text() == (
        f"admin {bare(publics[0])} a\n"
        f'services="shop,web",expiry-time="20261230230000Z" {bare(publics[1])} b\n'
    )
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert {path.name for path in file.path.parent.iterdir()} == {
        "authorized_keys",
        "authorized_keys.lock",
    }
    assert file.entries()[1].rights.expires == soon


def test_edited_by_hand(file: KeyFile, publics: list[str]) -> None:
    """Comments, blank lines, order and even line ends survive what we change."""
    text = (
        "# The team\r\n"
        "\n"
        f"  admin \t {publics[0].strip()}\n"
        f'EXPIRY-TIME="20270101",services="web, shop" {bare(publics[1])}  alice  \n'
        "\n"
        "# not yet:\n"
        f"#{bare(publics[2])} carol\n"
        f"{bare(publics[3])} dave"
    )
    file.path.write_bytes(text.encode())
    assert [(entry.name, entry.line) for entry in file.entries()] == [
        ("key0", 3),
        ("alice", 4),
        ("dave", 8),
    ]
    assert file.entries()[1].rights.services == frozenset({WEB, SHOP})
    assert file.broken() == []
    add(file, "erin", publics[4])
    file.remove("dave")
    expected = text.replace(f"{bare(publics[3])} dave", f"{bare(publics[4])} erin\n")
    assert file.path.read_bytes() == expected.encode()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{key}", "no name"),
        ("{key} two words", "not a name"),
        ("{key} -rf", "not a name"),
        ("{key} a/b", "not a name"),
        ("{key} " + "x" * 65, "not a name"),
        ("ssh-ed25519", "no key"),
        ("ssh-ed25519 AAAA alice", "damaged"),
        ("ssh-ed25519 A=A=A alice", "damaged"),
        ("ssh-rsa {blob} alice", "damaged"),
        ("ssh-ed25519 {blob}AAAA alice", "damaged"),
        ("ssh-dss {blob} alice", "DSA"),
        ("ssh-foo {blob} alice", "unknown key type"),
        ("sk-ssh-ed25519@openssh.com {blob} alice", "damaged"),
        ("sk-ssh-foo@openssh.com {blob} alice", "unknown key type"),
        ("no-touch-required {key} alice", "for sk-"),
        ("verify-required {key} alice", "for sk-"),
        ('branches="" {key} alice', "not a branch"),
        ('branches="main,a//b" {key} alice', "not a branch"),
        ('branches="-x" {key} alice', "not a branch"),
        ('branches="a b" {key} alice', "not a branch"),
        ("branches {key} alice", "write branches="),
        ('admin,branches="main" {key} alice', "one or the other"),
        ("ssh-ed25519-cert-v01@openssh.com {blob} alice", "certificate"),
        ("admn {key} alice", "'admin'"),
        ('command="id" {key} alice', "unknown option 'command'"),
        ("cert-authority {key} alice", "unknown option"),
        ('admin="yes" {key} alice', "write admin"),
        ("services {key} alice", "write services="),
        ('services="" {key} alice', "service name"),
        ('services="web,Shop" {key} alice', "'shop' would do"),
        ('services="web,../x" {key} alice', "not a service name"),
        ('admin,services="web" {key} alice', "one or the other"),
        ("admin,admin {key} alice", "twice"),
        ('services="web",SERVICES="shop" {key} alice', "twice"),
        ("admin, {key} alice", "unreadabl"),
        ('services="web {key} alice', "unreadabl"),
        ('services="web"x {key} alice', "unreadabl"),
        ("admin{key} alice", ""),
        ("admin", ""),
        ('expiry-time="tomorrow" {key} alice', "expiry-time takes"),
        ('expiry-time="20261301" {key} alice', "expiry-time takes"),
        ('expiry-time="\uff12\uff10\uff12\uff170101" {key} alice', "expiry-time takes"),
        ('expiry-time="2027010" {key} alice', "expiry-time takes"),
        ("{key} al\x1b[31mice", "control characters"),
        ("nonsense", ""),
    ],
)
def test_broken_lines(file: KeyFile, publics: list[str], line: str, reason: str) -> None:
    """A line that is not understood in full grants nothing and is told by its number."""
    key = bare(publics[0])
    text = line.replace("{key}", key).replace("{blob}", key.split()[1])
    file.path.write_text(f"# first\n{text}\n{bare(publics[1])} bob\n")
    assert [entry.name for entry in file.entries()] == ["bob"]
    (broken,) = file.broken()
    assert broken.line_number == 2
    assert reason in broken.reason


def test_line_that_is_not_text(file: KeyFile, publics: list[str]) -> None:
    """Bytes that are no UTF-8 spoil their own line only."""
    file.path.write_bytes(b"\xff\xfe\n" + publics[0].encode())
    assert [entry.name for entry in file.entries()] == ["key0"]
    assert file.broken()[0].line_number == 1


def test_repeated_lines(file: KeyFile, publics: list[str]) -> None:
    """Of two lines with one key or one name the first counts, whatever the second grants."""
    first, second = bare(publics[0]), bare(publics[1])
    file.path.write_text(f"{first} alice\nadmin {first} root\nadmin {second} alice\n")
    assert [(entry.name, entry.rights.admin) for entry in file.entries()] == [("alice", False)]
    assert [broken.line_number for broken in file.broken()] == [2, 3]


@given(st.binary(max_size=300))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever the file holds is read without falling over, and lets nobody in."""
    file = KeyFile(tmp_path_factory.getbasetemp() / "any-bytes")
    file.path.write_bytes(content)
    assert file.entries() == []
    assert len(file.broken()) <= content.count(b"\n") + 1


@given(st.sampled_from(["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"]), st.binary())
def test_any_blob(algorithm: str, noise: bytes) -> None:
    """A key with the right name and anything behind it is refused, never a crash."""
    name = algorithm.encode()
    blob = len(name).to_bytes(4, "big") + name + noise
    with pytest.raises(KeyRefused):
        parse_public_key(f"{algorithm} {base64.b64encode(blob).decode()}")


def test_field_that_ends_early() -> None:
    """A number that claims to be a megabyte long is refused before it is computed."""
    blob = b"\0\0\0\x07ssh-rsa\0\x0f\xff\xff\1"
    with pytest.raises(KeyRefused, match="cut off"):
        parse_public_key(f"ssh-rsa {base64.b64encode(blob).decode()}")


@pytest.mark.parametrize(
    ("expiry", "moment"),
    [
        ("20260601Z", datetime(2026, 6, 1, tzinfo=timezone.utc)),
        ("202606011359Z", datetime(2026, 6, 1, 13, 59, tzinfo=timezone.utc)),
        ("20260601135958Z", datetime(2026, 6, 1, 13, 59, 58, tzinfo=timezone.utc)),
        ("20260601", datetime(2026, 6, 1).astimezone()),
        ("202606011359", datetime(2026, 6, 1, 13, 59).astimezone()),
    ],
)
def test_expiry_time(file: KeyFile, publics: list[str], expiry: str, moment: datetime) -> None:
    """OpenSSH's times, local without the Z; at that moment the key is worth nothing."""
    file.path.write_text(f'expiry-time="{expiry}" {publics[0]}')
    (entry,) = file.entries()
    assert entry.rights.expires == moment
    assert file.find(entry.blob, moment - timedelta(seconds=1)) is not None
    assert file.find(entry.blob, moment) is None


def test_refusals(file: KeyFile, publics: list[str]) -> None:
    """A key or a name that is there already is refused, naming the holder."""
    add(file, "alice", publics[0])
    before = file.path.read_bytes()
    with pytest.raises(KeyRefused, match="already, as 'alice'"):
        add(file, "bob", publics[0])
    with pytest.raises(KeyRefused, match="named 'alice' already"):
        add(file, "alice", publics[1])
    for name in ("", "two words", "tab\t", "x" * 65, "-rf", "é", "a\n", "a\x00"):
        with pytest.raises(KeyRefused, match="not a name"):
            add(file, name, publics[1])
    with pytest.raises(KeyRefused, match="one or the other"):
        add(file, "bob", publics[1], admin=True, services=[WEB])
    with pytest.raises(KeyRefused, match="empty"):
        add(file, "bob", publics[1], services=[])
    assert file.path.read_bytes() == before


def test_wrong_files(file: KeyFile, publics: list[str], tmp_path: Path) -> None:
    """What is not one public key is refused with a word on what it is."""
    private = ssh_key(tmp_path, "private").read_text()
    rfc4716 = "---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----\n"
    for text, reason in (
        (private, "PRIVATE key"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\n", "PRIVATE key"),
        (rfc4716, "ssh-keygen -i"),
        ("", "nothing"),
        ("# only a comment\n\n", "nothing"),
        (publics[0] + publics[1], "several lines"),
        ("hello", "not a public key"),
        (f"admin {publics[0]}", "--admin"),
        ("ssh-ed25519", "cut off"),
        (publics[0][:60], "cut off"),
    ):
        with pytest.raises(KeyRefused, match=reason):
            add(file, "alice", text)
    assert not file.path.exists()


def test_weak_and_foreign_keys(file: KeyFile, tmp_path: Path) -> None:
    """DSA, short RSA and certificates are refused; every sound kind is taken."""
    for kind in ("rsa", "ecdsa", "ed25519"):
        path = ssh_key(tmp_path, kind, kind=kind)
        assert add(file, kind, path.with_suffix(".pub").read_text()).algorithm
    small, dsa = tmp_path / "small", ssh_key(tmp_path, "dsa", kind="dsa")
    making = ["ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", str(small)]
    subprocess.run(making, check=True)
    with pytest.raises(KeyRefused, match="1024 bits"):
        add(file, "small", small.with_suffix(".pub").read_text())
    with pytest.raises(KeyRefused, match="DSA"):
        add(file, "dsa", dsa.with_suffix(".pub").read_text())
    signing = ["ssh-keygen", "-q", "-s", str(dsa.with_name("rsa")), "-I", "x"]
    subprocess.run([*signing, str(tmp_path / "ed25519.pub")], check=True)
    with pytest.raises(KeyRefused, match="certificate"):
        add(file, "cert", (tmp_path / "ed25519-cert.pub").read_text())


def test_remove(file: KeyFile, publics: list[str]) -> None:
    """Removing takes out one line; an unknown name is refused with the one that is meant."""
    add(file, "admin", publics[0], admin=True)
    alice = add(file, "alice", publics[1])
    with pytest.raises(KeyRefused, match="'alice'"):
        file.remove("alcie")
    assert file.remove("alice") == alice
    assert [entry.name for entry in file.entries()] == ["admin"]
    with pytest.raises(KeyRefused, match="no key named 'alice'"):
        file.remove("alice")


def test_last_admin(file: KeyFile, publics: list[str]) -> None:
    """The last admin's key stays, and an expired one does not count as another."""
    add(file, "admin", publics[0], admin=True)
    add(file, "alice", publics[1])
    line = f'admin,expiry-time="20200101Z" {bare(publics[2])} old\n'
    file.path.write_text(file.path.read_text() + line)
    with pytest.raises(KeyRefused, match="last admin"):
        file.remove("admin")
    file.remove("old")
    add(file, "second", publics[3], admin=True)
    assert file.remove("admin").rights.admin


def test_writers_do_not_lose_each_other(file: KeyFile, tmp_path: Path) -> None:
    """Keys that are added at the same time are all there afterwards."""
    texts = [
        ssh_key(tmp_path, f"n{number}").with_suffix(".pub").read_text() for number in range(8)
    ]
    threads = [
        threading.Thread(target=add, args=[KeyFile(file.path), f"n{number}", text])
        for number, text in enumerate(texts)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(entry.name for entry in file.entries()) == [f"n{n}" for n in range(8)]


def test_unreadable_and_unwritable(tmp_path: Path, publics: list[str]) -> None:
    """A file that cannot be used is an error that names it, not an empty list."""
    (tmp_path / "authorized_keys").mkdir()
    file = KeyFile(tmp_path / "authorized_keys")
    with pytest.raises(SettingsError, match="authorized_keys"):
        file.entries()
    with pytest.raises(SettingsError, match="no-home"):
        add(KeyFile(tmp_path / "no-home" / "authorized_keys"), "alice", publics[0])


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90d", NOW + timedelta(days=90)),
        ("12h", NOW + timedelta(hours=12)),
        ("2026-12-31", datetime(2026, 12, 31).astimezone()),
        ("20261231", datetime(2026, 12, 31).astimezone()),
    ],
)
def test_expiries(text: str, moment: datetime) -> None:
    """Spans count from now, dates mean their first moment here."""
    assert parse_expiry(text, NOW) == moment


@pytest.mark.parametrize(
    "text",
    [
        *("", "90", "d", "0d", "-1d", "1.5h", "\uff19d", "9999999d", "90d ", "1_0d", "soon"),
        *("2026-13-01", "2026-06-01", "2026-1-1", "202612310000"),
    ],
)
def test_no_expiries(text: str) -> None:
    """Anything else, and whatever is over already, is refused."""
    with pytest.raises(UsageError, match="expiry"):
        parse_expiry(text, NOW)


def test_branches(file: KeyFile, publics: list[str]) -> None:
    """Branches are written and read back; what is no pattern of a branch is refused."""
    rights = Rights(branches=("main", "release/*"))
    entry = file.add("ci", publics[0], rights)
    assert file.path.read_text() == f'branches="main,release/*" {bare(publics[0])} ci\n'
    assert file.entries() == [entry]
    assert entry.identity.branches == ("main", "release/*")
    for branch in ("", "a b", "-x", "a,b", 'x"', "a//b", "/a", "a/"):
        with pytest.raises(KeyRefused, match="not a branch"):
            file.add("x", publics[1], Rights(branches=(branch,)))


def test_last_use(file: KeyFile, publics: list[str]) -> None:
    """When a key was last used is kept apart from the file, and goes with the key."""
    alice = add(file, "alice", publics[0])
    content = file.path.read_bytes()
    assert file.last_used(alice) is None
    file.used(alice.blob)
    used = KeyFile(file.path).last_used(alice)
    assert used is not None
    assert abs(used - datetime.now(timezone.utc)) < timedelta(hours=1)
    assert file.path.read_bytes() == content
    file.remove("alice")
    assert file.last_used(alice) is None


def test_broken_lines_are_logged_once(file: KeyFile, publics: list[str]) -> None:
    """The log names a broken line by its number, again only when the file has changed."""
    file.path.write_text(f"# first\nnonsense\n{publics[0]}")
    with capture_logs() as logs:
        file.report_broken()
        file.report_broken()
    assert [(each["line"], each["log_level"]) for each in logs] == [(2, "warning")]
    file.path.write_text(f"nonsense\n{publics[0]}")
    with capture_logs() as logs:
        file.report_broken()
    assert [each["line"] for each in logs] == [1]
    assert [entry.name for entry in file.entries()] == ["key0"]
