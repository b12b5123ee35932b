"""Traefik's dashboard, at the server's own name and behind the admin's password. Pure.

Source: Traefik v3, "API & Dashboard".
"""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

PATHS = ("/api", "/dashboard")
"""What is the dashboard's at the server's name: its pages ask the API."""

PRIORITY = 10_000
"""More than any service's route has."""


def arguments(on: bool) -> list[str]:
    """What Traefik is to be told at its start."""
    # The "ad" is a script from elsewhere.
    return [f"--api.dashboard={str(on).lower()}", "--api.disableDashboardAd=true"]


def routes(host: str, user: str, *, resolver: str | None, secure_port: int) -> Config:
    """The configuration that leads to the dashboard at ``host``, over https alone.

    ``user`` is a line of htpasswd; ``resolver`` certifies the host, None for nobody.
    """
    paths = " || ".join(f"Path(`{path}`) || PathPrefix(`{path}/`)" for path in PATHS)
    router = {"rule": f"Host(`{host}`) && ({paths})", "priority": PRIORITY}
    to_https = {"scheme": "https", "permanent": True, "port": str(secure_port)}
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
                    "service": "noop@internal",
                    "middlewares": ["_dashboard.https"],
                },
            },
            "middlewares": {
                "_dashboard.user": {"basicAuth": {"users": [user], "removeHeader": True}},
                "_dashboard.slash": {"redirectRegex": slash},
                "_dashboard.https": {"redirectScheme": to_https},
            },
        }
    }
