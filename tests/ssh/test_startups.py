"""Who leaves when there are too many at the door."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from mypaas_git.ssh.startups import StartUps, source_of


@dataclass(eq=False)
class Caller:
    source: str
    exchanged_keys: bool = False


def dice(seed: int) -> Callable[[], float]:
    return random.Random(seed).random  # noqa: S311 - a test that repeats itself


def filled(limit: int, *sources: str, seed: int = 1) -> tuple[StartUps[Caller], list[Caller]]:
    """A door at which callers from ``sources`` stand, and who they are."""
    door = StartUps[Caller](limit, dice(seed))
    callers = [Caller(source) for source in sources]
    for caller in callers:
        door.admit(caller)
    return door, callers


def test_nobody_leaves_while_there_is_room() -> None:
    """Up to half the limit everybody stays: fifty pushes at once from one address."""
    door, _ = filled(100, *["ci"] * 49)
    assert door.admit(Caller("ci")) is None
    assert len(door) == 50


def test_one_address_has_its_share() -> None:
    """T4: beyond half the limit an address makes room for itself, and nobody else does."""
    door, callers = filled(100, "bob", *["mallory"] * 50)
    for _ in range(500):
        leaver = door.admit(Caller("mallory"))
        assert leaver is not None
        assert leaver.source == "mallory"
    assert len(door) == 51
    assert callers[0].source == "bob"
    assert door.admit(Caller("alice")) is not callers[0]


def test_never_more_than_the_limit() -> None:
    """T4: callers from everywhere share the door, however many they are."""
    door, _ = filled(20, *[f"10.0.0.{number}" for number in range(200)])
    assert len(door) <= 20


def test_random_early_drop() -> None:
    """Between half and the whole limit the chance rises, from never to always."""
    sources = [str(number) for number in range(200)]
    chances = []
    for present in (49, 74, 99):
        lost = 0
        for seed in range(400):
            door = StartUps[Caller](100, lambda: 0.999999)  # nobody leaves yet
            for source in sources[:present]:
                door.admit(Caller(source))
            door._draw = dice(seed)
            lost += door.admit(Caller("new")) is not None
        chances.append(lost / 400)
    assert chances[0] < 0.1
    assert 0.35 < chances[1] < 0.65
    assert chances[2] > 0.9


def test_the_greediest_pays() -> None:
    """Who leaves is of the address that has the most at the door, never the newcomer."""
    door, _ = filled(20, "alice", "bob", *["mallory"] * 9)
    door._draw = lambda: 0.0
    newcomer = Caller("carol")
    leaver = door.admit(newcomer)
    assert leaver is not None
    assert leaver.source == "mallory"


def test_who_has_exchanged_keys_stays_longer() -> None:
    """Silent peers leave before those who have done some work, old ones before new ones."""
    door, callers = filled(8, *["m"] * 4)
    callers[0].exchanged_keys = True
    assert door.admit(Caller("m")) in callers[1:3]


def test_only_workers_left() -> None:
    """When all have exchanged keys, one of them has to go."""
    door, callers = filled(8, *["m"] * 4)
    for caller in callers:
        caller.exchanged_keys = True
    assert door.admit(Caller("m")) in callers[:2]


def test_who_logs_in_makes_room() -> None:
    """Who is not at the door any more does not count; forgetting twice does no harm."""
    door, callers = filled(8, *["m"] * 4)
    door.discard(callers[0])
    door.discard(callers[0])
    assert door.admit(Caller("m")) is None
    assert len(door) == 4


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
    ],
)
def test_sources(host: str, source: str) -> None:
    """An IPv6 network counts as one, whatever addresses it takes."""
    assert source_of(host) == source
