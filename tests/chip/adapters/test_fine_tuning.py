from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import analogsim
from analogsim.chip.adapters.attached import adapters_of
from analogsim.chip.adapters.fine_tuning import FineTuning, distillation_loss, fine_tune
from analogsim.errors import BypassedError, NonFiniteError
from analogsim.layers.module import matrices_of

STUCK = "drift+stuck-at(p_off=0.1, p_on=0.02)"


def network(*more: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 24), *more, nn.Tanh(), nn.Linear(24, 4))


def chip(model: nn.Module, seed: int = 1, device: Any = STUCK, t: str = "1y", **more: Any) -> Any:
    analog = analogsim.convert(model, device, **more).eval()
    analogsim.program(analog, seed)
    analogsim.drift(analog, t)
    return analog


def inputs(count: int = 128) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(5))


def error(analog: nn.Module, model: nn.Module) -> float:
    """Of inputs that were not trained on, in units of the variance of the digital network."""
    x = torch.randn(500, 8, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        return float(distillation_loss(analog(x), model(x)))


def test_each_piece_brings_a_chip_nearer_to_its_digital_network() -> None:
    """On inputs that were not trained on: scales and offsets, and the more the higher the rank."""
    model = network()
    analog = chip(model)
    found = [error(analog, model)]
    for rank in (0, 2, 8):
        done = analogsim.fine_tune(analog, inputs(), rank=rank)
        assert done.after < done.before
        assert len(done.losses) == 200
        found.append(error(analog, model))
        analogsim.remove_adapters(analog)
    assert found[1] < 0.75 * found[0]
    assert found[2] < 0.75 * found[1]
    assert found[3] < 0.75 * found[2]
    assert error(analog, model) == found[0], "the chip itself is as it was"


def test_with_labels_it_does_what_they_say() -> None:
    model = network()
    analog = chip(model)
    x = inputs()
    y = torch.randint(
        4, (128,), generator=torch.Generator().manual_seed(0)
    )  # which the digital network knows nothing of
    done = analogsim.fine_tune(analog, [(x[:64], y[:64]), (x[64:], y[64:])], teacher=None, rank=4, lr=0.03)
    assert done.samples == 128
    assert done.before > 1.2
    assert float((analog(x).argmax(1) == y).float().mean()) > 0.6
    numbers = torch.ones(128, 4)
    analogsim.fine_tune(analog, [(x, numbers)], teacher=None, steps=300, lr=0.03)
    assert float((analog(x) - numbers).detach().square().mean()) < 0.05


def test_for_all_chips_it_trains_on_fresh_draws() -> None:
    """Chips that it never saw, none of which was programmed; at the scale that is set."""
    model = network()
    analog = analogsim.convert(model, "quantization(levels=4)+read-noise(std=0.01)").eval()

    def errors() -> Tensor:
        found = []
        for seed in range(4):
            with analogsim.programmed(analog, seed):  # of no one chip, so that nothing is warned of
                found.append(error(analog, model))
        return torch.tensor(found)

    before = errors()
    done = analogsim.fine_tune(analog, inputs())
    assert done.on == "fresh draws"
    assert all(matrix.analog.chip is None for matrix in matrices_of(analog))
    assert (errors() < 0.5 * before).all()
    analogsim.set_noise_scale(analog, 0.0)
    analogsim.remove_adapters(analog)
    assert analogsim.fine_tune(analog, inputs(), steps=3).losses == (0.0,) * 3


def test_one_set_for_each_age() -> None:
    """A chip that was trained at three ages is near at each, and between them; the ages it had are as before."""
    model = network()
    device = "drift(nu=0.05, nu_std=0.03)+stuck-at(p_off=0.05)"
    analog = chip(model, device=device, t="1min")
    analogsim.add_adapters(analog, ages=("1s", "1h", "1y"))
    train_times = [matrix.analog.train_times for matrix in matrices_of(analog)]
    done = analogsim.fine_tune(analog, inputs(), steps=600)
    assert done.on == "chip 1 at 1s, 1h, 1y"
    assert [matrix.analog.chip.time for matrix in matrices_of(analog)] == [60.0] * 2
    assert [matrix.analog.train_times for matrix in matrices_of(analog)] == train_times
    for age in ("1s", "1h", "1d", "1y"):
        analogsim.drift(analog, age)
        alone = chip(model, device=device, t=age)
        plain = error(alone, model)
        analogsim.fine_tune(alone, inputs())
        own = error(alone, model)  # for this age alone
        assert error(analog, model) < own + 0.25 * (plain - own)
    fresh = analogsim.convert(model, device).eval()
    analogsim.add_adapters(fresh, ages=("1s", "1y"))
    assert analogsim.fine_tune(fresh, inputs(), steps=20).on == "fresh draws at 1s, 1y"
    first, last = fresh[0].analog.adapter.scale.detach()
    assert not torch.equal(first, last)


def test_corrected_outputs_of_the_chip_stay_before_them() -> None:
    model = network()
    analog = chip(model)
    analogsim.calibrate_outputs(analog, inputs())
    corrected = error(analog, model)
    correction = analog[0].analog.chip.correction
    analogsim.fine_tune(analog, inputs())
    assert error(analog, model) < corrected
    assert analog[0].analog.chip.correction is correction


@pytest.mark.parametrize("kind", ["LSTM", "attention", "convolution, batch norm", "converters"])
def test_any_network(kind: str) -> None:
    torch.manual_seed(0)
    more: dict[str, Any] = {}
    x: Any = torch.randn(12, 5, 8)
    if kind == "LSTM":
        model: nn.Module = nn.LSTM(8, 6, num_layers=2, dropout=0.5, batch_first=True)
    elif kind == "attention":
        model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    elif kind == "converters":
        model, more["crossbar"] = network(), "standard(input_range='learned', output_noise=0)"
    else:
        model = nn.Sequential(nn.Conv1d(5, 4, 3, groups=1), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 3, 3))
    model.train()
    analog = analogsim.convert(model, STUCK, **more)
    if more:
        analogsim.calibrate(analog, [x])
    analogsim.program(analog, 1)
    analogsim.drift(analog, "1d")
    held = {name: value.clone() for name, value in analog.state_dict().items()}
    ranges = analogsim.get_ranges(analog)
    done = analogsim.fine_tune(analog, x, rank=2, steps=60)
    assert done.after < 0.8 * done.before
    assert all(torch.equal(value, held[name]) for name, value in analog.state_dict().items())
    assert analogsim.get_ranges(analog) == ranges
    assert all(p.requires_grad and p.grad is None for p in analog.parameters())
    assert all(module.training for module in analog.modules())
    if more:
        assert all(value.requires_grad and value.grad is None for value in analogsim.range_parameters(analog))


