"""The composition root: the one place that knows which part goes where."""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from mypaas_git import failpoints
from mypaas_git.access import directories, host
from mypaas_git.access.audit import Trail
from mypaas_git.access.keys import KeyFile
from mypaas_git.config.store import ConfigStore
from mypaas_git.deploy.certificates import Certificates
from mypaas_git.deploy.claims import Claims
from mypaas_git.deploy.engine import Engine
from mypaas_git.deploy.lock import ServiceLocks
from mypaas_git.deploy.oneoff import OneOffs
from mypaas_git.deploy.reconcile import Reconciler
from mypaas_git.deploy.retire import HandOver, Retirer
from mypaas_git.directives.images import ImageRules
from mypaas_git.errors import SettingsError
from mypaas_git.files import sweep_unwritten, write_atomically
from mypaas_git.git.repository import Repositories
from mypaas_git.git.workers import Workers
from mypaas_git.hook import PostReceive
from mypaas_git.ledger.store import Ledger
from mypaas_git.names import ServiceName
from mypaas_git.operations import Operations
from mypaas_git.routing import dashboard, proxy, tls
from mypaas_git.routing.accesslog import AccessLog
from mypaas_git.routing.acme import Acme
from mypaas_git.routing.holds import Holds
from mypaas_git.routing.own import OwnCertificates
from mypaas_git.routing.routes import unfinished
from mypaas_git.routing.rules import Config, Entry
from mypaas_git.routing.selfsigned import SelfSigned
from mypaas_git.routing.traefik import Traefik
from mypaas_git.runtime.builder import Builder, Limits
from mypaas_git.runtime.classic import Caps
from mypaas_git.runtime.client import Client
from mypaas_git.runtime.docker import Confinement, DockerRuntime
from mypaas_git.runtime.proxy import ProxyContainer
from mypaas_git.settings import Docker, Host, Http, Settings, load
from mypaas_git.ssh.hostkeys import ensure_host_keys, known_hosts_line


