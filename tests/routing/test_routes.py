"""The one file of all services' routes."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from mypaas_git.directives.model import Redirect, ServiceSpec, Url
from mypaas_git.names import ServiceName
from mypaas_git.routing import rules
from mypaas_git.routing.routes import Routes, put, unfinished

ONE, TWO = ServiceName.parse("one"), ServiceName.parse("one-two")


def route(name: ServiceName, *hosts: str) -> dict[str, Any]:
    urls = tuple(Url("https", host, f"/{host}") for host in hosts)
    moved = tuple(Redirect(Url("https", f"www.{each.host}"), each) for each in urls)
    spec = ServiceSpec(name, urls=urls, redirects=moved, scale=1, stripprefix=True)
    found = rules.route(spec, ["r"])
    assert found is not None
    return found


def file(directory: Path) -> Path:
    return directory / "_services.yml"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """By the writer and by others; each service has its own, however its name begins."""
    writer, reader = Routes(tmp_path), Routes(tmp_path)
    routes = {ONE: route(ONE, "a", "b"), TWO: route(TWO, "c")}
    for name, config in routes.items():
        writer.replace(name, config)
    for each in (writer, reader, Routes(tmp_path)):
        assert {name: each.read(name) for name in routes} == routes
        assert all(each.holds(name, config) for name, config in routes.items())
        assert not each.holds(ONE, routes[TWO])
        assert not each.holds(ONE, None)
    http = json.loads(file(tmp_path).read_text())["http"]
    for section in ("routers", "services", "middlewares"):
        both = {**routes[ONE]["http"][section], **routes[TWO]["http"][section]}
        assert http[section] == both
    assert file(tmp_path).stat().st_mode & 0o777 == 0o600

    reader.replace(ONE, None)
    assert writer.read(ONE) is None
    assert writer.holds(ONE, None)
    assert writer.read(TWO) == routes[TWO]
    writer.replace(TWO, None)
    assert json.loads(file(tmp_path).read_text()) == {}


def test_many_writers_at_once(tmp_path: Path) -> None:
    """Nobody's route is lost to another's."""
    names = [ServiceName.parse(f"n{number}") for number in range(40)]
    shared = Routes(tmp_path)
    threads = [
        threading.Thread(target=each.replace, args=(name, route(name, name)))
        for number, name in enumerate(names)
        for each in ([shared] if number % 2 else [Routes(tmp_path)])
    ] + [threading.Thread(target=shared.holds, args=(name, None)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = Routes(tmp_path)
    assert all(written.holds(name, route(name, name)) for name in names)


@pytest.mark.parametrize("damage", [None, "", '{"http": 1}', "[]", '{"http": {"routers": 1}}'])
def test_a_lost_file(tmp_path: Path, damage: str | None) -> None:
    """Who knows what was in it writes it again, of all services at once."""
    routes = Routes(tmp_path)
    for name in (ONE, TWO):
        routes.replace(name, route(name, name))
    before = json.loads(file(tmp_path).read_text())
    for mend in (routes.keep, lambda: routes.replace(ONE, route(ONE, "new"))):
        if damage is None:
            file(tmp_path).unlink()
        else:
            file(tmp_path).write_text(damage)
        mend()
        assert Routes(tmp_path).holds(TWO, route(TWO, TWO))
    routes.replace(ONE, route(ONE, ONE))
    assert json.loads(file(tmp_path).read_text()) == before


def test_a_damaged_file_that_was_never_whole(tmp_path: Path) -> None:
    """Traefik keeps what it had until there is a whole file: an empty one is none to it."""
    file(tmp_path).write_text('{"http": {')
    routes = Routes(tmp_path)
    routes.keep()
    assert file(tmp_path).read_text() == '{"http": {'
    routes.replace(ONE, route(ONE, "a"))
    assert Routes(tmp_path).holds(ONE, route(ONE, "a"))


def test_a_new_home(tmp_path: Path) -> None:
    """Before anything was deployed the file says so."""
    routes = Routes(tmp_path)
    assert routes.read(ONE) is None
    assert not routes.holds(ONE, route(ONE, "a"))
    routes.replace(ONE, None)
    assert not file(tmp_path).exists()
    routes.keep()
    assert json.loads(file(tmp_path).read_text()) == {}


def test_what_is_known_is_not_written_again(tmp_path: Path) -> None:
    """Traefik reads everything again for each file that changes."""
    routes = Routes(tmp_path)
    routes.replace(ONE, route(ONE, "a"))
    before = file(tmp_path).stat().st_ino
    routes.replace(ONE, route(ONE, "a"))
    routes.keep()
    put(tmp_path, "_services", file(tmp_path).read_bytes())
    assert file(tmp_path).stat().st_ino == before
    assert list(unfinished(tmp_path).iterdir()) == []


def test_a_failed_write_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the file, nor in what is taken for its content."""
    routes = Routes(tmp_path)
    routes.replace(ONE, route(ONE, "a"))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("mypaas_git.routing.routes.write_atomically", full)
        with pytest.raises(OSError, match="No space"):
            routes.replace(ONE, route(ONE, "b"))
        with pytest.raises(OSError, match="No space"):
            routes.replace(ONE, None)
    assert routes.holds(ONE, route(ONE, "a"))
    routes.replace(ONE, route(ONE, "b"))
    assert Routes(tmp_path).holds(ONE, route(ONE, "b"))
