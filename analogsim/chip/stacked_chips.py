"""Several chips at once: their weights stacked, the network mapped over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from analogsim.chip.compensation import CompensationLike, gain_of
from analogsim.chip.layer_chip import LayerChip
from analogsim.chip.lifecycle import Faults, programmed
from analogsim.crossbar.signal_path import Array
from analogsim.crossbar.stages import Stage
from analogsim.errors import InvalidValueError, OperationError
from analogsim.layers.module import matrices_of
from analogsim.layers.state import held_array
from analogsim.noise.sources import Noise, Silence
from analogsim.utils.batches import Inputs, describe
from analogsim.utils.modules import in_eval
from analogsim.utils.torch_private import tree_flatten, tree_unflatten

_Held = dict[str, Tensor]


class _StackedChip:
    """Takes a chip's place in a layer, with the weights of whichever chip is meant."""

    use_noise: Noise = Silence()  # nothing is noisy from use to use
    stages: tuple[Stage, ...] = ()  # they are made of one chip's answers, and these chips are fresh

    def __init__(self, name: str) -> None:
        self.name = name
        self.time = 0.0
        self._array: Array | None = None
        self._held: _Held = {}

    def stack(self, chips: Sequence[LayerChip]) -> _Held:
        """What the chips hold, side by side, by the names that `take` wants."""
        self._array, self.time = chips[0].array, chips[0].time
        if self._array is None:
            return {self.name: torch.stack([chip.effective[0] for chip in chips])}
        held = [_tensors(held_array(chip.array)) for chip in chips]
        return {f"{self.name}/{key}": torch.stack([each[key] for each in held]) for key in held[0]}

    def take(self, held: _Held) -> None:
        """Be the chip that holds this."""
        self._held = held

    def weight_for(self, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, None]:
        """See `LayerChip.weight_for`; nobody has written to the weights meanwhile."""
        return self._held[self.name].to(weight.dtype), None

    def array_for(self, weight: Tensor, bias: Tensor | None = None) -> Array:
        """See `LayerChip.array_for`."""
        array = held_array(self._array)
        mine = {key: self._held[f"{self.name}/{key}"] for key in _tensors(array)}
        errors = {name: mine[name] for name in array.converter_errors}
        return replace(array, slices=mine["slices"], scale=mine["scale"], converter_errors=errors)

    def check(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Nothing to compare."""

    def suspect(self) -> None:
        """Nothing to compare."""

    def describe(self) -> str:
        """For ``print(analog)``."""
        return "several chips"


def _tensors(array: Array) -> _Held:
    return {"slices": array.slices, "scale": array.scale, **array.converter_errors}


class Chips:
    """Chips of one network side by side, followed through time together.

    Args:
        analog: the twin.
        seeds: which chips.
        faults: known to be stuck, of a chip by its seed.

    Raises:
        ValueError: something is noisy from use to use, so that there is no one answer to compare.
    """

    def __init__(self, analog: nn.Module, seeds: Sequence[int], faults: Callable[[int], Faults | None]) -> None:
        self._analog = analog
        self._matrices = matrices_of(analog)
        for matrix in self._matrices:
            if matrix.analog.crossbar.output_noise:
                raise InvalidValueError(_noisy(matrix.analog.title, "output noise"))
            if further := matrix.analog.crossbar.further():
                raise InvalidValueError(
                    f"evaluate: layer {matrix.analog.title!r} has {', '.join(further)}, of which nothing is known "
                    "here; it may be new in each use, so leave out together"
                )
        self._chips: list[list[LayerChip]] = []
        for seed in seeds:
            with programmed(analog, seed, faults=faults(seed)):
                held = [matrix.analog.chip for matrix in self._matrices]
                self._chips.append([chip for chip in held if isinstance(chip, LayerChip)])
        for matrix, chip in zip(self._matrices, self._chips[0], strict=True):
            if chip.effective[1] is not None:
                raise InvalidValueError(_noisy(matrix.analog.title, "white read noise"))
        self._places = [_StackedChip(matrix.analog.name) for matrix in self._matrices]
        self._held: _Held = {}

    def drift(self, t: float, compensation: CompensationLike) -> None:
        """Let all of them be ``t`` seconds old; see `analogsim.drift`."""
        gain = gain_of(compensation)
        self._held = {}
        columns = zip(*self._chips, strict=True)
        for matrix, place, column in zip(self._matrices, self._places, columns, strict=True):
            for chip in column:
                chip.set_time(t, gain, matrix.analog.known_bound)
            self._held |= place.stack(column)

    def answers(self, inputs: Inputs, ask: Callable[[nn.Module, Inputs], Any]) -> list[Any]:
        """The answer of each chip: a tensor, or whatever structure of tensors the network gives.

        Args:
            inputs: of one batch.
            ask: takes the network and the inputs.

        Raises:
            RuntimeError: torch cannot map this network.
            ValueError: its answer holds an object that may hide tensors.
        """
        leaves: list[Any] = []
        structure: Any = None

        def one(held: _Held) -> list[Tensor]:
            nonlocal leaves, structure
            for place in self._places:
                place.take(held)
            leaves, structure = tree_flatten(ask(self._analog, inputs))
            for leaf in leaves:
                if not (leaf is None or isinstance(leaf, Tensor | str | bytes | int | float)):
                    raise InvalidValueError(
                        f"evaluate: the answer of {type(self._analog).__name__} holds {type(leaf).__name__}, which "
                        "cannot be told apart chip by chip; leave out together"
                    )
            return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

        # torch's fused kernels of attention know no chips.
        with self._in_place(), sdpa_kernel(SDPBackend.MATH):
            try:
                stacked = torch.vmap(one)(self._held)
            except RuntimeError as error:
                raise OperationError(
                    f"evaluate: torch cannot take several chips through {type(self._analog).__name__} at once: "
                    f"{error}. Leave out together"
                ) from error
        if not stacked:
            answer = describe(tree_unflatten(leaves, structure))
            raise InvalidValueError(
                f"evaluate: the answer of {type(self._analog).__name__}, {answer}, holds no tensor, so that chips "
                "cannot be told apart; leave out together"
            )
        answers = []
        for chip in zip(*(tensor.unbind() for tensor in stacked), strict=True):
            own = iter(chip)
            mine = [next(own) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            answers.append(tree_unflatten(mine, structure))
        return answers

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        states = [matrix.analog for matrix in self._matrices]
        before = [state.chip for state in states]
        try:
            for state, place in zip(states, self._places, strict=True):
                state.chip = place
            with in_eval(self._analog):
                yield
        finally:
            for state, chip in zip(states, before, strict=True):
                state.chip = chip


def _noisy(title: str, what: str) -> str:
    return f"evaluate: layer {title!r} has {what}, which each chip draws anew in each use; leave out together"
