"""The families of the zoo: how they are made."""

from __future__ import annotations

import torch

from benchmarks.harness.zoo_families import FAMILIES, ZOO, AttentionPooling, Subclasses, graph
from benchmarks.harness.zoo_networks import NETWORKS


def test_a_name_is_that_of_one_network() -> None:
    assert not set(FAMILIES) & set(NETWORKS)
    assert list(ZOO) == [*NETWORKS, *FAMILIES]
    assert all(name == network.name for name, network in ZOO.items())
    assert all(network.full is not None for network in FAMILIES.values())


def test_attention_pooling_of_equal_places_is_what_each_is() -> None:
    """All values are one, whatever the weights of attention are."""
    torch.manual_seed(0)
    pooling = AttentionPooling(3, 8, 2, 4)
    torch.nn.init.zeros_(pooling.positions)
    place = torch.randn(2, 8)
    wanted = pooling.c_proj(pooling.v_proj(place))
    torch.testing.assert_close(pooling(place[:, :, None, None].expand(-1, -1, 3, 3)), wanted)


def test_sizes() -> None:
    torch.manual_seed(0)
    assert Subclasses(20, 8, 2, 2)(torch.randint(20, (3, 5))).shape == (3, 5, 20)
    features, edges = graph(6, 4, 9).args
    assert features.shape == (6, 4)
    assert edges.shape == (2, 9)
    assert int(edges.max()) < 6
