import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from benchmarks import gains


def test_each_rule_is_right_where_nothing_but_a_factor_changes():
    w = gains.weights("dense", 8, 20)
    for rule in gains.estimators(w, w, w / 2):
        assert float(rule) == pytest.approx(2, rel=1e-6)


def test_weights_near_zero_mislead_the_sum_of_magnitudes_alone():
    w = gains.weights("90 % zero", 64, 200)
    first, now = gains.states(w, "reram-cmo", "1mo", 0)
    ours, magnitudes, *_ = gains.estimators(w, first, now)
    assert float(ours) == pytest.approx(1, abs=0.01)
    assert float(magnitudes) < 0.9


def test_a_pruned_network_keeps_its_share_of_weights():
    torch.manual_seed(1)
    data = TensorDataset(torch.randn(512, 1, 28, 28), torch.randint(10, (512,)))
    model = gains.pruned_network(data, (1, 1))
    for layer in model:
        if isinstance(layer, nn.Linear):
            assert float((layer.weight != 0).float().mean()) == pytest.approx(0.1, abs=0.002)
