"""Converters written out by hand against the same in torch's operations, whose gradients torch finds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar, Mapping
from analogsim.crossbar import converters
from analogsim.crossbar.converters import Convert, Drive, drive
from analogsim.device.parse import DeviceLike, as_device_model

CROSSBARS = {
    "learned": Crossbar(dac_bits=6, adc_bits=6, input_range="learned", output_bound=3.0, output_noise=0.03),
    "dynamic": Crossbar(rows=7, dac_bits=5, adc_bits=7, input_range="dynamic", output_bound=2.0),
    "unsigned": Crossbar(dac_bits=4, dac="unsigned", adc_bits=12, input_range=1.0, output_bound="calibrated"),
    "mismatch": Crossbar(
        rows=9, dac_bits=8, adc_bits=8, input_range=1.5, output_bound=1.0, gain_mismatch=0.1, offset_mismatch=0.1
    ),
    "serial": Crossbar(dac_bits=4, adc_bits=6, input_range=1.0, output_bound=4.0, bit_serial=True),
    "no ADC": Crossbar(dac_bits=8, input_range=1.0, output_noise=0.02),
    "bound": Crossbar(input_range=1.0, output_bound=0.5),
}


def answers(
    model: nn.Module, crossbar: Crossbar, x: Tensor, *, of_input: bool = True, device: DeviceLike = "pcm"
) -> list[Tensor]:
    """The answer in training and all gradients, those of learned ranges too."""
    torch.manual_seed(0)
    analog = analogsim.convert(model, device, crossbar=crossbar)
    if "calibrated" in (crossbar.input_range, crossbar.output_bound) or crossbar.learns:
        analogsim.calibrate(analog, [x])
    analog.train()
    torch.manual_seed(1)
    x = x.clone().requires_grad_(of_input)
    answer = analog(x)
    wanted = [
        *([x] if of_input else []),
        *model.parameters(),
        *(analogsim.range_parameters(analog) if crossbar.learns else ()),
    ]
    gradients = torch.autograd.grad(answer.square().sum(), wanted, allow_unused=True)
    return [answer, *(g for g in gradients if g is not None)]


@pytest.mark.parametrize("crossbar", CROSSBARS)
@pytest.mark.parametrize("network", ["linear", "conv"])
def test_by_hand_all_is_as_by_torch(network: str, crossbar: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers and gradients of a trained network, to rounding."""
    if network == "linear":
        model, x = nn.Sequential(nn.Linear(20, 15), nn.ReLU(), nn.Linear(15, 4)), torch.rand(6, 20) * 1.4
    else:
        model, x = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 2)), torch.rand(2, 2, 6, 6) * 1.4
    model, x = model.double(), x.double()
    by_hand = answers(model, CROSSBARS[crossbar], x)
    monkeypatch.setattr(converters, "written_out", lambda: False)
    by_torch = answers(model, CROSSBARS[crossbar], x)
    assert len(by_hand) == len(by_torch) > 2
    for ours, theirs in zip(by_hand, by_torch, strict=True):
        within = 1e-11 if theirs.dtype == torch.float64 else 1e-6  # ranges are float32
        torch.testing.assert_close(ours, theirs, rtol=within, atol=within)


@pytest.mark.parametrize("bias_rows", [0, 2])
@pytest.mark.parametrize(
    "crossbar", [CROSSBARS["learned"], CROSSBARS["learned"].replace(rows=5)], ids=["one", "blocks"]
)
@pytest.mark.parametrize("network", ["linear", "conv"])
def test_a_learned_range_gets_its_gradient_without_that_of_the_input(
    network: str, crossbar: Crossbar, bias_rows: int
) -> None:
    if network == "linear":
        model, x = nn.Sequential(nn.Linear(20, 15), nn.ReLU(), nn.Linear(15, 4)), torch.randn(6, 20) * 1.4
    else:
        model, x = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 2)), torch.randn(2, 2, 6, 6) * 1.4
    device = as_device_model("pcm").replace(mapping=Mapping("pair", bias_rows=bias_rows))
    short = answers(model.double(), crossbar, x.double(), of_input=False, device=device)
    long = answers(model, crossbar, x.double(), device=device)
    del long[1]  # of the input
    assert len(short) == len(long) == 7
    for ours, theirs in zip(short, long, strict=True):
        within = 1e-11 if theirs.dtype == torch.float64 else 1e-5
        torch.testing.assert_close(ours, theirs, rtol=within, atol=within)


