"""What somebody does with each chip before it is judged: a measurement, or training with the chip in the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from analogsim.chip.adapters.attached import adapters_as_they_are
from analogsim.chip.ranges import ranges_as_they_are
from analogsim.errors import InvalidTypeError
from analogsim.layers.module import matrices_of

OnChip = Callable[[nn.Module, int, float], None]
"""Called for each chip at each age: with the twin, programmed and in eval mode, the chip's seed, its age in seconds."""


@contextmanager
def with_chip_in_hand(analog: nn.Module, on_chip: OnChip | None, seed: int, t: float) -> Iterator[None]:
    """Let somebody work on a chip, for a block in which it is judged; the network is as before afterwards.

    Args:
        analog: the twin, programmed, in eval mode, where it is again when the block begins.
        on_chip: what is done; None for nothing. Autograd is on in it.
        seed: of the chip.
        t: its age, seconds.

    Raises:
        TypeError: it returns something, which would be lost.
    """
    if on_chip is None:
        yield
        return
    restore = _as_it_is(analog)
    try:
        with torch.enable_grad():
            returned = on_chip(analog, seed, t)
        if returned is not None:
            raise InvalidTypeError(
                f"evaluate: on_chip must return nothing, got {type(returned).__name__}; what it measures it keeps by "
                "itself, such as in a list"
            )
        analog.eval()
        yield
    finally:
        restore()


def _as_it_is(analog: nn.Module) -> Callable[[], None]:
    """A function that gives a twin back its Parameters, buffers, ranges and adapters as they are now."""
    parameters = [(p, p.requires_grad, p.grad) for p in analog.parameters()]
    states = [matrix.analog for matrix in matrices_of(analog)]
    ranges = [each for state in states for each in (state.input_range, state.output_bound) if each is not None]
    tensors = [*(p for p, _, _ in parameters), *analog.buffers(), *ranges]
    values = [(tensor, tensor.detach().clone()) for tensor in tensors]
    restore_ranges, restore_adapters = ranges_as_they_are(analog), adapters_as_they_are(analog)

    def restore() -> None:
        restore_ranges()
        restore_adapters()
        with torch.no_grad():
            for tensor, value in values:
                if not torch.equal(tensor, value):  # else the chip would compare its weights once more
                    tensor.copy_(value)
        for parameter, wanted, grad in parameters:
            parameter.requires_grad_(wanted)
            parameter.grad = grad

    return restore
