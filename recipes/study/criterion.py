"""What the networks of a study are judged by: a metric at a time, over chips, and a bound on its clean score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from analogsim.errors import InvalidValueError
from analogsim.evaluation import Metric
from analogsim.evaluation.display import FloatArray, number
from analogsim.recipes.config.options import Config, StudyConfig
from analogsim.recipes.training.setup import in_order, report_times
from analogsim.utils.times import label, seconds

_WORST = 5.0  # of the chips are worse than the percentile that is meant where none is given


@dataclass(frozen=True)
class Criterion:
    """What the networks of a study are judged by.

    Args:
        metric: with a direction.
        time: since programming, as it is written in names of metrics: "1d".
        percentile: of the chips, counted from the bad end: 5 is what 19 of 20 chips reach. None: their mean.
        both: half of the percentile and half of the mean. The percentile alone rests on the one or two worst of a few
            chips; the mean alone does not see them.
        limit: the worst clean score with which a network counts; None: any.
        option: the setting that the limit comes from.
        pareto: whether the clean score is an objective beside the drifted one.
    """

    metric: Metric
    time: str
    percentile: float | None = None
    both: bool = False
    limit: float | None = None
    option: str = "study.clean_limit"
    pareto: bool = False

    @property
    def higher_is_better(self) -> bool:
        """Whether the network with the higher score is the better one."""
        return self.metric.higher_is_better is not False

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Optuna's word for it."""
        return "maximize" if self.higher_is_better else "minimize"

    @property
    def tail(self) -> float:
        """The quantile that 19 of 20 chips reach, as in `Report.tail`."""
        return 0.05 if self.higher_is_better else 0.95

    @property
    def names(self) -> list[str]:
        """The study's objectives: clean and drifted score of a Pareto study, else the drifted one."""
        return [f"clean {self.metric.name}", f"drifted {self.metric.name}"][0 if self.pareto else 1 :]

    @property
    def directions(self) -> list[Literal["maximize", "minimize"]]:
        """The direction of each of `names`."""
        return [self.direction] * len(self.names)

    def value(self, scores: FloatArray) -> float:
        """What a network is judged by, of its scores on several chips."""
        if self.percentile is None:
            return float(np.mean(scores))
        worst = float(np.percentile(scores, self._from_below(self.percentile)))
        return (worst + float(np.mean(scores))) / 2 if self.both else worst

    def excess(self, clean: float) -> float | None:
        """How far a clean score is beyond the limit, above zero where the network does not count; None: no limit."""
        if self.limit is None:
            return None
        return self.limit - clean if self.higher_is_better else clean - self.limit

    def rank(self, score: float) -> float:
        """A number that is the larger the better the score."""
        return score if self.higher_is_better else -score

    def best(self, scores: list[float]) -> float:
        """The best of several scores."""
        return max(scores, key=self.rank)

    def number(self, score: float) -> str:
        """A score as tables have it, whose heads name the unit."""
        return number(score, self.metric.unit)

    def shown(self, score: float) -> str:
        """A score with its unit."""
        return f"{self.number(score)} {self.metric.unit}".strip()

    @property
    def over_chips(self) -> str:
        """What is taken over the chips, as text."""
        if self.percentile is None:
            return "mean over chips"
        worst = f"{self._from_below(self.percentile):g}th percentile"
        return f"half the mean and half the {worst} over chips" if self.both else f"{worst} of chips"

    @property
    def better(self) -> str:
        """Which scores are the better ones, as text."""
        return "higher" if self.higher_is_better else "lower"

    def described(self) -> dict[str, Any]:
        """What a study keeps of it, for workers that come later."""
        return {"metric": self.metric.name, "unit": self.metric.unit, "better": self.better}

    def _from_below(self, percentile: float) -> float:
        return percentile if self.higher_is_better else 100 - percentile


def criterion(config: StudyConfig, metric: Metric) -> Criterion:
    """What the networks of a study are judged by.

    Args:
        config: of the study.
        metric: of its task.

    Raises:
        ValueError: the metric has no direction, or a bound on it is none.
    """
    rule = config.study
    directed = metric.directed(None, "tune")
    if rule.min_clean is not None and directed.higher_is_better is False:
        raise InvalidValueError(
            f"study.min_clean is the least clean score of a metric that is better when it is higher, and "
            f"{metric.name!r} is better when it is lower; write study.clean_limit={rule.min_clean:g}, the largest"
        )
    if rule.clean_limit is not None and metric.unit == "%" and not 0 < rule.clean_limit < 1:
        raise InvalidValueError(
            f"study.clean_limit: {metric.name!r} is a share, which is written as a number from 0 to 1, such as 0.9 "
            f"for 90 %; got {rule.clean_limit:g}"
        )
    limit, option = rule.clean_limit, "study.clean_limit"
    if rule.min_clean is not None:
        limit, option = rule.min_clean, "study.min_clean"
    time = label(seconds(config.evaluation.validation_time))
    over = rule.over_chips
    if over == "auto":
        over = "both" if rule.percentile is None else "percentile"
    percentile = None if over == "mean" else _WORST if rule.percentile is None else rule.percentile
    return Criterion(directed, time, percentile, over == "both", limit, option, rule.pareto)


def all_times(config: Config) -> tuple[str, ...]:
    """The times of the drift curve, and among them the one at which networks are judged."""
    rule = config.evaluation
    judged = seconds(rule.validation_time)
    others = [time for time in report_times(config) if seconds(time) != judged]
    return in_order((*others, rule.validation_time))
