"""Module trees: the names in them, and a second tree over the same tensors."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def names_of(model: nn.Module) -> dict[nn.Module, list[str]]:
    """Every module once, with all the names it goes by; the first is the one we call it."""
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    return names


def copy_tree(model: M, replaced: dict[nn.Module, nn.Module], shared: Iterable[object] = ()) -> M:
    """A new module tree over the same tensors, with some modules' copies made beforehand.

    ``copy.deepcopy`` keeps ties, aliases, bound methods and lists of modules as they are. Its memo is told beforehand
    that tensors are shared, and so are the dictionaries that hold Parameters and buffers: what ``.to()`` or an
    assignment changes in one tree is so in the other. Objects in ``shared`` are not copied either.
    """
    memo: dict[int, Any] = {id(old): new for old, new in replaced.items()}
    memo |= {id(value): value for value in shared}
    for module in model.modules():
        for value in module.__dict__.values():
            if isinstance(value, torch.Tensor):
                memo[id(value)] = value
        for tensors in (module._parameters, module._buffers):
            memo[id(tensors)] = tensors
            memo |= {id(tensor): tensor for tensor in tensors.values() if tensor is not None}
    try:
        for old, new in replaced.items():
            new.__dict__.update(copy.deepcopy(old.__dict__, memo))
        return copy.deepcopy(model, memo)
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            f"convert: cannot build a second module tree of {type(model).__name__}: {error}. Convert before wrapping "
            "the model (DistributedDataParallel, compile), and keep handles such as files or locks out of its modules"
        ) from error
