"""Helpers for tensors: cheap signs of whether one was written into, and operations in place on ones of our own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from analogsim.utils.torch_private import is_wrapped, tree_leaves, version_of

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
        numbers += (tensor.data_ptr(), -1 if tensor.is_inference() else version_of(tensor))
    return tuple(numbers)


def clamp_own(values: Tensor, low: float, high: float) -> Tensor:
    """Values of one's own, stopped at two limits: in place, but under functorch, whose vmap has no rule for that."""
    if torch.compiler.is_compiling() or is_wrapped(values):
        return values.clamp(low, high)
    return values.clamp_(low, high)


def holds_nonfinite(value: Any, *, masks: bool = False) -> bool:
    """Whether a tensor in a value holds NaN or infinite numbers.

    Args:
        value: tensors, in tuples, lists and dictionaries.
        masks: whether minus infinity is let through, by which masks say "not this one".
    """
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex()):
            parts = leaf.unbind() if leaf.is_nested else (leaf,)
            for part in parts:
                wrong = part.isnan() | part.isposinf() if masks and not part.is_complex() else ~part.isfinite()
                if bool(wrong.any()):
                    return True
    return False
