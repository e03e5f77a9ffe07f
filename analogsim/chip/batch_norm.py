"""Batch norm on a chip: statistics of its own, estimated again from data that go through it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from analogsim.errors import InvalidValueError
from analogsim.layers.module import drawn_in_eval, matrices_in, matrices_of
from analogsim.layers.state import Uses
from analogsim.utils.batches import Inputs, call, inputs_of, moved
from analogsim.utils.tensors import holds_nonfinite
from analogsim.utils.torch_private import BatchNorm, own_buffers, put_buffers


def _norms(model: nn.Module) -> list[BatchNorm]:
    return [module for module in model.modules() if isinstance(module, BatchNorm) and module.track_running_stats]


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a model has batch norm with statistics of its own."""
    return bool(_norms(model))


@contextmanager
def own_statistics(twin: nn.Module) -> Iterator[None]:
    """Let batch norm of a twin keep its statistics apart from the model's, for a block."""
    shared = [(module, own_buffers(module)) for module in _norms(twin)]
    try:
        for module, buffers in shared:
            put_buffers(module, {name: None if b is None else b.clone() for name, b in buffers.items()})
        yield
    finally:
        for module, buffers in shared:
            put_buffers(module, buffers)


def reestimate_batch_norm(analog: nn.Module, loader: Iterable[Any]) -> None:
    """Means and variances of batch norm, estimated anew from data, as a chip or the noise of training makes them.

    The statistics that training gathers on the way lag behind the weights, and where noise is ramped behind the noise.
    So after training, and after weights were averaged, they are estimated once more: without a chip under fresh draws
    of the noise, one for each batch, at the scale that is set (`set_noise_scale`). With a chip, data go through that
    chip at its age. No labels are used, and every batch counts the same; dozens of the size of training's do.

    They are the statistics of the network: model and twin share them, and state dicts hold them. `evaluate` has a
    compensation ``"batch-norm"``, which estimates them on each chip and leaves the network as it was.

    Args:
        analog: the twin; its modes are as before afterwards, and dropout does nothing meanwhile.
        loader: yields inputs, or tuples that begin with them, as `calibrate` takes them.

    Raises:
        ValueError: no batch norm with statistics, an empty loader, inputs that are NaN or infinite. The statistics are
            as before then, as with any error.
        BypassedError: no analog layer had a part in the answers.

    Source: AdaBS of Joshi et al., Nat. Commun. 11:2473 (2020).
    """
    matrices = matrices_of(analog)
    if not has_batch_norm(analog):
        raise InvalidValueError(
            f"reestimate_batch_norm: {type(analog).__name__} has no batch norm with statistics of its own; there is "
            "nothing to estimate"
        )
    on_chip = all(matrix.analog.chip is not None for matrix in matrices)
    place = matrices[0].torch_device

    def batches() -> Iterator[Inputs]:
        for number, batch in enumerate(inputs_of(loader, "reestimate_batch_norm")):
            if holds_nonfinite(batch, masks=True):
                raise InvalidValueError(f"reestimate_batch_norm: batch {number} holds NaN or infinite values")
            yield moved(batch, place)

    before = [(tensor, tensor.clone()) for module in _norms(analog) for tensor in module.buffers()]
    try:
        with drawn_in_eval(analog, lambda state: None if on_chip else state.noise_scale):
            gather_statistics(analog, batches())
    except BaseException:
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)
        raise


@torch.no_grad()
def gather_statistics(twin: nn.Module, batches: Iterable[Inputs]) -> None:
    """Means and variances of batch norm, anew from data that go through a twin as it is; see `own_statistics`.

    Every batch counts the same (a cumulative average). No labels are used.

    Args:
        twin: in eval mode, where batch norm is again afterwards; or the digital network itself.
        batches: inputs.

    Raises:
        BypassedError: there are analog layers, and none had a part in the answers.
    """
    norms = [(module, module.momentum) for module in _norms(twin)]
    states = [matrix.analog for matrix in matrices_in(twin)]
    uses = Uses(states)
    try:
        for module, _ in norms:
            module.reset_running_stats()
            module.momentum = None
            module.train()
        for batch in batches:
            call(twin, batch)
        if states:
            uses.check("batch norm estimated again")
    finally:
        for module, momentum in norms:
            module.momentum = momentum
            module.eval()
