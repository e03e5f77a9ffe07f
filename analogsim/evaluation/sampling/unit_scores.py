"""The scores of single samples, noted while a network is judged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from analogsim.errors import InvalidValueError
from analogsim.evaluation.display import FloatArray
from analogsim.evaluation.metrics import Accumulator, Metric
from analogsim.evaluation.scores import Averaged
from analogsim.utils.torch_private import tree_leaves

SCORE, WEIGHT, MARGIN, BATCH = range(4)
"""What stands in the columns of what is noted, a row for each sample or for each batch that is one."""


class UnitScores:
    """Takes a metric's place as its own accumulator, and notes what each sample scores and weighs.

    Args:
        metric: one that `Metric.is_average`.
        whole: whether the score is that of the metric itself, bit for bit; otherwise it follows from what is noted,
            and each batch is scored once.
    """

    def __init__(self, metric: Metric, whole: bool) -> None:
        self._metric = metric
        self._whole = whole
        self.reset()

    def __deepcopy__(self, memo: dict[int, Any]) -> UnitScores:
        return UnitScores(self._metric, self._whole)

    def reset(self) -> None:
        """See `analogsim.evaluation.Accumulator`."""
        self._own: Accumulator | None = None
        self._rows: list[FloatArray] = []

    def update(self, output: Any, target: Any, /) -> None:
        """See `analogsim.evaluation.Accumulator`."""
        if self._own is None:
            self._own = self._metric.begin(_device_of((output, target)))
        if self._whole:
            self._metric.add(self._own, output, target)
        scores, weights = (part.detach().double().cpu() for part in self._metric.each(self._own, output, target))
        rows = torch.full((len(scores), 4), torch.nan, dtype=torch.float64)
        rows[:, SCORE], rows[:, WEIGHT], rows[:, BATCH] = scores, weights, len(self._rows)
        found = margins(output, target)
        if found is not None and len(found) == len(rows):
            rows[:, MARGIN] = found.detach().double().cpu()
        self._rows.append(rows.numpy())

    def compute(self) -> float:
        """See `analogsim.evaluation.Accumulator`."""
        if self._own is None:
            raise InvalidValueError("evaluate: no sample to score")
        if self._whole:
            return self._metric.result(self._own)
        rows = self.details()
        weight = float(rows[:, WEIGHT].sum())
        mean = float((rows[:, SCORE] * rows[:, WEIGHT]).sum()) / weight if weight else 0.0
        return cast(Averaged, self._own).of_mean(mean)

    def details(self) -> FloatArray:
        """See `analogsim.evaluation.metrics.Detailed`: a row for each sample."""
        return np.concatenate(self._rows)


def noting(metric: Metric, *, whole: bool) -> Metric:
    """The same metric, which notes what each sample scores, see `UnitScores`."""
    return replace(metric, score=UnitScores(metric, whole), transform=None, pick=None)


def margins(output: Any, target: Any) -> Tensor | None:
    """By how much the right class leads the best other one (negative where it is behind); None where there is none."""
    tensors = isinstance(output, Tensor) and isinstance(target, Tensor)
    if not tensors or output.ndim != 2 or target.shape != output.shape[:1] or output.shape[1] < 2:
        return None
    if not output.is_floating_point() or target.is_floating_point() or target.is_complex():
        return None
    place = target.long()
    if bool(((place < 0) | (place >= output.shape[1])).any()):
        return None
    right = output.gather(1, place[:, None])
    others = output.scatter(1, place[:, None], -torch.inf)
    lead: Tensor = right[:, 0] - others.amax(1)
    return lead.nan_to_num(0.0)


def _device_of(batch: Any) -> torch.device:
    """Where the tensors of a batch are, in whatever structure; the CPU if there are none."""
    return next((leaf.device for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)), torch.device("cpu"))
