"""What a chip should answer: the digital network, or the one behind its converters, run by the twin itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from analogsim.crossbar.crossbar import IDEAL
from analogsim.crossbar.signal_path import Array
from analogsim.crossbar.stages import Stage
from analogsim.errors import OperationError
from analogsim.layers.module import drawn_in_eval, matrices_of
from analogsim.layers.state import AnalogState
from analogsim.noise.sources import Noise, Silence


class CleanWeights:
    """Takes a chip's place in a matrix, with the weights as they were to be written.

    Args:
        state: of the matrix, whose crossbar is ideal meanwhile.
    """

    use_noise: Noise = Silence()
    stages: tuple[Stage, ...] = ()
    time: float = 0.0

    def __init__(self, state: AnalogState) -> None:
        self._layout = state.layout

    def weight_for(self, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, None]:
        """The clean weights themselves, and no read noise."""
        return self._layout.lay(weight, bias).detach(), None

    def array_for(self, weight: Tensor, bias: Tensor | None = None) -> Array:
        """Never asked for: an ideal crossbar has no converters."""
        raise OperationError("clean weights were asked what converters see")

    def check(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Nothing to compare."""

    def suspect(self) -> None:
        """Nothing to compare."""

    def describe(self) -> str:
        """For ``print(analog)``."""
        return "clean weights"


@contextmanager
def on_clean_weights(analog: nn.Module, chips: dict[str, CleanWeights] | None = None) -> Iterator[None]:
    """Let a twin in eval mode answer as its digital network for a block, through the forwards of its own layers.

    Args:
        analog: the twin.
        chips: what takes the places of chips, by names of matrices; by default a `CleanWeights` for each.
    """
    states = [matrix.analog for matrix in matrices_of(analog)]
    before = [(state.chip, state.crossbar, state.adapter, state.eval_scale) for state in states]
    try:
        for state in states:
            state.chip = CleanWeights(state) if chips is None else chips[state.name]
            state.crossbar, state.adapter, state.eval_scale = IDEAL, None, None
        yield
    finally:
        for state, (chip, crossbar, adapter, scale) in zip(states, before, strict=True):
            state.chip, state.crossbar, state.adapter, state.eval_scale = chip, crossbar, adapter, scale


def is_trained_behind_converters(analog: nn.Module) -> bool:
    """Whether ranges of converters were learned with the weights, so that the network is what they leave of it."""
    return any(matrix.analog.crossbar.learns for matrix in matrices_of(analog))


@contextmanager
def as_trained(analog: nn.Module) -> Iterator[None]:
    """For a block, in eval mode: a twin answers as the network that was trained, without any error of a chip.

    That is the digital network, and where ranges were learned the one behind its converters: what they cut off was
    never part of it, and a chip that is brought to the digital network is brought away from what was trained.

    Args:
        analog: the twin; its modes are as before afterwards.
    """
    with drawn_in_eval(analog, lambda state: 0.0):
        if not is_trained_behind_converters(analog):
            with on_clean_weights(analog):
                yield
            return
        states = [matrix.analog for matrix in matrices_of(analog)]
        adapters = [state.adapter for state in states]
        try:
            for state in states:
                state.adapter = None
            yield
        finally:
            for state, adapter in zip(states, adapters, strict=True):
                state.adapter = adapter
