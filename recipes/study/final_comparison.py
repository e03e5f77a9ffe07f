"""The end of a study: the tuned network beside the default one and the plain one, on chips the search never saw."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analogsim.evaluation import Metric
from analogsim.evaluation.display import heading, number, spread
from analogsim.evaluation.report import Report, clean_columns, compare_plot
from analogsim.integrations.report_scores import ends
from analogsim.recipes.config.options import Config, StudyConfig
from analogsim.recipes.config.toml import dump_toml, flatten
from analogsim.recipes.config.trial_config import training_config
from analogsim.recipes.study.criterion import Criterion, all_times
from analogsim.recipes.study.figures import importances
from analogsim.recipes.study.outcome import trial_folder
from analogsim.recipes.study.runs import StudyRuns
from analogsim.recipes.tasks.data_sets import Splits
from analogsim.recipes.tasks.networks import Model
from analogsim.recipes.tracking.log_report import log_ranges, log_report
from analogsim.recipes.tracking.run_names import run_color
from analogsim.recipes.tracking.tracker import Tracker
from analogsim.recipes.tracking.used_data import used_data
from analogsim.recipes.training.checkpoint import copy_checkpoint
from analogsim.recipes.training.loop import Training
from analogsim.utils.digests import sealed
from analogsim.utils.files import write_whole
from analogsim.utils.text import table

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

PLAIN, CONTROL, DEFAULT, TUNED = "plain", "plain, tuned optimization", "default", "tuned"
RATE = "default, tuned learning rate"
_LR = "optimization.lr"


@dataclass(frozen=True)
class Final:
    """The comparison at the end of a study.

    Attributes:
        trial: the best one.
        searched: what the search took its score for.
        validation: the tuned network on the search's data, but on fresh chips.
        reports: of each network, on test data and fresh chips, one for each training seed.
        trackers: their MLflow runs, in the same order.
    """

    trial: FrozenTrial
    searched: float
    validation: Report
    reports: dict[str, list[Report]]
    trackers: dict[str, list[Tracker]]

    @property
    def delivered(self) -> bool:
        """Whether MLflow has taken all of it."""
        return all(tracker.delivered for each in self.trackers.values() for tracker in each)


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The trial to go on with: the best that meets the bounds; of a Pareto front, the one best on the drifted chip.

    None, where no trial is complete or none meets the bounds.
    """
    if len(study.directions) > 1:
        signs = [-1 if way.name == "MINIMIZE" else 1 for way in study.directions]
        return max(
            study.best_trials,
            key=lambda trial: tuple(sign * value for sign, value in zip(signs, trial.values, strict=True))[::-1],
            default=None,
        )
    try:
        return study.best_trial
    except ValueError:
        return None


@dataclass(frozen=True)
class _Contender:
    """A network of the comparison.

    Args:
        name: in tables.
        config: how it is trained.
        folder: where it lies, but for its seed.
        trial: of the study, that trained it with the first seed; None where none did.
    """

    name: str
    config: Config
    folder: str
    trial: int | None = None

    @property
    def aware(self) -> bool:
        """Whether it is trained with noise."""
        return self.name in (DEFAULT, RATE, TUNED)


def compare(
    study: optuna.Study,
    config: StudyConfig,
    data: Splits,
    folder: Path,
    runs: StudyRuns,
    *,
    model: Model | None = None,
) -> Final | None:
    """Train or restore the networks, judge them on test data and fresh chips, and save the best one.

    Args:
        study: the study.
        config: its settings.
        data: what its networks are trained on.
        folder: its own.
        runs: the MLflow side.
        model: the network in place of what the settings name, see `Training`.

    Returns:
        The comparison; None, where the study has no best trial.
    """
    best = best_trial(study)
    if best is None:
        return None
    dump_toml(training_config(config, best.params), folder / "best.toml")
    contenders = _contenders(study, config, best)
    reports: dict[str, list[Report]] = {each.name: [] for each in contenders}
    trackers: dict[str, list[Tracker]] = {each.name: [] for each in contenders}
    validation: Report | None = None
    for seed in range(config.seed, config.seed + config.study.final_seeds):
        for each in contenders:
            path = folder / "final" / f"{each.folder}-seed{seed}" / "checkpoint.pt"
            if each.trial is not None and seed == config.seed:
                copy_checkpoint(trial_folder(folder, each.trial) / "checkpoint.pt", path)
            training = Training(replace(each.config, seed=seed), data, aware=each.aware, path=path, model=model)
            kind = "hardware-aware" if each.aware else "plain"
            name = f"{each.name}, seed {seed}"
            color = run_color(study.study_name, contenders.index(each))
            tracker = runs.final(study, name, training, {"training": kind, "network": each.name, **color})
            training.run_id = tracker.run_id or training.run_id
            with tracker:
                report = _train_and_judge(training, config, data, tracker, f"{name}, {study.study_name}")
            if each.name == TUNED and validation is None:
                validation = _judged(training, config, data.validation)
            reports[each.name].append(report)
            trackers[each.name].append(tracker)
    assert validation is not None
    return Final(best, _searched(best), validation, reports, trackers)


