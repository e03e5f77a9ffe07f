"""Batch norm on a chip: statistics of its own, estimated again from data that go through it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from analogsim.utils.batches import Inputs, call


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a model has batch norm with statistics of its own."""
    return bool(_norms(model))


@contextmanager
def own_statistics(twin: nn.Module) -> Iterator[None]:
    """Let batch norm of a twin keep its statistics apart from the model's, for a block."""
    shared = [(module, module._buffers, module.momentum) for module in _norms(twin)]
    try:
        for module, buffers, _ in shared:
            module.__dict__["_buffers"] = {name: None if b is None else b.clone() for name, b in buffers.items()}
        yield
    finally:
        for module, buffers, momentum in shared:
            module.__dict__["_buffers"] = buffers
            module.momentum = momentum


@torch.no_grad()
def reestimate_batch_norm(twin: nn.Module, batches: Iterable[Inputs]) -> None:
    """Means and variances of batch norm, anew from data that go through the chip as it is; see `own_statistics`.

    Every batch counts the same (a cumulative average). No labels are used.

    Args:
        twin: programmed, in eval mode.
        batches: inputs.

    Source: AdaBS of Joshi et al., Nat. Commun. 11:2473 (2020).
    """
    norms = _norms(twin)
    for module in norms:
        module.reset_running_stats()
        module.momentum = None
        module.train()
    for batch in batches:
        call(twin, batch)
    for module in norms:
        module.eval()
