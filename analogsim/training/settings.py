"""What holds for the draws of training: how much of the errors they see, at which ages, whether backward keeps them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from analogsim.errors import InvalidValueError
from analogsim.layers.module import matrices_of
from analogsim.utils.checks import as_number, check_flag
from analogsim.utils.text import in_short
from analogsim.utils.times import seconds

LARGEST_SCALE = 1e30
"""Of noise: what is more is no single-precision number when it is squared with its cells."""


def set_noise_scale(analog: nn.Module, scale: float) -> None:
    """How much of the device's errors each training forward sees: 0 none, 1 the device's own.

    Raises:
        ValueError: the scale is negative, NaN or infinite.
    """
    value = as_number(scale)
    if not 0 <= value <= LARGEST_SCALE:
        raise InvalidValueError(f"set_noise_scale: the scale must be finite and >= 0, got {in_short(scale)}")
    # A graph would hold a number as it is, or as a tensor on the CPU, which keeps it out of CUDA graphs.
    tensors: dict[torch.device, Tensor] = {}
    for layer in matrices_of(analog):
        state, place = layer.analog, layer.torch_device
        state.noise_scale, held = value, state.compiled_scale
        if value == 0:
            state.compiled_scale = None
            continue
        if place not in tensors:
            with torch.inference_mode(False):
                tensors[place] = held if held is not None and held.device == place else torch.empty((), device=place)
                tensors[place].fill_(value)
        state.compiled_scale = tensors[place]


def set_train_times(analog: nn.Module, times: Sequence[float | str]) -> None:
    """The ages at which training sees the devices, each forward and each layer drawing one of its own.

    As ``convert(..., train_times=...)`` says it for the first time; where devices do not drift, nothing changes.

    Args:
        analog: the twin.
        times: since programming, seconds or text. Two are the ends of a range from which ages are drawn log-uniformly,
            such as ``("1s", "10y")``; one is the age of all; of three or more each is drawn as often as the others.

    Raises:
        ValueError: no times, one that is not above 0, a range from the later to the earlier, or an age for which a
            device has no formula. The ages are as before then.

    Example:
        >>> import torch, analogsim
        >>> analog = analogsim.convert(torch.nn.Linear(4, 2), device="pcm")
        >>> analogsim.set_train_times(analog, ("1s", "10y"))
    """
    if isinstance(times, str) or not isinstance(times, Sequence) or not times:
        raise InvalidValueError(f'set_train_times: times must be a sequence such as ("1s", "10y"), got {times!r}')
    ages = tuple(seconds(time) for time in times)
    if min(ages) <= 0 or (len(ages) == 2 and ages[0] > ages[1]):
        raise InvalidValueError(
            f"set_train_times: times must be > 0, and a range from the earlier to the later, got {times!r}"
        )
    layers = matrices_of(analog)
    for layer in layers:
        for age in ages:
            layer.analog.device.check_time(age)
    for layer in layers:
        layer.analog.train_times = ages * 2 if len(ages) == 1 else ages


def set_recompute(analog: nn.Module, recompute: bool = True) -> None:
    """Whether backward makes each layer's draw again instead of finding it kept.

    From forward to backward training keeps the noisy weights, one copy of all weights. Made again, the very same
    numbers cost a second draw and no memory (``python -m benchmarks memory``). `torch.compile` and `torch.func` decide
    by themselves what they keep; layers on torch's recurrent kernels keep their draws. Behind converters the codes
    of the inputs are made again too; those of the outputs are kept, mostly two bytes each, and of convolutions that
    are cut into several crossbars the draw as well.

    Args:
        analog: the twin.
        recompute: True to make draws again; False, as after `convert`, to keep them.

    Raises:
        TypeError: ``recompute`` is neither True nor False.
    """
    check_flag(recompute, "set_recompute:")
    for layer in matrices_of(analog):
        layer.analog.recompute = recompute
