from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim.crossbar.stages import Affine, Outputs, Plain, Stage, fold
from analogsim.layers.module import matrices_of


class Beside:
    """A digital product of low rank beside the analog one, as an adapter is."""

    def __init__(self, down: Tensor, up: Tensor) -> None:
        self.down, self.up = down, up

    def after(self, product: Tensor, input: Tensor, outputs: Outputs) -> Tensor:
        return product + nn.functional.linear(outputs.product(input, self.down, None), self.up)

    def folded(self, weight: Tensor, bias: Tensor | None) -> Plain | None:
        return weight + self.up @ self.down, bias


def test_a_scale_and_an_offset_come_before_the_digital_bias() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    analog = analogsim.convert(layer, "gaussian(std=0)").eval()
    analogsim.program(analog)
    x, scale, offset = torch.randn(5, 4), torch.tensor([2.0, 1.0, 0.5]), torch.tensor([0.0, 1.0, 2.0])
    analog.analog.stages = (Affine(scale, offset),)
    torch.testing.assert_close(analog(x), nn.functional.linear(x, layer.weight) * scale + offset + layer.bias)
    analog.analog.stages = (Affine(None, offset),)
    torch.testing.assert_close(analog(x), layer(x) + offset)


def test_they_act_one_after_the_other_in_training_too_and_learn() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    analog = analogsim.convert(layer, "gaussian(std=0)", crossbar=analogsim.Crossbar(dac_bits=12, input_range=8.0))
    scale = torch.full((3,), 2.0, requires_grad=True)
    beside = Beside(torch.randn(2, 4), torch.randn(3, 2))
    assert isinstance(beside, Stage)
    analog.analog.stages = (Affine(scale), beside)
    x = torch.randn(5, 4)
    found = analog(x)
    wanted = 2 * nn.functional.linear(x, layer.weight) + x @ (beside.up @ beside.down).T + layer.bias
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-2)
    found.sum().backward()
    torch.testing.assert_close(scale.grad, nn.functional.linear(x, layer.weight).sum(0), rtol=0, atol=2e-2)


@pytest.mark.parametrize("bias", [True, False])
def test_fused_kernels_get_them_folded_in(bias: bool) -> None:
    """As the step by step path gives them, which what cannot be folded takes."""
    torch.manual_seed(0)
    layer = nn.LSTM(4, 5, num_layers=2, bias=bias).double()
    analog = analogsim.convert(layer, "gaussian(std=0)").eval()
    analogsim.program(analog)
    x = torch.randn(6, 3, 4).double()
    for matrix in matrices_of(analog):
        outputs = matrix.analog.shape[0]
        matrix.analog.stages = (Affine(1 + 0.1 * torch.randn(outputs).double(), torch.randn(outputs).double()),)
    fused = analog(x)[0]

    class Steps(Affine):
        def folded(self, weight: Tensor, bias: Tensor | None) -> Plain | None:
            return None

    for matrix in matrices_of(analog):
        (stage,) = matrix.analog.stages
        matrix.analog.stages = (Steps(stage.scale, stage.offset),)  # type: ignore[attr-defined]
    torch.testing.assert_close(analog(x)[0], fused)
    assert not torch.allclose(fused, layer(x)[0], atol=1e-2)


def test_half_precision_keeps_its_dtype() -> None:
    layer = nn.Linear(4, 3).bfloat16()
    analog = analogsim.convert(layer, "gaussian(std=0)").eval()
    analogsim.program(analog)
    analog.analog.stages = (Affine(torch.full((3,), 1.5), torch.ones(3)),)
    x = torch.randn(2, 4).bfloat16()
    assert analog(x).dtype is torch.bfloat16
    torch.testing.assert_close(
        analog(x).float(), layer(x).float() * 1.5 - 0.5 * layer.bias.float() + 1, rtol=2e-2, atol=2e-2
    )


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_nested_tensor_goes_through() -> None:
    layer = nn.Linear(4, 3).double()
    analog = analogsim.convert(layer, "gaussian(std=0)").eval()
    analogsim.program(analog)
    analog.analog.stages = (Affine(torch.full((3,), 2.0).double(), None),)
    rows = [torch.randn(n, 4).double() for n in (2, 3)]
    for row, answer in zip(rows, analog(torch.nested.as_nested_tensor(rows)).unbind(), strict=True):
        torch.testing.assert_close(answer, analog(row))


@pytest.mark.parametrize("bias_rows", [0, 2])
def test_a_bag_of_a_table_is_staged_entry_by_entry(bias_rows: int) -> None:
    torch.manual_seed(0)
    table = nn.EmbeddingBag(6, 3, mode="max").double()
    mapping = analogsim.Mapping("pair", bias_rows=bias_rows)
    device = analogsim.DeviceModel((analogsim.Quantization(levels=4096),), mapping=mapping)
    analog = analogsim.convert(table, device, embeddings=True).eval()
    analogsim.program(analog)
    scale, offset = torch.tensor([1.0, -1.0, 2.0]).double(), torch.tensor([0.0, 1.0, 2.0]).double()
    analog.analog.stages = (Affine(scale, offset),)
    at = torch.tensor([[0, 1], [2, 5]])
    wanted = (table.weight[at] * scale + offset).amax(1)
    torch.testing.assert_close(analog(at), wanted, rtol=0, atol=5e-3)


@pytest.mark.parametrize("affine", [Affine(torch.tensor([2.0, -1.0])), Affine(torch.tensor([2.0, 3.0]), torch.ones(2))])
def test_a_bias_on_the_array_is_folded_with_the_weight(affine: Affine) -> None:
    weight, bias, x = torch.randn(2, 3, 1), torch.randn(2), torch.randn(5, 3, 4)
    wanted = affine.after(nn.functional.conv1d(x, weight, bias), x, analogsim.convert(nn.Conv1d(3, 2, 1), "pcm"))
    folded = fold(affine, weight, bias, on_array=True)
    assert folded is not None
    torch.testing.assert_close(nn.functional.conv1d(x, *folded), wanted)
    behind = fold(affine, weight, bias, on_array=False)
    assert behind is not None
    plain = affine.folded(weight, bias)
    assert plain[1] is not None
    assert behind[1] is not None
    assert torch.equal(behind[1], plain[1])
