"""Figures of a study, drawn by Optuna."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure

_LEAST = 4  # complete trials, for importances to mean something


def importances(study: optuna.Study, objective: int = 0) -> dict[str, float]:
    """How much of the variance of an objective each setting explains; empty where too few trials are complete."""
    import optuna

    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(complete) < _LEAST or len({trial.values[objective] for trial in complete}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return optuna.importance.get_param_importances(study, target=_value(objective))
        except (RuntimeError, ValueError):  # no setting varied among the complete trials
            return {}


def figures(study: optuna.Study, names: Sequence[str]) -> Iterator[tuple[str, Figure]]:
    """Each figure that the trials so far allow, with the path it is kept under.

    Args:
        study: of one objective or two.
        names: of the objectives.
    """
    import optuna

    if not study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
        return
    draw = optuna.visualization.matplotlib
    many = len(study.directions) > 1
    if many:
        yield from _drawn("pareto_front", partial(draw.plot_pareto_front, study, target_names=list(names)))
    else:
        yield from _drawn("intermediate_values", partial(draw.plot_intermediate_values, study))
    for index, name in enumerate(names):
        end = f"_{file_name(name)}" if many else ""
        options: dict[str, Any] = {"target_name": name} | ({"target": _value(index)} if many else {})
        yield from _drawn(f"history{end}", partial(draw.plot_optimization_history, study, **options))
        if importances(study, index):
            yield from _drawn(f"importances{end}", partial(draw.plot_param_importances, study, **options))
            yield from _drawn(f"slices{end}", partial(draw.plot_slice, study, **options))


def file_name(name: str) -> str:
    """The name of an objective as part of a path."""
    return "".join(letter if letter.isalnum() or letter in " -_." else "_" for letter in name)


def _value(index: int) -> Callable[[Any], float]:
    return lambda trial: float(trial.values[index])


def _drawn(name: str, draw: Callable[[], Any]) -> Iterator[tuple[str, Figure]]:
    from matplotlib import pyplot, rc_context

    # Optuna's figures choose a style for all of matplotlib, which our own are not to be drawn in.
    with rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna marks these as experimental; colour bars do not take part in layouts
        axes = draw()
        figure = getattr(axes, "figure", None) or axes.flat[0].figure  # several panels come as an array
        figure.set_size_inches(max(figure.get_figwidth(), 9), 5)
        figure.tight_layout()
    yield f"figures/{name}.png", figure
    pyplot.close(figure)
