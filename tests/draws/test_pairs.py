"""Draws in pairs follow the law of draws cell by cell, and training by compiled code takes them."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import analogsim
from analogsim import Cells, Crossbar, DeviceModel, Drift, Effect, Gaussian, Mapping, Quantization, ReadNoise
from analogsim.crossbar import IDEAL
from analogsim.device.parse import as_device_model
from analogsim.draws.noisy_weight import draw_cells, noisy_weight
from analogsim.draws.pairs import come_in_pairs, draw_pairs
from analogsim.noise import GlobalNoise, Noise
from analogsim.noise.counter_based import PairedNoise, row_keys

K = 5  # standard errors
DAY = 86400.0
CHAIN = DeviceModel(
    (Quantization(8, stochastic=True), Gaussian(0.05), Drift(0.05, 0.02), ReadNoise(0.02)), g_min=1.0, g_max=20.0
)
DEVICES = {
    name: as_device_model(name).replace(mapping=Mapping("pair"))
    for name in ("pcm", "pcm-hermes", "reram-wan2022", "reram-cmo", "reram-milo", "sonos")
} | {"chain": CHAIN, "written": DeviceModel((Gaussian(0.1),), mapping=Mapping("pair"))}
EIGHT_BITS = Crossbar(dac_bits=8, adc_bits=8, input_range=3.0, output_bound=8.0, output_noise=0.02)


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the law --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEVICES)
def test_draws_follow_the_law_of_cells_drawn_one_by_one(name: str) -> None:
    """Kolmogorov and Smirnov's test for each of nine weights; seeds are fixed, so that p below 1e-4 is a fault."""
    device, columns = DEVICES[name], 20_000
    weight = torch.linspace(-1, 1, 9).unsqueeze(1).repeat(1, columns)
    weight[:, 0] = 1.0
    torch.manual_seed(3)
    wanted = draw_cells(weight, device, (DAY, DAY), None, IDEAL, GlobalNoise())
    variance = device.read_variance(wanted.g, wanted.written)
    drawn = draw_pairs(weight, None, device, 1.0, torch.tensor(DAY), row_keys(9, weight.device, generator()))
    # Gains are measured on other cells, so each is taken off first.
    assert (wanted.gain is None) == (drawn.gain is None)
    gain, other = (torch.ones(()) if value is None else value for value in (drawn.gain, wanted.gain))
    assert abs(gain / other - 1) < 0.01
    for got, reference in zip(drawn.noisy / gain, wanted.noisy, strict=True):
        assert stats.ks_2samp(got.numpy(), reference.numpy()).pvalue > 1e-4
    assert (variance is None) == (drawn.variance is None)
    if variance is not None and drawn.variance is not None:
        ours = drawn.variance / gain.square()
        spread = ((ours.var(1) + variance.var(1)) / columns).sqrt()
        assert ((ours.mean(1) - variance.mean(1)).abs() <= K * spread + 1e-5 * variance.mean(1)).all()


def test_all_normal_numbers_of_a_draw_are_independent() -> None:
    keys, like = row_keys(40, torch.device("cpu"), generator()), torch.empty(1, 40, 10_000)
    first, second = PairedNoise(keys, False), PairedNoise(keys, True)
    numbers = [stream.normal_like(like).double() for _ in range(3) for stream in (first, second)]
    numbers += [stream.uniform_like(like).double() for stream in (first, second)]
    count = like.numel()
    assert stats.kstest(numbers[-1].flatten().numpy(), "uniform").pvalue > 1e-3
    for values in numbers[:-2]:
        assert values.shape == like.shape
        assert stats.kstest(values.flatten().numpy(), "norm").pvalue > 1e-3
    numbers = [((values - values.mean()) / values.std()).squeeze(0) for values in numbers]
    for place, one in enumerate(numbers):
        for other in numbers[:place]:
            assert abs((one * other).mean()) < K / math.sqrt(count)
            assert abs((one.square() * other.square()).mean() - 1) < K * 3 / math.sqrt(count)
            assert abs((one[:, 1:] * other[:, :-1]).mean()) < K / math.sqrt(count)
            assert abs((one[1:] * other[:-1]).mean()) < K / math.sqrt(count)
        assert abs((one[:, 1:] * one[:, :-1]).mean()) < K / math.sqrt(count)
        assert abs((one[1:] * one[:-1]).mean()) < K / math.sqrt(count), "rows have keys of their own"


