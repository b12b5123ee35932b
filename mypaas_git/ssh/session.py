"""One command of one client, who may run git or one of our commands.

Each is a :class:`Session` in a thread of its own, on a terminal or not.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from mypaas_git.access.policy import Identity
from mypaas_git.errors import AccessDenied, Cancelled, GitRefused, MypaasError, UsageError
from mypaas_git.progress import clean_lines
from mypaas_git.redact import loggable
from mypaas_git.ssh.stream import ClientGone, Stream, TerminalStream

MAX_COMMAND = 64 * 1024
"""Bytes of one command line."""
INTERRUPTED = 130
"""The exit code of a command that Ctrl-C has ended."""

GitVerb = Literal["git-receive-pack", "git-upload-pack"]


class KeyGone(AccessDenied):
    """The key that opened the connection may not come in any more."""


class Backend(Protocol):
    """What sessions lead to. Both return the exit code, 0 to 255."""

    def git(self, identity: Identity, verb: GitVerb, path: str, stream: Stream) -> int:
        """Speak git's protocol over ``stream``; ``path`` is as the client wrote it.

        Tells the client itself of anything that is refused.
        """

    def command(self, identity: Identity, argv: list[str], stream: Stream) -> int:
        """Run one of our commands, less the leading ``mypaas``; ``argv`` may be empty.

        May raise any :class:`MypaasError`, which the client sees as one line.
        """

    def turned_away(self, who: Identity, asked: str, error: MypaasError) -> None:
        """Note that somebody got no further than here; a stranger has no name.

        ``asked`` is the first word of what they asked for.
        """


@dataclass(frozen=True)
class GitRequest:
    """``git push`` or ``git fetch`` at the other end."""

    verb: GitVerb
    path: str


def parse_command(line: bytes) -> GitRequest | list[str]:
    """What an exec request asks for: git, or the words of one of our commands.

    Raises :class:`UsageError` for a line that is no command line, and
    :class:`GitRefused` for what git can do elsewhere and not here.
    """
    words = _split(line)
    if words[:1] == ["git"] and len(words) > 1:
        words = [f"git-{words[1]}", *words[2:]]
    if words and words[0] in {"git-receive-pack", "git-upload-pack"}:
        if len(words) != 2:
            raise UsageError(f"{words[0]} takes one repository")
        verb: GitVerb = (
            "git-receive-pack" if words[0] == "git-receive-pack" else "git-upload-pack"
        )
        return GitRequest(verb, words[1])
    if words and words[0].startswith("git-"):
        raise GitRefused(f"{words[0][:40]} is not served here; git push, fetch and clone are")
    if words[:1] == ["mypaas"]:
        words = words[1:]
    if words and re.fullmatch(r"[a-z-]+(?::[a-z-]+)+", words[0]):
        words = [*words[0].split(":"), *words[1:]]
    return words


def _split(line: bytes) -> list[str]:
    if len(line) > MAX_COMMAND:
        raise UsageError(f"the command line is longer than {MAX_COMMAND // 1024} KiB")
    if b"\0" in line:
        raise UsageError("there is a NUL byte in the command line")
    try:
        return shlex.split(line.decode())
    except UnicodeDecodeError:
        raise UsageError("the command line is not UTF-8") from None
    except ValueError as error:
        raise UsageError(f"the command line's quotes do not match: {error}") from None


class Session:
    """One command of one client. ``command`` None stands for a shell."""

    def __init__(
        self,
        command: bytes | None,
        stream: Stream,
        *,
        identify: Callable[[], Identity],
        turned_away: Callable[[str, MypaasError], None],
        backend: Backend,
        log: Any,
    ) -> None:
        self.id = secrets.token_hex(4)
        self._command = command
        self.stream = stream
        self._identify = identify
        self._turned_away = turned_away
        self._backend = backend
        self._log = log.bind(session=self.id)
        self.key_gone = False

    def run(self) -> None:
        """Run the command to its end; never raises."""
        code = 1
        try:
            code = self._dispatch()
        except ClientGone:
            self._log.info("the client left")
        except MypaasError as error:
            self.key_gone = isinstance(error, KeyGone)
            code = {UsageError: 2, Cancelled: INTERRUPTED}.get(type(error), 1)
            self._log.info("refused", code=error.code, reason=error.message)
            self._turned_away(self._asked, error)
            self._report(error)
        except Exception:  # noqa: BLE001 - the boundary: the log gets it all, the client a line
            self._log.exception("internal error")
            self._say(f"internal error, session {self.id}")
        finally:
            self.stream.finish(code if 0 <= code <= 255 else 1)

    def _dispatch(self) -> int:
        if self._command is None:
            raise AccessDenied("no shell here; try: ssh … help, or git push")
        request = parse_command(self._command)
        # Asked for each command, since a connection can outlive its key.
        identity = self._identify()
        if isinstance(request, GitRequest):
            if self.stream.window is not None:
                raise AccessDenied("git takes no terminal; run ssh without -t")
            self._log.info("git", verb=request.verb, path=request.path)
            return self._backend.git(identity, request.verb, request.path, self.stream)
        self._log.info("command", argv=loggable(request))
        return self._run_command(identity, request)

    def _run_command(self, identity: Identity, argv: list[str]) -> int:
        if self.stream.window is None:
            return self._backend.command(identity, argv, self.stream)
        terminal = TerminalStream(self.stream)
        code = self._backend.command(identity, argv, terminal)
        return INTERRUPTED if terminal.was_interrupted else code

    @property
    def _asked(self) -> str:
        """What was asked for, without arguments: there may be secrets among them."""
        if self._command is None:
            return "shell"
        return self._command[:100].partition(b" ")[0].decode("utf-8", "replace")

    def _report(self, error: MypaasError) -> None:
        self._say(error.message)
        with contextlib.suppress(ClientGone):
            for detail in error.details:
                for line in clean_lines(detail):
                    self.stream.write_error(f"  {line}\n".encode())

    def _say(self, text: str) -> None:
        with contextlib.suppress(ClientGone):
            self.stream.say(text)
