"""What one training forward sees: a fresh draw of the device, with the gradient on the clean weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from analogsim.crossbar.crossbar import IDEAL, Crossbar
from analogsim.crossbar.gains import global_gain
from analogsim.crossbar.signal_path import Array, array_of
from analogsim.crossbar.wired_blocks import wired
from analogsim.device.model import DeviceModel, Effect, Written
from analogsim.draws.compiled import draw_compiled
from analogsim.draws.pairs import Pairs, come_in_pairs, draw_pairs, largest_is_simple
from analogsim.mapping.layout import Layout
from analogsim.noise.sources import GlobalNoise, Noise, Scale, TrainingNoise, is_silent

_GLOBAL = GlobalNoise()

_HALF = frozenset((torch.float16, torch.bfloat16))


def in_compute_dtype(weight: Tensor) -> Tensor:
    """Device statistics are evaluated in at least float32: half precision would round them away."""
    return weight.float() if weight.dtype in _HALF else weight


def _draw_time(like: Tensor, times: Sequence[float], noise: Noise) -> Tensor:
    """One of several times, or of two a time log-uniform between them; a tensor, so that nothing waits for the GPU."""
    share = noise.uniform_like(like.new_empty(()))
    if len(times) == 2:
        low, high = (math.log(t) for t in times)
        return share.mul_(high - low).add_(low).exp_()
    drawn = torch.full_like(share, times[0])
    for place, time in enumerate(times[1:], 1):
        drawn = torch.where(share * len(times) >= place, time, drawn)
    return drawn


@dataclass(frozen=True)
class DrawnCells:
    """One fresh draw of a device, cell by cell.

    Args:
        clean: the laid weight, in at least float32.
        written: what programming left behind.
        g: conductances as inputs find them, wires included.
        noisy: the weight that they stand for.
        gain: of drift compensation; None for a device that does not change with time.
        following: how far the array follows each weight; None for all the way.
    """

    clean: Tensor
    written: Written
    g: Tensor
    noisy: Tensor
    gain: Tensor | None
    following: Tensor | None


def draw_cells(
    weight: Tensor,
    device: DeviceModel,
    times: Sequence[float],
    layout: Layout | None,
    crossbar: Crossbar,
    noise: Noise,
) -> DrawnCells:
    """A weight ``(out, ...)`` written anew, aged to one of the times if the device drifts, and read."""
    clean = in_compute_dtype(weight.detach())
    written = device.program(clean, noise, layout)
    g, gain, mapped = written.programmed, None, written.mapped

    def behind_wires(g: Tensor) -> Tensor:
        return g if layout is None else wired(g, mapped.ndim, layout, crossbar.wires, fast=True)

    if device.drifts:
        fresh = mapped.to_weight(behind_wires(g))
        g = behind_wires(device.read(written, _draw_time(clean, times, noise), noise))
        noisy = mapped.to_weight(g)
        gain = global_gain(clean, fresh, noisy)
    else:
        g = behind_wires(g)
        noisy = mapped.to_weight(g)
    return DrawnCells(clean, written, g, noisy, gain, device.following(clean, written))


def _added(weight: Tensor, error: Tensor, scale: Scale) -> Tensor:
    """``weight + scale * error``."""
    error = error.to(weight.dtype)
    return weight + error * scale if isinstance(scale, Tensor) else torch.add(weight, error, alpha=scale)


def _moved(start: Tensor, end: Tensor, scale: Scale) -> Tensor:
    """``start + scale * (end - start)``."""
    return torch.lerp(start, end, scale.to(start.dtype) if isinstance(scale, Tensor) else scale)


def _digital_gain(gain: Tensor | None, scale: Scale) -> Tensor | None:
    """The gain of drift compensation as converters see it: never more than the device's own."""
    if gain is None:
        return None
    return 1 + (scale.clamp(max=1.0) if isinstance(scale, Tensor) else min(scale, 1.0)) * (gain - 1)


def _followed(weight: Tensor, following: Tensor | None) -> Tensor:
    """The weight, through which only as much gradient goes as the array follows it."""
    if following is None:
        return weight
    fixed = weight.detach()
    return fixed + (weight - fixed) * following.to(weight.dtype)


