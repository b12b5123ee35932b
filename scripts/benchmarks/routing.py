"""Routes, measured: how soon a new one counts beside many, and what Traefik costs a request.

    scripts/bench routing [--quick]

Traefik runs as a process on loopback, its routes written and confirmed by the server's own
code. Requests are made by wrk to something that does next to nothing (the health page of
another Traefik), directly and through Traefik, in turns. The raw figures are written to
``.cache/bench/routing.json``. Exits with 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy_verdicts import Part, progress
from support.net import free_port, wait_until
from support.traefik import binary

from mypaas_git.directives.model import Healthcheck, ServiceSpec, Url
from mypaas_git.errors import RouterDown
from mypaas_git.names import ServiceName
from mypaas_git.routing import pages, proxy, tls
from mypaas_git.routing.selfsigned import SelfSigned
from mypaas_git.routing.traefik import Traefik

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "bench"
MANY = 500
GROWTH = 1.3
"""How much longer a route beside MANY others may take than beside one."""


@dataclass
class Proxy:
    """A running Traefik, where visitors reach it, and who writes its routes."""

    web: int
    router: Traefik


@contextlib.contextmanager
def traefik(directory: Path) -> Iterator[Proxy]:
    """A Traefik with the server's own arguments, on ports of loopback."""
    web, api, routes = free_port(), free_port(), directory / "routes"
    routes.mkdir(parents=True)
    for path, text in pages.files().items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)
    plan = proxy.plan(
        name="bench",
        image="",
        web=("", 0),
        web_secure=("", 0),
        routes=str(routes),
        storage="",
        acme=None,
        http3=False,
        salt="",
    )
    ours = {
        "entryPoints.web.address": f"127.0.0.1:{web}",
        "entryPoints.websecure.address": f"127.0.0.1:{free_port()}",
        "entryPoints.api.address": f"127.0.0.1:{api}",
        "providers.file.directory": str(routes),
        "log.level": "FATAL",  # replicas that are nowhere
    }
    kept = [each for each in plan.arguments if each[2:].partition("=")[0] not in ours]
    told = [*kept, *(f"--{key}={value}" for key, value in ours.items())]
    spoken = tls.config([], SelfSigned(directory / "self-signed.pem").pem, http2=True)
    router = Traefik(
        routes,
        api=lambda: ("127.0.0.1", api),
        password="bench",  # noqa: S106
        tls=lambda: spoken,
    )
    router.guard_api()
    with _running([str(binary()), *told], directory):
        wait_until(lambda: _answers(router), "Traefik answers")
        yield Proxy(web, router)


def _answers(router: Traefik) -> bool:
    with contextlib.suppress(RouterDown):
        router.check()
        return True
    return False


@contextlib.contextmanager
def _running(command: Sequence[str], directory: Path) -> Iterator[None]:
    with subprocess.Popen(
        command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.terminate()


def service(name: str, port: int) -> ServiceSpec:
    """One that scales, so that Traefik asks its replica how it is."""
    return ServiceSpec(
        ServiceName(name),
        urls=(Url("http", f"{name}.test"),),
        port=port,
        scale=1,
        healthcheck=Healthcheck("/ping"),
    )


def growth(rounds: int, root: Path, port: int) -> Part:
    """Switch a service between two replicas beside one other service, and beside MANY."""
    part = Part("a route is switched and confirmed", ("other services", "time"))
    times: dict[int, list[float]] = {1: [], MANY: []}
    with traefik(root / "few") as few, traefik(root / "many") as many:
        proxies = {1: few, MANY: many}
        for count, each in proxies.items():
            for number in range(count):
                each.router.write(service(f"other-{number}", port), ["127.0.0.1"])
            each.router.set(service("last", port), ["127.0.0.1"])
        for number in range(rounds):
            progress(f"round {number + 1} of {rounds}")
            for count, each in proxies.items():
                time.sleep(0.2)
                began = time.monotonic()
                each.router.set(service("it", port), [f"127.0.0.{1 + number % 2}"])
                times[count].append(time.monotonic() - began)
    medians = {count: statistics.median(found) for count, found in times.items()}
    for count, middle in medians.items():
        part.rows.append((str(count), f"{middle * 1000:.0f} ms"))
    ratio = medians[MANY] / medians[1]
    part.judge(f"beside {MANY}", f"{ratio:.2f} times", f"<= {GROWTH}", ratio <= GROWTH)
    part.raw["seconds"] = times
    return part


def overhead(rounds: int, root: Path, port: int) -> Part:
    """Requests a second and the slowest of a hundred, through Traefik and directly."""
    part = Part("requests", ("way", "requests/s", "99 % within"))
    found: dict[str, list[tuple[float, float]]] = {"directly": [], "through Traefik": []}
    with traefik(root / "way") as way:
        way.router.set(service("it", port), ["127.0.0.1"])
        for number in range(rounds):
            progress(f"round {number + 1} of {rounds}")
            found["directly"].append(load(port))
            found["through Traefik"].append(load(way.web))
    medians = {}
    for name, figures in found.items():
        rate, slow = (statistics.median(column) for column in zip(*figures, strict=True))
        medians[name] = (rate, slow)
        part.rows.append((name, f"{rate:.0f}", f"{slow * 1000:.1f} ms"))
    (direct, calm), (through, slow) = medians.values()
    part.rows.append(("ratio", f"{through / direct:.2f}", f"{slow / calm:.1f}"))
    part.raw["requests a second, and seconds"] = found
    return part


def load(port: int) -> tuple[float, float]:
    """Requests a second, and the seconds within which 99 % are answered, of 3 s of wrk."""
    command = ["wrk", "-t1", "-c20", "-d3s", "--latency", "-H", "Host: it.test"]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/ping"], capture_output=True, text=True, check=True
    )
    if "Non-2xx" in done.stdout:
        raise SystemExit(f"not every request was answered well:\n{done.stdout}")
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", done.stdout)
    slow = re.search(r"99%\s+([0-9.]+)(us|ms|s)", done.stdout)
    if rate is None or slow is None:
        raise SystemExit(f"wrk says something else:\n{done.stdout}")
    return float(rate[1]), float(slow[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[slow[2]]


def main() -> int:
    """Measure; 1 when a target is missed."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench routing", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="few rounds, to try it out")
    quick, port = parser.parse_args().quick, free_port()
    backend = [str(binary()), "--ping=true", "--ping.entryPoint=app", "--log.level=FATAL"]
    backend.append(f"--entryPoints.app.address=:{port}")
    with tempfile.TemporaryDirectory(prefix="mypaas-bench-") as root:
        (Path(root) / "app").mkdir()
        with _running(backend, Path(root) / "app"):
            parts = {
                "growth": growth(3 if quick else 30, Path(root), port),
                "overhead": overhead(1 if quick else 5, Path(root), port),
            }
    for part in parts.values():
        part.show()
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / "routing.json"
    path.write_text(json.dumps({name: part.raw for name, part in parts.items()}, indent=1))
    print(f"The raw figures are in {path}")
    return 0 if all(part.met for part in parts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