def _contenders(study: optuna.Study, config: StudyConfig, best: FrozenTrial) -> list[_Contender]:
    """Plain training, also with what was tuned besides the noise; the default, also at the tuned rate; the best one."""
    default = training_config(config)
    of_default = next((trial for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get("default")), None)
    found = [_Contender(PLAIN, default, "plain")]
    others = {name: value for name, value in best.params.items() if not name.startswith("noise.")}
    if others:  # how much of the gain has nothing to do with noise
        found.append(_Contender(CONTROL, training_config(config, others), f"plain-trial-{best.number:04d}"))
    found.append(_Contender(DEFAULT, default, "default", None if of_default is None else of_default.number))
    if _LR in best.params and len(best.params) > 1:  # how much of the gain is the learning rate's
        rate = training_config(config, {_LR: best.params[_LR]})
        found.append(_Contender(RATE, rate, f"rate-trial-{best.number:04d}"))
    tuned = training_config(config, best.params)
    return [*found, _Contender(TUNED, tuned, f"tuned-trial-{best.number:04d}", best.number)]


def _train_and_judge(training: Training, config: StudyConfig, data: Splits, tracker: Tracker, name: str) -> Report:
    """The network's report on test data; its files beside the checkpoint, and all of it in its run."""
    training.set_random_state()
    training.save()
    for epoch, metrics in enumerate(training.history, 1):
        tracker.metrics(metrics, step=epoch)
    while not training.done:
        tracker.metrics(training.run_epoch(lambda _: None), step=training.epoch)
    report = _judged(training, config, data.test)
    place = training.path.parent
    write_whole(place / "report.json", json.dumps(sealed(report.to_dict())))
    dump_toml(training.config, place / "config.toml")
    train_data, test_data = used_data(training.config, data)
    tracker.inputs([train_data, test_data])
    tracker.model(name, training.path, step=training.epoch)
    log_report(report, tracker, step=training.epoch, part="test", on=test_data)
    for metric in training.task.also:
        try:
            other = _judged(training, config, data.test, metric)
        except Exception as error:  # it decides nothing, and a study of hours is not lost to it
            warnings.warn(f"{metric.name} is left out of the comparison: {error}", RuntimeWarning, stacklevel=2)
        else:
            tracker.metrics(ends(other, "test"), step=training.epoch)
    log_ranges(training.analog, tracker)
    tracker.artifact(training.path, "checkpoint")
    tracker.artifact(place / "report.json")
    tracker.artifact(place / "config.toml")
    return report


def _judged(training: Training, config: StudyConfig, part: Any, metric: Metric | None = None) -> Report:
    rule = config.evaluation
    counts: dict[str, Any] = (
        rule.counts if metric is None else {"chips": rule.chips}
    )  # a precision has the metric's unit
    return training.judge(part, times=all_times(config), metric=metric, **counts)


def _searched(trial: FrozenTrial) -> float:
    return float(trial.values[-1])


def log(
    study: optuna.Study, config: StudyConfig, criterion: Criterion, final: Final, text: str, runs: StudyRuns
) -> None:
    """The result, in the study's own run."""
    step = len(study.get_trials(deepcopy=False))
    ends = {
        "best/trial": float(final.trial.number),
        "best/searched": final.searched,
        "best/fresh_chips": _score(config, criterion, final.validation),
        **{
            f"best/test_{name.replace(',', '')}": _over_seeds(config, criterion, reports)
            for name, reports in final.reports.items()
        },
        **{f"importance/{name}": value for name, value in importances(study, len(study.directions) - 1).items()},
    }
    runs.parent.metrics(ends, step=step)
    log_report(final.reports[TUNED][0], runs.parent, step=step, part="test")
    runs.parent.text(text, "report.txt")
    runs.parent.figure(compare_plot({name: reports[0] for name, reports in final.reports.items()}), "figures/drift.png")


