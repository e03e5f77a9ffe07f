"""Helpers for tensors: cheap signs of whether one was written into, and operations in place on ones of our own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
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


def numbers_in(value: Any) -> Iterator[Tensor]:
    """The real and complex numbers in what a network answers: tensors, nested ones in parts, arrays, Python's floats.

    Args:
        value: any structure of mappings, tuples, lists, and objects that hold them as attributes.
    """
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex():
            yield from value.unbind() if value.is_nested else (value,)
    elif isinstance(value, float | complex):
        yield torch.tensor(value, dtype=torch.complex128 if isinstance(value, complex) else torch.float64)
    elif isinstance(value, np.ndarray):
        yield from (torch.as_tensor(value),) if value.dtype.kind in "fc" else ()
    else:
        for entry in _entries(value):
            yield from numbers_in(entry)


def _entries(value: Any) -> list[Any]:
    """What a structure holds; of an object those attributes that are structures."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, tuple | list):
        return list(value)
    if not hasattr(value, "__dict__") or isinstance(value, torch.nn.Module | type):
        return []
    return [entry for entry in vars(value).values() if isinstance(entry, Tensor | Mapping | tuple | list | np.ndarray)]
