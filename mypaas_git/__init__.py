"""mypaas-git: git-push deployments on your own server."""

import sys

__version__ = "0.1.0"

# paramiko loads invoke, for "Match exec" of ssh_config alone, which nothing here reads. It does
# without: the server is 3 MB smaller so, and commands start 50 ms sooner.
sys.modules.setdefault("invoke", None)  # type: ignore[arg-type]
