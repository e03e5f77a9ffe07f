"""Ranges of converters in the recipes: set on training data, and set again as the weights change."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import analogsim
from analogsim.chip.ranges import Ranges, set_ranges
from analogsim.crossbar import as_crossbar
from analogsim.recipes.config.options import Config
from analogsim.recipes.tasks import data_sets
from analogsim.recipes.tasks.data_sets import Splits


def needs_ranges(crossbar: str) -> bool:
    """Whether a crossbar leaves a range to calibration or to training."""
    array = as_crossbar(crossbar)
    return array.needs_range or array.needs_bound


def calibration_batches(config: Config, data: Splits) -> DataLoader[Any]:
    """The training samples on which ranges are set, drawn by the seed, in batches of about equal size."""
    drawn = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(config.seed))
    index = drawn[: config.calibration.samples]
    batches = -(-len(index) // config.evaluation.batch_size)
    return data_sets.batches(TensorDataset(*data.train[index]), -(-len(index) // batches))


def calibrate(twin: nn.Module, config: Config, batches: DataLoader[Any], *, learned: Ranges | None = None) -> None:
    """Set the ranges of a twin by what goes through its clean weights.

    Args:
        twin: on ``config.crossbar``.
        config: says which percentile fits.
        batches: training data.
        learned: ranges of a twin of the same network; the learned input ranges of them are taken as they are.
    """
    keep = bool(learned) and as_crossbar(config.crossbar).learns
    if learned and keep:
        set_ranges(twin, {name: {"input_range": given["input_range"]} for name, given in learned.items()})
    analogsim.calibrate(twin, batches, percentile=config.calibration.percentile, keep_learned=keep)
