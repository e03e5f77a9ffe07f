"""Evaluate a trained network again: another device or crossbar, more chips, other times, or part by part.

analogsim evaluate runs/20260101-120000-digits-lenet5-pcm --device "gaussian(std=0.05)" --chips 100
analogsim evaluate runs/20260101-120000-digits-lenet5-pcm --crossbar standard --ablate
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Unpack

import analogsim
from analogsim.evaluation.ablation import Ablation
from analogsim.evaluation.report import Report
from analogsim.recipes.training.restored import Asked, judging, restored


def evaluate(
    path: Path, *, show: bool = True, tell: Callable[[str], None] = lambda _: None, **asked: Unpack[Asked]
) -> dict[str, Report]:
    """Evaluate the networks of a run on their test data.

    Args:
        path: a run's folder, or one checkpoint file.
        show: progress bars.
        tell: told a line where ranges of converters are not those of the run.
        asked: see `Asked`.

    Returns:
        A report for each network, by its name.

    Raises:
        ValueError: what is asked for cannot be.

    Warns:
        UserWarning: the training of a network was stopped before its end.
    """
    return {
        name: analogsim.evaluate(network.analog, network.test, progress=show, **judging(network, asked))
        for name, network in restored(path, asked, tell)
    }


def ablate(path: Path, *, tell: Callable[[str], None] = lambda _: None, **asked: Unpack[Asked]) -> dict[str, Ablation]:
    """Evaluate the networks of a run with each non-ideality switched off in turn, see `analogsim.ablate`.

    Args:
        path: see `evaluate`, as for all that follow, what is raised and warned.
        tell: told a line.
        asked: how.
    """
    return {
        name: analogsim.ablate(network.analog, network.test, **judging(network, asked))
        for name, network in restored(path, asked, tell)
    }
