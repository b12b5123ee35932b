"""mypaas-git: git-push deployments on your own server."""

__version__ = "0.1.0"
