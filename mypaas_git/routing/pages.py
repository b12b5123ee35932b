"""The pages that visitors see when no service answers them. Pure.

Traefik has no static answers of its own. The pages are a plugin, ``pages.go``, that it
interprets: so they are there whenever Traefik is, also while our own server is not, and no
firewall between containers and host is in their way.

Format: Traefik v3, "Plugins, local mode": the sources lie in ``/plugins-local/src``.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

Config = dict[str, Any]

PLUGIN = "pages"
MODULE = "mypaas/pages"
NOWHERE = "noop@internal"
"""The service of a router whose middleware answers everything."""

_MANIFEST = f"""\
displayName: Pages
type: middleware
import: {MODULE}
summary: Answers visitors when no service can.
testData:
  page: down
"""


class Page(str, Enum):
    """Which page: ``pages.go`` has the words, the status and Retry-After of each."""

    UNKNOWN = "unknown"
    DOWN = "down"
    MAINTENANCE = "maintenance"
    STOPPED = "stopped"

    @property
    def middleware(self) -> Config:
        """The middleware that answers with it."""
        return {"plugin": {PLUGIN: {"page": self.value}}}


def arguments() -> list[str]:
    """What Traefik is to be told at its start."""
    return [f"--experimental.localPlugins.{PLUGIN}.moduleName={MODULE}"]


def files() -> dict[str, str]:
    """The plugin's files, by their paths below Traefik's working directory."""
    top = f"plugins-local/src/{MODULE}"
    return {
        f"{top}/.traefik.yml": _MANIFEST,
        f"{top}/go.mod": f"module {MODULE}\n\ngo 1.22\n",
        f"{top}/pages.go": Path(__file__).with_name("pages.go").read_text("utf-8"),
    }


def catch_all() -> Config:
    """The configuration that answers for every address that is nobody's.

    Its priority is the lowest. Challenges of ACME have the highest, by Traefik's own doing.
    """
    everything: Config = {
        "rule": "PathPrefix(`/`)",
        "priority": 1,
        "service": NOWHERE,
        "middlewares": ["_pages.unknown"],
    }
    return {
        "http": {
            "routers": {
                "_pages.web": {**everything, "entryPoints": ["web"]},
                "_pages.websecure": {**everything, "entryPoints": ["websecure"], "tls": {}},
            },
            "middlewares": {"_pages.unknown": Page.UNKNOWN.middleware},
        }
    }
