"""Measurements made up from a device model: to try a fit on what is known, and to plan an experiment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from analogsim.device.parse import DeviceLike, as_device_model
from analogsim.errors import InvalidValueError
from analogsim.mapping.mapping import Mapping
from analogsim.noise.sources import KeyedNoise
from analogsim.utils.times import seconds


def sample_measurements(
    device: DeviceLike,
    *,
    cells: int = 50,
    levels: int | Sequence[float] = 8,
    times: Sequence[float | str] = ("0s", "1min", "1h", "1d"),
    repeats: int = 3,
    t0: float = 20.0,
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """What a person would measure on cells of a device model.

    Args:
        device: a device model, or its name; its cells are measured one by one, as the positive ones of a pair.
        cells: how many cells for each level.
        levels: the targets, µS; or how many, evenly spaced from ``g_min`` to ``g_max``.
        times: of the readings, after the first one.
        repeats: readings of each cell at each time.
        t0: time between programming and the first reading, seconds, which is added to `times`.
        seed: of everything that is drawn.

    Returns:
        The columns target (µS), time (seconds after programming), measured (µS) and cell, ``(readings,)`` each.

    Raises:
        ValueError: there is nothing to measure, or a level is beyond the range.

    Example:
        >>> columns = sample_measurements("pcm", cells=2, levels=3, times=(0, "1h"), repeats=1)
        >>> [len(values) for values in columns.values()]
        [12, 12, 12, 12]
    """
    if cells < 1 or repeats < 1 or not times:
        raise InvalidValueError(
            f"sample_measurements: give cells, times and repeats, at least one each; got {cells!r}, {times!r}, "
            f"{repeats!r}"
        )
    model = as_device_model(device).replace(mapping=Mapping("pair", "tensor"))
    given = np.linspace(model.g_min, model.g_max, levels) if isinstance(levels, int) else np.asarray(levels, float)
    if given.min() < model.g_min or given.max() > model.g_max:
        raise InvalidValueError(
            f"sample_measurements: levels must lie between {model.g_min:g} and {model.g_max:g} µS, got {levels!r}"
        )
    target = np.repeat(given, cells)
    # The positive cells of a row of weights, whose last one is the largest and is not measured.
    weight = torch.tensor(np.append((target - model.g_min) / (model.g_max - model.g_min), 1.0))[None]
    noise = KeyedNoise("sample", str(seed))
    written = model.program(weight, noise)
    readings, clock = [], []
    for when, t in enumerate(seconds(time) for time in times):
        g = model.read(written, t, noise.at(t))
        stds = [effect.read_std(g, written.cells) for effect in model.effects]
        variance = sum((std.square() for std in stds if std is not None), torch.zeros_like(g))
        for repeat in range(repeats):
            fresh = noise.fold("white", str(when), str(repeat)).normal_like(g)
            readings.append((g + variance.sqrt() * fresh)[0, 0, :-1].numpy())
            clock.append(np.full(len(target), t + t0))
    return {
        "target": np.tile(target, len(clock)),
        "time": np.concatenate(clock),
        "measured": np.concatenate(readings),
        "cell": np.tile(np.arange(len(target), dtype=np.float64), len(clock)),
    }
