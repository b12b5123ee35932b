"""The files in which variables lie."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from mypaas_git.config.store import MAX_VARIABLE, ConfigStore, check
from mypaas_git.errors import SettingsError, UsageError
from mypaas_git.names import ServiceName

WEB = ServiceName("web")


def test_written_and_read(tmp_path: Path) -> None:
    """For the owner's eyes, one file a service, gone with the last variable."""
    store = ConfigStore(tmp_path)
    assert store.read(WEB) == {}
    store.write(WEB, {"A": "b\nc", "EMPTY": ""})
    assert store.read(WEB) == {"A": "b\nc", "EMPTY": ""}
    assert store.read("other") == {}
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    store.write(WEB, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[1]", '{"A": 1}', '{"A=B": "hunter2"}', "hunter2"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    """T70: it is not taken for an empty one, and the message has nothing of what it holds."""
    (tmp_path / "web.json").write_text(text)
    with pytest.raises(SettingsError, match=r"web\.json is damaged") as raised:
        ConfigStore(tmp_path).read(WEB)
    assert "hunter2" not in str(raised.value)


def test_it_cannot_be_written(tmp_path: Path) -> None:
    """One line, and what was there stays."""
    with pytest.raises(SettingsError, match="cannot be written"):
        ConfigStore(tmp_path / "missing").write(WEB, {"A": "b"})


@pytest.mark.parametrize(
    "values",
    [
        {"A": "x\0y"},
        {"A": "\udcff"},
        {"A": "x" * MAX_VARIABLE},
        {f"A{n}": "x" * 100_000 for n in range(11)},
    ],
)
def test_what_no_process_can_be_given(values: dict[str, str]) -> None:
    """Refused before a container fails with words of the kernel's."""
    with pytest.raises(UsageError):
        check(values)
    check({"A": "x" * (MAX_VARIABLE - 2), "B": ""})


def test_which_services_have_any(tmp_path: Path) -> None:
    """Those with a file; one that is being written, or is none of ours, is no service."""
    store = ConfigStore(tmp_path)
    for name in ("web", "api", "gone"):
        store.write(ServiceName(name), {"A": "1"})
    store.write(ServiceName("gone"), {})
    (tmp_path / "Not_Ours.json").touch()
    (tmp_path / ".web.json.new").touch()
    assert store.services() == ["api", "web"]
    assert store.has(ServiceName("web"))
    assert not store.has(ServiceName("gone"))