def test_more_than_one_number_for_each_cell_is_refused() -> None:
    noise = PairedNoise(row_keys(4, torch.device("cpu")), False)
    assert noise.fold("a", "b").normal_like(torch.empty(1, 4, 3), 2.0).shape == (1, 4, 3)
    with pytest.raises(
        ValueError, match=r"cellwise = True may draw one number for each cell only, .* shape \(2, 4, 3\)"
    ):
        noise.normal_like(torch.empty(2, 4, 3))
    with pytest.raises(ValueError, match=r"got the shape \(1, 5, 3\)"):
        noise.uniform_like(torch.empty(1, 5, 3))


@dataclass(frozen=True)
class Neighbours(Effect):
    """An effect that looks at all cells at once, and does not say that it is cellwise."""

    def program(self, g: Tensor, cells: Cells, noise: Noise) -> Tensor:
        return g + noise.normal_like(g) * g.mean()


@dataclass(frozen=True)
class Claimed(Neighbours):
    cellwise: ClassVar[bool] = True


@pytest.mark.parametrize(
    "device",
    [
        "gaussian",
        "stuck-at",
        "read-noise",
        DeviceModel((Gaussian(0.1),), mapping=Mapping("two-sided")),
        DeviceModel((Gaussian(0.1),), mapping=Mapping("pair", slices=2)),
        Neighbours(),
    ],
    ids=str,
)
def test_what_does_not_come_in_pairs(device: object) -> None:
    assert not come_in_pairs(as_device_model(device), IDEAL)  # type: ignore[arg-type]


def test_wires_take_whole_crossbars() -> None:
    assert come_in_pairs(as_device_model("pcm"), EIGHT_BITS)
    assert not come_in_pairs(as_device_model("pcm"), Crossbar(wire_resistance=1.0))


def test_the_contract_finds_an_effect_that_claims_to_be_cellwise() -> None:
    from analogsim.testing import DeviceContract

    class Contract(DeviceContract):
        device = Claimed()
        __test__ = False

    with pytest.raises(AssertionError, match="leave cellwise = False"):
        Contract().test_an_effect_that_says_cellwise_knows_one_cell_at_a_time()


# --- in training ----------------------------------------------------------------------------------------------------


NETWORKS = {
    "linear": (lambda: nn.Linear(30, 20), (4, 30)),
    "conv": (lambda: nn.Conv2d(4, 6, 3, groups=2), (2, 4, 6, 6)),
    "channels last": (lambda: nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last), (2, 4, 6, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3), (2, 4, 5, 5)),
    "recurrent": (lambda: nn.GRU(6, 8), (3, 2, 6)),
    "attention": (lambda: nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True), (2, 5, 16)),
}
CROSSBARS = {
    "ideal": Crossbar(),
    "cut": Crossbar(rows=8, cols=8),
    "8 bits": EIGHT_BITS,
    "8 bits, cut": EIGHT_BITS.replace(rows=8, cols=8),
}


# Every network and every crossbar, and each third of all that they make together; the others take their time.
TOGETHER = [
    pytest.param(network, crossbar, marks=() if (row + column) % 3 == 0 else pytest.mark.slow)
    for row, network in enumerate(NETWORKS)
    for column, crossbar in enumerate(CROSSBARS)
]


def gradients(analog: nn.Module, x: Tensor, seed: int = 5) -> list[Tensor]:
    torch.manual_seed(seed)
    analog.zero_grad()
    out = analog(x)
    out = out[0] if isinstance(out, tuple) else out
    out.square().sum().backward()
    return [out.detach(), *(p.grad.clone() for p in analog.parameters() if p.grad is not None)]