def test_the_same_seed_gives_the_same_and_torch_s_own_numbers_go_on() -> None:
    model = network()
    found = []
    for seed in (0, 0, 1):
        analog = analogsim.convert(model, STUCK).eval()
        torch.manual_seed(3 + len(found))
        state = torch.get_rng_state()
        analogsim.fine_tune(analog, inputs(32), rank=1, steps=5, seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        found.append(torch.cat([value.detach().flatten() for value in analogsim.adapter_parameters(analog)]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_teacher_and_a_loss_of_ones_own() -> None:
    model = network()
    analog = chip(model)
    teacher = network(nn.Dropout(0.5)).train()
    with torch.no_grad():
        teacher[-1].bias += 3.0
    analogsim.fine_tune(analog, inputs(), teacher=teacher, rank=0, steps=400, lr=0.03)
    assert teacher.training
    x = inputs()
    teacher.eval()
    assert float(functional.mse_loss(analog(x), teacher(x)).detach()) < 0.1
    analogsim.remove_adapters(analog)
    seen = []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        seen.append(target)
        return distillation_loss(output, target, temperature=2.0)

    analogsim.fine_tune(analog, {"input": x}, loss=loss, steps=3)
    torch.testing.assert_close(seen[-1], model(x))
    assert seen[0] is seen[-1], "the teacher is asked once"


def test_a_loader_too_large_to_keep_is_read_in_each_round(monkeypatch: Any) -> None:
    monkeypatch.setattr("analogsim.utils.batches._KEEP_BYTES", 100)

    class Loader:
        rounds = 0

        def __iter__(self) -> Iterator[Tensor]:
            self.rounds += 1
            yield from inputs(60).split(20)

    loader, analog = Loader(), chip(network())
    done = analogsim.fine_tune(analog, loader, steps=7)
    assert done.samples == 60
    assert loader.rounds > 3
    assert done.after < done.before


def test_in_evaluate_each_chip_is_tuned_by_itself() -> None:
    model = network()
    analog = analogsim.convert(model, STUCK)
    x = torch.randn(400, 8)
    data = [(x, model(x).argmax(1))]

    def on_chip(analog: nn.Module, seed: int, t: float) -> None:
        done = analogsim.fine_tune(analog, inputs(), rank=4, steps=100)
        assert done.on == f"chip {seed} at 1d"

    plain = analogsim.evaluate(analog, data, chips=3, times=["1d"])
    tuned = analogsim.evaluate(analog, data, chips=3, times=["1d"], on_chip=on_chip)
    assert (tuned.values > plain.values).all()
    assert adapters_of(analog).matrices == ()


def test_what_is_printed() -> None:
    done = fine_tune(chip(network()), inputs(20), steps=20)
    assert isinstance(done, FineTuning)
    assert done.adapters.numbers == 2 * 28
    assert "chip 1 at 1y       20     20" in str(done)
    assert str(done).splitlines()[-1].endswith("56")


def test_an_error_leaves_all_as_it_was() -> None:
    model, x = network(), inputs(16)
    analog = chip(model)
    analogsim.add_adapters(analog, 1)
    before = [value.detach().clone() for value in analogsim.adapter_parameters(analog)]

    def broken(value: Any) -> Any:
        return lambda output, target: output.sum() * value if isinstance(value, float) else value

    for data, more, kind, told in (
        (x, {"steps": 0}, ValueError, "steps must be an integer >= 1, got 0"),
        (x, {"lr": -1.0}, ValueError, "lr must be finite and > 0, got -1.0"),
        (x, {"teacher": "wise"}, TypeError, "got 'wise'"),
        (x, {"rank": 2}, ValueError, "has an adapter already"),
        (x, {"loss": broken(math.nan)}, NonFiniteError, "the loss is nan in step 0 of 200"),
        (x, {"loss": broken(None)}, TypeError, "loss must give a tensor with one number, got None"),
        (x, {"teacher": nn.Linear(8, 5)}, ValueError, r"answers \[\(16, 4\)\], and its teacher \[\(16, 5\)\]"),
        (x * torch.nan, {}, ValueError, "batch 0 of the data holds NaN"),
        ([], {}, ValueError, "the loader is empty"),
        ([], {"teacher": None}, ValueError, "the data are empty"),
        (3, {}, TypeError, "got int"),
        (x, {"teacher": None}, TypeError, "each batch must be a pair"),
        ([(x, ["a"] * 16)], {"teacher": None}, TypeError, "give loss=a function"),
    ):
        with pytest.raises(kind, match=told):
            analogsim.fine_tune(analog, data, **more)
        held = analogsim.adapter_parameters(analog)
        assert all(torch.equal(value, old) for value, old in zip(held, before, strict=True))
        assert all(p.requires_grad for p in analog.parameters())
    analogsim.remove_adapters(analog)
    with pytest.raises(NonFiniteError):
        analogsim.fine_tune(analog, x, loss=broken(math.inf))
    assert adapters_of(analog).matrices == ()
    with torch.no_grad():
        model[0].weight.add_(1.0)
    with pytest.raises(analogsim.StaleChipError):
        analogsim.fine_tune(analog, x)


def test_layers_without_a_part_are_told() -> None:
    class Branching(nn.Module):
        def __init__(self, none: bool) -> None:
            super().__init__()
            self.one, self.other, self.none = nn.Linear(8, 4), nn.Linear(8, 4), none

        def forward(self, x: Tensor) -> Tensor:
            return x if self.none else self.one(x)

    with pytest.warns(analogsim.ConversionWarning, match="fine_tune: analog layers without a part.*'other'"):
        analogsim.fine_tune(chip(Branching(False)), inputs(), steps=2)
    with pytest.raises((BypassedError, RuntimeError)):
        analogsim.fine_tune(chip(Branching(True)), inputs(), steps=2)


def test_distillation_loss_is_what_it_says() -> None:
    torch.manual_seed(0)
    found, wanted = torch.randn(6, 5), torch.randn(6, 5)
    expected = (found - wanted).square().mean() / wanted.var(correction=0)
    torch.testing.assert_close(distillation_loss(found, wanted), expected)
    p, q = (wanted / 3).softmax(1), (found / 3).softmax(1)
    divergence = 9 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(distillation_loss(found, wanted, temperature=3.0), divergence)
    pictures = found[:, :, None, None], wanted[:, :, None, None]
    torch.testing.assert_close(distillation_loss(*pictures, temperature=3.0, axis=1), divergence)
    pair = distillation_loss({"a": found, "b": found}, {"a": wanted, "b": found})
    torch.testing.assert_close(pair, expected / 2)
    assert distillation_loss(found.half(), wanted.half()).dtype is torch.float32
    with pytest.raises(ValueError, match="temperature must be finite and > 0, got 0"):
        distillation_loss(found, wanted, temperature=0.0)
    with pytest.raises(TypeError, match="no numbers to compare in a str"):
        distillation_loss("one", "other")


def test_what_learned_ranges_cut_off_is_not_taught() -> None:
    model = network()
    exact = "standard(input_range='learned', output_noise=0.0)"
    analog = analogsim.convert(model, "gaussian(std=0.0)", crossbar=exact).eval()
    analogsim.calibrate(analog, [inputs() / 3])
    analogsim.program(analog, 0)
    assert error(analog, model) > 0.01, "much is cut off"
    assert fine_tune(analog, inputs(), rank=0, steps=2, teacher="digital").before == pytest.approx(0, abs=1e-6)
