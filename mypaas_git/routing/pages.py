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
NOBODY = "_pages.nobody"
"""A service that answers everything with the page DOWN."""

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
    def middleware(self) -> str:
        """The name of the middleware that answers with it."""
        return f"_pages.{self.value}"


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


def shared() -> Config:
    """The configuration of all pages: whose turn is UNKNOWN, whose DOWN.

    The router of every address that is nobody's has the lowest priority. Challenges of ACME
    have the highest, by Traefik's own doing.
    """
    everything: Config = {
        "rule": "PathPrefix(`/`)",
        "priority": 1,
        "service": NOWHERE,
        "middlewares": [Page.UNKNOWN.middleware],
    }
    return {
        "routers": {
            "_pages.web": {**everything, "entryPoints": ["web"]},
            "_pages.websecure": {**everything, "entryPoints": ["websecure"], "tls": {}},
        },
        "services": {
            NOBODY: {"loadBalancer": {"servers": []}, "middlewares": [Page.DOWN.middleware]}
        },
        "middlewares": {
            page.middleware: {"plugin": {PLUGIN: {"page": page.value}}} for page in Page
        },
    }
