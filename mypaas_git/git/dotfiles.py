"""Files that git itself reads when it checks something out, checked like ``git fsck`` does.

What a server takes reaches everybody who clones it: a submodule whose url is an option
of ssh, say, has run commands on their machines.
"""

from __future__ import annotations

import io
import re
from urllib.parse import unquote_to_bytes

from dulwich.config import ConfigFile

from mypaas_git.errors import TreeRefused
from mypaas_git.git.treenames import MODULES
from mypaas_git.progress import clean

MAX_FILE = 1 << 20
"""Bytes of a ``.gitmodules`` or ``.gitattributes``."""
MAX_LINE = 2048
"""Bytes from which on git ignores a line of ``.gitattributes``."""


def check_dotfile(which: bytes, data: bytes) -> None:
    """Check the contents of a file; ``which`` is MODULES or ATTRIBUTES.

    Raises :class:`TreeRefused`.
    """
    fault = _modules_fault(data) if which == MODULES else _attributes_fault(data)
    if fault:
        raise TreeRefused(f".{which.decode()} {fault}")


def too_long(which: bytes) -> TreeRefused:
    return TreeRefused(f".{which.decode()} is over {MAX_FILE >> 20} MiB long")


def _attributes_fault(data: bytes) -> str | None:
    if any(len(line) >= MAX_LINE for line in data.split(b"\n")):
        return f"has a line of {MAX_LINE} bytes or more"
    return None


def _modules_fault(data: bytes) -> str | None:
    try:
        config = ConfigFile.from_file(io.BytesIO(data), expand_includes=False)
    except (ValueError, KeyError, IndexError):
        return "cannot be read: git config -f .gitmodules -l says where"
    for section in config.sections():
        if section[0].lower() != b"submodule" or len(section) < 2:
            continue
        name = b".".join(section[1:])
        if not name or b".." in re.split(rb"[/\\]", name):
            return f"names a submodule '{_shown(name)}', which leads out of its place"
        for key, value in config.items(section):
            if isinstance(value, bytes) and (fault := _value_fault(key.lower(), value)):
                return f"has a {_shown(key)} for '{_shown(name)}' that {fault}"
    return None


def _value_fault(key: bytes, value: bytes) -> str | None:
    if key == b"update" and value.startswith(b"!"):
        return "is a command"
    if key in (b"url", b"path") and value.startswith(b"-"):
        return "git would take for an option"
    return _url_fault(value) if key == b"url" else None


def _url_fault(url: bytes) -> str | None:
    if b"\n" in unquote_to_bytes(url):
        return "has two lines"
    if re.match(rb"(?:\./)*(?:\.\./)+(?:\./)*[:/]", url):
        return "climbs above its host"
    remote = re.sub(rb"^(?:https?|ftps?)::", b"", url)
    if remote != url or re.match(rb"(?:https?|ftps?)://", url):
        rest = remote.partition(b"://")
        authority = re.split(rb"[/?#]", rest[2])[0]
        if not rest[0] or not rest[1] or not authority.rpartition(b"@")[2]:
            return "names no host"
    return None


def _shown(text: bytes) -> str:
    return clean(text[:100].decode("utf-8", "backslashreplace"))
