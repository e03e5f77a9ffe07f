"""Bilinear layers: one input on the crossbar, the other in the digital part."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from analogsim.layers.module import AnalogModule
from analogsim.layers.products.views import View
from analogsim.layers.registry import register_layer
from analogsim.layers.slot import Slot


@dataclass(frozen=True)
class _Stacked(Slot):
    """A Parameter ``(out, in1, in2)`` as the matrix ``(out * in1, in2)``."""

    bias: str | None = None

    def matrix(self, module: nn.Module) -> Tensor:
        """See `Slot.matrix`."""
        return super().matrix(module).flatten(0, 1)

    def view(self, shape: Sequence[int]) -> View | None:
        """See `Slot.view`."""
        return View.of(shape).reshaped((shape[0] * shape[1], shape[2]))

    @torch.no_grad()
    def put(self, module: nn.Module, matrix: Tensor, bias: Tensor | None = None) -> None:
        """See `Slot.put`."""
        weight = super().matrix(module)
        weight.copy_(matrix.view_as(weight))


@register_layer(nn.Bilinear)
class AnalogBilinear(AnalogModule, nn.Bilinear):
    r"""``nn.Bilinear``, :math:`y_k = x_1^\top A_k x_2 + b_k`, with its products :math:`A_k x_2` on crossbars.

    The weight ``(out, in1, in2)`` lies there as the matrix ``(out * in1, in2)``, driven by ``input2 (..., in2)``. What
    it answers is multiplied by ``input1 (..., in1)`` and summed up digitally, with the bias: a crossbar multiplies its
    weights by one input only. Converters and read noise act on the answers before that product, ``out * in1`` of them
    for each pair of inputs.
    """

    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        """See `AnalogModule.slots`."""
        return {"": _Stacked()}

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        """The answers ``(..., out)``: fresh noise in training, the programmed chip in eval."""
        bias = cast(Tensor | None, self.bias)
        self.matrices[""].analog.taken.ask(
            lambda: functional.bilinear(input1, input2, self.weight, bias), "both", input1, input2, self.weight
        )
        read = self.draw_of("")(input2).view(*input2.shape[:-1], self.out_features, self.in1_features)
        # Under autocast torch's own bilinear layer keeps the dtype of its inputs.
        output = torch.matmul(read, input1.unsqueeze(-1).to(read.dtype)).squeeze(-1).to(input1.dtype)
        return output if bias is None else output + bias.to(output.dtype)
