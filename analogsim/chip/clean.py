"""What a chip should answer: the digital network, or the one behind its converters, run by the twin itself."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import nn

from analogsim.layers.module import exactly, matrices_of


def is_trained_behind_converters(analog: nn.Module) -> bool:
    """Whether ranges of converters were learned with the weights, so that the network is what they leave of it."""
    return any(matrix.analog.crossbar.learns for matrix in matrices_of(analog))


def as_trained(analog: nn.Module) -> AbstractContextManager[None]:
    """For a block, in eval mode: a twin answers as the network that was trained, without any error of a chip.

    That is the digital network, and where ranges were learned the one behind its converters: what they cut off was
    never part of it, and a chip that is brought to the digital network is brought away from what was trained.

    Args:
        analog: the twin; its modes are as before afterwards.
    """
    return exactly(analog, converters=is_trained_behind_converters(analog))
