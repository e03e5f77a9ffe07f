"""State of a model and its twin: copies, files, averages, recomputation. More in test_convert and test_chip."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, load_model, save_model
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import analogsim
from analogsim import Drift, Gaussian, ReadNoise, StaleChipError, StuckAt

ALL = [Gaussian(0.05), StuckAt(0.1, 0.05), Drift(0.05, 0.02), ReadNoise(0.02)]
DEVICES = ["gaussian", "pcm", "read-noise", ALL]


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))


class Tied(nn.Module):
    """Two layers, one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.second(self.first(x).tanh())
        return output


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def cloned(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(value is not None for value in found.values())
    return {name: value.clone() for name, value in found.items() if value is not None}


def train(analog: nn.Module, steps: int, optimizer: torch.optim.Optimizer, schedule: Any = None) -> None:
    for step in range(steps):
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (analog(x) - x[:, :3]).square().mean().backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()


def loader() -> list[tuple[Tensor, Tensor]]:
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(9))
    return [(x, x[:, :3].argmax(1))]


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", ["model", "twin"])
@pytest.mark.parametrize("make", [mlp, Tied])
def test_safetensors_of_model_and_twin_are_one_format(
    tmp_path: Path, make: Callable[[], nn.Module], writer: str
) -> None:
    """With ties, which safetensors writes once, and finds again by the names in the model."""
    model = make()
    analog = analogsim.convert(model, "pcm")
    analogsim.program(analog)
    save_model(model, str(tmp_path / "model"))
    save_model(analog, str(tmp_path / "twin"))
    assert same(load_file(tmp_path / "model"), load_file(tmp_path / "twin"))
    for reader in (make(), analogsim.convert(make(), "gaussian")):
        with torch.no_grad():
            for parameter in reader.parameters():
                parameter.zero_()
        assert load_model(reader, tmp_path / writer, strict=True) == (set(), [])
        assert same(reader.state_dict(), model.state_dict())
    if make is Tied:
        assert "second.weight" not in load_file(tmp_path / "twin")
        assert reader.second.weight is reader.first.weight


def test_loading_makes_a_chip_stale_and_nothing_else_changes_shape(tmp_path: Path) -> None:
    analog = analogsim.convert(mlp(), "pcm").eval()
    analogsim.program(analog)
    save_model(mlp(1), str(tmp_path / "other"))
    load_model(analog, tmp_path / "other")
    with pytest.raises(StaleChipError):
        analog(torch.randn(2, 6))
    with pytest.raises(RuntimeError, match=r'Missing key.*"3\.weight"'):
        analog.load_state_dict({name: value for name, value in mlp().state_dict().items() if name != "3.weight"})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        analog.load_state_dict({**mlp().state_dict(), "chip": torch.zeros(1)})


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_a_checkpoint_of_a_training_goes_on_to_the_same_numbers(device: object) -> None:
    """Weights, optimizer, noise schedule and torch's random state: all of them pass ``weights_only=True``."""

    def begun() -> tuple[nn.Module, torch.optim.Optimizer, analogsim.NoiseSchedule]:
        analog = analogsim.convert(mlp(), device)
        schedule = analogsim.NoiseSchedule(analog, "linear", end=2.0, steps=6, jitter=0.5)
        return analog, torch.optim.Adam(analog.parameters(), 0.01), schedule

    analog, optimizer, schedule = begun()
    torch.manual_seed(5)
    train(analog, 3, optimizer, schedule)
    file = io.BytesIO()
    parts = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(), "random": torch.get_rng_state()}
    torch.save({"weights": analog.state_dict(), **parts}, file)
    train(analog, 3, optimizer, schedule)

    again, optimizer, schedule = begun()
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again.load_state_dict(saved["weights"], strict=True)
    optimizer.load_state_dict(saved["optimizer"])
    schedule.load_state_dict(saved["schedule"])
    torch.set_rng_state(saved["random"])
    train(again, 3, optimizer, schedule)
    assert same(again.state_dict(), analog.state_dict())


def test_a_whole_twin_in_a_file_is_no_file_of_weights() -> None:
    """A pickled twin is code; torch says so, and the state dict is what ``weights_only`` is for."""
    file = io.BytesIO()
    torch.save(analogsim.convert(mlp(), "pcm"), file)
    file.seek(0)
    with pytest.raises(Exception, match="weights_only"):
        torch.load(file, weights_only=True)


