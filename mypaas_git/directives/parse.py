"""A Dockerfile becomes a ServiceSpec, or all of its faults at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mypaas_git.directives.lexer import Fault, Line, lex
from mypaas_git.directives.model import Publish, ServiceSpec
from mypaas_git.directives.table import DIRECTIVES, Directive, nearest
from mypaas_git.directives.users import read_users
from mypaas_git.directives.values import MAX_ITEMS, BadValue, Scale
from mypaas_git.errors import DirectivesInvalid
from mypaas_git.names import ServiceName

MAX_FAULTS = 100
"""Faults that are spelt out; the rest of a file that is no Dockerfile is only counted."""


def parse_dockerfile(
    text: bytes,
    *,
    default_service: ServiceName | None,
    pinned: bool = True,
    value_of: Callable[[ServiceName, str], str | None] | None = None,
) -> ServiceSpec:
    """Return what the directives in a Dockerfile's ``text`` ask for.

    A Dockerfile without ``mypaas.service`` is for ``default_service``; when
    ``pinned``, it cannot be for another one. ``value_of`` tells what value the server
    holds of a variable that is only named, if any. Raises :class:`DirectivesInvalid`
    whose details hold one line for each fault, in the order of the Dockerfile.
    """
    lines, faults = lex(text)
    reading = _Reading(faults)
    for line in lines:
        reading.take(line)
    reading.check_service(default_service, pinned=pinned)
    reading.check_publish()
    reading.check_redirects()
    reading.check_web()
    reading.check_protocol()
    if value_of is not None:
        reading.check_env(default_service, value_of)
    if reading.faults:
        raise _invalid(reading.faults)
    return reading.spec(default_service)


def lines_of(text: bytes) -> dict[Any, int]:
    """The line of each url, volume, variable and port in a Dockerfile without faults."""
    reading = _Reading([])
    for line in lex(text)[0]:
        reading.take(line)
    return reading.lines()


class _Item(NamedTuple):
    """A value and the line that it stands on."""

    number: int
    value: Any


class _Reading:
    """The values and faults that were found so far."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = list(faults)
        self._items: dict[str, list[_Item]] = {key: [] for key in DIRECTIVES}
        self._first: dict[str, int] = {}
        self._full: set[str] = set()

    def take(self, line: Line) -> None:
        """Read one directive."""
        directive = DIRECTIVES.get(line.key)
        if directive is None:
            self._fault(line.number, _unknown(line.key))
        elif line.key in self._full:
            return
        elif directive.repeatable or self._is_new(line.key, line.number):
            try:
                self._add(directive, line.number, directive.parse(line.value))
            except BadValue as error:
                self._fault(line.number, f"{line.key}: {error}")

    def check_service(self, default: ServiceName | None, *, pinned: bool) -> None:
        """Find out whether the Dockerfile is for the service it was sent to."""
        if default is None and "mypaas.service" not in self._first:
            self._fault(
                0, "the Dockerfile names no service; add a line '# mypaas.service=my-app'"
            )
        for number, name in self._items["mypaas.service"]:
            if pinned and default is not None and name != default:
                self._fault(
                    number,
                    f"mypaas.service is '{name}', but this was sent to '{default}'; send it "
                    f"there with 'git remote set-url mypaas ssh://…/{name}', or write "
                    f"'{default}' here",
                )

    def check_env(
        self, default: ServiceName | None, value_of: Callable[[ServiceName, str], str | None]
    ) -> None:
        """Find variables without a value that the server has no good one for either."""
        services = self._items["mypaas.service"]
        service = services[0].value if services else default
        for number, variable in self._items["mypaas.env"]:
            if service and variable.value is None and value_of(service, variable.key) is None:
                self._fault(
                    number,
                    f"mypaas.env: {variable.key} has no value; an admin can set one: "
                    f"mypaas config set {service} {variable.key}=…",
                )
        for number, key in self._items["mypaas.auth"]:
            fault = users_fault(key, value_of(service, key)) if service else None
            if fault:
                self._fault(
                    number,
                    f"mypaas.auth: {fault}; an admin can set it: "
                    f"mypaas config set {service} {key}=user:password",
                )

    def check_redirects(self) -> None:
        """Find redirects that lead elsewhere, or from what is a url already.

        Since the target is served, and no redirect itself, nobody is sent round in circles.
        """
        urls = {each.value: each.number for each in self._items["mypaas.url"]}
        for number, redirect in self._items["mypaas.redirect"]:
            if redirect.source in urls:
                self._fault(
                    number,
                    f"mypaas.redirect: {redirect.source} stands on line "
                    f"{urls[redirect.source]} as a url of the service; keep one of them",
                )
            if redirect.target not in urls:
                self._fault(
                    number,
                    f"mypaas.redirect: {redirect.target} is no url of this service; add "
                    f"'# mypaas.url={redirect.target}', or lead to one that it has",
                )

    def check_web(self) -> None:
        """Find what makes sense for urls only, and there is none."""
        urls = [each.value for each in self._items["mypaas.url"]]
        for key in ("mypaas.auth", "mypaas.sticky", "mypaas.stripprefix"):
            for number, value in self._items[key]:
                if value and not urls:
                    self._fault(number, f"{key}: the service has no url; add '# mypaas.url=…'")
        for number, value in self._items["mypaas.stripprefix"]:
            if value and urls and all(url.path == "/" for url in urls):
                self._fault(
                    number,
                    "mypaas.stripprefix: no url has a path to strip, such as "
                    f"'{urls[0]}/app'; leave it out",
                )

    def check_publish(self) -> None:
        """Find ports that two containers, or two lines, would have to share."""
        items = self._items["mypaas.publish"]
        fixed = [each for each in items if _fixed(each.value)]
        everywhere = {_socket(item): number for number, item in fixed if not item.host_ip}
        for number, item in fixed:
            if item.host_ip and _socket(item) in everywhere:
                self._fault(
                    number,
                    f"mypaas.publish: the host port {item.host_port}/{item.protocol} stands "
                    f"on line {everywhere[_socket(item)]} for all addresses; keep one of them",
                )
        if fixed and self._scale().number:
            self._fault(
                fixed[0].number,
                "mypaas.publish: two containers cannot share the host port "
                f"{fixed[0].value.host_port}; use mypaas.scale=0, or leave the host port out",
            )

    def check_protocol(self) -> None:
        """Find a health check of what cannot be asked for a path."""
        speaks_h2c = any(each.value == "h2c" for each in self._items["mypaas.protocol"])
        if speaks_h2c and self._items["mypaas.healthcheck"]:
            self._fault(
                self._items["mypaas.healthcheck"][0].number,
                "mypaas.healthcheck asks for a path over HTTP/1.1; leave it out with "
                "mypaas.protocol=h2c: a container is ready when it speaks HTTP/2",
            )

    def spec(self, default: ServiceName | None) -> ServiceSpec:
        """Return the values, of which none is at fault."""
        fields: dict[str, Any] = {"service": default}
        for directive in DIRECTIVES.values():
            found = [each.value for each in self._items[directive.key]]
            if directive.repeatable:
                fields[directive.field] = tuple(found)
            elif found:
                fields[directive.field] = found[0]
        fields["scale"], fields["scale_mode"] = self._scale()
        return ServiceSpec(**fields)

    def lines(self) -> dict[Any, int]:
        """The line on which each value of a repeatable directive stands."""
        repeatable = [each.key for each in DIRECTIVES.values() if each.repeatable]
        return {item.value: item.number for key in repeatable for item in self._items[key]}

    def _add(self, directive: Directive, number: int, value: Any) -> None:
        if directive.identity is None:
            self._items[directive.key].append(_Item(number, value))
            return
        items = self._items[directive.key]
        for item in value:
            if not self._is_new(f"{directive.key}: {directive.identity(item)}", number):
                # One line's range would repeat itself a hundred times.
                return
            if len(items) == MAX_ITEMS:
                self._full.add(directive.key)
                self._fault(
                    number, f"{directive.key}: a service has at most {MAX_ITEMS} of them"
                )
                return
            items.append(_Item(number, item))

    def _is_new(self, name: str, number: int) -> bool:
        first = self._first.setdefault(name, number)
        if first != number:
            self._fault(number, f"{name} stands on line {first} already; keep one of them")
        return first == number

    def _scale(self) -> Scale:
        items = self._items["mypaas.scale"]
        return items[0].value if items else Scale(0, "roll")

    def _fault(self, number: int, message: str) -> None:
        self.faults.append(Fault(number, message))