class _Through(torch.autograd.Function):
    """A drawn weight in the place of the clean one, which the gradient goes straight through to."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, noisy: Tensor, within: Tensor | None) -> Tensor:
        ctx.save_for_backward(within)
        return noisy.view_as(noisy)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (within,) = ctx.saved_tensors
        return gradients[0] if within is None else gradients[0] * within.to(gradients[0].dtype), None, None


def _pairs(
    weight: Tensor,
    device: DeviceModel,
    scale: Scale,
    times: Sequence[float],
    layout: Layout | None,
    crossbar: Crossbar,
    noise: TrainingNoise,
) -> tuple[Tensor, Pairs] | None:
    """The noisy weight and all of its draw, where compiled code draws cells in pairs; else None."""

    def time() -> Tensor:
        return _draw_time(in_compute_dtype(weight.detach()), times, noise)

    if not noise.fuses():
        drawn = draw_compiled(weight, device, scale, time, layout, crossbar, noise)
        return None if drawn is None else (cast(Tensor, _Through.apply(weight, drawn.noisy, drawn.within)), drawn)
    if weight.ndim < 2 or not come_in_pairs(device, crossbar):
        return None
    clean = in_compute_dtype(weight.detach())
    top = None if largest_is_simple(device, layout) else device.largest(clean, layout)
    flat = top.expand_as(clean).flatten(1) if top is not None and top.ndim else top
    t = time() if device.drifts else clean.new_zeros(())
    drawn = draw_pairs(clean.flatten(1), flat, device, scale, t, noise.row_keys(len(weight), weight.device))
    shaped = [None if part is None else part.view(weight.shape) for part in (drawn.variance, drawn.within)]
    drawn = replace(drawn, variance=shaped[0], within=shaped[1], largest=drawn.largest if top is None else top)
    error = (drawn.noisy.view(weight.shape) - clean).to(weight.dtype)
    return _followed(weight, drawn.within) + error, drawn


def noisy_weight(
    weight: Tensor,
    device: DeviceModel,
    scale: Scale,
    times: Sequence[float],
    layout: Layout | None = None,
    crossbar: Crossbar = IDEAL,
    noise: TrainingNoise = _GLOBAL,
) -> tuple[Tensor, Tensor | None]:
    """One fresh draw of ``device``, differentiable straight through to ``weight``.

    The noisy weight is ``weight + scale * error`` with an error that no gradient goes through: the gradient is taken
    at the noisy weight and lands on the clean one (not where a stuck cell carries the weight).

    Args:
        weight: the clean weight, ``(out, ...)``, laid with its bias rows.
        device: the device model; every stage of its chain is drawn anew.
        scale: how much of the error is applied: 0 none, 1 the device's own.
        times: for a device that drifts, the two ends (seconds) of the range of a log-uniform time, or three or more of
            which one is drawn; the mean decay is removed by the same measured gain as on a chip.
        layout: the blocks in which the weight lies.
        crossbar: their wires.
        noise: where the draw comes from.

    Returns:
        The noisy weight and the variance of white read noise for each weight (None for a device without).
    """
    if is_silent(scale):
        return weight, None
    paired = _pairs(weight, device, scale, times, layout, crossbar, noise)
    if paired is not None:
        return paired[0], paired[1].variance
    effect = device.additive
    if effect is not None:
        # The case of noise on weights, as cheap as written by hand: torch's own operations and no detour.
        clean = in_compute_dtype(weight.detach())
        added = effect.error(clean, lambda g: device.largest(g, layout), noise)
        return _added(weight, added, scale), None
    draw = draw_cells(weight, device, times, layout, crossbar, noise)
    variance = device.read_variance(draw.g, draw.written)
    factor = scale if draw.gain is None else draw.gain * scale
    if variance is not None and not (draw.gain is None and not isinstance(scale, Tensor) and scale == 1):
        variance = variance.mul_(factor**2)
    weight = _followed(weight, draw.following)
    if draw.g is draw.written.cells.target:  # nothing but white read noise
        return weight, variance
    # Not in place: what an effect hands back unchanged is the memory of the weight itself.
    error = (draw.noisy if draw.gain is None else draw.noisy * draw.gain) - draw.clean
    return _added(weight, error, scale), variance


@dataclass(frozen=True)
class _Seen:
    """What converters see of a weight.

    Args:
        slices: the weights that each slice stands for, ``(slices, out, ...)``.
        largest: the weight at full scale.
        variance: of white read noise, like ``slices``; None without.
        gain: of drift compensation as converters see it; None without.
        linear: the noisy weight to take the gradient at; None where ``slices`` have one of their own.
    """

    slices: Tensor
    largest: Tensor
    variance: Tensor | None = None
    gain: Tensor | None = None
    linear: Tensor | None = None


def _seen_clean(weight: Tensor, device: DeviceModel, layout: Layout, stepped: bool) -> _Seen:
    """A weight without any error; where what is seen goes in steps, as it lies on its cells."""
    clean = in_compute_dtype(weight.detach())
    if not stepped:
        return _Seen(weight.unsqueeze(0), device.largest(clean, layout))
    written = device.lay_out(clean, layout)
    slices = written.mapped.to_slices(written.cells.target)
    return _Seen(slices, written.largest, linear=weight + (device.join(slices) - clean).to(weight.dtype))


def _seen_added(
    weight: Tensor, effect: Effect, device: DeviceModel, scale: Scale, layout: Layout, noise: Noise
) -> _Seen:
    """A weight with the error that the one effect of an additive device adds to it."""
    clean = in_compute_dtype(weight.detach())
    largest = device.largest(clean, layout)
    return _Seen(_added(weight, effect.error(clean, lambda _: largest, noise), scale).unsqueeze(0), largest)


def _seen_pairs(noisy: Tensor, drawn: Pairs, scale: Scale) -> _Seen:
    """A draw of cells in pairs."""
    variance = None if drawn.variance is None else drawn.variance.unsqueeze(0)
    return _Seen(noisy.unsqueeze(0), drawn.largest, variance, _digital_gain(drawn.gain, scale))


def _seen_cells(weight: Tensor, draw: DrawnCells, device: DeviceModel, scale: Scale, stepped: bool) -> _Seen:
    """A draw cell by cell.

    What comes out is ideal + scale (compensated - ideal), as without converters. These see it before the digital gain,
    which is never more than the device's own.
    """
    clean, gain, mapped = draw.clean, draw.gain, draw.written.mapped
    followed = _followed(weight, draw.following)
    if stepped:
        ideal, noisy = mapped.to_slices(draw.written.cells.target), mapped.to_slices(draw.g)
    else:
        ideal, noisy = clean.unsqueeze(0), draw.noisy.unsqueeze(0)
    variance = device.slice_variance(draw.g, draw.written)
    factor = scale
    if gain is not None:
        noisy, factor = noisy * gain, gain * scale
    variance = None if variance is None else variance * factor**2
    slices = _moved(ideal, noisy, scale)
    gain = _digital_gain(gain, scale)
    if stepped:
        linear = followed + (device.join(slices) - clean).to(weight.dtype)
        return _Seen(slices, mapped.largest, variance, gain, linear)
    through = followed + (slices.squeeze(0) - clean).to(weight.dtype)
    return _Seen(through.unsqueeze(0), mapped.largest, variance, gain)


def noisy_array(
    weight: Tensor,
    device: DeviceModel,
    scale: Scale,
    times: Sequence[float],
    layout: Layout,
    crossbar: Crossbar,
    noise: TrainingNoise = _GLOBAL,
) -> tuple[Array, Tensor | None]:
    """What the converters see of one fresh draw; see `noisy_weight`.

    Returns:
        The array, and the noisy weight to take the gradient at where the array's own values have none (bit slices,
        inputs bit by bit); None where they have.
    """
    stepped = crossbar.bit_serial or device.slices > 1
    silent = is_silent(scale)
    paired = None if stepped or silent else _pairs(weight, device, scale, times, layout, crossbar, noise)
    if silent:
        seen = _seen_clean(weight, device, layout, stepped)
    elif paired is not None:
        seen = _seen_pairs(*paired, scale)
    elif device.additive is not None and not stepped:
        seen = _seen_added(weight, device.additive, device, scale, layout, noise)
    else:
        draw = draw_cells(weight, device, times, layout, crossbar, noise)
        seen = _seen_cells(weight, draw, device, scale, stepped)
    array = array_of(seen.slices, seen.variance, seen.largest, layout, device, seen.gain, weight.dtype)
    return array.with_converter_errors(crossbar, noise, scale), seen.linear
