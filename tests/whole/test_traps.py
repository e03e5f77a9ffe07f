"""What existing simulators get wrong. Each test is named after its trap; those of a file's own subject are in that file
(`pytest -k trap`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import Cells, DeviceModel, Drift, Effect, Gaussian, Mapping, ReadNoise, StuckAt, param, register
from analogsim.device.registry import factories
from analogsim.draws.noisy_weight import noisy_weight
from analogsim.noise import GlobalNoise, Noise

ALL = [Gaussian(0.05), StuckAt(0.1, 0.05), Drift(0.05, 0.02), ReadNoise(0.02)]


def chip_weight(layer: nn.Module) -> Tensor:
    return layer.analog.chip.weight_for(layer.weight)[0]


def programmed(weight: Tensor, device: object, seed: int = 0) -> nn.Module:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)
    analog = analogsim.convert(layer, device).eval()
    analogsim.program(analog, seed=seed)
    return analog


@pytest.mark.parametrize("device", ["pcm", "gaussian", "stuck-at"])
def test_trap_03_the_learning_rate_keeps_its_meaning(device: str) -> None:
    """A digital lr moves logical weights by lr times the gradient, whatever the conductance range."""
    model = nn.Linear(5, 4)
    with torch.no_grad():
        model.weight.mul_(100)
    analog = analogsim.convert(model, device)
    before = model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    analog(torch.randn(3, 5)).sum().backward()
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before - 0.1 * model.weight.grad)


def test_trap_05_a_time_keeps_the_programming_error() -> None:
    """Setting a time on a device without drift changes nothing; on one with drift the error stays with it."""
    weight = torch.randn(8, 6)
    analog = programmed(weight, "gaussian")
    error = chip_weight(analog) - weight
    analogsim.drift(analog, "1y")
    assert torch.equal(chip_weight(analog) - weight, error)
    assert error.abs().min() > 0
    analog = programmed(weight, DeviceModel((Gaussian(0.05), Drift(0.05, nu_std=0.0))))
    fresh = chip_weight(analog)
    analogsim.drift(analog, "1y")
    torch.testing.assert_close(chip_weight(analog), fresh)
    assert not torch.allclose(fresh, weight)


def test_trap_05_unknown_parameter_names_are_errors() -> None:
    """Neither the text, nor the class, nor the function takes a name it does not know."""
    with pytest.raises(ValueError, match="sdt"):
        analogsim.as_device_model("gaussian(sdt=0.1)")
    with pytest.raises(TypeError, match="sdt"):
        Gaussian(sdt=0.1)  # type: ignore[call-arg]
    analog = analogsim.convert(nn.Linear(2, 2), "pcm")
    for call in (analogsim.program, analogsim.evaluate, analogsim.programmed, analogsim.convert):
        with pytest.raises(TypeError, match="sed"):
            call(analog, sed=1)  # type: ignore[operator]


@pytest.mark.parametrize("device", ["pcm", "gaussian", "read-noise", "drift", "stuck-at", "quantization", ALL], ids=str)
def test_trap_13_training_compiles_into_one_graph(device: object) -> None:
    """No graph break in the forward: no `.item()`, no branch on values."""
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    analog = analogsim.convert(model, device)
    graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(analog, backend=backend, fullgraph=True)
    compiled(torch.randn(4, 6)).sum().backward()
    assert len(graphs) == 1
    assert model[0].weight.grad.isfinite().all()
    torch._dynamo.reset()


TYPES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(4, 4),
    "conv1d": lambda: nn.Conv1d(4, 4, 3, dilation=2),
    "conv2d": lambda: nn.Conv2d(4, 4, 3, groups=4),
    "conv3d": lambda: nn.Conv3d(2, 2, 3),
    "conv_transpose1d": lambda: nn.ConvTranspose1d(4, 4, 3),
    "conv_transpose2d": lambda: nn.ConvTranspose2d(4, 4, 3, groups=2),
    "conv_transpose3d": lambda: nn.ConvTranspose3d(2, 2, 3),
    "bilinear": lambda: nn.Bilinear(3, 4, 2),
    "attention": lambda: nn.MultiheadAttention(4, 2),
    "attention of other widths": lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5),
    "encoder": lambda: nn.TransformerEncoderLayer(4, 2, 8),
    "decoder": lambda: nn.TransformerDecoderLayer(4, 2, 8),
    "rnn": lambda: nn.RNN(3, 4, nonlinearity="relu"),
    "lstm": lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2),
    "gru": lambda: nn.GRU(3, 4, batch_first=True),
    "rnn cell": lambda: nn.RNNCell(3, 4),
    "lstm cell": lambda: nn.LSTMCell(3, 4),
    "gru cell": lambda: nn.GRUCell(3, 4),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(2, 4, 3)),
    "subclass": lambda: type("Named", (nn.Linear,), {})(4, 4),
}


@pytest.mark.parametrize("make", TYPES.values(), ids=TYPES.keys())
def test_trap_10_every_matrix_of_every_type_is_analog(make: Callable[[], nn.Module]) -> None:
    """No Parameter with two or more axes stays digital (and no warning, which would be an error here)."""
    model = nn.Sequential(make())
    analog = analogsim.convert(model, "pcm")
    matrices = sum(row.shape != () and row.analog for row in analogsim.summary(analog).rows)
    digital = [row for row in analogsim.summary(analog).rows if not row.analog and len(row.shape) > 1]
    assert matrices
    assert not digital
    on_cells = sum(torch.Size(row.shape).numel() for row in analogsim.summary(analog).rows if row.analog)
    with torch.no_grad():
        weights = sum(
            tensor.numel() for name, tensor in model.named_parameters() if tensor.ndim > 1 and "original0" not in name
        )
    assert on_cells == weights


def test_trap_10_what_cannot_be_analog_says_so() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(3, 3))

    with pytest.warns(analogsim.ConversionWarning, match="1 x Bare .bare Parameters"):
        analog = analogsim.convert(nn.Sequential(Bare(), nn.Linear(3, 3)), "pcm")
    assert "register_routed" in str(analogsim.summary(analog))


@pytest.mark.parametrize("device", ["pcm", "gaussian", "read-noise", "drift", "stuck-at", "quantization", ALL], ids=str)
def test_trap_16_forwards_leave_the_weights_alone(device: object) -> None:
    """Three training forwards and backwards with no optimizer step: not one bit of a Parameter changes."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    before = [(parameter._version, parameter.detach().clone()) for parameter in model.parameters()]
    analog = analogsim.convert(model, device)
    for _ in range(3):
        analog(torch.randn(2, 1, 4, 4)).sum().backward()
    for parameter, (version, value) in zip(model.parameters(), before, strict=True):
        assert parameter._version == version
        assert torch.equal(parameter, value)


