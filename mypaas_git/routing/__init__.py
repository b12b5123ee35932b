"""Traefik: from specs to routes, and the proxy itself."""
