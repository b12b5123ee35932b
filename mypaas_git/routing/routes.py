"""The routes of all services, in the one file that Traefik reads them from.

Whenever a file of its directory changes, Traefik reads all of them again, and many small
ones take it several times as long as a large one. Nor is anything made in that directory
but by moving it in, since Traefik would read everything for each step of it.

Format: Traefik v3, file provider; JSON, which is a part of YAML. The names of what belongs
to a service are its own, or begin with its own and a dot.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mypaas_git.files import write_atomically
from mypaas_git.names import ServiceName

Config = dict[str, Any]

NAME = "_services"
"""No service has a name that begins like this."""

_Stamp = tuple[int, int, int]
_Known = dict[str, dict[str, str]]
"""By service, what is inside each section of the file."""


def put(directory: Path, name: str, text: bytes) -> None:
    """Write the file ``name`` of Traefik's ``directory``, unless it is the same already."""
    path = _path(directory, name)
    with contextlib.suppress(FileNotFoundError):
        if path.read_bytes() == text:
            return
    unfinished(directory).mkdir(mode=0o700, exist_ok=True)
    write_atomically(path, text, made_in=unfinished(directory))


def unfinished(directory: Path) -> Path:
    """Where files of Traefik's ``directory`` are until they are whole."""
    return directory / "unfinished"


class Routes:
    """What :func:`rules.route` says of each service; several processes may write at once.

    A file that is lost or damaged is written again with what was last known.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # Both in one, as threads read without a lock: which file it was, and what it says.
        self._last: tuple[_Stamp | None, _Known] = (None, {})

    def holds(self, service: ServiceName, config: Config | None) -> bool:
        """Whether the file has exactly this of ``service``; of None, nothing."""
        return self._known().get(service) == _sections(config)

    def read(self, service: ServiceName) -> Config | None:
        """What the file has of ``service``."""
        known = self._known().get(service)
        if known is None:
            return None
        return {"http": {name: json.loads(f"{{{text}}}") for name, text in known.items()}}

    def replace(self, service: ServiceName, config: Config | None) -> None:
        """Have the file say ``config`` of ``service``, and nothing if that is None."""
        sections = _sections(config)
        with self._locked():
            known = self._known()
            if known.get(service) == sections:
                return
            others = {name: each for name, each in known.items() if name != service}
            self._write(others if sections is None else {**others, str(service): sections})

    def keep(self) -> None:
        """Write the file again if it is lost or damaged."""
        with self._locked():
            # Of a damaged file that we never saw whole, Traefik knows more than we do.
            if self._load() is None and (self._last[0] or not self._exists()):
                self._write(self._last[1])

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _known(self) -> _Known:
        """What is in the file, or was when it was last seen whole."""
        known = self._load()
        return self._last[1] if known is None else known

    def _load(self) -> _Known | None:
        """What is in the file; None if that is lost or damaged."""
        last, known = self._last
        try:
            with _path(self._directory, NAME).open("rb") as file:
                stamp = _stamp(file.fileno())
                if stamp != last:
                    known = _by_service(json.load(file).get("http", {}))
                    self._last = stamp, known
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return None
        return known

    def _exists(self) -> bool:
        return _path(self._directory, NAME).exists()

    def _write(self, known: _Known) -> None:
        put(self._directory, NAME, _text(known))
        with _path(self._directory, NAME).open("rb") as file:
            self._last = _stamp(file.fileno()), known


def _path(directory: Path, name: str) -> Path:
    return directory / f"{name}.yml"


def _stamp(descriptor: int) -> _Stamp:
    """Changes with each file that takes another's place, or is written to."""
    found = os.fstat(descriptor)
    return found.st_ino, found.st_mtime_ns, found.st_size


def _sections(config: Config | None) -> dict[str, str] | None:
    """The insides of the sections of ``config``, as they stand in the file."""
    if config is None:
        return None
    inside = {name: json.dumps(section)[1:-1] for name, section in config["http"].items()}
    return {name: text for name, text in inside.items() if text}


def _by_service(sections: Mapping[str, Config]) -> _Known:
    found: dict[str, Config] = defaultdict(lambda: defaultdict(dict))
    for section, entries in sections.items():
        for name, entry in entries.items():
            found[name.partition(".")[0]][section][name] = entry
    return {name: _sections({"http": each}) or {} for name, each in found.items()}


def _text(known: Mapping[str, Mapping[str, str]]) -> bytes:
    """The whole file, with a line for each section of a service."""
    sections: dict[str, list[str]] = defaultdict(list)
    for each in known.values():
        for section, text in each.items():
            sections[section].append(text)
    if not sections:
        return b"{}\n"  # of a section with nothing in it Traefik says that it cannot be
    lines = (f'"{name}": {{\n{_lines(texts)}\n}}' for name, texts in sections.items())
    return f'{{"http": {{\n{_lines(lines)}\n}}}}\n'.encode()


def _lines(texts: Iterable[str]) -> str:
    return ",\n".join(texts)