def test_trap_17_fitted_errors_scale_with_the_range() -> None:
    """The relative error of a weight is the fitted one at any g_max, and the published one at 25 µS."""
    weight = torch.full((100, 100), 0.5)
    weight[:, 0] = 1.0  # so that all others stand at half the range
    spread = {}
    for g_max in (10.0, 25.0, 40.0):
        analog = programmed(weight, f"pcm(g_max={g_max})")
        analog.analog.chip.set_time(0.0, None)
        written = analog.analog.chip.written.programmed[0]
        spread[g_max] = float((written[:, 1:] / g_max).std())
    published = (0.26348 + 1.9650 * 0.5 - 1.1731 * 0.25) / 25
    for value in spread.values():  # 5 standard errors of a standard deviation of 9,900 numbers
        assert value == pytest.approx(published, rel=5 / (2 * 9900) ** 0.5)


def test_trap_17_every_default_is_a_legal_value() -> None:
    """Each registered device works with no argument, and its parameters pass its own checks again."""
    for name in analogsim.available_devices():
        model = analogsim.as_device_model(name)
        for effect in model.effects:
            assert effect.replace() == effect


@pytest.mark.parametrize("device", ["pcm", "gaussian", "drift"])
def test_trap_18_one_random_number_per_cell(device: str) -> None:
    """Every weight has its own error, and neighbours' errors are uncorrelated (5 standard errors)."""
    weight = torch.rand(60, 50) + 0.5
    analog = programmed(weight, device)
    analogsim.drift(analog, "1y")
    ratio = chip_weight(analog) / weight
    assert ratio.unique().numel() > 0.99 * weight.numel()
    centred = (ratio - ratio.mean()) / ratio.std()
    for shifted, kept in ((centred[1:], centred[:-1]), (centred[:, 1:], centred[:, :-1])):
        assert abs(float((shifted * kept).mean())) < 5 / shifted.numel() ** 0.5


def test_trap_18_drift_costs_something_after_compensation() -> None:
    """The spread of the exponents stays: no "no loss after a year"."""
    weight = torch.randn(60, 50)
    for device in ("drift", "pcm"):
        analog = programmed(weight, device)
        errors = []
        for t in ("1s", "1d", "1y"):
            analogsim.drift(analog, t)
            errors.append(float((chip_weight(analog) - weight).norm() / weight.norm()))
        assert errors[0] < errors[1] < errors[2]
        assert errors[2] > 0.04


