"""Every fault that we foresee, as one tree.

::

    MypaasError
    ├── UsageError            usage               the command line makes no sense
    ├── SettingsError         settings-invalid    config.toml, with the key's path
    ├── NameRefused           name-invalid        a service name that is none
    ├── AccessDenied          access-denied       this key may not do this
    │   └── HostRefused       host-refused        a service may not ask this of the host
    ├── KeyRefused            key-refused         a public key that cannot be added
    ├── DirectivesInvalid     directives-invalid  all faults of one Dockerfile
    │   └── DockerfileMissing dockerfile-missing
    ├── GitRefused            git-refused         anything wrong with what was pushed
    │   ├── RepositoryMissing repository-missing
    │   ├── PackRefused       pack-refused
    │   ├── RefRefused        ref-refused         wrong branch, stale, deletion
    │   └── TreeRefused       tree-refused        a path that no context may hold
    ├── PlanOnly              plan-only           only what would change was asked for
    ├── LedgerFault           ledger-fault        the record of releases cannot be kept
    ├── ServiceMissing        service-missing
    ├── ReleaseMissing        release-missing
    ├── VariableMissing       variable-missing
    ├── ServiceBusy           service-busy        somebody else is deploying it
    ├── Cancelled             cancelled           whoever asked for it left
    ├── Superseded            superseded          a newer push took its turn
    ├── EngineDown            engine-down         the Docker Engine does not answer
    ├── BuildFailed           build-failed
    ├── StartFailed           start-failed        the container could not be started
    │   └── PortInUse         port-in-use
    ├── Unhealthy             unhealthy           it started and never got ready
    ├── RouterDown            router-down         Traefik does not answer
    │   └── RouteRefused      route-refused       Traefik did not take the route
    ├── ConnectionFailed      connection-failed   the client could not reach a server
    └── ServerRunning         server-running      another server holds this home

A leaf's message is one sentence for the pusher or admin that says what failed
and how to mend it; its ``code`` is stable and is what scripts look for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


class MypaasError(Exception):
    """A foreseeable fault.

    ``str(error)`` is one line for people. ``details`` are further lines (the
    end of a container's log, one line per faulty directive), oldest first. ``fate``
    is what became of the service, where whoever raises it knows. ``told`` is that whoever
    asked has been shown the error already.
    """

    code = "error"

    def __init__(self, message: str, *, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(details)
        self.fate = ""
        self.told = False

    def ending(self, fate: str) -> MypaasError:
        """The same fault, whose message ends with what became of the service."""
        return type(self)(f"{self.message}; {self.fate or fate}", details=self.details)

    def rewrite(self, edit: Callable[[str], str]) -> None:
        """Pass everything that people are going to see of it through ``edit``."""
        self.message = edit(self.message)
        self.args = (self.message,)
        self.details = tuple(map(edit, self.details))


class UsageError(MypaasError):
    code = "usage"


class SettingsError(MypaasError):
    code = "settings-invalid"


class NameRefused(MypaasError):
    code = "name-invalid"


class AccessDenied(MypaasError):
    code = "access-denied"


class HostRefused(AccessDenied):
    code = "host-refused"


class KeyRefused(MypaasError):
    code = "key-refused"


class DirectivesInvalid(MypaasError):
    code = "directives-invalid"


class DockerfileMissing(DirectivesInvalid):
    code = "dockerfile-missing"


class GitRefused(MypaasError):
    code = "git-refused"


class RepositoryMissing(GitRefused):
    code = "repository-missing"


class PackRefused(GitRefused):
    code = "pack-refused"


class RefRefused(GitRefused):
    code = "ref-refused"


class TreeRefused(GitRefused):
    code = "tree-refused"


class PlanOnly(MypaasError):
    code = "plan-only"


class LedgerFault(MypaasError):
    code = "ledger-fault"


class ServiceMissing(MypaasError):
    code = "service-missing"


class ReleaseMissing(MypaasError):
    code = "release-missing"


class VariableMissing(MypaasError):
    code = "variable-missing"


class ServiceBusy(MypaasError):
    code = "service-busy"


class Cancelled(MypaasError):
    code = "cancelled"


class Superseded(MypaasError):
    code = "superseded"


class EngineDown(MypaasError):
    code = "engine-down"


class BuildFailed(MypaasError):
    code = "build-failed"


class StartFailed(MypaasError):
    code = "start-failed"


class PortInUse(StartFailed):
    code = "port-in-use"


class Unhealthy(MypaasError):
    code = "unhealthy"


class RouterDown(MypaasError):
    code = "router-down"


class RouteRefused(RouterDown):
    code = "route-refused"


class ConnectionFailed(MypaasError):
    code = "connection-failed"


class ServerRunning(MypaasError):
    code = "server-running"
