"""Where the variables of ``mypaas config set`` are kept: one JSON file a service, mode 0600."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from mypaas_git.errors import NameRefused, SettingsError, UsageError
from mypaas_git.files import write_atomically
from mypaas_git.names import ServiceName, VariableName

MAX_VARIABLE = 128 * 1024 - 1
"""Bytes of ``KEY=value``: the kernel lets no process be started with a longer one."""
MAX_TOTAL = 1 << 20
"""Bytes of all variables of a service; the kernel's limit, arguments included, is 2 MiB."""


class ConfigStore:
    """The files in ``directory``, read afresh each time.

    Whoever changes one holds the lock of all variables meanwhile. Methods raise SettingsError
    for a file that is damaged, or that cannot be read or written; no message holds a value.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def services(self) -> list[ServiceName]:
        """The services of which anything is set, sorted."""
        found = []
        for path in sorted(self._directory.glob("*.json")):
            with contextlib.suppress(NameRefused):
                found.append(ServiceName.parse(path.stem))
        return found

    def has(self, service: ServiceName) -> bool:
        """Whether anything is set for ``service``."""
        return self._path(service).exists()

    def read(self, service: str) -> dict[str, str]:
        """What was set for ``service``."""
        path = self._path(service)
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
        except ValueError:
            raise _damaged(path) from None
        if not isinstance(found, dict) or not all(map(_is_variable, found, found.values())):
            raise _damaged(path)
        return found

    def write(self, service: ServiceName, values: Mapping[str, str]) -> None:
        """Have ``values`` be what is set for ``service``, durably, all of it or nothing."""
        path = self._path(service)
        try:
            if values:
                write_atomically(path, json.dumps(dict(values), indent=1).encode())
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise SettingsError(f"{path} cannot be written: {error.strerror}") from error

    def _path(self, service: str) -> Path:
        return self._directory / f"{service}.json"


def check(values: Mapping[str, str]) -> None:
    """Raise UsageError for what no container could be started with."""
    total = 0
    for key, value in values.items():
        if "\0" in value:
            raise UsageError(f"the value of {key} holds a NUL character, which no variable can")
        try:
            size = len(key) + 1 + len(value.encode())
        except UnicodeEncodeError:
            raise UsageError(f"the value of {key} is not UTF-8; encode it as base64") from None
        if size > MAX_VARIABLE:
            raise UsageError(f"{key} is longer than 128 KiB, which no process can be given")
        total += size
    if total > MAX_TOTAL:
        raise UsageError("the variables are longer than 1 MiB together; keep files in a volume")


def _is_variable(key: str, value: object) -> bool:
    try:
        VariableName.parse(key)
    except NameRefused:
        return False
    return isinstance(value, str)


def _damaged(path: Path) -> SettingsError:
    return SettingsError(
        f"{path} is damaged; mend it, or remove it and set its variables again"
    )
