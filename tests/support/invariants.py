"""What must hold of a service whatever has happened, once the dust has settled."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator, Sequence

from mypaas_git.deploy.plan import replica_names
from mypaas_git.deploy.retire import kept_images
from mypaas_git.ledger.model import Release, Wanted
from mypaas_git.ledger.store import Ledger
from mypaas_git.names import ServiceName, release_label
from mypaas_git.routing.rules import server_urls
from mypaas_git.settings import load
from support import engine
from support.paas import Paas
from support.stockgit import git

# Everything that a home holds for good; what else lies in it, a crash has left there.
LASTING = (
    r"config\.toml|authorized_keys(\.lock)?|traefik\.password|server\.lock",
    r"certificates\.json",
    r"ledger\.db(-wal|-shm)?",
    r"host_keys/ssh_host_[a-z0-9]+_key(\.pub)?",
    r"acme/.*",
    r"config/[a-z0-9-]+\.json",
    r"routes/(_api|_dashboard|_shared|_tls|_services)\.yml",
    r"logs/audit(-strangers)?\.jsonl(\.[0-9])?|logs/audit\.lock|last_used/[0-9a-f]{64}",
    r"logs/traefik/access\.log(\.[0-9])?",
    r"logs/server\.log|logs/[a-z0-9-]+/v[0-9]+\.log",
    # One each a service, and those that all services share.
    r"locks/([a-z0-9-]+|\.build\.[0-9]+|\.layers|\.routes|\.volumes|\.variables)\.lock|locks/[a-z0-9-]+\.newest",
    r"repos/[a-z0-9-]+\.git/(HEAD|config|description|packed-refs|info/.*|hooks/.*)",
    r"repos/[a-z0-9-]+\.git/refs/(heads|tags)/[A-Za-z0-9/]+",
    r"repos/[a-z0-9-]+\.git/objects/([0-9a-f]{2}/[0-9a-f]{38}|info/.*)",
    r"repos/[a-z0-9-]+\.git/objects/pack/pack-[0-9a-f]{40}\.(pack|idx)",
)


def ledger_of(paas: Paas) -> Ledger:
    return Ledger(paas.home / "ledger.db")


def live_of(paas: Paas, name: str) -> Release | None:
    return ledger_of(paas).live_release(ServiceName(name))


def settled(paas: Paas, name: str, *, seconds: float = 90) -> tuple[float, list[str]]:
    """Wait until nothing is wrong with a service: how long that took, and what still is."""
    began = time.monotonic()
    while (wrong := faults(paas, name)) and time.monotonic() - began < seconds:
        time.sleep(0.05)
    return time.monotonic() - began, wrong


def faults(paas: Paas, name: str) -> list[str]:
    """What is not as the ledger says it should be, or was left over by somebody."""
    service = ServiceName(name)
    checks: list[Callable[[Paas, ServiceName], Iterator[str]]] = [
        _rows,
        _containers,
        _routes,
        _images,
        _repository,
        _files,
    ]
    try:
        return [fault for check in checks for fault in check(paas, service)]
    except FileNotFoundError as error:
        return [f"it went while it was looked at: {error.filename}"]


def _rows(paas: Paas, service: ServiceName) -> Iterator[str]:
    ledger = ledger_of(paas)
    wanted, releases = ledger.wanted(service), ledger.releases(service)
    if wanted is Wanted.ERASED:
        yield "the ledger still knows what was to be erased"
    for release in ledger.underway(service):
        yield f"the row of {release.label} says {release.state.value}"
    served = any(release.served for release in releases)
    if served and not wanted.gone and ledger.live_release(service) is None:
        yield "no release is live"
    if ledger.layers(service):
        yield "rows of layers are left"


def _wanted_replicas(paas: Paas, service: ServiceName) -> list[str]:
    live = live_of(paas, service)
    return replica_names(live.spec, live.number) if live else []


def _containers(paas: Paas, service: ServiceName) -> Iterator[str]:
    ours = f"label=mypaas.service={service}"
    found = engine.containers(paas.namespace, ours)
    expected = sorted(f"{paas.namespace}.{each}" for each in _wanted_replicas(paas, service))
    if found != expected:
        yield f"containers: {found}, not {expected}"
    stopped = ledger_of(paas).wanted(service) is Wanted.STOPPED
    running = engine.containers(paas.namespace, ours, "status=running")
    if running != ([] if stopped else expected):
        yield f"running: {running}"


def _routes(paas: Paas, service: ServiceName) -> Iterator[str]:
    route = paas.route(service)
    live = live_of(paas, service)
    found = None
    if route is not None:
        balancer = route["http"]["services"][service]["loadBalancer"]
        found = [each["url"] for each in balancer["servers"]]
    expected = None
    if live and live.spec.urls:
        stopped = ledger_of(paas).wanted(service) is Wanted.STOPPED
        names = [] if stopped else replica_names(live.spec, live.number)
        expected = server_urls(live.spec, names)
    if found != expected:
        yield f"route: {found}, not {expected}"


def _images(paas: Paas, service: ServiceName) -> Iterator[str]:
    ledger = ledger_of(paas)
    kept: set[int] = set()
    if not ledger.wanted(service).gone:
        kept = kept_images(ledger.releases(service), load(paas.home).docker.keep_releases)
    shown = engine.docker("images", f"{paas.namespace}/{service}", "--format", "{{.Tag}}")
    found, expected = set(shown.split()), {release_label(number) for number in kept}
    if found - expected:
        yield f"images left over: {sorted(found - expected)}"
    if expected - found and not _was_removed(ledger.releases(service)):
        yield f"images lost: {sorted(expected - found)}"
    own = f"label={engine.NAMESPACE_LABEL}={paas.namespace}"
    spare = engine.docker("images", "-q", "--filter", "dangling=true", "--filter", own)
    if spare:
        yield f"images without a name: {spare.split()}"


def _was_removed(releases: Sequence[Release]) -> bool:
    """Whether all images went once: the first release ended before the next one began."""
    served = [each for each in reversed(releases) if each.served]
    return any(
        before.ended_at is not None and after.started_at > before.ended_at
        for before, after in itertools.pairwise(served)
    )


def _repository(paas: Paas, service: ServiceName) -> Iterator[str]:
    path = paas.home / "repos" / f"{service}.git"
    releases = ledger_of(paas).releases(service)
    if not path.exists():
        if releases:
            yield "the repository is gone"
        return
    listed = git(path, "for-each-ref", "--format=%(refname) %(objectname) %(*objectname)")
    refs = {words[0]: words[-1] for words in map(str.split, listed.stdout.splitlines())}
    expected = {
        f"refs/tags/release/{release.label}": release.commit
        for release in releases
        if release.served
    }
    live = live_of(paas, service)
    if live is not None:
        expected[f"refs/heads/{live.branch}"] = live.commit
    if live is not None and refs != expected:
        yield f"refs: {refs}, not {expected}"
    checked = git(path, "fsck", "--strict", "--no-dangling", check=False)
    said = (checked.stderr + checked.stdout).splitlines()
    said = [line for line in said if not line.startswith("notice: ")]  # that it is empty
    if checked.returncode or said:
        yield f"git fsck: {said}"


def _files(paas: Paas, _service: ServiceName) -> Iterator[str]:
    lasting = re.compile("|".join(f"(?:{each})" for each in LASTING))
    for path in sorted(paas.home.rglob("*")):
        shown = path.relative_to(paas.home).as_posix()
        if path.is_dir():
            if path.name.startswith((".", "incoming-")):
                yield f"left over: {shown}/"
        elif not lasting.fullmatch(shown):
            yield f"left over: {shown}"
        elif shown.endswith(".pack") and not path.with_suffix(".idx").exists():
            yield f"a pack without its index: {shown}"
