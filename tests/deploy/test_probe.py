"""Seconds down are what a visitor would have counted."""

from __future__ import annotations

import pytest

from mypaas_git.deploy.probe import Probe, seconds_down, url_to_probe
from mypaas_git.directives.model import ServiceSpec, Url
from mypaas_git.names import ServiceName


def down(*outcomes: bool) -> float:
    """Of probes of a quarter second each, one a second; False is a failed one."""
    probes = [Probe(n, n + 0.25, 200 if good else 502) for n, good in enumerate(outcomes)]
    return seconds_down(probes, [not good for good in outcomes])


@pytest.mark.parametrize(
    ("outcomes", "seconds"),
    [
        ((), 0),
        ((True, True), 0),
        ((True, False, True), 1.25),  # from the bad one's begin to the good one's end
        ((True, False, False, True, True), 2.25),
        ((False, True, False, True), 2.5),
        ((True, False), 0.25),  # and if no good one comes, to its own end
    ],
)
def test_seconds_down(outcomes: tuple[bool, ...], seconds: float) -> None:
    """Every gap counts, from its first bad answer to the next good one."""
    assert down(*outcomes) == seconds


def test_what_is_probed_was_there_before() -> None:
    """Only an address that visitors had can be seen to fail."""
    name = ServiceName.parse("a")
    old, new = Url("http", "old.test"), Url("http", "new.test")
    assert url_to_probe(ServiceSpec(name, urls=(new, old)), None) is None
    assert url_to_probe(ServiceSpec(name), None) is None
