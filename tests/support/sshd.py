"""OpenSSH's own server on a loopback port, with bare repositories of stock git behind it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.keys import ssh_key
from support.net import free_port, listening, wait_until

# The path that a client asks for, /name, is one below the repositories here.
_COMMAND = """#!/bin/sh
set -f
case "$SSH_ORIGINAL_COMMAND" in
git-receive-pack\\ *|git-upload-pack\\ *) ;;
*) echo "only git: $SSH_ORIGINAL_COMMAND" >&2; exit 1 ;;
esac
verb=${{SSH_ORIGINAL_COMMAND%% *}}
path=$(echo "${{SSH_ORIGINAL_COMMAND#* }}" | tr -d "'")
echo "$verb" >> '{root}/commands'
exec "$verb" '{root}/repos'"$path"
"""


class Sshd:
    """A running server; ``authorize`` what may log in, ``repo`` what can be pushed to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        self.host_key = ssh_key(root, "host_key")
        self._authorized = root / "authorized"
        self._authorized.touch()
        (root / "repos").mkdir()

    @property
    def commands(self) -> list[str]:
        """The git commands that were run, oldest first."""
        log = self.root / "commands"
        return log.read_text().split() if log.exists() else []

    @property
    def known_hosts_line(self) -> str:
        kind, blob, *_ = self.host_key.with_suffix(".pub").read_text().split()
        return f"[127.0.0.1]:{self.port} {kind} {blob}\n"

    @property
    def fingerprint(self) -> str:
        shown = subprocess.run(
            ["ssh-keygen", "-lf", str(self.host_key)],
            check=True,
            capture_output=True,
            text=True,
        )
        return shown.stdout.split()[1]

    def authorize(self, key: Path) -> None:
        public = key.with_name(key.name + ".pub").read_text()
        self._authorized.write_text(self._authorized.read_text() + public)

    def repo(self, name: str, **hooks: str) -> Path:
        """A new bare repository; ``pre_receive="#!/bin/sh…"`` installs a hook."""
        path = self.root / "repos" / name
        subprocess.run(["git", "init", "-q", "--bare", str(path)], check=True)
        for hook, text in hooks.items():
            script = path / "hooks" / hook.replace("_", "-")
            script.write_text(text)
            script.chmod(0o755)
        return path

    @contextmanager
    def running(self, *settings: str) -> Iterator[Sshd]:
        """Serve, with further lines of ``sshd_config``, until the block is left."""
        command = self.root / "command"
        command.write_text(_COMMAND.format(root=self.root))
        command.chmod(0o755)
        config = self.root / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {self.host_key}\n"
            f"AuthorizedKeysFile {self._authorized}\nForceCommand {command}\n"
            "PermitRootLogin yes\nPasswordAuthentication no\nUsePAM no\nStrictModes no\n"
            "PidFile none\n" + "".join(f"{line}\n" for line in settings)
        )
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd gives up its rights
        # sshd wants to be called by its whole path.
        program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin") or "/usr/sbin/sshd"
        with (self.root / "log").open("wb") as log:
            process = subprocess.Popen([program, "-D", "-e", "-f", str(config)], stderr=log)
        try:
            wait_until(lambda: listening(self.port), "sshd accepts connections")
            yield self
        finally:
            process.terminate()
            process.wait(10)
