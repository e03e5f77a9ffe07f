"""Batch norm on a chip: statistics of its own, estimated again from data that go through it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from analogsim.layers.module import matrices_in
from analogsim.layers.state import Uses
from analogsim.utils.batches import Inputs, call
from analogsim.utils.torch_private import BatchNorm, own_buffers, put_buffers


def _norms(model: nn.Module) -> list[BatchNorm]:
    return [module for module in model.modules() if isinstance(module, BatchNorm) and module.track_running_stats]


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a model has batch norm with statistics of its own."""
    return bool(_norms(model))


@contextmanager
def own_statistics(twin: nn.Module) -> Iterator[None]:
    """Let batch norm of a twin keep its statistics apart from the model's, for a block."""
    shared = [(module, own_buffers(module), module.momentum) for module in _norms(twin)]
    try:
        for module, buffers, _ in shared:
            put_buffers(module, {name: None if b is None else b.clone() for name, b in buffers.items()})
        yield
    finally:
        for module, buffers, momentum in shared:
            put_buffers(module, buffers)
            module.momentum = momentum


@torch.no_grad()
def reestimate_batch_norm(twin: nn.Module, batches: Iterable[Inputs]) -> None:
    """Means and variances of batch norm, anew from data that go through the chip as it is; see `own_statistics`.

    Every batch counts the same (a cumulative average). No labels are used.

    Args:
        twin: programmed, in eval mode.
        batches: inputs.

    Raises:
        BypassedError: no analog layer had a part in the answers.

    Source: AdaBS of Joshi et al., Nat. Commun. 11:2473 (2020).
    """
    norms = _norms(twin)
    for module in norms:
        module.reset_running_stats()
        module.momentum = None
        module.train()
    uses = Uses([matrix.analog for matrix in matrices_in(twin)])
    for batch in batches:
        call(twin, batch)
    uses.check("batch norm estimated again")
    for module in norms:
        module.eval()
