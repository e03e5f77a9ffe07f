"""One matrix on crossbars: partial products, values for outputs, draws."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar, DeviceModel, Gaussian, ReadNoise
from analogsim.errors import ChipGradientWarning
from analogsim.layers import AnalogMatrix, matrices_of
from analogsim.layers.matrix import largest_magnitude
from analogsim.noise.sources import StreamNoise

LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (3, 6)),
    "linear in time": (lambda: nn.Linear(6, 4), (2, 3, 6)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), (2, 4, 7)),
    "groups": (lambda: nn.Conv2d(4, 6, (3, 2), groups=2, stride=2), (2, 4, 6, 5)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), (2, 4, 3, 3)),
    "bilinear": (lambda: nn.Bilinear(3, 6, 2), (3, 6)),
}


def made(name: str) -> tuple[AnalogMatrix, Tensor]:
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    (matrix,) = matrices_of(analogsim.convert(make().double(), "pcm"))
    return matrix, torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("width", [1, 2, 5])
def test_partial_products_add_up_to_the_product(name: str, width: int) -> None:
    matrix, x = made(name)
    rows = matrix.matrix.flatten(1)
    whole = matrix.product(x, matrix.matrix, None)
    parts = [
        matrix.partial(x, rows[:, start : start + width], start, min(start + width, rows.shape[1]))
        for start in range(0, rows.shape[1], width)
    ]
    torch.testing.assert_close(torch.stack(parts).sum(0), whole)


@pytest.mark.parametrize("name", LAYERS)
def test_values_of_outputs_broadcast_to_them(name: str) -> None:
    """A factor on each row of the matrix is one on each output."""
    matrix, x = made(name)
    factors = torch.rand(len(matrix.matrix), dtype=torch.float64)
    scaled = matrix.matrix * factors.view(-1, *(1,) * (matrix.matrix.ndim - 1))
    wanted = matrix.product(x, matrix.matrix, None) * matrix.per_output(factors)
    torch.testing.assert_close(matrix.product(x, scaled, None), wanted)


@pytest.mark.parametrize("name", LAYERS)
def test_each_vector_has_a_range_of_its_own(name: str) -> None:
    """One for whatever is driven at once: the row of a linear map, the sample of a convolution."""
    matrix, x = made(name)
    ranges = matrix.per_vector(x)
    linear = name in ("linear", "linear in time", "bilinear")
    assert ranges.shape == ((*x.shape[:-1], 1) if linear else (len(x), *(1,) * (x.ndim - 1)))
    assert ((x / ranges).abs() <= 1).all()


def test_the_largest_magnitude_of_nothing_is_above_zero() -> None:
    zeros = largest_magnitude(torch.zeros(2, 3), (-1,))
    assert zeros.shape == (2, 1)
    assert (zeros > 0).all()
    assert largest_magnitude(torch.tensor([[1.0, -3.0]]), (-1,)) == 3


def test_what_has_no_holder_says_so() -> None:
    matrix = AnalogMatrix()
    with pytest.raises(NotImplementedError, match="AnalogMatrix must say which module holds its matrix"):
        _ = matrix.holder
    with pytest.raises(NotImplementedError, match=r"AnalogMatrix must implement product\(input, weight, bias\)"):
        matrix.product(torch.ones(1), torch.ones(1, 1), None)


def test_where_the_weights_are() -> None:
    analog = analogsim.convert(nn.Sequential(nn.Linear(3, 2), nn.LSTM(2, 2)), "pcm").to("meta")
    assert {matrix.torch_device for matrix in matrices_of(analog)} == {torch.device("meta")}


def test_what_is_written_lands_in_the_parameters() -> None:
    for name in LAYERS:
        matrix, _ = made(name)
        before = matrix.matrix.detach().clone()
        matrix.put(2 * before)
        assert torch.equal(matrix.matrix, 2 * before)
        assert torch.equal(matrix.still()[0], 2 * before)


@pytest.mark.parametrize("crossbar", [Crossbar(), Crossbar(output_bound=1e9)], ids=["ideal", "converted"])
def test_one_draw_takes_many_inputs(crossbar: Crossbar) -> None:
    """The errors of the weights are the same for all, read noise is new for each; only a plain draw shows itself."""
    layer, x = nn.Linear(6, 4), torch.randn(3, 6)
    for device, same in ((DeviceModel((Gaussian(0.1),)), True), (DeviceModel((ReadNoise(0.1),)), False)):
        analog: Any = analogsim.convert(layer, device, crossbar=crossbar)
        drawn = analog.draw()
        assert torch.equal(drawn(x), drawn(x)) is same
        assert (drawn.plain is not None) is (same and not crossbar.converts)
        assert not torch.equal(drawn(x), analog.draw()(x))


def test_a_matrix_without_a_chip_has_no_answer_in_eval() -> None:
    analog: Any = analogsim.convert(nn.Sequential(nn.Linear(6, 4)), "pcm").eval()
    with pytest.raises(analogsim.NotProgrammedError, match="layer '0' is in eval mode and no chip is programmed"):
        analog[0].draw()
    analogsim.program(analog)
    assert isinstance(analog[0].analog.chip.use_noise, StreamNoise)
    assert analog[0].draw().plain is not None
    assert copy.deepcopy(analog)[0].draw().plain is not None


# --- backward on a chip ---------------------------------------------------------------------------------------------


def fixed(
    crossbar: str = "ideal", device: str = "gaussian(std=0.1)", **options: bool
) -> tuple[nn.Sequential, nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 5, **options), nn.ReLU(inplace=True), nn.BatchNorm1d(5), nn.Linear(5, 3, **options)
    )
    analog = analogsim.convert(model, device, crossbar=crossbar)
    analogsim.program(analog, seed=1)
    return model, analog.eval()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("device", "crossbar"), [("gaussian", "ideal"), ("pcm", "standard")])
def test_a_training_step_on_a_chip_is_told_that_weights_do_not_move(device: str, crossbar: str, bias: bool) -> None:
    model, analog = fixed(crossbar, device, bias=bias)
    x = torch.randn(6, 4)
    with pytest.warns(
        ChipGradientWarning, match=r"weights of analog layers are on the chip.* analog\.train\(\)"
    ) as said:
        analog(x).square().sum().backward()
    assert len(said) == 1
    assert model[0].weight.grad is None
    assert model[2].weight.grad is not None
    analog(x).square().sum().backward()  # once for all


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_of_inputs_through_a_chip_are_exact_and_silent(bias: bool) -> None:
    _, analog = fixed(bias=bias)
    x = torch.randn(6, 4, requires_grad=True)
    (slope,) = torch.autograd.grad(analog(x).square().sum(), x)
    plain = analogsim.to_digital(analog, "programmed").eval()
    torch.testing.assert_close(slope, torch.autograd.grad(plain(x).square().sum(), x)[0])
    analog(x).square().sum().backward(inputs=[x])
    torch.testing.assert_close(x.grad, slope)
    with torch.no_grad():
        assert torch.equal(analog(x), analog(x.detach()))


def test_digital_parts_train_with_the_chip_in_the_loop() -> None:
    model, analog = fixed()
    for layer in (model[0], model[3]):
        layer.weight.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    before = model[2].weight.detach().clone(), model[3].bias.detach().clone()
    analog(torch.randn(6, 4)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model[2].weight, before[0])
    assert not torch.equal(model[3].bias, before[1])
    analog(torch.randn(6, 4))  # the chip is still that of these weights


def test_a_bias_on_the_crossbar_is_fixed_too() -> None:
    model = nn.Linear(4, 3)
    model.weight.requires_grad_(False)
    device = analogsim.as_device_model("pcm").replace(mapping=analogsim.Mapping("pair", bias_rows=1))
    analog = analogsim.convert(model, device)
    analogsim.program(analog)
    with pytest.warns(ChipGradientWarning):
        analog.eval()(torch.randn(6, 4)).sum().backward()
    assert model.bias.grad is None


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (lambda: nn.LSTM(4, 3), (5, 2, 4)),
        (lambda: nn.MultiheadAttention(4, 2), (5, 2, 4)),
        (lambda: nn.Conv2d(4, 3, 3, bias=False), (2, 4, 5, 5)),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), (5, 4)),
    ],
)
def test_layers_of_all_kinds_tell(layer: Callable[[], nn.Module], inputs: tuple[int, ...]) -> None:
    analog = analogsim.convert(layer(), "gaussian")
    analogsim.program(analog)
    analog.eval()
    x = torch.randn(inputs, requires_grad=True)
    given = (x, x, x) if isinstance(analog, nn.MultiheadAttention) else (x,)

    def loss() -> Tensor:
        output = analog(*given)
        return (output[0] if isinstance(output, tuple) else output).square().sum()

    torch.autograd.grad(loss(), x)
    for _ in range(2):
        torch.autograd.grad(loss(), x)
    with pytest.warns(ChipGradientWarning) as said:
        loss().backward()
    assert len(said) == 1
