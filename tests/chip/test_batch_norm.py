import pytest
import torch
from torch import nn

import analogsim
from analogsim import reestimate_batch_norm
from analogsim.chip.batch_norm import has_batch_norm, own_statistics


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


# Against the same by hand


def network() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3), nn.BatchNorm1d(3))
    with torch.no_grad():
        for place in (1, 4):
            model[place].running_mean.normal_()
            model[place].running_var.uniform_(0.5, 2)
    return model.eval()


def twin() -> tuple[nn.Sequential, nn.Module]:
    model = network()
    analog = analogsim.convert(model, "gaussian").eval()
    analogsim.program(analog, seed=0)
    return model, analog


def test_every_batch_counts_the_same() -> None:
    """Of batches that differ in number, place and spread: the means of their means and of their variances."""
    _, analog = twin()
    batches = [torch.randn(50, 6), 3 + 2 * torch.randn(20, 6), torch.randn(200, 6) - 1]
    with own_statistics(analog):
        reestimate_batch_norm(analog, batches)
        with torch.no_grad():
            hidden = [analog[0](batch) for batch in batches]
            torch.testing.assert_close(analog[1].running_mean, torch.stack([h.mean(0) for h in hidden]).mean(0))
            torch.testing.assert_close(analog[1].running_var, torch.stack([h.var(0) for h in hidden]).mean(0))
            # Behind it each batch goes through its own statistics, as torch does it in training.
            norm = [(h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt() for h in hidden]
            deep = [analog[3](analog[2](h)) for h in norm]
            torch.testing.assert_close(analog[4].running_mean, torch.stack([h.mean(0) for h in deep]).mean(0))
            torch.testing.assert_close(analog[4].running_var, torch.stack([h.var(0) for h in deep]).mean(0))
        assert not any(module.training for module in analog.modules())
        assert analog[1].num_batches_tracked == 3


def test_what_was_known_before_plays_no_part() -> None:
    _, analog = twin()
    batches = [torch.randn(50, 6), torch.randn(20, 6) + 1]
    with own_statistics(analog):
        reestimate_batch_norm(analog, batches)
        first = {name: value.clone() for name, value in analog.named_buffers()}
        reestimate_batch_norm(analog, [100 * torch.randn(50, 6)])
        reestimate_batch_norm(analog, batches)
        assert all(torch.equal(value, first[name]) for name, value in analog.named_buffers())


@pytest.mark.parametrize("fails", [False, True])
def test_statistics_of_the_model_are_left_alone_and_come_back(fails: bool) -> None:
    model, analog = twin()
    before = {name: value.clone() for name, value in model.named_buffers()}
    momentum = model[1].momentum
    x = torch.randn(5, 6)
    with torch.no_grad():
        answer = analog(x)
    try:
        with own_statistics(analog):
            for name, value in analog.named_buffers():
                assert torch.equal(value, before[name]), "it begins with those of the model"
            reestimate_batch_norm(analog, [torch.randn(50, 6)])
            assert not torch.equal(analog[1].running_mean, before["1.running_mean"])
            assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
            if fails:
                raise RuntimeError("no")
    except RuntimeError:
        assert fails
    assert analog[1]._buffers is model[1]._buffers
    assert (analog[1].momentum, model[1].momentum) == (momentum, momentum)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    with torch.no_grad():
        assert torch.equal(analog(x), answer)


# For users


def test_under_the_noise_of_training_statistics_are_means_over_draws() -> None:
    model = network()
    analog = analogsim.convert(model, "gaussian(std=0.3)").train()
    analogsim.set_noise_scale(analog, 2.0)
    x = torch.randn(300, 6)
    analogsim.reestimate_batch_norm(analog, [(x, None)] * 400)
    assert all(module.training for module in analog.modules())
    assert (model[1].momentum, analog[1].momentum) == (0.1, 0.1)
    assert analog[1]._buffers is model[1]._buffers, "they are the network's"
    with torch.no_grad():
        hidden = [analog[0](x) for _ in range(400)]
    means, variances = torch.stack([h.mean(0) for h in hidden]), torch.stack([h.var(0) for h in hidden])
    # Two independent samples of 400 draws, four standard errors of their difference.
    for found, other in ((model[1].running_mean, means), (model[1].running_var, variances)):
        assert ((found - other.mean(0)).abs() < 4 * (2 / 400) ** 0.5 * other.std(0)).all()
    clean = model[0](x).var(0)
    assert (model[1].running_var > clean * 1.05).all(), "noise widens what comes out"


def test_without_noise_they_are_those_of_the_digital_network() -> None:
    model = network()
    analog = analogsim.convert(model, "pcm")
    analogsim.set_noise_scale(analog, 0.0)
    x = torch.randn(64, 6)
    analogsim.reestimate_batch_norm(analog, [x])
    torch.testing.assert_close(model[1].running_mean, model[0](x).mean(0))
    torch.testing.assert_close(model[1].running_var, model[0](x).var(0))


def test_dropout_does_nothing_meanwhile() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(6, 4), nn.BatchNorm1d(4))
    analog = analogsim.convert(model, "pcm").train()
    analogsim.set_noise_scale(analog, 0.0)
    x = torch.randn(64, 6)
    analogsim.reestimate_batch_norm(analog, [x])
    torch.testing.assert_close(model[2].running_mean, model[1](x).mean(0))
    assert analog[0].training


def test_with_a_chip_they_are_that_chips() -> None:
    model, analog = twin()
    x = torch.randn(64, 6)
    analog.train()
    analogsim.reestimate_batch_norm(analog, [x])
    assert analog.training
    analog.eval()
    torch.testing.assert_close(model[1].running_mean, analog[0](x).mean(0))


def test_on_each_chip_of_an_evaluation() -> None:
    """By hand what the compensation does."""
    model, x, y = noisy_network()
    analog = analogsim.convert(model, "pcm")
    given = {"chips": 3, "times": ("1y",)}
    wanted = analogsim.evaluate(analog, [(x, y)], compensation="batch-norm", calibration=[x[:300]], **given)
    by_hand = analogsim.evaluate(
        analog,
        [(x, y)],
        compensation=None,
        on_chip=lambda analog, seed, t: analogsim.reestimate_batch_norm(analog, [x[:300]]),
        **given,
    )
    assert (by_hand.values == wanted.values).all()


def test_bad_data_leave_the_statistics_as_they_were() -> None:
    model = network()
    analog = analogsim.convert(model, "pcm")
    before = {name: value.clone() for name, value in model.named_buffers()}
    x = torch.randn(8, 6)
    for loader, told in (
        ([], "reestimate_batch_norm: the loader is empty"),
        ([x, 3], "reestimate_batch_norm: loader must yield inputs"),
        ([x, x * float("nan")], "reestimate_batch_norm: batch 1 holds NaN"),
        ([x, torch.randn(8, 5)], "mat1 and mat2"),
    ):
        with pytest.raises((ValueError, TypeError, RuntimeError), match=told):
            analogsim.reestimate_batch_norm(analog, loader)
        assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
        assert model[1].momentum == 0.1
    with pytest.raises(ValueError, match="reestimate_batch_norm: AnalogLinear has no batch norm"):
        analogsim.reestimate_batch_norm(analogsim.convert(nn.Linear(2, 2), "pcm"), [torch.randn(4, 2)])
    with pytest.raises(ValueError, match="no analog layer"):
        analogsim.reestimate_batch_norm(model, [x])
