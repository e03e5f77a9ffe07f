"""One trial of a study: train a network with the suggested settings, prune it if it falls behind, judge it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analogsim.errors import InvalidValueError, NonFiniteError
from analogsim.evaluation.report import Report
from analogsim.integrations.metric_names import drifted, score_name
from analogsim.integrations.report_scores import clean_scores
from analogsim.recipes.config.options import Config, StudyConfig
from analogsim.recipes.config.space import suggest
from analogsim.recipes.config.trial_config import training_config
from analogsim.recipes.study.criterion import Criterion, all_times
from analogsim.recipes.study.optuna_private import earlier_numbers
from analogsim.recipes.study.outcome import Outcome, trial_folder
from analogsim.recipes.study.runs import StudyRuns
from analogsim.recipes.study.trials import surplus
from analogsim.recipes.tasks.data_sets import Splits
from analogsim.recipes.tasks.networks import Model
from analogsim.recipes.training.checkpoint import copy_checkpoint
from analogsim.recipes.training.loop import DivergedError, Training
from analogsim.utils.digests import sealed
from analogsim.utils.files import write_whole

if TYPE_CHECKING:
    import optuna

# Apart from the chips of the metrics after each epoch and from those of final evaluations, which start at 0.
SEARCH_CHIPS = 2_000_000
CLEAN = "clean"


class Surplus(Exception):  # noqa: N818 - not an error: the study has all the trials it wants
    """This trial is one too many."""


class Objective:
    """Trains and judges a network for each trial; Optuna calls it.

    Args:
        config: what is trained, searched and how.
        data: what it is trained on.
        criterion: what networks are judged by.
        runs: the MLflow side.
        folder: gives the folder of a study; each trial has one in it.
        wanted: trials in all; None leaves their number to the study.
        model: the network in place of what the settings name, see `Training`.

    Attributes:
        config, data, criterion, runs, folder, model: as given.
        notes: what was decided of the weights that networks start from, for people to read.
        number: of the trial at work, or of the last one.
        lost: whether the others gave that trial to somebody else meanwhile.
        ended: whether it came to an end, of which only Optuna has to be told.
        begun: the number of the trial that Optuna called it with last, also of one that was one too many.
        raised: what ended that trial but for pruning; Optuna hides it where the storage does not take that it failed.
    """

    def __init__(
        self,
        config: StudyConfig,
        data: Splits,
        criterion: Criterion,
        runs: StudyRuns,
        folder: Callable[[optuna.Study], Path],
        *,
        wanted: int | None = None,
        model: Model | None = None,
    ) -> None:
        self.config = config
        self.runs = runs
        self.folder = folder
        self.data = data
        self.criterion = criterion
        self.model = model
        self.notes: list[str] = []
        self.distributions = config.search.distributions(Config)
        self._wanted = wanted
        self.number: int | None
        self.lost: bool
        self.ended: bool
        self.begun: int | None
        self.raised: BaseException | None
        self.forget()

    def forget(self) -> None:
        """Begin anew: no trial is at work."""
        self.number, self.lost, self.ended = None, False, False
        self.begun, self.raised = None, None

    def __call__(self, trial: optuna.Trial) -> float | tuple[float, float]:
        """The trial's value: the drifted score, or for a Pareto study clean and drifted score.

        Raises:
            TrialPruned: it fell behind, or training diverged.
            ValueError: the study has not the direction of the metric, or not two for a Pareto study.
        """
        import optuna

        self.begun = trial.number
        try:
            return self._value(trial)
        except (Surplus, optuna.TrialPruned):
            raise
        except BaseException as error:
            self.raised = error
            raise

    def _value(self, trial: optuna.Trial) -> float | tuple[float, float]:
        import optuna

        if self._wanted is not None and surplus(trial.study, trial.number, self._wanted):
            raise Surplus
        self.number = trial.number
        rule, ways = self.criterion, [way.name.lower() for way in trial.study.directions]
        if ways != rule.directions:
            raise InvalidValueError(
                f"objective: the study must {rule.direction} {len(rule.names)} value(s), {' and '.join(rule.names)}; "
                f"make it with optuna.create_study(directions={rule.directions}), got {ways}"
            )
        config = training_config(self.config, suggest(self.distributions, trial))
        self.runs.join(trial.study)
        of_study = self.folder(trial.study)
        folder = trial_folder(of_study, trial.number)
        frozen = trial.study.get_trials(deepcopy=False)[trial.number]
        earlier = earlier_numbers(frozen)
        for number in reversed(earlier):  # of workers that died or were stopped, if here: go on where the last one was
            if copy_checkpoint(trial_folder(of_study, number) / "checkpoint.pt", folder / "checkpoint.pt"):
                break
        training = Training(config, self.data, aware=True, path=folder / "checkpoint.pt", model=self.model)
        self.notes += [note for note in training.notes if note not in self.notes]
        outcome = Outcome(trial.number, folder=str(folder.absolute()))
        began = time.monotonic()
        try:
            with self.runs.trial(trial, outcome, training) as tracker:
                training.run_id = tracker.run_id or None
                try:
                    self._train(trial, training, tracker)
                    report = self._judge(training)
                    values = self._tell(trial, report, time.monotonic() - began)
                except optuna.TrialPruned as stop:
                    outcome.state, outcome.why = "PRUNED", str(stop)
                    self.ended = True
                    raise
                except optuna.exceptions.UpdateFinishedTrialError:
                    outcome.why = "others took its worker for dead"
                    raise
                write_whole(folder / "report.json", json.dumps(sealed(report.to_dict())))
                outcome.state = "COMPLETE"
                outcome.metrics = {"seconds": time.monotonic() - began}
                if not self.config.study.pareto:
                    outcome.metrics["objective"] = values[-1]
        except optuna.exceptions.UpdateFinishedTrialError:
            self.lost = True
            raise
        self.ended = True
        return values if self.config.study.pareto else values[-1]

    def finish(self, study: optuna.Study) -> None:
        """Draw a study of your own into its MLflow run, and end that run."""
        self.runs.send_unsent(study)
        self.runs.log_progress(study)
        self.runs.parent.end()

    def _train(self, trial: optuna.Trial, training: Training, tracker: Any) -> None:
        import optuna

        training.set_random_state()
        training.save()
        name = score_name("validation", self.criterion.metric.name, drifted(self.criterion.time))
        for epoch, metrics in enumerate(training.history, 1):
            self._report(trial, metrics[name], epoch)
        while not training.done:
            try:
                metrics = training.run_epoch(lambda _: None)
            except DivergedError as error:
                raise optuna.TrialPruned(f"diverged: {error}") from error
            self._report(trial, metrics[name], training.epoch)  # first: fails where the trial is another worker's now
            tracker.metrics(metrics, step=training.epoch)
            if not self.config.study.pareto and not training.done and trial.should_prune():
                raise optuna.TrialPruned(f"behind after epoch {training.epoch}")

    def _report(self, trial: optuna.Trial, value: float, epoch: int) -> None:
        if not self.config.study.pareto:  # Optuna takes none for several objectives
            trial.report(value, epoch)

    def _judge(self, training: Training) -> Report:
        """The network's report on the chips of the search."""
        import optuna

        try:
            return training.judge(
                self.data.validation,
                chips=self.config.study.chips,
                times=all_times(self.config),
                seed=SEARCH_CHIPS,
            )
        except NonFiniteError as error:  # of a perplexity, say, that is beyond all numbers
            raise optuna.TrialPruned(f"diverged: {error}") from error

    def _tell(self, trial: optuna.Trial, report: Report, took: float) -> tuple[float, float]:
        import optuna

        scores = report.at(self.config.evaluation.validation_time)
        value = self.criterion.value(scores)
        if not (math.isfinite(value) and math.isfinite(report.clean)):  # for Optuna NaN is a failure, to be tried again
            raise optuna.TrialPruned(f"its {self.criterion.metric.name} is {report.clean:g} clean, {value:g} drifted")
        attributes = {
            **clean_scores(report),
            "drifted": value,
            "std_over_chips": float(scores.std(ddof=1)) if len(scores) > 1 else 0.0,
            "seconds": took,
        }
        for name, number in attributes.items():
            trial.set_user_attr(name, number)
        excess = self.criterion.excess(report.clean)
        if excess is not None:
            trial.set_constraint(CLEAN, excess)
        return report.clean, value
