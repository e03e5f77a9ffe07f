"""What an answer of a wanted precision takes: chips on part of the data beside chips on all of them.

A checkpoint of ``analogsim train`` is evaluated with ``samples_per_chip="auto"`` until the mean is known that well at
every time, as often as is wanted, on other chips each time. Told are the samples that went through the network, beside
those of as many chips on all the data as the same precision takes; the time of this process; and, beside what a number
of chips on all the data say, how far off mean and percentile are and how often the intervals hold them. Those chips are
evaluated here, or come from a report of ``analogsim evaluate CHECKPOINT --chips N --json FILE``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import norm

import analogsim
from analogsim.errors import InvalidValueError
from analogsim.evaluation.report import Report
from analogsim.recipes.training.restored import Asked, judging, restored
from analogsim.utils.text import table

_APART = 1_000_000  # seeds of a repetition begin so far from those of the last: no chip is in two


@dataclass(frozen=True)
class Answer:
    """One evaluation on part of the data.

    Args:
        report: what came of it.
        seconds: of this process's CPU.
    """

    report: Report
    seconds: float

    @property
    def samples(self) -> int:
        """How many went through the network, at all times together."""
        if self.report.sampled is None:
            raise InvalidValueError("precision: the report is of chips on all the data")
        return int(self.report.sampled.asked.sum())


def chips_in_full(truth: Report, precision: float) -> int:
    """How many chips on all the data a precision of the mean takes at the time at which they differ most."""
    factor = float(norm.ppf(0.975))
    return max(2, math.ceil((factor * float(truth.std.max()) / precision) ** 2))


def held(answer: Report, truth: Report, q: float) -> tuple[Any, Any]:
    """Whether the intervals of mean and quantile hold what other chips say, within what those may be off themselves.

    An interval is moved apart by the error of the truth: it is to hold a difference of two estimates.

    Args:
        answer: on part of the data.
        truth: on all of them, of other chips.
        q: which quantile.
    """
    found = []
    for middle, interval, true, range_of_it in (
        (answer.mean, answer.interval(), truth.mean, truth.interval()),
        (answer.known_quantile(q), answer.quantile_interval(q), truth.quantile(q), truth.quantile_interval(q)),
    ):
        half = np.hypot((interval[1] - interval[0]) / 2, (range_of_it[1] - range_of_it[0]) / 2)
        found.append(np.where(np.isnan(half), np.nan, np.abs(middle - true) <= half))
    return found[0], found[1]


def tell(truth: Report, answers: Sequence[Answer], precision: float) -> str:
    """What the answers took, and what they are worth.

    Args:
        truth: of chips on all the data.
        answers: on part of them.
        precision: that they were to have.
    """
    full = chips_in_full(truth, precision)
    passes = full * len(truth.times) * truth.samples
    shares = [answer.samples / passes for answer in answers]
    chips = [len(answer.report.seeds) for answer in answers]
    lines = [
        f"{truth.device}, precision {100 * precision:g} points at {', '.join(truth.labels)}, {truth.samples} samples",
        f"on all the data: {full} chips, {passes:,} samples through the network",
        f"on part of them: {_span(chips)} chips, {_span([answer.samples for answer in answers])} samples, "
        f"{_span([100 * share for share in shares], '.1f')} % of those; "
        f"{_span([answer.seconds for answer in answers], '.0f')} s of one process",
        "",
    ]
    q = truth.tail
    within = [held(answer.report, truth, q) for answer in answers]
    rows = []
    for index, label in enumerate(truth.labels):
        mean = [100 * (answer.report.mean - truth.mean)[index] for answer in answers]
        std = [100 * answer.report.std[index] for answer in answers]
        tail = [100 * (answer.report.known_quantile(q) - truth.quantile(q))[index] for answer in answers]
        sure = [100 * np.diff(answer.report.quantile_interval(q), axis=0)[0, index] / 2 for answer in answers]
        rows.append(
            (
                f"after {label}",
                f"{100 * truth.mean[index]:.2f} ± {100 * truth.std[index]:.2f}",
                _span(mean, "+.3f"),
                f"{np.mean([each[0][index] for each in within]):.0%}",
                _span(std, ".2f"),
                _span(tail, "+.2f"),
                _span(sure, ".2f"),
                f"{_share([each[1][index] for each in within])}",
            )
        )
    head = ("accuracy [points]", f"{len(truth.seeds)} chips", "mean off", "held", "std", truth.tail_label, "±", "held")
    return "\n".join(lines) + table(head, rows)


def _share(flags: Sequence[float]) -> str:
    """How many of what is known is true."""
    known = [flag for flag in flags if not math.isnan(flag)]
    return f"{np.mean(known):.0%}" if known else "?"


def _span(values: Sequence[float], form: str = ",") -> str:
    """Least and largest of what is known."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "?"
    ends = dict.fromkeys(format(value, form) for value in (min(known), max(known)))
    return " to ".join(ends)


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate a network again and again, and print what that takes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--precision", type=float, default=0.0005, help="of the mean (default: 0.0005, 0.05 points)")
    parser.add_argument("--chips", type=int, default=200, help="chips on all the data (default: 200)")
    parser.add_argument("--truth", type=Path, metavar="FILE", help="a report on all the data, in place of these")
    parser.add_argument("--repeats", type=int, default=1, help="evaluations on part of the data (default: 1)")
    parser.add_argument("--times", default="1s,1h,1d,1mo,1y", help="since programming (default: 1s,1h,1d,1mo,1y)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    asked: Asked = {"times": options.times.split(","), "chips": options.chips, "trust": True}
    ((_, network),) = restored(options.checkpoint, asked, print, "precision")
    evaluate = partial(analogsim.evaluate, network.analog, network.test, clean=network.clean)
    given = judging(network, asked)
    truth = evaluate(**given) if options.truth is None else _stored(options.truth)
    answers = []
    for repeat in range(options.repeats):
        begun = time.process_time()
        seed = (repeat + 1) * _APART
        how = given | {"chips": None, "precision": options.precision, "samples_per_chip": "auto", "seed": seed}
        answers.append(Answer(evaluate(**how), time.process_time() - begun))
    print(tell(truth, answers, options.precision))
    print(f"\ntorch {torch.__version__}, {len(answers)} evaluations")
    return 0


def _stored(file: Path) -> Report:
    """The only report of a file."""
    (stored,) = json.loads(file.read_text(encoding="utf-8")).values()
    return Report.from_dict(stored)


if __name__ == "__main__":
    raise SystemExit(main())
