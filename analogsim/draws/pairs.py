"""Draws for compiled code, in which normal numbers come in pairs, one for each of two cells.

The two cells of a differential pair go through the device side by side, each with a stream of its own
(`counter_based.PairedNoise`). All of it is elementwise on one matrix, so that a compiler makes a single loop of it.
In a one-sided pair one cell stands at ``g_min`` whatever the weight is: what its law depends on is a constant, which
the compiler works out once.

Cells are independent of one another, so the law is that of `DeviceModel.program` and `DeviceModel.read`; which cell of
a pair holds the weight decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from analogsim.crossbar.crossbar import Crossbar
from analogsim.crossbar.gains import global_gain
from analogsim.device.model import Cells, DeviceModel, Written
from analogsim.mapping.layout import Layout
from analogsim.mapping.mapped_weight import MappedWeight
from analogsim.noise.counter_based import PairedNoise
from analogsim.noise.sources import Scale


@dataclass(frozen=True)
class Pairs:
    """A draw.

    Args:
        noisy: ``clean + scale * error``, ``(rows, columns)``.
        largest: the weight on ``g_max``, broadcastable.
        gain: of drift compensation; None for a device that does not change with time.
        variance: of white read noise, with scale and gain; None without.
        within: 1 for weights within the range, 0 beyond; None if all are.
    """

    noisy: Tensor
    largest: Tensor
    gain: Tensor | None = None
    variance: Tensor | None = None
    within: Tensor | None = None


def come_in_pairs(device: DeviceModel, crossbar: Crossbar) -> bool:
    """Whether draws can be made so: of one-sided pairs whose cells know nothing of each other."""
    mapping = device.laid
    one_sided = mapping.cells == "pair" and mapping.cells_per_weight == 2
    return one_sided and device.cellwise and device.moves and crossbar.wires is None


def largest_is_simple(device: DeviceModel, layout: Layout | None) -> bool:
    """Whether the weight on ``g_max`` follows from a matrix alone, without its blocks, in one pass over it."""
    mapping = device.laid
    if mapping.percentile < 100:
        return False
    return layout is None or (len(layout.rows) == 1 and (mapping.scale != "crossbar" or len(layout.cols) == 1))


def draw_pairs(
    clean: Tensor, largest: Tensor | None, device: DeviceModel, scale: Scale, t: Tensor, keys: Tensor
) -> Pairs:
    """One draw of a device for weights, at a time.

    Args:
        clean: ``(rows, columns)``, at least float32, detached.
        largest: the weight on ``g_max``; None where `largest_is_simple`.
        device: one that `come_in_pairs`.
        scale: how much of the error is applied.
        t: seconds after programming, a scalar; counts only for a device that drifts.
        keys: `counter_based.row_keys` of as many rows.
    """
    if largest is None:
        largest = device.largest(clean)
    mapped, span = device.map_weight(largest, clean.ndim), device.g_max - device.g_min
    on = ((clean.abs() / largest).clamp(max=1) * span + device.g_min).clamp(max=device.g_max)
    fresh_on, now_on, noise_on = _cell(on, mapped, device, t, PairedNoise(keys, False))
    fresh_off, now_off, noise_off = _cell(torch.full_like(on, device.g_min), mapped, device, t, PairedNoise(keys, True))
    unit = mapped.unit
    noisy, gain, variance = (now_on - now_off) * torch.where(clean < 0, -unit, unit), None, None
    if device.drifts:
        fresh = (fresh_on - fresh_off) * torch.where(clean < 0, -unit, unit)
        gain = global_gain(clean, fresh, noisy)
        noisy = noisy * gain
    if noise_on is not None and noise_off is not None:
        variance = (noise_on + noise_off) * (unit * scale * (1 if gain is None else gain)).square()
    saturated = mapped.saturated(clean)
    within = None if saturated is None else (~saturated).to(clean.dtype)
    return Pairs(clean + scale * (noisy - clean), largest, gain, variance, within)


def _cell(
    target: Tensor, mapped: MappedWeight, device: DeviceModel, t: Tensor, noise: PairedNoise
) -> tuple[Tensor, Tensor, Tensor | None]:
    """One cell of each pair: written, as inputs find it, and the variance of its white read noise."""
    cells = Cells(target.unsqueeze(0), device.g_min, device.g_max)
    written = device.written(Written(mapped, cells, ()), noise)
    fresh = now = written.programmed
    if device.drifts:
        now = device.read(written, t, noise)
    variance = device.cell_variance(now, written)
    return fresh.squeeze(0), now.squeeze(0), None if variance is None else variance.squeeze(0)
