"""Input and output converters: rounding to codes, and its gradients.

The gradient of rounding is that of the identity (straight through); where a converter saturates there is none. A range
that is learned gets its gradient by the same rule, which is that of Esser et al., ICLR (2020), without their factor
1/sqrt(N Q) on it: with plain SGD give ranges a learning rate of their own.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from analogsim.crossbar.crossbar import Crossbar
from analogsim.utils.torch_private import transforms_are_active

_MARGIN = 0.5
"""How far beyond the last code, in steps, a converter still passes gradients on: as far as inputs round to its codes.

It lets the largest input of a vector, which sets the range, keep its gradient whatever it rounds to.
"""


def _code(value: Tensor, lowest: int, highest: int) -> Tensor:
    """The nearest code, with the gradient of the identity up to the margin beyond the last one."""
    within = value.clamp(lowest - _MARGIN, highest + _MARGIN)
    return within + (within.round().clamp(lowest, highest) - within).detach()


# Large temporary tensors are dear beyond their arithmetic: a CPU gets their memory page by page from the kernel, which
# takes several times as long as to fill it. What is written out by hand has one at a time, and writes over it. Where a
# gradient of gradients is asked for, nothing may be written over.


def _masked(gradient: Tensor, value: Tensor, lowest: int, highest: int) -> Tensor:
    """The gradient where a converter passes it on; may be written over ``value``, its argument in steps."""
    low, high = lowest - _MARGIN, highest + _MARGIN
    if torch.is_grad_enabled() or gradient.dtype != value.dtype:
        return cast(Tensor, torch.ops.aten.hardtanh_backward(gradient, value, low, high))
    return cast(Tensor, torch.ops.aten.hardtanh_backward.grad_input(gradient, value, low, high, grad_input=value))


def _inner(one: Tensor, other: Tensor) -> Tensor:
    """The sum of all products."""
    if one.dtype == other.dtype == torch.float32 and one.is_contiguous() and other.is_contiguous():
        return torch.dot(one.view(-1), other.view(-1))
    return (one * other).sum()


class Drive(torch.autograd.Function):
    """An input converter in four operations, which keeps nothing but its input."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, full: Tensor | float, lowest: int, highest: int) -> Tensor:
        """See ``torch.autograd.Function``."""
        ctx.limits = lowest, highest
        ctx.full = None if isinstance(full, Tensor) else full
        ctx.save_for_backward(input, full if isinstance(full, Tensor) else None)
        # The ratio first: the codes divided by the range of a vector of zeros would be infinite.
        return (input / full).mul_(highest).round_().clamp_(lowest, highest).div_(highest)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """See ``torch.autograd.Function``."""
        input, full = ctx.saved_tensors
        full = ctx.full if full is None else full
        lowest, highest = ctx.limits
        of_input = _masked(gradients[0], (input / full).mul_(highest), lowest, highest)
        of_input = of_input / full if torch.is_grad_enabled() else of_input.div_(full)
        of_full = None
        if ctx.needs_input_grad[1]:
            product = _inner(of_input, input) if full.ndim == 0 else (of_input * input).sum_to_size(full.shape)
            of_full = product / -full
        return of_input if ctx.needs_input_grad[0] else None, of_full, None, None


