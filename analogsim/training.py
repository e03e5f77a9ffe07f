"""What one training forward sees: a fresh draw of the device, with the gradient on the clean weight."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from analogsim.compensate import global_gain
from analogsim.device import DeviceModel
from analogsim.noise import GlobalNoise

_NOISE = GlobalNoise()


class _StraightThrough(torch.autograd.Function):
    """The noisy weight forward, its gradient on the clean weight backward (masked where the array does not follow)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, noisy: Tensor, following: Tensor | None) -> Tensor:
        return noisy.view_as(noisy)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grad_outputs
        (following,) = ctx.saved_tensors
        return (grad if following is None else grad * following), None, None


def compute_dtype(weight: Tensor) -> torch.dtype:
    """Device statistics are evaluated in at least float32: half precision would round them away."""
    return torch.float32 if weight.dtype in (torch.float16, torch.bfloat16) else weight.dtype


def _draw_time(like: Tensor, times: tuple[float, float]) -> Tensor:
    """A time log-uniform in ``times`` (seconds); a tensor, so that nothing waits for the GPU."""
    low, high = (math.log(t) for t in times)
    return _NOISE.uniform_like(like.new_empty(())).mul_(high - low).add_(low).exp_()


@torch.no_grad()
def _fresh(
    weight: Tensor, device: DeviceModel, scale: float, times: tuple[float, float]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    clean = weight.to(compute_dtype(weight))
    written = device.program(clean, _NOISE)
    if device.drifts:
        g = device.read(written, _draw_time(clean, times), _NOISE)
        noisy = device.to_weight(g, written)
        gain = global_gain(device.to_weight(written.programmed, written), noisy)
        noisy = noisy.mul_(gain)
    else:
        g, gain = written.programmed, None
        noisy = device.to_weight(g, written)
    variance = device.read_variance(g, written)
    if variance is not None:
        variance = variance * scale**2 if gain is None else variance * (scale * gain).square()
    if scale != 1:
        noisy = torch.lerp(clean, noisy, scale)
    return noisy.to(weight.dtype), variance, device.following(clean, written)


def noisy_weight(
    weight: Tensor, device: DeviceModel, scale: float, times: tuple[float, float]
) -> tuple[Tensor, Tensor | None]:
    """One fresh draw of ``device``, differentiable straight through to ``weight``.

    Args:
        weight: the clean weight, ``(out, ...)``.
        device: the device model; every stage of its chain is drawn anew.
        scale: how much of the error is applied: 0 none, 1 the device's own; the noisy weight is
            ``weight + scale * (drawn - weight)``.
        times: for a device that drifts, the range (seconds) of a log-uniform time; the mean decay is removed by the
            same measured gain as on a chip.

    Returns:
        The noisy weight and the variance of white read noise for each weight (None for a device without).
    """
    if scale == 0:
        return weight, None
    noisy, variance, following = _fresh(weight, device, scale, times)
    return _StraightThrough.apply(weight, noisy, following), variance
