"""What logs and messages show instead of secrets."""

from __future__ import annotations

import pytest

from mypaas_git.redact import Redactor, loggable


def test_values_are_hidden_line_by_line() -> None:
    """The longest first; what is shorter than six characters is an everyday word."""
    hide = Redactor(
        {"A": "hunter2-hunter2", "B": "hunter2", "C": "x", "PEM": "one line\ntwo\n"}
    )
    shown = hide("x hunter2-hunter2 hunter2 one line two")
    assert shown == "x [A] [B] [PEM] two"
    assert Redactor({})("hunter2") == "hunter2"


@pytest.mark.parametrize(
    ("argv", "kept"),
    [
        (["services", "--json"], ["services", "--json"]),
        (["config", "set", "web", "A=hunter2"], ["config", "set", "web", "A=…"]),
        (["config", "set", "web", "A", "hunter2"], ["config", "set", "web", "…", "…"]),
        (["config", "set", "web", "-"], ["config", "set", "web", "-"]),
        (
            ["config", "set", "web", "A=b", "--no-restart"],
            ["config", "set", "web", "A=…", "--no-restart"],
        ),
        (["config", "set", "web", "--A=hunter2"], ["config", "set", "web", "--A"]),
        (["run", "web", "--", "psql", "hunter2"], ["run", "web", "--", "psql", "…"]),
        (["run", "web", "--", "ls"], ["run", "web", "--", "ls"]),
        ([], []),
    ],
)
def test_commands_as_the_log_keeps_them(argv: list[str], kept: list[str]) -> None:
    """T57: which variable, never which value."""
    assert loggable(argv) == kept
