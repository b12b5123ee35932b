"""The ``mypaas`` command in a shell."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import sys
import time
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog

from mypaas_git.app import App, Home
from mypaas_git.cli.context import Context, local_identity
from mypaas_git.cli.push import push
from mypaas_git.cli.server import retire_elsewhere, server
from mypaas_git.cli.shell import Shell
from mypaas_git.cli.tree import run, tree
from mypaas_git.progress import clean_lines
from mypaas_git.settings import home_from_environment


def main() -> None:
    """Run the command line and exit with its code."""
    serving = sys.argv[1:3] == ["server", "start"]
    configure_logging(logging.INFO if serving else logging.ERROR)
    apps: list[App] = []

    def make_app() -> App:
        apps.append(App.at(home_from_environment(), None if serving else retire_elsewhere))
        return apps[0]

    context = Context(make_app, local_identity(), Shell())
    for number in (signal.SIGTERM, signal.SIGHUP):
        # What Ctrl-C takes back, such as half a deploy, these do too.
        signal.signal(number, signal.default_int_handler)
    try:
        code = run(tree(server, push), sys.argv[1:], context)
        for app in apps:
            app.close()
    except KeyboardInterrupt:
        context.note("mypaas: interrupted")
        code = 130
    except BrokenPipeError:  # `mypaas logs … | head`
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception:  # noqa: BLE001 - the boundary: the log gets it all, people a line
        context.note(f"mypaas: internal error; {_keep(traceback.format_exc())}")
        code = 1
    sys.exit(code)


def _keep(text: str) -> str:
    """Write a traceback where an admin finds it, and return where that is."""
    path = Home(home_from_environment()).logs / "errors.log"
    number = secrets.token_hex(4)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"--- {number} {time.ctime()}\n{text}")
    except OSError:
        return f"it cannot be kept in {path}:\n{text}"
    return f"{path} has the details, under {number}"


def configure_logging(level: int) -> None:
    """Send our log, and errors of the libraries', to standard error as ``key=value`` lines."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _harmless,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)


def _harmless(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Any:
    """What clients have sent steers no terminal that the log is read on."""
    for key, value in event.items():
        if not isinstance(value, bool | int | float | None):
            event[key] = "\n".join(clean_lines(str(value)))
    return event


if __name__ == "__main__":
    main()
