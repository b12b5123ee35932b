"""Traefik's dashboard, at the server's own name and behind the admin's password. Pure.

Source: Traefik v3, "API & Dashboard".
"""

from __future__ import annotations

from mypaas_git.directives.model import Url
from mypaas_git.routing import pages, rules
from mypaas_git.routing.rules import Config

PATHS = ("/api", "/dashboard")
"""What is the dashboard's at the server's name: its pages ask the API."""

PRIORITY = 10_000
"""More than any service's route has."""


def arguments(on: bool) -> list[str]:
    """What Traefik is to be told at its start."""
    # The "ad" is a script from elsewhere.
    return [f"--api.dashboard={str(on).lower()}", "--api.disableDashboardAd=true"]


def routes(host: str, user: str, resolver: str | None) -> Config:
    """The configuration that leads to the dashboard at ``host``, over https alone.

    ``user`` is a line of htpasswd; ``resolver`` certifies the host, None for nobody.
    """
    own = (rules.rule(Url("https", host, path)) for path in PATHS)
    router = {"rule": " || ".join(f"({each})" for each in own), "priority": PRIORITY}
    slash = {"regex": "^([^?]*/dashboard)([?].*)?$", "replacement": "${1}/${2}"}
    return {
        "http": {
            "routers": {
                "_dashboard": {
                    **router,
                    "entryPoints": ["websecure"],
                    "service": "api@internal",
                    "middlewares": ["_dashboard.user", "_dashboard.slash"],
                    "tls": {"certResolver": resolver} if resolver else {},
                },
                "_dashboard.http": {
                    **router,
                    "entryPoints": ["web"],
                    "service": pages.NOWHERE,
                    "middlewares": [rules.TO_HTTPS],
                },
            },
            "middlewares": {
                "_dashboard.user": {"basicAuth": {"users": [user], "removeHeader": True}},
                "_dashboard.slash": {"redirectRegex": slash},
            },
        }
    }
