"""A word to who asks for a gradient that does not exist.

What is computed with a constant in the place of a Parameter has no gradient for it. A zero hangs on the Parameter and
is added to what is computed; it carries nothing, but a node in the graph, which autograd runs only where the gradient
of the Parameter is asked for: ``torch.autograd.grad(loss, inputs)`` is silent.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from analogsim.utils.torch_private import tracing_state, transforms_are_active


@dataclass
class Notice:
    """What is said once, however many Parameters it is true of.

    Args:
        text: of the warning.
        category: of it.
        given: whether it was.
    """

    text: str
    category: type[Warning]
    given: bool = False

    def give(self, stacklevel: int) -> None:
        """Say it, unless it was said."""
        if not self.given:
            self.given = True
            warnings.warn(self.text, self.category, stacklevel=stacklevel + 1)


class _Hung(torch.autograd.Function):
    """A zero that hangs on Parameters, and says so when it gets a gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, notice: Notice) -> Tensor:
        ctx.notice = notice
        # Not by the weight: who looks for what reads it should find nothing.
        return torch.zeros((), dtype=weight.dtype, device=weight.device)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        ctx.notice.give(stacklevel=2)
        return None, None, None


class _Tied(torch.autograd.Function):
    """An answer that hangs on a zero."""

    @staticmethod
    def forward(ctx: Any, answer: Tensor, zero: Tensor) -> Tensor:
        ctx.mark_dirty(answer)  # it is the same tensor, which others may go on to write into
        return answer

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        return gradients[0], gradients[0].new_zeros(())


class _TiedConstant(torch.autograd.Function):
    """A constant that hangs on a zero."""

    @staticmethod
    def forward(ctx: Any, constant: Tensor, zero: Tensor) -> Tensor:
        return constant.view_as(constant)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0].new_zeros(())


def _is_traced() -> bool:
    """Whether something looks on that knows no functions of ours."""
    return torch.compiler.is_compiling() or tracing_state() is not None or transforms_are_active()


class Tie:
    """Ties what is computed to Parameters that have no part in it. Copies and files leave what it holds behind."""

    def __init__(self) -> None:
        self._clean: tuple[Tensor, Tensor | None] | None = None
        self._zero: Tensor | None = None

    def __getstate__(self) -> dict[str, object]:
        return {"_clean": None, "_zero": None}

    def zero(self, weight: Tensor, bias: Tensor | None, notice: Notice) -> Tensor | None:
        """A zero that hangs on Parameters; None where no gradient could come to them, or it was said already.

        Args:
            weight: the Parameter, or what is computed of some.
            bias: another one, or None.
            notice: what to say.
        """
        wanted = weight.requires_grad or (bias is not None and bias.requires_grad)
        if notice.given or not (wanted and torch.is_grad_enabled()) or _is_traced():
            return None
        held = self._clean
        if held is not None and held[0] is weight and held[1] is bias:
            return self._zero
        made = cast(Tensor, _Hung.apply(weight, bias, notice))
        if weight.is_leaf and (bias is None or bias.is_leaf):  # of a computed one each forward has a graph of its own
            self._clean, self._zero = (weight, bias), made
        return made


def tied_answer(answer: Tensor, zero: Tensor) -> Tensor:
    """An answer, a fresh tensor, tied to a zero."""
    return answer if answer.is_nested else cast(Tensor, _Tied.apply(answer, zero))


def tied_constant(constant: Tensor, zero: Tensor) -> Tensor:
    """A constant, tied to a zero; the memory is its own."""
    return cast(Tensor, _TiedConstant.apply(constant, zero))
