from __future__ import annotations

import pytest
import torch
from torch import nn

import analogsim
from analogsim import DeviceModel, Gaussian, Mapping, ReadNoise, StuckAt, weight_std
from analogsim.training.weight_spread import spread_of_parameters
from analogsim.utils.torch_private import own_parameters

PAIR = Mapping("pair", "tensor")


def relative_error(draws: int, weights: int) -> float:
    """Four standard errors of a variance found from so many numbers."""
    return 4.0 * (2 / (draws * weights)) ** 0.5


def test_noise_on_weights_has_its_own_size() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(20, 30)
    found = weight_std(analogsim.convert(layer, Gaussian(0.1)))[""]
    assert found.shape == layer.weight.shape
    size = 0.1 * float(layer.weight.detach().abs().max())
    assert float((found / size).square().mean()) == pytest.approx(1, rel=relative_error(31, 600))


def test_read_noise_counts_and_so_does_everything_with_it() -> None:
    """Of independent errors the variances add up: of 25 µS on a pair of cells of 0.05 * 25 µS each."""
    layer = nn.Linear(20, 30)
    device = DeviceModel((Gaussian(0.1), ReadNoise(0.05)), mapping=PAIR)
    both = weight_std(analogsim.convert(layer, device), draws=64)[""].square().mean()
    one = weight_std(analogsim.convert(layer, device.replace(effects=device.effects[:1])), draws=64)[""].square().mean()
    two = weight_std(analogsim.convert(layer, device.replace(effects=device.effects[1:])), draws=64)[""].square().mean()
    assert two > 0.1 * one
    assert float(both) == pytest.approx(float(one + two), rel=2 * relative_error(63, 600) + 0.05)


def test_they_are_those_of_chips() -> None:
    """The slow obvious way: program many chips and look."""
    torch.manual_seed(0)
    layer = nn.Linear(12, 10)
    analog = analogsim.convert(layer, "pcm")
    chips = []
    for seed in range(200):
        with analogsim.programmed(analog, seed, "1y"):
            assert analog.analog.chip is not None
            chips.append(analog.analog.chip.weight_for(layer.weight, layer.bias)[0].clone())
    by_hand = torch.stack(chips).var(0).mean()
    found = weight_std(analog, t="1y", draws=200)[""].square().mean()
    assert float(found) == pytest.approx(float(by_hand), rel=2 * relative_error(200, 120) + 0.1)  # + white read noise


def test_later_is_wider_and_the_scale_of_training_plays_no_part() -> None:
    analog = analogsim.convert(nn.Linear(20, 30), "pcm")
    early, late = (float(weight_std(analog, t=t)[""].mean()) for t in ("1s", "10y"))
    assert late > 1.2 * early
    analogsim.set_noise_scale(analog, 0.0)
    analogsim.set_train_times(analog, ["10y"])
    assert float(weight_std(analog)[""].mean()) == pytest.approx(late, rel=1e-5)


def test_stuck_cells_widen() -> None:
    analog = analogsim.convert(nn.Linear(20, 30), [StuckAt(p_off=0.3, p_on=0.0)])
    spread = weight_std(analog, draws=200)[""]
    weight = analog.weight.detach().abs()
    # A weight that is there with 0.7 and gone with 0.3: a standard deviation of w * sqrt(0.21).
    assert float(spread.square().sum() / weight.square().sum()) == pytest.approx(0.21, rel=0.1)


def test_the_same_seed_is_the_same_draw_and_torch_is_left_alone() -> None:
    analog = analogsim.convert(nn.LSTM(4, 3), "pcm")
    state = torch.get_rng_state()
    first, again, other = weight_std(analog), weight_std(analog), weight_std(analog, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(first) == sorted(matrix.analog.name for matrix in analogsim.layers.matrices_of(analog))
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert not torch.equal(value, other[name])
        assert value.shape == (12, 4 if "ih" in name else 3)


def test_bad_arguments() -> None:
    analog = analogsim.convert(nn.Linear(2, 2), "reram-wan2022")
    for draws in (1, 0, True, 2.0):
        with pytest.raises(ValueError, match="weight_std: draws must be an integer >= 2"):
            weight_std(analog, draws=draws)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weight_std: t must be > 0, got 0"):
        weight_std(analog, t=0)
    with pytest.raises(ValueError, match="is valid from"):
        weight_std(analog, t="1y")


@pytest.mark.parametrize(
    "layer", [nn.ConvTranspose2d(4, 6, 3, groups=2), nn.MultiheadAttention(8, 2), nn.Conv1d(4, 6, 3, groups=2)], ids=str
)
def test_parameters_have_the_spread_of_their_matrices(layer: nn.Module) -> None:
    analog = analogsim.convert(layer, "pcm")
    found = spread_of_parameters(analog, draws=32)
    names = {parameter: name for name, parameter in layer.named_parameters()}
    assert {names[parameter] for parameter, _ in found} == {name for name in names.values() if "bias" not in name}
    by_matrix = weight_std(analog)
    total = sum(float(spread.square().sum()) for _, spread in found)
    assert total == pytest.approx(sum(float(value.square().sum()) for value in by_matrix.values()), rel=1e-5)
    for parameter, spread in found:
        assert spread.shape == parameter.shape
    for matrix in analogsim.layers.matrices_of(analog):
        parameter = own_parameters(matrix.holder)[matrix.analog.slot.weight]
        assert parameter is not None
        place = torch.zeros_like(parameter)
        matrix.analog.slot.write(place, by_matrix[matrix.analog.name])
        whole = dict(found)[parameter]
        assert torch.equal(whole[place != 0], place[place != 0])


def test_weights_that_are_computed_are_left_out_and_shared_ones_have_the_largest() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    nn.utils.parametrizations.weight_norm(model[0])
    model[2].weight = model[1].weight
    analog = analogsim.convert(model, {"1": Gaussian(0.05), "2": Gaussian(0.5), "*": "pcm"})
    ((parameter, spread),) = spread_of_parameters(analog, draws=32)
    assert parameter is model[1].weight
    assert torch.equal(spread, weight_std(analog)["2"])