def test_trap_19_the_zero_cell_of_a_pair_has_errors_too() -> None:
    """Both cells are programmed, drift and are read apart; an all-zero layer is as noisy as any."""
    analog = programmed(torch.zeros(40, 30), "pcm")
    g = analog.analog.chip.written.programmed
    assert g.shape == (2, 40, 30)
    assert (g > 0).any(1).all()
    assert chip_weight(analog).std() > 0
    nu = analog.analog.chip.written.drawn[1]["nu"]
    assert not torch.equal(nu[0], nu[1])
    for device in ("gaussian", "pcm", "read-noise"):
        analog = analogsim.convert(nn.Linear(30, 40, bias=False), device)
        with torch.no_grad():
            analog.weight.zero_()
        assert analog(torch.ones(1, 30)).abs().min() > 0
        analogsim.program(analog)
        assert analog.eval()(torch.ones(1, 30)).abs().min() > 0


@pytest.mark.parametrize("std", [0.01, 0.1])
@pytest.mark.parametrize("cells", ["signed", "pair"])
def test_trap_21_the_noise_that_was_asked_for_comes_out(std: float, cells: str) -> None:
    """Error of a weight: std of the largest weight, in training as on a chip, within 5 standard errors."""
    weight = torch.rand(100, 100) * 0.4 + 0.3
    weight[:, 0] = 1.0
    device = DeviceModel((Gaussian(std),), g_min=5.0, mapping=Mapping(cells))  # type: ignore[arg-type]
    # Two cells of a pair have an error each, of a fraction of g_max = 25, over a range of 20.
    expected = std if cells == "signed" else std * 2**0.5 * 25 / 20
    on_chip = chip_weight(programmed(weight, device)) - weight
    in_training = noisy_weight(weight, device, 1.0, (1.0, 1.0))[0] - weight
    for error in (on_chip, in_training):
        assert float(error.std()) == pytest.approx(expected, rel=5 / (2 * 10_000) ** 0.5)
        assert abs(float(error.mean())) < 5 * expected / 100


def test_trap_21_the_largest_weight_does_not_change_relative_noise() -> None:
    """The same chip of a weight a thousand times as large has errors a thousand times as large, no other."""
    weight = torch.randn(20, 10)
    for device in ("pcm", "gaussian", ALL):
        one, thousand = (chip_weight(programmed(factor * weight, device)) for factor in (1.0, 1024.0))
        torch.testing.assert_close(thousand / 1024, one, rtol=1e-5, atol=1e-6)


def test_trap_26_what_is_active_can_be_read() -> None:
    """The layer tells its device and chip, the device tells each effect, parameter and unit."""
    analog = analogsim.convert(nn.Sequential(nn.Linear(2, 2)), DeviceModel(tuple(ALL), name="mine"))
    assert "device=mine, no chip" in repr(analog)
    assert "mine" in str(analogsim.summary(analog))
    assert {"Gaussian.std": 0.05, "Drift.nu_std": 0.02, "g_max": 25.0}.items() <= analog[
        0
    ].analog.device.parameters().items()
    for effect in ALL:
        for field in fields(effect):
            assert field.metadata["unit"]


def test_trap_28_a_device_model_is_added_without_editing_the_library() -> None:
    """A class of a few lines, registered under a name, trains, is programmed and evaluated like our own."""

    @dataclass(frozen=True)
    class Shrink(Effect):
        """Everything reads a little low, with noise."""

        by: float = param(0.1, "1", ge=0, le=1)
        signed: ClassVar[bool] = True

        def program(self, g: Tensor, cells: Cells, noise: Noise) -> Tensor:
            return g * (1 - self.by) + noise.normal_like(g, 0.01)

    try:
        register("shrink-for-test")(Shrink)
        assert "shrink-for-test" in analogsim.available_devices()
        model = nn.Linear(4, 3)
        analog = analogsim.convert(model, "shrink-for-test(by=0.5)")
        analog(torch.randn(2, 4)).sum().backward()
        assert model.weight.grad is not None
        report = analogsim.evaluate(analog, [(torch.randn(8, 4), torch.zeros(8).long())], chips=2, times=("1s", "1y"))
        assert report.values.shape == (2, 2)
        analogsim.program(analog)
        assert float((chip_weight(analog) / model.weight).median().detach()) == pytest.approx(0.5, abs=0.1)
    finally:
        factories.pop("shrink-for-test", None)


def test_trap_28_chip_dimensions_in_front_are_batched() -> None:
    """The reading of many chips at once is the reading of each."""
    device = DeviceModel((Gaussian(0.05), Drift(0.05, 0.0), ReadNoise(0.1)))
    written = device.program(torch.randn(5, 4), GlobalNoise())
    g = torch.stack([written.programmed, 0.5 * written.programmed])
    weights = device.to_weight(g, written)
    assert weights.shape == (2, 5, 4)
    torch.testing.assert_close(weights[1], device.to_weight(g[1], written))
