"""What one training forward sees: a fresh draw of the device, with the gradient on the clean weight."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from analogsim.compensate import global_gain
from analogsim.device import DeviceModel
from analogsim.noise import GlobalNoise

_NOISE = GlobalNoise()


_HALF = frozenset((torch.float16, torch.bfloat16))


def in_compute_dtype(weight: Tensor) -> Tensor:
    """Device statistics are evaluated in at least float32: half precision would round them away."""
    return weight.float() if weight.dtype in _HALF else weight


def _draw_time(like: Tensor, times: tuple[float, float]) -> Tensor:
    """A time log-uniform in ``times`` (seconds); a tensor, so that nothing waits for the GPU."""
    low, high = (math.log(t) for t in times)
    return _NOISE.uniform_like(like.new_empty(())).mul_(high - low).add_(low).exp_()


def _draw(
    weight: Tensor, device: DeviceModel, times: tuple[float, float]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """One fresh draw: error of the weight, variance of white read noise, mask of the weights that are followed."""
    clean = in_compute_dtype(weight.detach())
    written = device.program(clean, _NOISE)
    g = written.programmed
    if device.drifts:
        fresh = device.to_weight(g, written)
        g = device.read(written, _draw_time(clean, times), _NOISE)
        noisy = device.to_weight(g, written)
        gain = global_gain(fresh.abs().sum(), noisy)
        noisy = noisy * gain
    else:
        noisy, gain = device.to_weight(g, written), None
    variance = device.read_variance(g, written)
    if variance is not None and gain is not None:
        variance = variance.mul_(gain.square())
    if g is written.cells.target:  # nothing but white read noise
        return None, variance, None
    following = device.following(clean, written)
    # Not in place: what an effect hands back unchanged is the memory of the weight itself.
    return (noisy - clean).to(weight.dtype), variance, None if following is None else following.to(weight.dtype)


def noisy_weight(
    weight: Tensor, device: DeviceModel, scale: float, times: tuple[float, float]
) -> tuple[Tensor, Tensor | None]:
    """One fresh draw of ``device``, differentiable straight through to ``weight``.

    The noisy weight is ``weight + scale * error`` with an error that no gradient goes through: the gradient is taken
    at the noisy weight and lands on the clean one (not where a stuck cell carries the weight).

    Args:
        weight: the clean weight, ``(out, ...)``.
        device: the device model; every stage of its chain is drawn anew.
        scale: how much of the error is applied: 0 none, 1 the device's own.
        times: for a device that drifts, the range (seconds) of a log-uniform time; the mean decay is removed by the
            same measured gain as on a chip.

    Returns:
        The noisy weight and the variance of white read noise for each weight (None for a device without).
    """
    if scale == 0:
        return weight, None
    effect = device.additive
    if effect is not None:
        # The case of noise on weights, as cheap as written by hand: torch's own operations and no detour.
        clean = in_compute_dtype(weight.detach())
        added = effect.error(clean, device.largest, _NOISE)
        return torch.add(weight, added if added.dtype is weight.dtype else added.to(weight.dtype), alpha=scale), None
    error, variance, following = _draw(weight, device, times)
    if following is not None:
        weight = weight.detach() + (weight - weight.detach()) * following
    if variance is not None and scale != 1:
        variance = variance.mul_(scale**2)
    return weight if error is None else torch.add(weight, error, alpha=scale), variance
