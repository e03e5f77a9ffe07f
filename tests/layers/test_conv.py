"""Transposed convolutions: whatever the mapping and the cuts, an ideal chip answers as torch does."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar, DeviceModel, Drift, Gaussian, Mapping, ReadNoise
from tests.hardware import LARGE, Exact

KINDS: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


IDEAL = DeviceModel((Exact(),))


def layer(axes: int = 2, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = KINDS[axes](4, 6, 3, **{"stride": 2, "groups": 2, **options}).double()
    return made


def images(axes: int = 2, count: int | None = 2, channels: int = 4) -> Tensor:
    batch = () if count is None else (count,)
    shape = (*batch, channels, *(5,) * axes)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gradients(output: Tensor, model: nn.Module) -> tuple[Tensor, ...]:
    return torch.autograd.grad(output.square().sum(), list(model.parameters()))


@pytest.mark.parametrize("cells", ["pair", "offset", "signed"])
@pytest.mark.parametrize("scale", ["column", "crossbar"])
@pytest.mark.parametrize("periphery", [Crossbar(), LARGE], ids=["ideal", "converted"])
@pytest.mark.parametrize("groups", [1, 2])
def test_ideal_is_digital(cells: str, scale: str, periphery: Crossbar, groups: int) -> None:
    """In training and on a chip, with its gradients, for every mapping, whatever the layer is cut into."""
    model, x = layer(groups=groups), images()
    wanted = model(x)
    slopes = gradients(wanted, model)
    kinds = [(1, 1, 0)] if cells == "signed" else [(1, 1, 2), (3, 1, 0), (2, 2, 1)]
    for (slices, copies, bias_rows), (rows, cols) in itertools.product(kinds, [(None, None), (7, 8), (18, 30)]):
        mapping = Mapping(cells, scale, slices=slices, copies=copies, bias_rows=bias_rows)  # type: ignore[arg-type]
        effects = (Gaussian(std=0.0),) if cells == "signed" else (Exact(),)
        if cells != "signed" and cols is not None:
            cols = max(cols, mapping.cells_per_weight + 1)
        device = DeviceModel(effects, g_min=1.0, mapping=mapping)
        analog = analogsim.convert(model, device, crossbar=periphery.replace(rows=rows, cols=cols))
        trained = analog.train()(x)
        torch.testing.assert_close(trained, wanted, rtol=1e-12, atol=1e-12)
        for ours, theirs in zip(gradients(trained, model), slopes, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
        analogsim.program(analog)
        torch.testing.assert_close(analog.eval()(x), wanted, rtol=1e-12, atol=1e-12)
        plain = analogsim.to_digital(analog, "programmed")
        torch.testing.assert_close(plain(x), wanted, rtol=1e-12, atol=1e-12)


OPTIONS: list[dict[str, Any]] = [
    {"stride": 3, "output_padding": 2, "padding": 1},
    {"dilation": 2, "bias": False},
    {"stride": 1, "groups": 1},
    {"stride": 2, "padding": 2, "dilation": 2, "output_padding": 1},
]


@pytest.mark.parametrize("axes", KINDS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("count", [2, None], ids=["batched", "unbatched"])
@pytest.mark.parametrize("periphery", [Crossbar(rows=7), LARGE.replace(rows=7)], ids=["ideal", "converted"])
def test_every_option_of_torch(axes: int, options: dict[str, Any], count: int | None, periphery: Crossbar) -> None:
    model, x = layer(axes, **options), images(axes, count)
    analog = analogsim.convert(model, IDEAL, crossbar=periphery)
    analogsim.program(analog)
    for mode in (True, False):
        torch.testing.assert_close(analog.train(mode)(x), model(x))


@pytest.mark.parametrize("axes", KINDS)
@pytest.mark.parametrize("periphery", [Crossbar(rows=7), LARGE.replace(rows=7)], ids=["ideal", "converted"])
def test_an_output_size_as_in_torch(axes: int, periphery: Crossbar) -> None:
    model, x = layer(axes), images(axes)
    analog = analogsim.convert(model, IDEAL, crossbar=periphery)
    for size in ([11] * axes, [12] * axes, [2, 6, *[12] * axes]):
        torch.testing.assert_close(analog(x, size), model(x, size))
        torch.testing.assert_close(analog(x, output_size=size), model(x, output_size=size))
    with pytest.raises(ValueError, match="valid sizes range"):
        analog(x, [20] * axes)
    torch.testing.assert_close(analog(x), model(x))  # the next call is not of that size


def test_the_matrix_has_a_column_for_each_output_channel() -> None:
    model = layer(groups=2)
    analog = analogsim.convert(model, "pcm", crossbar=Crossbar(rows=9, cols=4))
    (row,) = analogsim.summary(analog).rows
    assert row.shape == (6, 2, 3, 3)  # (out, in / groups, kh, kw)
    assert row.cells == 2 * 6 * 2 * 9
    # Two groups; 18 rows on two crossbars; three columns of two cells each, two of which fit on one.
    assert row.crossbars == 2 * 2 * 2
    dense = torch.zeros(6, 4, 3, 3, dtype=torch.float64)
    weight = model.weight.detach()  # (in, out / groups, kh, kw)
    for out, channel in itertools.product(range(6), range(4)):
        if out // 3 == channel // 2:
            dense[out, channel] = weight[channel, out % 3]
    matrix = analog.matrix.detach()
    torch.testing.assert_close(matrix, torch.cat((dense[:3, :2], dense[3:, 2:])))
    # A convolution of the spread-out input with the kernel turned round.
    x = images()
    spread = torch.zeros(2, 4, 9, 9, dtype=torch.float64)
    spread[..., ::2, ::2] = x
    spread = nn.functional.pad(spread, (2, 2, 2, 2))
    wanted = nn.functional.conv2d(spread, matrix.flip(-1, -2), model.bias.detach(), groups=2)
    torch.testing.assert_close(model(x), wanted)


@pytest.mark.parametrize("periphery", [Crossbar(), LARGE.replace(rows=7)], ids=["ideal", "converted"])
@pytest.mark.parametrize("groups", [1, 2])
def test_read_noise_by_its_output_law(periphery: Crossbar, groups: int) -> None:
    """Mean and variance of 4000 uses against the sum over cells of s^2 x^2; five standard errors of each."""
    model, x = layer(groups=groups), images(count=1)
    analog = analogsim.convert(model, ReadNoise(std=0.05), crossbar=periphery)
    analogsim.program(analog)
    analog.eval()
    with torch.no_grad():
        _, variance = analog.analog.chip.weight_for(analog.matrix, analog.bias)
        turned = analog.analog.slot.turned(variance.to(torch.float64))
        law = nn.functional.conv_transpose2d(x.square(), turned, None, 2, 0, 0, groups)
        uses = torch.cat([analog(x.expand(500, -1, -1, -1)) for _ in range(8)])
        off = (uses.mean(0) - model(x)[0]) / (law[0] / 4000).sqrt()
        spread = (uses.var(0) / law[0] - 1) / (2 / 4000) ** 0.5
    assert law.min() > 0
    assert off.abs().max() < 5
    assert spread.abs().max() < 5


def test_converters_round_inputs_and_outputs() -> None:
    model, x = layer(), images()
    errors = []
    for bits in (6, 8, 10):
        crossbar = Crossbar(rows=9, dac_bits=bits, adc_bits=bits, output_bound=9.0)
        analog = analogsim.convert(model, IDEAL, crossbar=crossbar)
        analogsim.program(analog)
        answer = analog.eval()(x)
        torch.testing.assert_close(analog.train()(x), answer)
        errors.append((answer - model(x)).square().mean().sqrt().item())
    # Two bits more divide the error by four, within 40 %.
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.4)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.4)


@pytest.mark.parametrize("device", ["gaussian", "pcm"])
def test_the_chip_drifts_and_comes_back_from_a_file(device: str, tmp_path: Path) -> None:
    model, x = layer(), images()
    analog = analogsim.convert(model, [Gaussian(0.02), Drift(0.05, 0.02)] if device == "gaussian" else device)
    analogsim.program(analog, seed=3)
    analog.eval()
    analogsim.drift(analog, "1s")
    fresh = analog(x)
    analogsim.drift(analog, "1y")
    old = analog(x)
    assert not torch.allclose(old, fresh)
    torch.testing.assert_close(analogsim.to_digital(analog, "programmed")(x), old)
    analogsim.save_chip(analog, tmp_path / "chip.safetensors")
    analogsim.erase(analog)
    analogsim.load_chip(analog, tmp_path / "chip.safetensors")
    torch.testing.assert_close(analog(x), old)


def test_channels_last_is_kept_and_autocast_narrows() -> None:
    model, x = layer().float(), images().float().to(memory_format=torch.channels_last)
    model.to(memory_format=torch.channels_last)
    analog = analogsim.convert(model, "gaussian(std=0.0)")
    assert analog(x).is_contiguous(memory_format=torch.channels_last)
    analogsim.program(analog)
    assert analog.eval()(x).is_contiguous(memory_format=torch.channels_last)
    for mode in (True, False):
        with torch.autocast("cpu", torch.bfloat16):
            wanted, answer = model(x), analog.train(mode)(x)
        assert answer.dtype == torch.bfloat16
        torch.testing.assert_close(answer, wanted)


FORWARD: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True], ids=["conv", "transposed"])
@pytest.mark.parametrize("training", [False, True], ids=["chip", "training"])
def test_a_dynamic_range_is_that_of_each_sample(axes: int, transposed: bool, training: bool) -> None:
    """What else is in the batch plays no part, however large; all channels and places of a sample share one range."""
    made = (KINDS if transposed else FORWARD)[axes](4, 6, 3, groups=2).double()
    analog = analogsim.convert(made, IDEAL, crossbar=Crossbar(dac_bits=4)).train(training)
    if not training:
        analogsim.program(analog)
    x = images(axes, 3)
    larger = x * torch.tensor([1.0, 100.0, 1e-3], dtype=torch.float64).view(-1, *(1,) * (axes + 1))
    answer, again = analog(x), analog(larger)
    assert torch.equal(again[0], answer[0])
    bias = made.bias.view(-1, *(1,) * axes)
    for place, factor in ((1, 100.0), (2, 1e-3)):
        torch.testing.assert_close(again[place] - bias, factor * (answer[place] - bias))
    torch.testing.assert_close(analog(x[1]), answer[1])
    # Rounded to 15 levels of the sample's largest value, by hand.
    full = x.abs().amax(tuple(range(1, axes + 2)), keepdim=True)
    torch.testing.assert_close(answer, made((x / full * 7).round() / 7 * full))