@pytest.mark.parametrize(("network", "crossbar"), TOGETHER)
def test_training_draws_in_pairs(network: str, crossbar: str, drawn: list[torch.Size]) -> None:
    """Without errors it is the network itself; with them a seed repeats."""
    make, shape = NETWORKS[network]
    model, x = make().double(), torch.randn(shape, dtype=torch.float64)
    silent = Gaussian(0.0)
    exact = analogsim.convert(model, DeviceModel((silent,), mapping=Mapping("pair")))
    wanted = model(x)
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    drawn.clear()
    torch.testing.assert_close(gradients(exact, x)[0], wanted, rtol=1e-10, atol=1e-10)
    assert drawn
    analog = analogsim.convert(model, "pcm", crossbar=CROSSBARS[crossbar])
    kept = gradients(analog, x)
    assert len(kept) == 1 + len(list(model.parameters()))
    assert not torch.equal(gradients(analog, x, 6)[0], kept[0])
    for again in (gradients(analog, x), gradients(copy.deepcopy(analog), x)):
        assert all(map(torch.equal, again, kept))


@pytest.mark.parametrize("network", ["linear", "conv", "channels last"])
def test_errors_of_all_ways_to_draw_are_of_one_size(network: str, drawn: list[torch.Size]) -> None:
    """In pairs, cell by cell, and made again in backward: means of 60 draws, within five standard errors."""
    make, shape = NETWORKS[network]
    model, x = make(), torch.randn(shape)
    analog = analogsim.convert(model, "pcm", train_times=(DAY, DAY))
    wanted, sizes = model(x).detach(), {}
    for way in ("cell by cell", "in pairs", "made again"):
        analogsim.use_compiled_noise(way != "cell by cell")
        analogsim.set_recompute(analog, way == "made again")
        drawn.clear()
        errors, slopes = [], []
        for seed in range(60):
            out, *grads = gradients(analog, x, seed)
            errors.append((out - wanted).square().mean())
            slopes.append(sum(grad.square().sum() for grad in grads))
        sizes[way] = torch.stack((torch.stack(errors), torch.stack(slopes)))
        assert bool(drawn) == (way != "cell by cell")
    for way in ("in pairs", "made again"):
        one, other = sizes["cell by cell"], sizes[way]
        assert ((one.mean(1) - other.mean(1)).abs() < K * ((one.var(1) + other.var(1)) / 60).sqrt()).all(), way
    assert (sizes["cell by cell"][0].mean() > 1e-5).all()


@pytest.mark.parametrize(("network", "crossbar"), TOGETHER)
def test_recomputed_draws_are_those_of_the_forward(
    network: str, crossbar: str, drawn: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, shape = NETWORKS[network]
    analog = analogsim.convert(make().double(), "pcm", crossbar=CROSSBARS[crossbar])
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    gradients(analog, x)  # makes the kernel ready
    analogsim.set_recompute(analog)
    drawn.clear()
    got, count = gradients(analog, x), len(drawn)
    with monkeypatch.context() as patch:
        patch.setattr("analogsim.layers.matrix.keeping", lambda *_: nullcontext())
        wanted = gradients(analog, x)
    made_again = 2 * count - len(drawn)
    # torch's recurrent kernels keep their draws, and weights cut into blocks are copies.
    assert made_again or network == "recurrent" or crossbar == "8 bits, cut"
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_gradient_is_taken_at_the_noisy_weight_and_stops_beyond_the_range(drawn: list[torch.Size]) -> None:
    device = DeviceModel((Gaussian(0.1), Drift()), mapping=Mapping("pair", "column", percentile=75.0))
    weight = torch.randn(40, 50, requires_grad=True)
    noisy, variance = noisy_weight(weight, device, 1.0, (1.0, DAY))
    assert variance is None
    assert drawn[-1] == (40, 50)
    noisy.backward(torch.full((40, 50), 2.0))
    beyond = weight.detach().abs() > device.largest(weight.detach())
    assert 0.2 < beyond.double().mean() < 0.3
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.where(beyond, 0.0, 2.0))


def test_fresh_keys_follow_the_seed() -> None:
    torch.manual_seed(1)
    one = GlobalNoise().row_keys(5, torch.device("cpu"))
    assert one.shape == (5, 2)
    assert one.dtype == torch.int32
    assert len(one.flatten().unique()) == 10
    torch.manual_seed(1)
    assert torch.equal(GlobalNoise().row_keys(5, torch.device("cpu")), one)
