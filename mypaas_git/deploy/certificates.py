"""Which hosts have a certificate, what is done about the others, and what a pusher is told.

Traefik asks for certificates; whether it got one is seen by shaking hands with it, and why
not is read in its log.
"""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from mypaas_git.deploy.whereabouts import misled
from mypaas_git.directives.model import ServiceSpec, Url
from mypaas_git.errors import MypaasError
from mypaas_git.ledger.model import Release
from mypaas_git.progress import Progress
from mypaas_git.redact import Redactor
from mypaas_git.routing.acme import RESOLVER, Acme, advice, failure_in
from mypaas_git.routing.holds import Holds
from mypaas_git.routing.leaf import Leaf, shown
from mypaas_git.routing.own import OwnCertificates
from mypaas_git.routing.rules import Secured

POLL = 0.1
LOOK = 2.0
"""Seconds that one look for certificates of all services may take."""
MEMORY = 86400.0
"""Seconds for which a failure in the log of Traefik may go unnoticed."""

SELF_SIGNED = "https://{} answers with a self-signed certificate until there is a real one:"
NOBODY_ASKED = (
    "self-signed certificate, as the server's config.toml has neither an email for Let's "
    "Encrypt ([init]) nor a certificate of its own ([http.certificates])"
)


class Certificates:
    """``acme`` is None when nobody is asked.

    ``entry`` tells where the proxy listens for https on this host, ``proxy_log`` what it has
    logged since a time (seconds since the epoch). ``wait`` is how many seconds a push waits
    for first certificates, ``hsts`` for how many browsers are to insist on https; ``known_as``
    are names and addresses of this server, ``own_hosts`` those that it has https at itself.
    """

    def __init__(
        self,
        *,
        acme: Acme | None,
        own: OwnCertificates,
        holds: Holds,
        entry: Callable[[], tuple[str, int]],
        proxy_log: Callable[[float], list[str]],
        wait: float,
        hsts: int,
        known_as: Collection[str],
        own_hosts: Sequence[str] = (),
    ) -> None:
        self._acme = acme
        # Whoever hosts the DNS may repeat what it was asked.
        self._redact = Redactor(acme.environment if acme else {})
        self._own = own
        self._holds = holds
        self._entry = entry
        self._proxy_log = proxy_log
        self._wait = wait
        self._hsts = hsts
        self._known_as = known_as
        self._own_hosts = own_hosts
        # Of these nobody needs to look any more.
        self._good: set[str] = set()

    def check(self) -> None:
        """Raise SettingsError for files in config.toml that hold no good certificate."""
        self._own.check()

    def resolver(self, host: str) -> str | None:
        """Who is to certify ``host``: None when nobody is, or not at the moment."""
        if not self._asks_for(host):
            return None
        hold = self._holds.get(host)
        return RESOLVER if hold is None or hold.over else None

    def hsts(self, host: str) -> int:
        """For how many seconds browsers are to insist on https for ``host``.

        Not where a self-signed certificate is all there will be. Until a real one is there,
        browsers take no notice (RFC 6797, 8.1).
        """
        return self._hsts if self._asks_for(host) or self._own.covers(host) else 0

    def leaf(self, host: str) -> Leaf | None:
        """The certificate that visitors of ``host`` get; None when it is not for it."""
        try:
            found = shown(self._entry(), host)
        except (OSError, MypaasError):
            return None
        return found if found.covers(host) and found.until > time.time() else None

    def lack(self, host: str) -> str:
        """Why ``host`` has no certificate, in a sentence; empty when it has one."""
        if self.leaf(host):
            return ""
        return self._explained(host) if self._asks_for(host) else NOBODY_ASKED

    def faults(self, hosts: Iterable[str]) -> dict[str, str]:
        """What an admin has to see to, by host, or by where it stands in config.toml.

        The server's own hosts are looked at beside ``hosts``.
        """
        found = {f'[http.certificates."{at}"]': why for at, why in self._own.faults().items()}
        unasked = []
        for host in dict.fromkeys([*self._own_hosts, *hosts]):
            if self._asks_for(host):
                found[f"https://{host}"] = self.lack(host) or self._overdue(host)
            elif not self._own.covers(host):
                unasked.append(f"https://{host}")
            elif self.leaf(host) is None:
                found[f"https://{host}"] = "Traefik does not take its certificate: see its log"
        if unasked:
            more = f" and {len(unasked) - 1} more" if len(unasked) > 1 else ""
            found["[init] email"] = f"{unasked[0]}{more}: {NOBODY_ASKED}"
        return found

    def secured(self, spec: ServiceSpec) -> tuple[Secured, ...]:
        """What routes have to say of the hosts of ``spec``."""
        hosts = secure_hosts(spec.addresses)
        return tuple(Secured(host, self.resolver(host), self.hsts(host)) for host in hosts)

    def expect(self, spec: ServiceSpec) -> None:
        """Have certificates asked for once the route of ``spec`` is there, even for hosts
        that failed to get one: whoever deploys may have mended what was wrong."""
        for host in secure_hosts(spec.addresses):
            self._holds.relent(host)

    def report(self, spec: ServiceSpec, began: float, out: Progress) -> None:
        """Say where a service is reached, once its certificates are there or it was waited
        for them; ``began`` is when they were asked for (seconds since the epoch)."""
        hosts = secure_hosts(spec.addresses)
        lacking = [host for host in hosts if self.leaf(host) is None]
        asked = [host for host in lacking if self._asks_for(host)]
        astray = misled([host for host in asked if "*" not in host], self._known_as)
        ready = self._await([host for host in asked if self.resolver(host)], began)
        for url in spec.urls:
            out.detail(f"{url}{self._remark(url, ready, lacking)}")
        for redirect in spec.redirects:
            out.detail(f"{redirect}{self._remark(redirect.source, ready, lacking)}")
        for host in asked:
            if host in astray and host not in ready:
                out.warning(f"{astray[host]}; without that it gets no certificate")
            if host not in ready:
                out.warning(f"{SELF_SIGNED.format(host)} {self._explained(host)}")

    def look(self, releases: Iterable[Release]) -> None:
        """Note which hosts of ``releases``, and of our own, have a certificate or failed to."""
        served = secure_hosts(url for each in releases for url in each.spec.addresses)
        hosts = dict.fromkeys([*self._own_hosts, *served])
        unknown = [each for each in hosts if each not in self._good and self.resolver(each)]
        lacking = []
        deadline = time.monotonic() + LOOK
        for host in unknown:
            if time.monotonic() > deadline:
                break  # the next look goes on
            if self.leaf(host):
                self._note_good(host)
            else:
                lacking.append(host)
        if lacking:
            self._note_failures(lacking, time.time() - MEMORY)

    def _overdue(self, host: str) -> str:
        """Whether the certificate of ``host`` should have been renewed by now."""
        found = self.leaf(host)
        if found is None or self._acme is None:
            return ""
        if found.until - time.time() > self._acme.renews_before / 2:
            return ""
        return (
            f"its certificate expires on {found.day}, and Traefik cannot renew it: see its log"
        )

    def _asks_for(self, host: str) -> bool:
        return self._acme is not None and not self._own.covers(host)

    def _await(self, hosts: Sequence[str], began: float) -> dict[str, float]:
        """When each of ``hosts`` had its certificate, in seconds from ``began``.

        Returns early when all have it or failed.
        """
        ready: dict[str, float] = {}
        waiting = list(hosts)
        while waiting and time.time() < began + self._wait:
            time.sleep(POLL)
            for host in waiting:
                if self.leaf(host):
                    ready[host] = time.time() - began
                    self._note_good(host)
            waiting = [host for host in waiting if host not in ready]
            self._note_failures(waiting, began)
            waiting = [host for host in waiting if self.resolver(host)]
        return ready

    def _note_good(self, host: str) -> None:
        self._good.add(host)
        self._holds.clear(host)

    def _note_failures(self, hosts: Collection[str], since: float) -> None:
        """Hold back those of ``hosts`` of which Traefik says that it got no certificate."""
        for failure in filter(None, map(failure_in, self._proxy_log(since))):
            told = dataclasses.replace(failure, error=self._redact(failure.error))
            for host in failure.hosts:
                if host in hosts:
                    self._holds.add(host, told)

    def _remark(self, url: Url, ready: Mapping[str, float], lacking: Collection[str]) -> str:
        if url.scheme != "https" or url.host not in lacking:
            return ""
        if url.host in ready:
            return f"  certificate ready in {ready[url.host]:.1f} s"
        return "  no certificate yet" if self._asks_for(url.host) else f"  {NOBODY_ASKED}"

    def _explained(self, host: str) -> str:
        """Why there is no certificate yet, and what comes next."""
        hold = self._holds.get(host)
        if hold is None or self._acme is None:
            return "none has come yet, and it is still asked for"
        check = advice(hold.kind, host, self._acme.challenge)
        tries = f"{hold.failures} tries" if hold.failures > 1 else "the first try"
        moment = datetime.datetime.fromtimestamp(hold.until, datetime.timezone.utc)
        when = "a try is under way" if hold.over else f"the next is at {moment:%H:%M:%S} UTC"
        return f"{tries} failed ({hold.why}); {check}; {when}"


def secure_hosts(urls: Iterable[Url]) -> list[str]:
    """The hosts that are reached over https."""
    return list(dict.fromkeys(url.host for url in urls if url.scheme == "https"))