def _over_seeds(config: StudyConfig, criterion: Criterion, reports: list[Report]) -> float:
    return float(np.mean([_score(config, criterion, report) for report in reports]))


def describe(study: optuna.Study, config: StudyConfig, criterion: Criterion, final: Final) -> str:
    """The result as text: what was searched and found, the three networks, and the search's own optimism."""
    best, metric = final.trial, criterion.metric
    weights = importances(study, len(study.directions) - 1)
    given = flatten(training_config(config))
    rows = [
        (
            name,
            _short(given[name]),
            _short(best.params[name]),
            f"{100 * weights[name]:.0f} %" if name in weights else "",
        )
        for name in sorted(best.params, key=lambda name: -weights.get(name, 0.0))
    ]
    parts = [f"best trial: {best.number}", table(("setting", "default", "tuned", "importance"), rows)]
    parts.append(_networks(final.reports))
    measured = (
        ("validation data, the search's chips", config.study.chips, final.searched),
        ("validation data, fresh chips", *_chips_and_score(config, criterion, final.validation)),
        ("test data, fresh chips", *_chips_and_score(config, criterion, final.reports[TUNED][0])),
    )
    unit = f" [{metric.unit}]" if metric.unit else ""
    parts.append(
        f"{metric.name} of the tuned network {criterion.time} after programming{unit}, {criterion.over_chips}:\n"
        + table(
            ("measured on", "chips", metric.name),
            [(where, str(chips), criterion.number(score)) for where, chips, score in measured],
        )
    )
    if criterion.pareto:
        parts.append(
            f"clean against drifted {heading(metric.name, metric.unit)}, the front:\n" + _front(study, criterion)
        )
    return "\n\n".join(parts)


def why_none(study: optuna.Study, criterion: Criterion) -> str:
    """Why there is no best trial."""
    clean = [trial.user_attrs["clean"] for trial in study.get_trials(deepcopy=False) if "clean" in trial.user_attrs]
    if not clean:
        return "no trial is complete, so there is nothing to compare"
    assert criterion.limit is not None
    best, easier = ("highest", "lower") if criterion.higher_is_better else ("lowest", "higher")
    return (
        f"no trial reaches the clean {criterion.metric.name} of {criterion.option}={criterion.limit:g}; the {best} is "
        f"{criterion.best(clean):.4f}: set a {easier} bound, or search elsewhere"
    )


def _networks(reports: Mapping[str, list[Report]]) -> str:
    first = next(iter(reports.values()))[0]
    unit = first.unit
    names = clean_columns(report for each in reports.values() for report in each)
    head = ("network", "seed", *names, *first.labels, f"{first.tail_label} {first.labels[-1]}")
    rows = []
    for name, each in reports.items():
        for index, report in enumerate(each):
            cells = [spread(mean, std, unit) for mean, std in zip(report.mean, report.std, strict=True)]
            worst = number(float(report.quantile(report.tail)[-1]), unit)
            clean = [number(getattr(report, name), unit) for name in names]
            rows.append((name, str(index), *clean, *cells, worst))
        if len(each) > 1:
            scores = [np.array([getattr(report, name) for report in each]) for name in names]
            clean = [spread(score.mean(), score.std(ddof=1), unit) for score in scores]
            means = np.array([report.mean for report in each])
            cells = [spread(m, s, unit) for m, s in zip(means.mean(0), means.std(0, ddof=1), strict=True)]
            rows.append((name, "all", *clean, *cells, ""))
    what = f"test {first.heading} on fresh chips: mean ± std over chips; seed all: mean ± std over training seeds"
    return f"{what}\n{table(head, rows, right=2)}\n{first.described}"


def _front(study: optuna.Study, criterion: Criterion) -> str:
    front = sorted(study.best_trials, key=lambda trial: -criterion.rank(trial.values[0]))
    names = sorted({name for trial in front for name in trial.params})
    rows = [
        (
            str(trial.number),
            *map(criterion.number, trial.values),
            *(_short(trial.params[name]) for name in names),
        )
        for trial in front
    ]
    return table(("trial", "clean", "drifted", *names), rows, right=0)


def _score(config: StudyConfig, criterion: Criterion, report: Report) -> float:
    return criterion.value(report.at(config.evaluation.validation_time))


def _chips_and_score(config: StudyConfig, criterion: Criterion, report: Report) -> tuple[int, float]:
    return len(report.seeds), _score(config, criterion, report)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