# --- copies ---------------------------------------------------------------------------------------------------------


def test_a_copy_made_in_the_middle_of_training_trains_on_its_own() -> None:
    model = mlp()
    analog = analogsim.convert(model, "pcm")
    train(analog, 2, torch.optim.SGD(model.parameters(), 0.1))
    copied = copy.deepcopy(analog)
    analogsim.set_noise_scale(copied, 0.5)
    assert analog[0].analog.noise_scale == 1.0
    before = cloned(model)
    train(copied, 2, torch.optim.SGD(copied.parameters(), 0.1))
    assert same(model.state_dict(), before)
    assert not same(copied.state_dict(), before)


# --- other dtypes and ways to move ----------------------------------------------------------------------------------


@contextmanager
def conversion(kind: str) -> Iterator[None]:
    """How torch exchanges Parameters in ``.to()``: the values of each, the object, or its inside."""
    flags = (
        (torch.__future__.set_overwrite_module_params_on_conversion, "overwrite"),
        (
            torch.__future__.set_swap_module_params_on_conversion,
            "swap",
        ),
    )
    try:
        for switch, name in flags:
            switch(kind == name)
        yield
    finally:
        for switch, _ in flags:
            switch(False)


@pytest.mark.parametrize("kind", ["values", "overwrite", "swap"])
@pytest.mark.parametrize("part", ["", "0"])
@pytest.mark.parametrize("mover", ["model", "twin"])
def test_sharing_survives_every_way_to_move(kind: str, part: str, mover: str) -> None:
    model = mlp()
    analog = analogsim.convert(model, "pcm")
    with conversion(kind):
        {"model": model, "twin": analog}[mover].get_submodule(part).to(torch.float64)
    assert model[0].weight is analog[0].weight
    assert analog[0].weight.dtype == torch.float64
    assert analog[3].weight.dtype == (torch.float32 if part else torch.float64)
    for name, parameter in model.named_parameters():
        assert parameter is analog.get_parameter(name)
    model.double()
    x = torch.randn(16, 6, dtype=torch.float64)
    optimizer = torch.optim.SGD(analog.parameters(), 0.1)
    before = cloned(model)
    analog(x).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model[0].weight, before["0.weight"])


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_chip_of_moved_weights_is_the_chip_of_its_values(device: object, dtype: torch.dtype) -> None:
    """Moved and then programmed is programmed and then moved, where moving keeps the values."""
    weights = {name: value.bfloat16().float() for name, value in mlp().state_dict().items() if value.ndim}
    chips = []
    for first in (True, False):
        model = mlp()
        model.load_state_dict(weights, strict=False)
        analog = analogsim.convert(model, device)
        if first:
            model.to(dtype)
        analogsim.program(analog, seed=1)
        analogsim.drift(analog, "1d")
        model.to(dtype)
        assert analog.eval()(torch.ones(2, 6, dtype=dtype)).dtype == dtype
        chips.append(analogsim.to_digital(analog, "programmed")[0].weight.float())
    rounding = 2.0**-8 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(*chips, rtol=rounding, atol=rounding)
    assert (chips[0] - weights["0.weight"]).abs().max() > 4 * rounding or device == "read-noise"


def test_calibrated_converters_move_with_the_weights() -> None:
    crossbar = analogsim.Crossbar(dac_bits=8, adc_bits=8, input_range="calibrated", output_bound="calibrated")
    model = mlp().eval()
    analog = analogsim.convert(model, "pcm", crossbar=crossbar)
    analogsim.calibrate(analog, loader())
    x = loader()[0][0]
    analogsim.program(analog)
    single = analog(x).detach()
    model.double()
    analogsim.program(analog)
    double = analog(x.double())
    assert double.dtype == torch.float64
    # Steps of 8-bit converters: a value at an edge may fall to either side.
    torch.testing.assert_close(double.detach().float(), single, rtol=0, atol=float(single.abs().max()) / 64)


