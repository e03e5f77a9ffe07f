"""How far the device moves each weight: for steps and penalties that are scaled by its own errors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from analogsim.draws.noisy_weight import in_compute_dtype, noisy_weight
from analogsim.errors import InvalidValueError
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import matrices_of
from analogsim.noise.sources import StreamNoise
from analogsim.utils.checks import MOST_TURNS, check_seed, check_whole
from analogsim.utils.times import seconds
from analogsim.utils.torch_private import own_parameters


def weight_std(analog: nn.Module, *, t: float | str | None = None, draws: int = 32, seed: int = 0) -> dict[str, Tensor]:
    r"""The standard deviation of each weight on the device, found from draws of it.

    Of everything that differs from chip to chip, and white read noise besides; in units of the weight, at scale 1
    whatever `set_noise_scale` says, without converters. A mean that is off, as of what the compensation leaves of
    drift, is no part of it. Of n draws each number has a relative standard error of about :math:`1/\sqrt{2n}`, 12 % of
    32, for normal errors; of cells that are rarely stuck more. Torch's generators are left alone.

    Args:
        analog: the twin.
        t: the age, seconds or text; None: ages drawn as training draws them (`set_train_times`).
        draws: how many, at least 2.
        seed: of the draws; the same ones for the same seed.

    Returns:
        For each layer by its name a tensor shaped like its matrix ``(out, ...)``.

    Raises:
        ValueError: too few draws, or an age that is not above 0 or that a device has no formula for.

    Example:
        >>> import torch, analogsim
        >>> analog = analogsim.convert(torch.nn.Linear(4, 2), device="pcm")
        >>> analogsim.weight_std(analog)[""].shape
        torch.Size([2, 4])
    """
    check_whole(draws, "weight_std: draws", 2, MOST_TURNS)
    check_seed(seed, "weight_std: seed")
    age = None if t is None else seconds(t)
    matrices = matrices_of(analog)
    if age is not None:
        if age <= 0:
            raise InvalidValueError(f"weight_std: t must be > 0, got {t!r}")
        for matrix in matrices:
            matrix.analog.device.check_time(age)
    return {matrix.analog.name: _spread(matrix, age, draws, seed) for matrix in matrices}


@torch.no_grad()
def _spread(matrix: AnalogMatrix, age: float | None, draws: int, seed: int) -> Tensor:
    """The standard deviation of one matrix's weights."""
    state = matrix.analog
    clean, bias = matrix.still()
    laid = in_compute_dtype(state.layout.lay(clean, bias))
    times = state.train_times if age is None else (age, age)
    total, squares, read = (torch.zeros_like(laid) for _ in range(3))
    for draw in range(draws):
        # What effects fold of a stream begins anew, so each draw has its own.
        noise = StreamNoise("weight_std", str(seed), state.name, str(draw))
        noisy, variance = noisy_weight(laid, state.device, 1.0, times, state.layout, state.crossbar, noise)
        error = noisy - laid
        total += error
        squares += error.square()
        if variance is not None:
            read += variance
    spread = (squares - total.square() / draws).clamp_min(0) / (draws - 1) + read / draws
    return state.layout.lift(spread.sqrt(), state.shape)[0].to(clean.dtype)


def spread_of_parameters(analog: nn.Module, *, draws: int, seed: int = 0) -> list[tuple[nn.Parameter, Tensor]]:
    """The Parameters that hold analog weights, each with the standard deviation of its elements on the device.

    Elements of no analog matrix have 0, those of several the largest. Weights that are computed from other Parameters
    (pruning, weight norm) are left out: of these nobody knows how far they move.

    Args:
        analog: the twin.
        draws: see `weight_std`.
        seed: see `weight_std`.
    """
    found: dict[nn.Parameter, Tensor] = {}
    for matrix in matrices_of(analog):
        if matrix.computed:
            continue
        slot = matrix.analog.slot
        parameter = own_parameters(matrix.holder)[slot.weight]
        if parameter is None:
            continue
        spread = torch.zeros_like(parameter)
        slot.write(spread, _spread(matrix, None, draws, seed))
        known = found.get(parameter)
        found[parameter] = spread if known is None else torch.maximum(known, spread)
    return list(found.items())