def users_fault(key: str, value: str | None) -> str | None:
    """Why the value of a secret does not say who is to be let in; it is not shown."""
    if value is None:
        return f"{key} has no value"
    try:
        read_users(value)
    except BadValue as error:
        return f"{key}: {error}"
    return None


def _fixed(item: Publish) -> bool:
    """Whether no other port of the host would do."""
    return item.host_port != 0 and item.host_port_end == 0


def _socket(item: Publish) -> tuple[int, str]:
    return item.host_port, item.protocol


def _unknown(key: str) -> str:
    near = nearest(key)
    known = ", ".join(each.removeprefix("mypaas.") for each in DIRECTIVES)
    hint = f"did you mean '{near}'?" if near else f"known are {known}"
    return f"unknown directive {key[:60]!a}, {hint}"


def _invalid(faults: Sequence[Fault]) -> DirectivesInvalid:
    ordered = sorted(faults, key=lambda fault: fault.number)
    details = [_detail(each) for each in ordered[:MAX_FAULTS]]
    if len(ordered) > MAX_FAULTS:
        details.append(f"and {len(ordered) - MAX_FAULTS} more")
    more = f" (and {len(ordered) - 1} more)" if len(ordered) > 1 else ""
    where = "Dockerfile " if ordered[0].number else ""
    return DirectivesInvalid(f"{where}{details[0]}{more}", details=details)


def _detail(fault: Fault) -> str:
    return f"line {fault.number}: {fault.message}" if fault.number else fault.message
