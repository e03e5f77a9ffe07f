"""One draw of the noise for several forwards."""

from __future__ import annotations

import itertools
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.layers.module import AnalogModule
from analogsim.noise.sources import StreamNoise
from analogsim.utils.torch_private import forward_pre_hooks, has_compiled_call, uncompiled

_Places = dict[torch.device, Tensor]
_Streams = list[tuple[StreamNoise, dict[torch.device, Tensor]]]


@contextmanager
def same_noise(analog: nn.Module) -> Iterator[None]:
    """For a block, every forward of a twin sees the same noise as the first one in it.

    For what compares two states of the weights, or two inputs, under one draw: sharpness-aware steps, the closures of
    LBFGS, finite differences. In training every analog layer makes the draw that it made at its first call in the
    block, whatever the batch, and whichever part of the twin is called; a layer that one forward calls several times
    makes its second draw again at the second call. What is drawn for each sample repeats itself for batches of one
    size: white read noise, also of a chip and at another age, dropout, and what else draws from torch's generators.

    The first forward draws as ever; repeated ones take nothing from the generators, which stand after the block as
    without them. In a block within another one the outer noise holds.

    Args:
        analog: the twin; ``DistributedDataParallel`` and the like may wrap it, before or after. Of a network without
            analog layers dropout and the like repeat themselves.

    Raises:
        TypeError: it is no module.
        ValueError: it is compiled: compiled code keeps no place in the generators.

    Warns:
        UserWarning: no forward of it was made in the block, as where that of another network was, or a compiled one.

    Example:
        >>> import torch, analogsim
        >>> analog = analogsim.convert(torch.nn.Linear(4, 2), device="gaussian(std=0.1)")
        >>> with analogsim.same_noise(analog):
        ...     one, two = analog(torch.ones(1, 4)), analog(torch.ones(1, 4))
        >>> torch.equal(one, two), torch.equal(one, analog(torch.ones(1, 4)))
        (True, False)
    """
    if not isinstance(analog, nn.Module):
        raise InvalidTypeError(
            f"same_noise: needs the twin that analogsim.convert(model, ...) returned, got {analog!r}"
        )
    modules = list(analog.modules())
    if uncompiled(analog) is not analog or any(has_compiled_call(module) for module in modules):
        raise InvalidValueError(
            f"same_noise: {type(analog).__name__} is compiled, and compiled code keeps no place in torch's generators; "
            "give the twin that torch.compile was called on, and call that in the block"
        )
    modules = [module for module in modules if not _is_repeated(module)]  # of a block around this one
    devices = {tensor.device for tensor in itertools.chain(analog.parameters(), analog.buffers())}
    repetition = _Repetition(devices | {torch.device("cpu")})
    handles = []
    for module in modules:
        handles.append(module.register_forward_pre_hook(repetition.begin))
        handles.append(module.register_forward_hook(repetition.end, always_call=True))
    try:
        yield
        if modules and not repetition.seen:
            warnings.warn(
                f"same_noise: no forward of this {type(analog).__name__} was made in the block; give the network that "
                "is called there, not compiled",
                stacklevel=3,
            )
    finally:
        for handle in handles:
            handle.remove()


def _is_repeated(module: nn.Module) -> bool:
    owners = [getattr(hook, "__self__", None) for hook in forward_pre_hooks(module).values()]
    return any(isinstance(owner, _Repetition) and not owner.ended for owner in owners)


class _Repetition:
    """Takes generators back to where they stood when an analog module, or a whole call, first began.

    Args:
        places: the torch devices whose generators count.

    Attributes:
        seen: whether a forward was made.
        ended: whether nothing is repeated any more.
    """

    def __init__(self, places: set[torch.device]) -> None:
        self.seen = False
        self.ended = False
        self._places = places
        self._depth = 0
        self._calls: Counter[nn.Module] = Counter()
        self._first: dict[tuple[nn.Module, int], tuple[_Places, list[dict[torch.device, Tensor]]]] = {}
        # Where the generators would stand without repetitions, while they are elsewhere.
        self._live: _Places | None = None
        self._live_streams: _Streams = []

    def __getstate__(self) -> dict[str, bool]:
        # A network that is copied in the block has its hooks too, and is another one.
        return {"seen": True, "ended": True}

    def begin(self, module: nn.Module, args: Any) -> None:
        """A module's forward begins."""
        if self.ended:
            return
        self.seen = True
        whole = not self._depth
        self._depth += 1
        if whole:
            self._calls.clear()
        if not (whole or isinstance(module, AnalogModule)):
            return
        key = module, self._calls[module]
        self._calls[module] += 1
        streams = _streams_of(module)
        if key in self._first:
            places, states = self._first[key]
            if self._live is None:
                self._live = {place: _get_state(place) for place in self._places}
            _put(places)
            for stream, state in zip(streams, states, strict=True):
                self._live_streams.append((stream, stream.get_state()))
                stream.set_state(state)
        else:
            if self._live is not None:
                _put(self._live)
                self._live = None
            self._first[key] = (
                {place: _get_state(place) for place in self._places},
                [stream.get_state() for stream in streams],
            )

    def end(self, module: nn.Module, args: Any, output: Any) -> None:
        """It has ended, with an answer or an error."""
        if self.ended:
            return
        self._depth -= 1
        if self._depth:
            return
        if self._live is not None:
            _put(self._live)
            self._live = None
        for stream, state in reversed(self._live_streams):  # the oldest last
            stream.set_state(state)
        self._live_streams.clear()


def _streams_of(module: nn.Module) -> list[StreamNoise]:
    """The streams of what a module's chips draw anew in each use."""
    chips = [matrix.analog.chip for matrix in module.matrices.values()] if isinstance(module, AnalogModule) else []
    noises = [None if chip is None else chip.use_noise for chip in chips]
    return [noise for noise in noises if isinstance(noise, StreamNoise)]


def _put(places: _Places) -> None:
    for place, state in places.items():
        _set_state(state, place)


def _get_state(place: torch.device) -> Tensor:
    if place.type == "cpu":
        return torch.get_rng_state()
    state: Tensor = torch.get_device_module(place).get_rng_state(place)
    return state


def _set_state(state: Tensor, place: torch.device) -> None:
    if place.type == "cpu":
        torch.set_rng_state(state)
    else:
        torch.get_device_module(place).set_rng_state(state, place)