class Convert(torch.autograd.Function):
    """Output converters with their noise, behind them what a step and the input range count in the digital output.

    Keeps the codes, or a mask if that will do. ``disturbance`` is a tuple, empty or of a tensor that is written over.
    """

    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        unit: Tensor,
        disturbance: tuple[Tensor, ...],
        step: Tensor,
        full: Tensor | float,
        highest: int,
    ) -> Tensor:
        """See ``torch.autograd.Function``."""
        kind = torch.result_type(current, unit)
        if not disturbance:
            value = current * unit
        elif disturbance[0].shape == current.shape and disturbance[0].dtype == current.dtype == kind:
            value = disturbance[0].addcmul_(current, unit)
        else:
            value = (current * unit).add_(disturbance[0])
        value.round_()
        counts = step * full
        ctx.highest = highest
        if ctx.needs_input_grad[4]:
            # One beyond the last code stands for all where it saturates.
            code = value.clamp_(-highest - 1, highest + 1).to(torch.int16 if highest < 2**15 - 1 else torch.int32)
            ctx.save_for_backward(code, unit, counts, step)
        elif ctx.needs_input_grad[0]:
            # One byte each, and not as bool: torch's products with bool take fifteen times as long on a CPU.
            ctx.save_for_backward((value.abs() <= highest).view(torch.int8), unit, counts, None)
        return value.clamp_(-highest, highest).mul_(counts).to(current.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """See ``torch.autograd.Function``."""
        code, unit, counts, step = ctx.saved_tensors
        gradient, highest, nothing = gradients[0], ctx.highest, (None,) * 5
        if step is None:
            return (gradient * code) * (unit * counts).to(gradient.dtype), *nothing
        kind = torch.promote_types(gradient.dtype, torch.float32)  # which holds every code
        value = code.to(kind)
        each = value.clamp_(-highest, highest).mul_(gradient).sum_to_size(step.shape)
        of_full = (each * step).sum()
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, of_full, None
        value = code.to(kind) if torch.is_grad_enabled() else value.copy_(code)
        of_current, factor = _masked(gradient.to(kind), value, -highest, highest), (unit * counts).to(kind)
        of_current = of_current * factor if torch.is_grad_enabled() else of_current.mul_(factor)
        return of_current.to(gradient.dtype), None, None, None, of_full, None


class OfRange(torch.autograd.Function):
    """A current that depends on the input range: forward it is itself, backward the range gets its share."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, full: Tensor, slope: Tensor) -> Tensor:
        """See ``torch.autograd.Function``."""
        ctx.save_for_backward(full, slope)
        return current.view_as(current)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """See ``torch.autograd.Function``."""
        full, slope = ctx.saved_tensors
        return gradients[0], _inner(gradients[0], slope).to(full.dtype), None


def written_out() -> bool:
    """Whether forward and backward of a converter are written out: not where a compiler or torch.func takes over."""
    return not torch.compiler.is_compiling() and not transforms_are_active()


def largest_code(crossbar: Crossbar) -> int:
    """The digital value of the input converter at full scale."""
    bits = crossbar.dac_bits or 0
    return (1 << bits) - 1 if crossbar.dac == "unsigned" else (1 << (bits - 1)) - 1


def drive(input: Tensor, input_range: Tensor | float, crossbar: Crossbar) -> Tensor:
    """What the word lines get for inputs: in [-1, 1], whole steps of the converter."""
    if crossbar.dac_bits is None:
        return input / input_range
    codes = largest_code(crossbar)
    lowest = 0 if crossbar.dac == "unsigned" else -codes
    if written_out():
        return cast(Tensor, Drive.apply(input, input_range, lowest, codes))
    return _code(input / input_range * codes, lowest, codes) / codes


def gets_gradient_alone(full: Tensor, crossbar: Crossbar) -> bool:
    """Whether a range can get its gradient apart from the product's: one that is learned, without bit-serial inputs."""
    learned = full.requires_grad and full.ndim == 0 and torch.is_grad_enabled()
    return learned and crossbar.dac_bits is not None and not crossbar.bit_serial and written_out()


@torch.no_grad()
def slope_of(input: Tensor, full: Tensor, crossbar: Crossbar) -> Tensor:
    """How much what word lines get changes with the range."""
    codes, relative = largest_code(crossbar), input / full
    return _masked(relative, relative * codes, 0 if crossbar.dac == "unsigned" else -codes, codes).div_(-full)


def steps_of(bits: int | None, bound: Tensor | float | None) -> Tensor | float:
    """How many steps of an output converter make full scale; without a bound full scale itself is the unit."""
    if bound is None:
        return 1.0
    return 1 / bound if bits is None else ((1 << (bits - 1)) - 1) / bound


def read_out(
    current: Tensor,
    unit: Tensor,
    disturbance: Tensor | None,
    step: Tensor,
    full: Tensor | float,
    bits: int | None,
    bound: Tensor | float | None,
) -> Tensor:
    """What the converters at the foot of bit lines say to currents, in units of the output.

    Args:
        current: of the bit lines.
        unit: steps of the converter in one unit of the current.
        disturbance: what is added, in steps; it may be written over. None for nothing.
        step: what a step counts.
        full: what an input at full scale counts.
        bits: resolution; None for no steps.
        bound: full scale; None for none.
    """
    codes = 0 if bits is None else (1 << (bits - 1)) - 1
    if codes and bound is not None and written_out():
        return cast(
            Tensor, Convert.apply(current, unit, () if disturbance is None else (disturbance,), step, full, codes)
        )
    value = current * unit if disturbance is None else current * unit + disturbance
    if bound is not None:
        value = _code(value, -codes, codes) if codes else value.clamp(-1, 1)
    return value * (step * full)
