import pytest
import torch
from torch import nn

import analogsim
from analogsim.chip.batch_norm import has_batch_norm, own_statistics, reestimate_batch_norm


def noisy_network():
    """A network with batch norm, trained a little, and data."""
    torch.manual_seed(0)
    x = torch.randn(600, 20) + 1
    y = (x[:, :5].sum(1) > x[:, 5:10].sum(1)).long()
    model = nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval(), x, y


def test_trap_14_batch_norm_is_estimated_on_each_chip_and_left_as_it_was():
    model, x, y = noisy_network()
    analog = analogsim.convert(model, "pcm")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = {"chips": 4, "times": ("1y",)}
    plain = analogsim.evaluate(analog, [(x, y)], compensation=None, **options)
    renewed = analogsim.evaluate(analog, [(x, y)], compensation="batch-norm", calibration=[x[:300]], **options)
    assert renewed.mean[0] > plain.mean[0] + 0.003
    assert renewed.compensation == "batch-norm"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert analog[1]._buffers is model[1]._buffers, "twin and model share their statistics again"
    assert analog[1].momentum == 0.1
    with analogsim.programmed(analog, 2, "1y", compensation=None), own_statistics(analog):
        reestimate_batch_norm(analog, [x[:300]])
        hidden = analog[0](x[:300])
        torch.testing.assert_close(analog[1].running_mean, hidden.mean(0))
        torch.testing.assert_close(analog[1].running_var, hidden.var(0))
        score = (analog(x).argmax(1) == y).float().mean()
    assert float(score) == pytest.approx(renewed.values[2, 0])


def test_statistics_are_back_after_an_error():
    model, x, _ = noisy_network()
    analog = analogsim.convert(model, "pcm")
    mean = model[1].running_mean.clone()

    def fails():
        with own_statistics(analog):
            analogsim.program(analog)
            reestimate_batch_norm(analog.eval(), [x])
            assert not torch.equal(analog[1].running_mean, mean)
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert analog[1].running_mean is model[1].running_mean
    assert torch.equal(model[1].running_mean, mean)


def test_what_has_batch_norm():
    assert has_batch_norm(noisy_network()[0])
    assert not has_batch_norm(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))
    assert not has_batch_norm(nn.BatchNorm1d(2, track_running_stats=False))
