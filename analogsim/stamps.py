"""Whether a tensor was written into since one looked: cheap signs of it, without comparing values."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

Stamp = tuple[int, ...]

_optimizer_steps = 0


def _count_step(*_: object) -> None:
    global _optimizer_steps
    if not torch.compiler.is_compiling():
        _optimizer_steps += 1


# Fused optimizers write weights without a trace in the version counter.
register_optimizer_step_post_hook(_count_step)


def stamp_of(*tensors: Tensor) -> Stamp:
    """Changes with nearly every write into one of the tensors; writes through ``.data`` leave no trace in it."""
    numbers = [_optimizer_steps]
    for tensor in tensors:
        numbers += (tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version)
    return tuple(numbers)