class Home:
    """Where things lie below ``$MYPAAS_HOME``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.authorized_keys = path / "authorized_keys"
        self.host_keys = path / "host_keys"
        self.repositories = path / "repos"
        self.ledger = path / "ledger.db"
        self.routes = path / "routes"
        self.acme = path / "acme"
        self.holds = path / "certificates.json"
        self.logs = path / "logs"
        self.locks = path / "locks"
        self.variables = path / "config"
        self.api_password = path / "traefik.password"
        self.proxy_fault = path / "traefik.fault"
        self.server_lock = path / "server.lock"

    def make(self) -> None:
        """Make whatever directory is missing, for our eyes only. Raises SettingsError."""
        for directory in (
            *(self.path, self.repositories, self.routes, self.acme, self.logs),
            self.variables,
        ):
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise SettingsError(f"{directory} cannot be made: {error.strerror}") from error

    def sweep(self) -> None:
        """Remove what processes that were killed have not written to its end."""
        for directory in (
            *(self.path, self.host_keys, unfinished(self.routes), self.locks),
            self.variables,
        ):
            sweep_unwritten(directory)


class App:
    """The parts of one home, wired together. Nothing is contacted before it is needed.

    ``hand_over`` takes old replicas to retire from a process that soon ends.
    """

    def __init__(self, settings: Settings, hand_over: HandOver | None = None) -> None:
        failpoints.check()
        self.settings = settings
        self.home = Home(settings.home)
        self.home.make()
        docker = settings.docker
        self.client = Client()
        self.keys = KeyFile(self.home.authorized_keys)
        self.audit = Trail(self.home.logs)
        self.repositories = Repositories(self.home.repositories)
        self.workers = Workers()
        self.ledger = Ledger(self.home.ledger)
        images = ImageRules(docker.namespace, frozenset(settings.host.base_images))
        self.runtime = DockerRuntime(
            self.client,
            Builder(self.client, docker.builder, _limits(docker), images=images),
            namespace=docker.namespace,
            network=settings.network,
            confinement=_confinement(settings.host),
        )
        self.proxy = ProxyContainer(
            self.client,
            name=f"{docker.namespace}-traefik",
            namespace=docker.namespace,
            network=settings.network,
            home=str(self.home.path),
        )
        self.access_log = AccessLog(self.home.logs / "traefik", self.proxy.reopen_logs)
        http = settings.http
        self.own_certificates = _own_certificates(http)
        self.certificates = Certificates(
            acme=_acme(settings),
            own=self.own_certificates,
            holds=Holds(self.home.holds),
            entry=lambda: self._entry("https"),
            proxy_log=self.proxy.log,
            wait=http.acme_wait,
            hsts=http.hsts,
            own_hosts=(settings.init.domain,) if http.dashboard else (),
            known_as=(settings.init.domain, http.web.host, http.web_secure.host),
        )
        self_signed = SelfSigned(self.home.acme / "self-signed.pem")
        self.router = Traefik(
            self.home.routes,
            api=lambda: self.proxy.port(proxy.API_PORT),
            password=self._api_password(),
            entry=Entry(
                http.web.port,
                http.web_secure.port,
                compress=http.compress,
                max_requests=http.max_requests,
                behind_proxies=bool(http.trusted_proxies),
            ),
            secured=self.certificates.secured,
            tls=lambda: tls.config(
                self.own_certificates.pairs(), self_signed.pem, http2=http.http2
            ),
            dashboard=self._dashboard,
            log=self.proxy.log,
        )
        locks = ServiceLocks(self.home.locks, docker.builds)
        self.retirer = Retirer(
            self.runtime,
            self.ledger,
            locks,
            drain=docker.drain_timeout,
            grace=docker.stop_timeout,
            keep=docker.keep_releases,
            hand_over=hand_over,
        )
        rules = _host_rules(settings)

        def resolve(source: str) -> str:
            return directories.resolve(source, rules)

        self.one_offs = OneOffs(
            self.runtime, self.home.locks, expand=resolve, grace=docker.stop_timeout
        )
        self.reconciler = Reconciler(
            ledger=self.ledger,
            runtime=self.runtime,
            router=self.router,
            retirer=self.retirer,
            expand=resolve,
            erase=self._erase,
        )
        self.engine = Engine(
            ledger=self.ledger,
            runtime=self.runtime,
            router=self.router,
            retirer=self.retirer,
            reconciler=self.reconciler,
            locks=locks,
            outputs=self.home.logs,
            claims=Claims(self.ledger, resolve, _shared(settings, rules)),
            certificates=self.certificates,
            expand=resolve,
            entry=self._entry,
            health_timeout=docker.health_timeout,
            low_disk=docker.low_disk,
        )
        self.variables = ConfigStore(self.home.variables)
        self.hook = PostReceive(
            self.engine,
            lookup=self._secret,
            stored=self.variables.read,
            rules=rules,
            image_rules=images,
        )
        self.operations = Operations(
            engine=self.engine,
            hook=self.hook,
            ledger=self.ledger,
            reconciler=self.reconciler,
            repositories=self.repositories,
            variables=self.variables,
            one_offs=self.one_offs,
        )

    @classmethod
    def at(cls, home: Path, hand_over: HandOver | None = None) -> App:
        """The app of a home whose ``config.toml`` exists. Raises SettingsError."""
        return cls(load(home), hand_over)

    def close(self) -> None:
        """Let what runs in the background end."""
        self.workers.close()
        self.retirer.close()
        self.client.close()

    @property
    def known_hosts_line(self) -> str:
        """What a client's ``known_hosts`` needs to trust this server."""
        host = self.settings.init.domain or "127.0.0.1"
        key = ensure_host_keys(self.home.host_keys)[0]
        return known_hosts_line(host, self.settings.ssh.listen.port, key)

    def may_create(self) -> bool:
        """Whether any key may create services: [access], read anew as the keys are."""
        return load(self.home.path).access.create

    def proxy_plan(self, image: str) -> proxy.ProxyPlan:
        """How Traefik is to be run here."""
        http = self.settings.http
        return proxy.plan(
            name=f"{self.settings.docker.namespace}-traefik",
            image=image,
            web=(http.web.host, http.web.port),
            web_secure=(http.web_secure.host, http.web_secure.port),
            routes=str(self.home.routes),
            acme=_acme(self.settings),
            storage=str(self.home.acme),
            http3=http.http3,
            read_timeout=http.read_timeout,
            trusted_proxies=http.trusted_proxies,
            access_log=str(self.access_log.directory) if http.access_log else "",
            with_dashboard=http.dashboard,
            salt=self._api_password(),
        )

    @property
    def dashboard_url(self) -> str:
        """Where Traefik's dashboard is; empty when it is off."""
        http, host = self.settings.http, self.settings.init.domain
        port = "" if http.web_secure.port == 443 else f":{http.web_secure.port}"
        return f"https://{host}{port}/dashboard/" if http.dashboard else ""

    def _dashboard(self, user: str) -> Config | None:
        """How Traefik's dashboard is reached."""
        host = self.settings.init.domain
        if not self.settings.http.dashboard:
            return None
        return dashboard.routes(host, user, self.certificates.resolver(host))

    def _entry(self, scheme: str) -> tuple[str, int]:
        """Where this host reaches what visitors reach over http or https."""
        address, port = self.proxy.port(443 if scheme == "https" else 80)
        ip = ip_address(address)
        if ip.is_unspecified:
            address = "127.0.0.1" if ip.version == 4 else "::1"
        return address, port

    def _erase(self, service: ServiceName) -> None:
        """Remove what a service has in this home, save its rows."""
        self.repositories.remove(service)
        with self.engine.locks.hold_variables():
            self.variables.write(service, {})
        shutil.rmtree(self.engine.outputs(service), ignore_errors=True)

    def _secret(self, service: str, key: str) -> str | None:
        """A value of [env], read anew, so that a new secret needs no restart."""
        return load(self.home.path).env.lookup(service, key)

    def _api_password(self) -> str:
        path = self.home.api_password
        if not path.exists():
            write_atomically(path, secrets.token_urlsafe(32).encode())
        return path.read_text("ascii").strip()


