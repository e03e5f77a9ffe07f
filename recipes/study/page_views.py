"""How MLflow's page of runs shows a study: its trials, the best first, and the networks compared at its end."""

from __future__ import annotations

from analogsim.integrations.metric_names import drifted, score_name, tail
from analogsim.recipes.config.options import StudyConfig
from analogsim.recipes.study.criterion import Criterion
from analogsim.recipes.tracking.links import Stored, run_link, ui_command
from analogsim.recipes.tracking.page_views import as_tag, coordinates, curve, metric, param, state, tag, view_link
from analogsim.recipes.training.setup import report_times
from analogsim.utils.times import label, seconds


def view_tags(config: StudyConfig, criterion: Criterion, name: str, parent: str) -> dict[str, str]:
    """The experiment's tags that keep the two views of a study.

    Args:
        config: of the study.
        criterion: what its networks are judged by.
        name: of the study.
        parent: the id of its MLflow run.
    """
    judged = drifted(criterion.time)
    last = drifted(label(max(map(seconds, report_times(config)))))
    worst = tail(criterion.tail)

    def score(part: str, end: str) -> str:
        return score_name(part, criterion.metric.name, end)

    below = f"tags.mlflow.parentRunId = '{parent}'"
    ends = ["clean", *dict.fromkeys((judged, last))]
    searched = [setting for setting, _ in config.search.parts]
    values = [score("search", end) for end in ends]
    goals = values[:2] if config.study.pareto else ["objective"]
    trials = state(
        f"study {name}",
        f"{below} and tags.role = 'trial'",
        [*map(metric, dict.fromkeys([*goals, *values])), tag("optuna.trial.state"), *map(param, searched)],
        [
            curve(score("search", "drift"), log=True),
            coordinates(searched, goals),
            curve(score("validation", judged)),
        ],
        order=metric(goals[-1]),
        lowest_first=not criterion.higher_is_better,
    )
    tested = [score("test", end) for end in [*ends, f"{last}_{worst}"]]
    curves = [curve(score("test", name), log=True) for name in ("drift", f"drift_{worst}")]
    finals = state(
        f"comparison of {name}",
        f"{below} and tags.role = 'final'",
        [tag("network"), param("seed"), *map(metric, tested), *map(param, searched)],
        [curves[0], coordinates(["training", *searched], tested[:2]), *curves[1:], curve("train/loss")],
        order=metric(tested[1]),
        lowest_first=not criterion.higher_is_better,
    )
    views = {_trials(parent): (name, trials), _finals(parent): (f"{name}: comparison", finals)}
    return dict(as_tag(key, shown, content) for key, (shown, content) in views.items())


def study_links(run: Stored) -> str:
    """Where to look at a study, and the command that serves it if one is needed."""
    command = ui_command(run.uri)
    rows = [
        ("the study", run_link(run)),
        ("its trials", view_link(run, _trials(run.run_id))),
        ("as charts", view_link(run, _trials(run.run_id), charts=True)),
        ("comparison", view_link(run, _finals(run.run_id), charts=True)),
    ]
    return "\n".join([*([command] if command else []), *(f"{what:<10}  {link}" for what, link in rows)])


def _trials(parent: str) -> str:
    return f"study-{parent}"


def _finals(parent: str) -> str:
    return f"final-{parent}"
