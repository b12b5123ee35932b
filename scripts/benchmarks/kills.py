"""Kills a server over and over in the middle of a deploy, and shows what became of it.

``PYTHONPATH=tests .venv/bin/python scripts/benchmarks/kills.py --rounds 50`` prints a row
a kill and exits with 1 when a visitor got no answer or anything was left over.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from support.kills import Kills, Round
from support.paas import Paas


def main() -> int:
    arguments = _arguments()
    print(f"{arguments.rounds} kills, moments of --seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="mypaas-kills-") as root:
        paas = Paas(Path(root) / "paas")
        try:
            paas.init()
            paas.start()
            kills = Kills(paas, Path(root) / "apps", arguments.seed, arguments.scale)
            print(Round.HEAD, flush=True)
            done = [_shown(each) for each in kills.rounds(arguments.rounds)]
        finally:
            paas.close()
    return _summed_up(done)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50, help="how many kills (50)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--scale", default="2", help="replicas of the service (2)")
    return parser.parse_args()


def _shown(each: Round) -> Round:
    print(each, flush=True)
    for failure in each.failures[:5]:
        print(f"     failed: {failure}", flush=True)
    return each


def _summed_up(done: list[Round]) -> int:
    answered = sum(each.answered for each in done)
    failed = sum(len(each.failures) for each in done)
    slowest = max(each.recovered for each in done)
    bad = [each for each in done if not each.fine]
    print(
        f"{len(done)} kills: {answered + failed} requests, {failed} failed; "
        f"recovered in {slowest:.1f} s at most; {len(bad)} rounds with something wrong"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
