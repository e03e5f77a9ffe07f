"""One matrix on crossbars: partial products, values for outputs, draws."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar, DeviceModel, Gaussian, ReadNoise
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
