"""Stock git, untouched by whatever configuration this machine's user has."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

CLEAN = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "Alice",
    "GIT_AUTHOR_EMAIL": "alice@example.com",
    "GIT_COMMITTER_NAME": "Alice",
    "GIT_COMMITTER_EMAIL": "alice@example.com",
    "LC_ALL": "C.UTF-8",
}
_STEERED = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_SSH", "GIT_SSH_COMMAND")


def clean_env(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with git's configuration replaced, plus ``env``."""
    kept = {key: value for key, value in os.environ.items() if key not in _STEERED}
    return {**kept, **CLEAN, **(env or {})}


def git(
    cwd: Path,
    *args: str,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    stdin: str | None = None,
    seconds: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run ``git args`` in ``cwd``; a failure shows git's own words."""
    done = subprocess.run(
        ["git", *args],
        cwd=cwd,
        env=clean_env(env),
        input=stdin or "",
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=seconds,
        check=False,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"git {shlex.join(args)}: {done.stderr}{done.stdout}")
    return done


def ssh_options(key: Path | None, known_hosts: Path) -> list[str]:
    """Options of ssh that offer ``key`` alone, never ask, and check the host key."""
    identity = ["-i", str(key)] if key else ["-o", "PubkeyAuthentication=no"]
    wanted = {
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(known_hosts),
        "GlobalKnownHostsFile": os.devnull,
        "LogLevel": "ERROR",
        "ConnectTimeout": "10",
    }
    options = [part for name, value in wanted.items() for part in ("-o", f"{name}={value}")]
    return ["-F", os.devnull, *identity, *options]


def ssh_command(options: Sequence[str]) -> dict[str, str]:
    """The environment that makes git use ssh with these options."""
    return {"GIT_SSH_COMMAND": shlex.join(["ssh", *options])}
