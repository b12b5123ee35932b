"""How many strangers may be at the door at once, and who leaves when more come.

sshd's MaxStartups turns newcomers away, so whoever fills the door keeps everybody
out. Here a newcomer always gets in and somebody else leaves: at random, ever more
likely the fuller it is, one of the address that has the most at the door, of those who
have not even exchanged keys, of those who came first. Who is alone on an address, or
logs in promptly, is not the one.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

MAX_STARTUPS = 200
"""Each takes a thread and some 0.1 MiB until it has logged in: 20 MiB in all."""


class Stranger(Protocol):
    """Somebody who has connected and not logged in."""

    @property
    def source(self) -> str:
        """Where it comes from; see :func:`source_of`."""

    @property
    def exchanged_keys(self) -> bool:
        """Whether it has done its part of a key exchange, which costs it some effort."""


S = TypeVar("S", bound=Stranger)
_random = random.SystemRandom()


class StartUps(Generic[S]):
    """The strangers at the door: at most ``limit``, and half as many of one address.

    From half the limit on, each newcomer may cost somebody the place, with a chance
    that rises to certainty; ``draw`` gives numbers from 0 to less than 1.
    """

    def __init__(self, limit: int, draw: Callable[[], float] = _random.random) -> None:
        self.limit = limit
        self._share = max(1, limit // 2)
        self._draw = draw
        self._by_source: dict[str, dict[S, None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_source.values()))

    def admit(self, newcomer: S) -> S | None:
        """Let ``newcomer`` in; return who has to leave for it, if anybody."""
        leaver = self._leaver(newcomer.source)
        if leaver is not None:
            self.discard(leaver)
        self._by_source.setdefault(newcomer.source, {})[newcomer] = None
        return leaver

    def discard(self, stranger: S) -> None:
        """Forget somebody who has logged in or left; nothing for anybody else."""
        group = self._by_source.get(stranger.source, {})
        group.pop(stranger, None)
        if not group:
            self._by_source.pop(stranger.source, None)

    def _leaver(self, source: str) -> S | None:
        own = list(self._by_source.get(source, ()))
        if len(own) >= self._share:
            return self._choose(own)
        if self._draw() < self._pressure():
            return self._choose(self._largest())
        return None

    def _largest(self) -> list[S]:
        groups = [list(group) for group in self._by_source.values()]
        return max(groups, key=lambda group: (len(group), self._draw()))

    def _pressure(self) -> float:
        return (len(self) + 1 - self._share) / (self.limit + 1 - self._share)

    def _choose(self, group: Sequence[S]) -> S:
        idle = [stranger for stranger in group if not stranger.exchanged_keys] or group
        first = idle[: (len(idle) + 1) // 2]
        return first[int(self._draw() * len(first))]


def source_of(host: str) -> str:
    """Whom an address counts for: an IPv4 address for itself, an IPv6 one for its /64.

    A /64 is what one customer gets, who then has 2⁶⁴ addresses.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)