def _acme(settings: Settings) -> Acme | None:
    """Whom to ask for certificates; nobody without an email."""
    http = settings.http
    if not settings.init.email:
        return None
    return Acme(
        email=settings.init.email,
        server=http.acme_server,
        ca=http.acme_ca,
        challenge=http.acme_challenge,
        lifetime=http.acme_lifetime,
        dns_provider=http.acme_dns_provider,
        dns_resolvers=http.acme_dns_resolvers,
        dns_env=http.acme_dns_env,
    )


def _own_certificates(http: Http) -> OwnCertificates:
    return OwnCertificates(
        {host: (Path(each.cert), Path(each.key)) for host, each in http.certificates.items()}
    )


def _limits(docker: Docker) -> Limits:
    caps = Caps(memory=docker.build_memory, cpus=docker.build_cpus)
    return Limits(timeout=docker.build_timeout, caps=caps)


def _confinement(asked: Host) -> Confinement:
    return Confinement(asked.defaults.pids, asked.defaults.capabilities)


def _shared(settings: Settings, rules: host.HostRules) -> list[str]:
    """The volumes for everybody: names, and paths as they are called and as they are."""
    paths = [host.expand(each, rules) for each in settings.host.shared_volumes]
    return [*paths, *(os.path.realpath(each) for each in paths if each.startswith("/"))]


def _host_rules(settings: Settings) -> host.HostRules:
    home = os.path.expanduser("~")  # noqa: PTH111 - as text: it is compared, not opened
    state = str(settings.home)
    low, high = host.parse_publish_range(settings.host.publish)
    # Whoever can write the program that serves, or the engine's socket, owns the host.
    program = (sys.prefix, str(Path(__file__).parent))
    forbidden = (*host.always_forbidden(home, state), *program, *_engine_socket())
    listening = (settings.ssh.listen, settings.http.web, settings.http.web_secure)
    rules = host.HostRules(
        (),
        _real(forbidden),
        low,
        high,
        home,
        own_ports=frozenset(each.port for each in listening),
        domain=settings.init.domain,
        own_paths=dashboard.PATHS if settings.http.dashboard else (),
        reserved=settings.host.urls,
        wildcards=bool(settings.init.email) and settings.http.acme_challenge == "dns",
        certificates=frozenset(settings.http.certificates),
    )
    roots = [host.expand(root, rules) for root in settings.host.volumes]
    return dataclasses.replace(rules, volume_roots=_real(roots))


def _engine_socket() -> list[str]:
    scheme, found, path = os.environ.get("DOCKER_HOST", "").partition("unix://")
    return [path] if found and not scheme else []


def _real(paths: Sequence[str]) -> tuple[str, ...]:
    """The paths as they are called and, behind symbolic links, as they are."""
    return tuple(dict.fromkeys([*paths, *map(os.path.realpath, paths)]))
