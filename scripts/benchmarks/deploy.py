"""Deploys, measured: under load, beside upstream mypaas, and among many services.

    scripts/bench deploy [--quick] [--only rolling|bad|compare|scale]

Everything runs on this host, on loopback or on machines of its own in network namespaces.
The raw figures are written to ``.cache/bench/deploy.json``, of one part alone to
``deploy-PART.json``. Exits with 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy_compare import compare
from deploy_growth import growth
from deploy_rolling import bad, good
from deploy_verdicts import Part

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "bench"


@dataclass(frozen=True)
class Counts:
    """How often everything is done."""

    good: int = 50
    bad: int = 20
    rounds: int = 5
    upstream: int = 2
    others: Sequence[int] = (1, 20, 100)


QUICK = Counts(good=5, bad=4, rounds=1, upstream=1, others=(1, 20))


def main() -> int:
    """Run what the arguments ask for; 1 when a target is missed."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # having cleared away
    counts = QUICK if options.quick else Counts()
    parts = _parts(counts)
    names = [options.only] if options.only else list(parts)
    found: dict[str, Part] = {}
    for name in names:
        print(f"== {name}", flush=True)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="mypaas-bench-") as root:
            found[name] = parts[name](Path(root) / name)
        found[name].raw["took"] = time.monotonic() - began
        found[name].show()
    _keep(f"deploy-{options.only}" if options.only else "deploy", found)
    met = all(part.met for part in found.values())
    print("All targets are met" if met else "A target is missed, see MISS above", flush=True)
    return 0 if met else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench deploy", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="few rounds, to try it out")
    parser.add_argument("--only", choices=["rolling", "bad", "compare", "scale"])
    return parser.parse_args()


def _parts(counts: Counts) -> dict[str, Callable[[Path], Part]]:
    return {
        "rolling": lambda root: good(counts.good, root),
        "bad": lambda root: bad(counts.bad, root),
        "compare": lambda root: compare(counts.rounds, counts.upstream, root),
        "scale": lambda root: growth(counts.others, counts.rounds, root),
    }


def _keep(name: str, parts: dict[str, Part]) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {
        part: {
            "met": each.met,
            "targets": [vars(verdict) for verdict in each.verdicts],
            "figures": each.raw,
        }
        for part, each in parts.items()
    }
    path = CACHE / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"The raw figures are in {path}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
