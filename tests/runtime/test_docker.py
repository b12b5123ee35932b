"""The engine as a runtime: layers that failed builds leave behind."""

from __future__ import annotations

import pytest
from support.apps import BASE, unique
from support.builds import Bench

from mypaas_git.errors import BuildFailed


def test_layers_of_a_failed_build_are_removed(classic: Bench) -> None:
    """All of them, though each is needed by the next; a second time does no harm."""
    with pytest.raises(BuildFailed):
        classic.build(f"FROM {BASE}\nRUN echo {unique()} > /x\nENV A=1\nRUN exit 1\n")
    layers = list(classic.kept)
    assert len(layers) == 2
    for _ in range(2):
        classic.runtime().remove_layers(layers)
        assert [classic.client.image(layer) for layer in layers] == [None, None]


def test_layers_in_use_are_left(classic: Bench) -> None:
    """What an image stands on, and what has a name, is nobody's leftover."""
    name = unique()
    image = classic.build(f"FROM {BASE}\nRUN echo {name} > /x\n")
    (layer,) = classic.kept
    base = (classic.client.image(BASE) or {})["Id"]
    classic.runtime().remove_layers([base, layer, "0" * 64])
    assert classic.client.image(layer) is not None
    assert classic.client.image(image) is not None
    assert classic.client.image(BASE) is not None