# --- recomputation and accumulation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("crossbar", [analogsim.Crossbar(), analogsim.Crossbar(dac_bits=8, adc_bits=8)], ids=str)
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_replays_the_noise(
    device: object, crossbar: analogsim.Crossbar, reentrant: bool
) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    analog = analogsim.convert(model, device, crossbar=crossbar)
    x = torch.randn(4, 6, requires_grad=True)

    def run(forward: Callable[[], Tensor]) -> dict[str, Tensor]:
        analog.zero_grad()
        torch.manual_seed(1)
        forward().square().sum().backward()
        return gradients(analog)

    plain = run(lambda: analog(x))
    assert same(run(lambda: checkpoint(analog, x, use_reentrant=reentrant)), plain)
    assert same(run(lambda: checkpoint_sequential(analog, 2, x, use_reentrant=reentrant)), plain)
    other = run(lambda: checkpoint(analog, x, use_reentrant=reentrant, preserve_rng_state=False))
    assert not same(other, plain)  # so the replay is not for free


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_gradient_accumulation_is_the_sum_of_the_batches(device: object) -> None:
    analog = analogsim.convert(mlp(), device)
    analog[1].eval()  # batch norm would see other batches
    batches = torch.randn(3, 4, 6)
    torch.manual_seed(1)
    single = []
    for batch in batches:
        analog.zero_grad()
        analog(batch).square().sum().backward()
        single.append(gradients(analog))
    analog.zero_grad()
    torch.manual_seed(1)
    for batch in batches:
        analog(batch).square().sum().backward()
    for name, value in gradients(analog).items():
        torch.testing.assert_close(value, sum(each[name] for each in single))
    analogsim.set_noise_scale(analog, 0)
    analog.zero_grad()
    for batch in batches:
        analog(batch).square().sum().backward()
    accumulated = gradients(analog)
    analog.zero_grad()
    analog(batches.flatten(0, 1)).square().sum().backward()
    for name, value in gradients(analog).items():
        torch.testing.assert_close(accumulated[name], value)


# --- averages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ema", [False, True])
@pytest.mark.parametrize("which", ["model", "twin"])
def test_averages_are_of_the_clean_weights(which: str, ema: bool) -> None:
    """Averaged over steps, of the model or of the twin alike, beside the same by hand."""
    model = mlp()
    analog = analogsim.convert(model, "pcm")
    average = get_ema_multi_avg_fn(0.5) if ema else None
    averaged = AveragedModel({"model": model, "twin": analog}[which], multi_avg_fn=average)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    seen = []
    for _ in range(3):
        train(analog, 1, optimizer)
        averaged.update_parameters({"model": model, "twin": analog}[which])
        seen.append(model[0].weight.detach().clone())
    by_hand = seen[0] / 4 + seen[1] / 4 + seen[2] / 2 if ema else sum(seen) / 3
    torch.testing.assert_close(averaged.module[0].weight, nn.Parameter(by_hand))
    assert torch.equal(model[0].weight, seen[-1])
    # The average has a life of its own: chips, noise, an evaluation.
    twin = averaged if which == "twin" else analogsim.convert(averaged, "pcm")
    report = analogsim.evaluate(twin, loader(), chips=2, times=(1.0,))
    plain, (x, target) = mlp().eval(), loader()[0]
    plain.load_state_dict(averaged.module.state_dict(), strict=True)
    assert report.clean == pytest.approx(float((plain(x).argmax(1) == target).float().mean()))
    analogsim.program(twin)
    twin.eval()(x)
    train(analog, 1, optimizer)
    twin(x)  # the training goes on and leaves the chip of the average alone
    averaged.update_parameters({"model": model, "twin": analog}[which])
    with pytest.raises(StaleChipError):
        twin(x)


def test_update_bn_of_an_averaged_twin_sees_the_noise() -> None:
    model = mlp()
    analog = analogsim.convert(model, "gaussian(std=0.2)")
    averaged = AveragedModel(analog)
    before = cloned(model)
    batches = [torch.randn(64, 6) for _ in range(20)]
    torch.manual_seed(3)
    update_bn(batches, averaged)
    assert same(model.state_dict(), before)
    norm = averaged.module[1]
    assert int(norm.num_batches_tracked) == 20
    # A cumulative average over the batches, under the same noise by hand.
    torch.manual_seed(3)
    inputs = []
    with torch.no_grad():
        for batch in batches:
            inputs.append(averaged.module[0](batch))
            averaged.module[3](batch.new_zeros(64, 8))  # draws as in the whole forward
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean(0) for x in inputs]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var(0) for x in inputs]).mean(0))
    clean = torch.stack([model[0](batch).var(0) for batch in batches]).mean(0)
    assert (norm.running_var - clean).abs().max() > 0.01
