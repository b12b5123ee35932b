"""T1 to T4: a crowd of hostile sockets, and a push from the same address meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/benchmarks/hostile.py"


def test_crowd() -> None:
    """Strangers are gone in time and leave nothing behind, and no push is lost.

    The script does the same with 1,000 sockets and the real deadline, and tells how much
    slower pushes are.
    """
    options = ["--sockets", "300", "--login", "4", "--seconds", "8", "--json"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options], capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["connections"] == 300
    before, most, _ = figures["memory"]
    assert most - before < 64
    # One may be about to end still; it is not one for each of them.
    assert figures["threads"][2] <= figures["threads"][0] + 2
    assert figures["descriptors"][1] == figures["descriptors"][0]
    assert figures["lost"] == 0
    assert figures["pushes"] > 5
    # The client notices the end a little later when the machine is busy.
    assert max(figures["longest"].values()) < 4 + 3
