"""What a connection costs that only stands there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/benchmarks/connections.py"


def test_idle_and_active_connections() -> None:
    """An idle connection takes at most 0.3 MiB and no cpu; none leaves anything behind.

    The script does the same with 200 idle and 50 active ones.
    """
    options = ["--idle", "40", "--active", "10", "--seconds", "3", "--json"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options], capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["idle_memory"] < 0.3
    assert figures["idle_cpu"] < 0.01
    assert figures["threads"][1] == figures["threads"][0]
    assert figures["descriptors"][1] == figures["descriptors"][0]
