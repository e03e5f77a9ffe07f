"""Scores of two networks on the same chips and samples, compared; and the scores sample by sample that this needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analogsim.errors import InvalidValueError
from analogsim.evaluation.display import FloatArray
from analogsim.evaluation.metrics import Accumulator, Metric
from analogsim.evaluation.scores import Mean
from analogsim.utils.torch_private import tree_leaves

GROUPS = 10
"""Into how many parts the data of a score that is no mean over samples are taken to estimate its error."""


@dataclass(frozen=True)
class Difference:
    """How much better one network is than another.

    Args:
        mean: over chips and samples; positive where it is the better one.
        error: standard error, of the chips and of the samples together; NaN where there is nothing to tell it by.
        freedom: degrees of freedom of the error.
    """

    mean: float
    error: float
    freedom: float = float("inf")

    def beyond(self, confidence: float = 0.95) -> bool:
        """Whether it is better than by chance: the lower end of the interval is above 0."""
        return bool(self.lower(confidence) > 0)

    def lower(self, confidence: float = 0.95) -> float:
        """The lower end of the interval (Student's t)."""
        from scipy.stats import t as student

        if np.isnan(self.error):
            return float("nan")
        factor = student.ppf((1 + confidence) / 2, self.freedom) if np.isfinite(self.freedom) else 1.96
        return float(self.mean - factor * self.error)


def compare(difference: FloatArray, mean: float | None = None) -> Difference:
    r"""A mean over chips and samples, both of which were drawn at random, and its standard error.

    With chips c of k and samples s of m, :math:`d_{cs} = \mu + a_c + b_s + e_{cs}`; the variance of the mean is
    :math:`\sigma_a^2 / k + \sigma_b^2 / m + \sigma_e^2 / (k m)`, of which the variance of the chips' means has the
    first and the last, and that of the samples' means the other two.

    Args:
        difference: of each chip and sample, ``(chips, samples)``; one sample where none can be told apart.
        mean: of the whole, where it is not that of the samples.

    Returns:
        The mean and its error, with degrees of freedom by Welch and Satterthwaite.
    """
    chips, samples = difference.shape
    found = float(difference.mean()) if mean is None else mean
    rows, columns = difference.mean(1), difference.mean(0)
    of_chips = float(rows.var(ddof=1)) / chips if chips > 1 else 0.0
    of_samples = float(columns.var(ddof=1)) / samples if samples > 1 else 0.0
    if chips < 2 and samples < 2:
        return Difference(found, float("nan"))
    shared = 0.0
    if chips > 1 and samples > 1:
        rest = difference - rows[:, None] - columns[None, :] + difference.mean()
        shared = float((rest**2).sum()) / ((chips - 1) * (samples - 1)) / (chips * samples)
    variance = max(of_chips + of_samples - shared, of_chips, of_samples)
    spread = of_chips**2 / max(chips - 1, 1) + of_samples**2 / max(samples - 1, 1)
    freedom = variance**2 / spread if spread else float("inf")
    return Difference(found, float(np.sqrt(variance)), freedom)


class Recorder:
    """Takes a metric's place as its own accumulator, and notes the scores of single samples beside the whole.

    Of a score that is a mean over samples these are the samples'; of any other one pseudo-values of the jackknife over
    groups of batches.

    Args:
        metric: the score.
    """

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self.reset()

    def __deepcopy__(self, memo: dict[int, Any]) -> Recorder:
        return Recorder(self._metric)

    def reset(self) -> None:
        """See `analogsim.evaluation.Accumulator`."""
        self._whole: Accumulator | None = None
        self._values: list[FloatArray] = []
        self._left_out: list[Accumulator] = []
        self._batches = 0
        self._found = float("nan")

    def update(self, output: Any, target: Any, /) -> None:
        """See `analogsim.evaluation.Accumulator`."""
        if self._whole is None:
            self._whole = self._begin(_device_of((output, target)))
        self._metric.add(self._whole, output, target)
        for group, rest in enumerate(self._left_out):
            if self._batches % GROUPS != group:
                self._metric.add(rest, output, target)
        self._batches += 1

    def _begin(self, device: torch.device) -> Accumulator:
        if isinstance(self._metric.score, Accumulator):
            self._left_out = [self._metric.begin(device) for _ in range(GROUPS)]
            return self._metric.begin(device)

        def noted(output: Any, target: Any) -> Tensor:
            values = self._metric.scores(output, target)
            if isinstance(values, Tensor) and not values.is_complex():
                self._values.append(
                    values.detach().double().cpu().reshape(len(values) if values.ndim else 1, -1).numpy()
                )
            return values

        return Mean(noted)

    def compute(self) -> float:
        """See `analogsim.evaluation.Accumulator`."""
        if self._whole is None:
            raise InvalidValueError("evaluate: no sample to score")
        self._found = self._metric.result(self._whole)
        return self._found

    def details(self) -> FloatArray:
        """See `analogsim.evaluation.metrics.Detailed`: the scores of single samples, or pseudo-values."""
        return self._samples() if self._values else self._pseudo_values(self._found)

    def _samples(self) -> FloatArray:
        with np.errstate(invalid="ignore"):
            rows = [part.mean(1) for part in self._values]
        return np.concatenate(rows)

    def _pseudo_values(self, found: float) -> FloatArray:
        groups = min(GROUPS, self._batches)
        if groups < 2:
            return np.array([found])
        try:
            left = np.array([self._metric.result(rest) for rest in self._left_out[:groups]])
        except Exception:  # whatever a metric raises that cannot do with a part: the whole is what it is
            return np.full(groups, np.nan)
        return np.asarray(groups * found - (groups - 1) * left)


def recording(metric: Metric) -> Metric:
    """The same metric, which keeps the scores of single samples beside the whole."""
    return replace(metric, score=Recorder(metric), transform=None, pick=None)


def _device_of(batch: Any) -> torch.device:
    """Where the tensors of a batch are, in whatever structure; the CPU if there are none."""
    return next((leaf.device for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)), torch.device("cpu"))