def test_gradients_stop_where_the_nearest_code_is_beyond_the_last() -> None:
    crossbar = Crossbar(dac_bits=4, adc_bits=4, input_range=1.0, output_bound=1.0)
    x = torch.tensor(
        [-1.2, -1.0, -7.49 / 7, -7.51 / 7, 0.3, 7.49 / 7, 7.51 / 7], dtype=torch.float64, requires_grad=True
    )
    (slope,) = torch.autograd.grad(drive(x, 1.0, crossbar).sum(), x)
    assert slope.tolist() == [0, 1, 1, 0, 1, 1, 0]
    one = torch.ones((), dtype=torch.float64)
    said = Convert.apply(x, 7 * one, (), one / 7, 1.0, 7)
    assert torch.equal(said, drive(x, 1.0, crossbar))
    (slope,) = torch.autograd.grad(said.sum(), x)
    assert slope.tolist() == [0, 1, 1, 0, 1, 1, 0]


def test_gradients_of_gradients() -> None:
    """A penalty on gradients goes through the converters, as it does through torch's operations."""
    g = torch.randn(5, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([-2.0, -0.4, 0.1, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    full = torch.tensor(1.1, dtype=torch.float64, requires_grad=True)
    driven = Drive.apply(x, full, -7, 7)
    (slope,) = torch.autograd.grad(driven, x, g, create_graph=True)
    (again,) = torch.autograd.grad(slope.sum(), g)
    torch.testing.assert_close(again, torch.tensor([0.0, 1, 1, 1, 0], dtype=torch.float64) / 1.1)


@pytest.mark.parametrize("learned", [True, False])
def test_gradients_of_gradients_behind_output_converters(learned: bool) -> None:
    current = torch.tensor([-2.0, -0.4, 0.1, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    full = torch.tensor(2.0, dtype=torch.float64, requires_grad=learned)
    g = torch.randn(5, dtype=torch.float64, requires_grad=True)
    step = torch.full((5,), 1 / 7, dtype=torch.float64)
    said = Convert.apply(current, 1 / step, (), step, full, 7)
    slopes = torch.autograd.grad(said, [current, full] if learned else [current], g, create_graph=True)
    (again,) = torch.autograd.grad(sum(slope.sum() for slope in slopes), g)
    of_current = 2 * torch.tensor([0.0, 1, 1, 1, 0], dtype=torch.float64)
    torch.testing.assert_close(again, of_current + said.detach() / 2 if learned else of_current)


def test_two_bytes_of_code_are_what_an_output_converter_keeps_for_a_learned_range() -> None:
    current, full = torch.randn(40, 30, requires_grad=True), torch.ones((), requires_grad=True)
    said = Convert.apply(current, torch.ones(30), (), torch.ones(30), full, 127)
    kept = [tensor for tensor in said.grad_fn.saved_tensors if tensor is not None]
    assert sum(tensor.untyped_storage().nbytes() for tensor in kept) == 2 * 40 * 30 + 3 * 30 * 4


def test_a_mask_of_one_byte_is_what_an_output_converter_keeps() -> None:
    current = torch.randn(40, 30, requires_grad=True)
    said = Convert.apply(current, torch.ones(30), (), torch.ones(30), 1.0, 7)
    kept = [tensor for tensor in said.grad_fn.saved_tensors if tensor is not None]
    assert sum(tensor.untyped_storage().nbytes() for tensor in kept) == 40 * 30 + 2 * 30 * 4


def test_vectors_and_columns_of_zeros_and_denormal_numbers_stay_finite() -> None:
    layer = nn.Linear(4, 3, bias=False)
    with torch.no_grad():
        layer.weight[0] = 0.0
        layer.weight[1] = 1e-42
    crossbar = Crossbar(dac_bits=8, adc_bits=8, input_range="dynamic", output_bound=1.0, output_noise=0.1)
    analog = analogsim.convert(layer, "gaussian", crossbar=crossbar)
    x = torch.randn(3, 4, requires_grad=True)
    with torch.no_grad():
        x[0] = 0
    answer = analog(x)
    answer.sum().backward()
    assert answer.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_a_range_of_each_vector_gets_its_own_gradient() -> None:
    """The slope of x/r by r is -x/r^2, for what does not saturate; of each vector the sum over its inputs."""
    torch.manual_seed(0)
    input, full = torch.randn(3, 5, dtype=torch.float64), torch.tensor([[0.5], [1.0], [4.0]], dtype=torch.float64)
    full.requires_grad_()
    weight = torch.randn(3, 5, dtype=torch.float64)
    (Drive.apply(input, full, -7, 7) * weight).sum().backward()
    inside = (input / full * 7).abs() <= 7.5
    wanted = (weight * -input / full**2 * inside).sum(1, keepdim=True)
    torch.testing.assert_close(full.grad, wanted.detach())
