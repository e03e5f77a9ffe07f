from __future__ import annotations

import json
import re
import shutil
import threading
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import analogsim
from analogsim.evaluation.report import Report
from analogsim.recipes import tune
from analogsim.recipes.config.options import Config, StudyConfig
from analogsim.recipes.config.toml import load_toml
from analogsim.recipes.evaluate import evaluate
from analogsim.recipes.study.objectives import SEARCH_CHIPS
from analogsim.recipes.tasks import data_sets
from analogsim.recipes.train import train
from analogsim.recipes.training.checkpoint import load_checkpoint
from analogsim.recipes.training.loop import DivergedError, Training
from analogsim.recipes.training.setup import load_data
from analogsim.recipes.tune import configure, objective
from analogsim.recipes.tune import tune as run_study

optuna = pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")
State = optuna.trial.TrialState

SETTINGS = [
    "model=mlp",
    "data.limit=200",
    "data.batch_size=16",
    "data.validation=0.3",
    "optimization.epochs=3",
    "optimization.lr=0.02",
    "evaluation.chips=2",
    'evaluation.times=["1s", "1d"]',
    "evaluation.validation_chips=1",
    "study.chips=2",
    "study.heartbeat=2",
    "study.pruner='median(n_startup_trials=2, n_warmup_steps=0)'",
    "search={noise={end={low=0.5, high=8.0}, shape=['linear', 'constant']}}",
    "search.optimization.lr={low=0.0001, high=0.05, log=true}",
]


def config(*overrides: str, tracking: bool = False) -> StudyConfig:
    return configure(settings=[*SETTINGS, f"tracking.enabled={str(tracking).lower()}", *overrides])


@dataclass(frozen=True)
class Ended:
    """A study from start to end, with MLflow, and what was told on the way."""

    place: Path
    config: StudyConfig
    result: tune.Tuned
    lines: list[str]

    @property
    def folder(self) -> Path:
        return self.place / self.result.folder

    @property
    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{self.place}/mlflow.db")

    def runs(self, role: str) -> list[Any]:
        found = self.client.search_runs(["1"], filter_string=f"tags.role = '{role}'")
        return sorted(found, key=lambda run: int(run.data.tags.get("optuna.trial.number", 0)))


@pytest.fixture(scope="session")
def ended(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    place = tmp_path_factory.mktemp("study")
    shutil.copy(migrated, place / "mlflow.db")
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "OPTUNA_STORAGE"):
            patch.delenv(name, raising=False)
        patch.chdir(place)
        settings = config("study.trials=7", "study.final_seeds=2", "study.over_chips=mean", tracking=True)
        return Ended(place, settings, run_study(settings, show=lines.append), lines)


@pytest.fixture(autouse=True)
def no_storage_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)


def states(study: Any) -> Counter[str]:
    return Counter(trial.state.name for trial in study.get_trials())


def test_it_does_the_trials_that_were_asked_for(ended: Ended) -> None:
    study = ended.result.study
    assert sum(states(study).values()) == 7
    assert set(states(study)) == {"COMPLETE", "PRUNED"}
    assert study.trials[0].params == {"noise.end": 1.0, "noise.shape": "linear", "optimization.lr": 0.02}
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 7
    told = [line for line in ended.lines if line.startswith("trial ")]
    assert [line.split()[1] for line in told] == [str(number) for number in range(7)]
    for trial in study.trials:
        epochs = sorted(trial.intermediate_values)
        assert epochs == list(range(1, len(epochs) + 1))
        assert (len(epochs) == 3) == (trial.state == State.COMPLETE)


def test_a_trial_is_worth_what_its_network_keeps_on_the_chips_of_the_search(ended: Ended) -> None:
    best = ended.result.study.best_trial
    path = ended.folder / f"trial-{best.number:04d}" / "checkpoint.pt"
    of_trial = load_toml(Config, path.with_name("config.toml"))
    assert of_trial.noise.end == best.params["noise.end"]
    data = load_data(of_trial)
    training = Training(of_trial, data, aware=True, path=path)
    report = analogsim.evaluate(
        training.analog, data_sets.batches(data.validation, 1000), chips=2, times=("1d",), seed=SEARCH_CHIPS
    )
    assert best.value == pytest.approx(report.values.mean(), abs=1e-12)
    assert best.user_attrs["clean"] == pytest.approx(report.clean)


def test_the_end_is_judged_on_other_chips_and_other_data(ended: Ended) -> None:
    final = ended.result.final
    assert final is not None
    assert list(final.reports) == [
        "plain",
        "plain, tuned optimization",
        "default",
        "default, tuned learning rate",
        "tuned",
    ]
    for reports in final.reports.values():
        assert [report.seeds for report in reports] == [(0, 1), (0, 1)]
        assert {report.samples for report in reports} == {200}
    assert final.validation.seeds == (0, 1)
    assert 0 < final.validation.samples == len(load_data(ended.config).validation)
    assert not np.array_equal(final.validation.values, final.reports["tuned"][0].values)
    assert final.searched == ended.result.study.best_value
    # restored, not trained again: the very weights of the trial
    number = ended.result.study.best_trial.number
    trial = load_checkpoint(ended.folder / f"trial-{number:04d}" / "checkpoint.pt")
    tuned = load_checkpoint(ended.folder / "final" / f"tuned-trial-{number:04d}-seed0" / "checkpoint.pt")
    assert all(torch.equal(trial["model"][key], tuned["model"][key]) for key in trial["model"])
    assert trial["run_id"] != tuned["run_id"]
    # the control differs from plain in the optimiser alone
    control = load_checkpoint(ended.folder / "final" / f"plain-trial-{number:04d}-seed1" / "checkpoint.pt")
    assert not control["aware"]
    assert control["config"]["optimization"]["lr"] == ended.result.study.best_params["optimization.lr"]
    assert control["config"]["noise"]["end"] == 1.0


def test_the_result_is_saved_and_can_be_trained_again(ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ended.place)
    best = load_toml(Config, ended.folder / "best.toml")
    result = train(replace(best, baseline=False, tracking=replace(best.tracking, enabled=False)), show=False)
    final = ended.result.final
    assert final is not None
    np.testing.assert_array_equal(result.reports["hardware-aware"].values, final.reports["tuned"][0].values)
    number = ended.result.study.best_trial.number
    again = evaluate(ended.folder / "final" / f"tuned-trial-{number:04d}-seed0" / "checkpoint.pt", show=False)
    np.testing.assert_array_equal(next(iter(again.values())).values, final.reports["tuned"][0].values)
    assert (ended.folder / "report.txt").read_text().strip() == str(ended.result)
    assert (ended.folder / "drift.png").stat().st_size > 5000
    assert load_toml(StudyConfig, ended.folder / "study.toml") == ended.config


def test_the_text_says_what_was_found(ended: Ended) -> None:
    text = str(ended.result)
    final = ended.result.final
    assert final is not None
    assert f"best trial: {final.trial.number}" in text
    for name in final.reports:
        (row,) = re.findall(rf"^{name} +0 +(.*)$", text, re.MULTILINE)
        assert row.split()[0] == f"{100 * final.reports[name][0].clean:.2f}"
        (both,) = re.findall(rf"^{name} +all +([\d.]+) ± ([\d.]+)", text, re.MULTILINE)
        clean = [report.clean for report in final.reports[name]]
        assert both == (f"{100 * np.mean(clean):.2f}", f"{100 * np.std(clean, ddof=1):.2f}")
    assert re.search(rf"validation data, the search's chips +2 +{100 * final.searched:.2f}", text)
    on_test = 100 * final.reports["tuned"][0].at("1d").mean()
    assert re.search(rf"test data, fresh chips +2 +{on_test:.2f}", text)


def test_every_trial_is_a_run_below_the_study(ended: Ended) -> None:
    (parent,) = ended.runs("study")
    children = ended.runs("trial")
    assert [int(run.data.tags["optuna.trial.number"]) for run in children] == list(range(7))
    for run, trial in zip(children, ended.result.study.trials, strict=True):
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["optuna.trial.state"] == trial.state.name
        assert run.info.status == {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}[trial.state.name]
        assert run.info.run_name == f"trial {trial.number}"
        assert float(run.data.params["noise.end"]) == trial.params["noise.end"]
        history = ended.client.get_metric_history(run.info.run_id, "validation/accuracy/drifted_1d")
        assert sorted((point.step, point.value) for point in history) == sorted(trial.intermediate_values.items())
        if trial.state == State.COMPLETE:
            assert run.data.metrics["objective"] == trial.value
            drift = ended.client.get_metric_history(run.info.run_id, "search/accuracy/drift")
            assert sorted(point.step for point in drift) == [1, 86400]
            assert run.data.metrics["search/accuracy/drifted_1d"] == pytest.approx(trial.value)
        else:
            assert "behind after epoch" in run.data.tags["optuna.trial.why"]
    finals = ended.runs("final")
    assert Counter(run.data.tags["network"] for run in finals) == dict.fromkeys(ended.result.final.reports, 2)  # type: ignore[union-attr]
    assert {run.info.status for run in finals} == {"FINISHED"}
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in finals)


def test_the_study_s_own_run_holds_the_whole(ended: Ended) -> None:
    (parent,) = ended.runs("study")
    study, final = ended.result.study, ended.result.final
    assert final is not None
    assert parent.info.status == "FINISHED"
    history = ended.client.get_metric_history(parent.info.run_id, "objective")
    complete = {trial.number: trial.value for trial in study.trials if trial.state == State.COMPLETE}
    assert {point.step: point.value for point in history} == complete
    assert len(history) == len(complete)
    assert parent.data.metrics["best/searched"] == study.best_value
    assert parent.data.metrics["best/trial"] == study.best_trial.number
    mean = np.mean([report.at("1d").mean() for report in final.reports["tuned"]])
    assert parent.data.metrics["best/test_tuned"] == pytest.approx(mean)
    assert parent.data.params["search.noise.end"] == "0.5 to 8"
    figures = {each.path for each in ended.client.list_artifacts(parent.info.run_id, "figures")}
    assert {"figures/history.png", "figures/intermediate_values.png", "figures/drift.png"} <= figures
    table = json.loads(Path(ended.client.download_artifacts(parent.info.run_id, "trials.json")).read_text())
    assert len(table["data"]) == 7
    assert {"number", "state", "value_drifted accuracy", "params_noise.end", "user_attrs_clean"} <= set(
        table["columns"]
    )
    tables = json.loads(ended.client.get_run(parent.info.run_id).data.tags["mlflow.loggedArtifacts"])
    assert {"path": "trials.json", "type": "table"} in tables


@pytest.mark.filterwarnings("ignore:the MLflow database .* was moved")  # as it was, with the folder
def test_the_same_command_again_changes_nothing(ended: Ended, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    shutil.copytree(ended.place, place)
    monkeypatch.chdir(place)
    copied = replace(ended, place=place)
    before = {run.info.run_id: run.data.metrics for role in ("study", "trial", "final") for run in copied.runs(role)}
    again = run_study(tune.load(None, ["study.name=digits-mlp-pcm"]))
    assert str(again) == str(ended.result)
    after = {run.info.run_id: run.data.metrics for role in ("study", "trial", "final") for run in copied.runs(role)}
    assert after == before
    assert len(again.study.trials) == 7


def test_a_study_is_extended(ended: Ended, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    shutil.copytree(ended.place, place)
    monkeypatch.chdir(place)
    # the artifacts' place is fixed in the copied database; only the counts matter here
    longer = tune.load(
        None, ["study.name=digits-mlp-pcm", "study.trials=9", "tracking.enabled=false", "study.final_seeds=1"]
    )
    assert longer.search == ended.config.search
    result = run_study(longer)
    assert len(result.study.trials) == 9
    assert [trial.params for trial in result.study.trials[:7]] == [trial.params for trial in ended.result.study.trials]
    assert result.final is not None
    assert result.folder == ended.result.folder


def test_another_search_under_the_same_name_is_refused(ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ended.place)
    for change, words in (
        (["study.over_chips=mean", "noise.ramp=0.1"], "begun with noise.ramp=0.5, now it is 0.1"),
        (["study.percentile=5"], "begun with study.percentile=None, now it is 5.0"),
        (
            ["study.over_chips=mean", "search.noise.end={low=1, high=2}"],
            "begun with search=noise.end: 0.5 to 8.*now it is .*1 to 2",
        ),
    ):
        with pytest.raises(ValueError, match=rf"study 'digits-mlp-pcm' was {words}.*another name with --study"):
            run_study(configure(settings=[*SETTINGS, *change]))
    assert len(optuna.load_study(study_name="digits-mlp-pcm", storage="sqlite:///optuna.db").trials) == 7


def test_a_study_that_others_made_is_left_alone(alone: Path) -> None:
    study = optuna.create_study(storage="sqlite:///optuna.db", study_name="digits-mlp-pcm", direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(ValueError, match="'digits-mlp-pcm' is a study that analogsim tune did not begin"):
        run_study(config())


def test_an_old_folder_of_another_study_is_left_alone(alone: Path) -> None:
    first = run_study(config("study.trials=1"))
    (alone / "optuna.db").unlink()
    second = run_study(config("study.trials=1"))
    assert [first.folder.name, second.folder.name] == ["digits-mlp-pcm", "digits-mlp-pcm-2"]


def test_the_front_of_clean_against_drifted(alone: Path) -> None:
    result = run_study(config("study.pareto=true", "study.trials=4"))
    assert [way.name for way in result.study.directions] == ["MAXIMIZE", "MAXIMIZE"]
    assert set(states(result.study)) == {"COMPLETE"}
    for trial in result.study.trials:
        assert trial.values == [trial.user_attrs["clean"], trial.user_attrs["drifted"]]
    final = result.final
    assert final is not None
    assert final.trial.values[1] == max(trial.values[1] for trial in result.study.trials)
    text = str(result)
    front = text[text.index("the front:") :].splitlines()[3:]
    assert {int(row.split()[0]) for row in front} == {trial.number for trial in result.study.best_trials}


def test_a_bound_on_clean_accuracy(alone: Path) -> None:
    free = run_study(config("study.trials=5", "study.pruner=none"))
    clean = sorted(trial.user_attrs["clean"] for trial in free.study.trials)
    bound = (clean[-1] + clean[-2]) / 2  # only one trial of these reaches it
    result = run_study(config("study.trials=5", "study.pruner=none", f"study.min_clean={bound}", "study.name=bounded"))
    assert result.study.best_trial.user_attrs["clean"] >= bound
    assert [trial.user_attrs["clean"] >= bound for trial in result.study.trials] == [
        all(value <= 0 for value in trial.constraints.values()) for trial in result.study.trials
    ]
    none = run_study(config("study.trials=2", "study.min_clean=0.999", "study.name=too high"))
    assert none.final is None
    assert "no trial reaches the clean accuracy of study.min_clean=0.999; the highest is 0." in str(none)


def test_judged_by_a_percentile_at_another_time(alone: Path) -> None:
    result = run_study(
        config("study.trials=1", "study.percentile=10", "evaluation.validation_time=1mo", "study.chips=4")
    )
    report = Report.from_dict(json.loads((result.folder / "trial-0000" / "report.json").read_text()))
    assert report.labels == ("1s", "1d", "1mo")
    assert result.study.trials[0].value == pytest.approx(np.percentile(report.at("1mo"), 10))
    assert "1mo after programming [%], 10th percentile of chips" in str(result)


def test_a_network_that_diverges_is_pruned(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Training.run_epoch

    def diverges(training: Training, on_step: Any) -> dict[str, float]:
        if training.aware and training.config.noise.end != 1.0 and training.epoch == 1:
            raise DivergedError("the loss is nan")
        return original(training, on_step)

    monkeypatch.setattr(Training, "run_epoch", diverges)
    result = run_study(config("study.trials=3"))
    assert [trial.state for trial in result.study.trials] == [State.COMPLETE, State.PRUNED, State.PRUNED]
    assert result.final is not None
    assert result.final.trial.number == 0


def test_a_trial_that_fails_otherwise_stops_the_worker_and_is_done_again(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Training, "run_epoch", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            run_study(config("study.trials=2"))
    result = run_study(config("study.trials=2"))
    assert states(result.study) == {"FAIL": 1, "COMPLETE": 2}


def test_ctrl_c_and_on(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_study(config("study.trials=3", "study.name=whole"))
    original, stops = Training.run_epoch, [KeyboardInterrupt]

    def stopped(training: Training, on_step: Any) -> dict[str, float]:
        if training.epoch == 2 and stops:
            raise stops.pop()
        return original(training, on_step)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "run_epoch", stopped)
        with pytest.raises(KeyboardInterrupt) as told:
            run_study(config("study.trials=3"))
    assert told.value.__notes__ == ["go on with: analogsim tune --study digits-mlp-pcm"]
    epochs = []
    with monkeypatch.context() as patch:
        patch.setattr(
            Training,
            "run_epoch",
            lambda training, on_step: (epochs.append(training.path), original(training, on_step))[1],
        )
        result = run_study(tune.load(None, ["study.name=digits-mlp-pcm"]))
    again = next(trial for trial in result.study.trials if trial.number == 1)
    assert again.params == whole.study.trials[0].params
    assert again.intermediate_values == whole.study.trials[0].intermediate_values
    assert sum("trial-0001" in str(path) for path in epochs) == 1  # from the checkpoint, not from the start
    done = states(result.study)
    assert done.pop("FAIL") == 1
    assert sum(done.values()) == 3


def test_time_is_up(alone: Path) -> None:
    result = run_study(config("study.trials=50", "study.timeout=0.5s"))
    assert 1 <= len(result.study.trials) < 50
    assert result.final is not None


def test_workers_in_threads_share_the_trials(alone: Path) -> None:
    """Threads share torch's generator, so only the counts are looked at."""
    results, errors = [], []

    def work() -> None:
        try:
            results.append(run_study(config("study.trials=6")))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
    assert errors == []
    assert len(results) == 3
    done = states(results[0].study)
    assert done["COMPLETE"] + done["PRUNED"] == 6
    assert sum(result.final is not None for result in results) == 1


def test_a_study_of_one_s_own(ended: Ended, here: Path) -> None:
    goal = objective(settings=[*SETTINGS, "study.name=ignored"])
    study = optuna.create_study(direction="maximize", study_name="mine")
    study.optimize(goal, n_trials=2)
    goal.finish(study)
    assert states(study) == {"COMPLETE": 2}
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{here}/mlflow.db")
    runs = client.search_runs(["1"])
    (parent,) = [run for run in runs if run.data.tags["role"] == "study"]
    assert parent.info.run_name == "mine"
    assert parent.info.status == "FINISHED"
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.info.status for run in children} == {"FINISHED"}
    assert len(children) == 2
    assert {path.name for path in (here / "runs").iterdir()} == {"mine"}


def test_two_studies_of_one_s_own_with_one_objective(alone: Path) -> None:
    goal = objective(model="mlp", epochs=1, settings=[*SETTINGS[1:4], "study.chips=1", "tracking.enabled=false"])
    for _ in range(2):
        study = optuna.create_study(direction="maximize")
        study.optimize(goal, n_trials=1)
        assert states(study) == {"COMPLETE": 1}
    assert {path.name for path in (alone / "runs").iterdir()} == {"digits-mlp-pcm", "digits-mlp-pcm-2"}


def test_a_study_of_one_s_own_must_maximise(alone: Path) -> None:
    goal = objective(config=config())
    for directions, got in ((["minimize"], "minimize"), (["maximize", "maximize"], "maximize', 'maximize")):
        study = optuna.create_study(directions=directions)
        with pytest.raises(
            ValueError,
            match=rf"the study must maximize 1 value.*, drifted accuracy; .*directions=\['maximize'\].*got \['{got}",
        ):
            study.optimize(goal, n_trials=1)
    with pytest.raises(ValueError, match="give a config, or what to make one of, not both"):
        objective(model="mlp", config=config())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("study.sampler=tep", "unknown name 'tep'"),
        ("study.pruner=average", "unknown name 'average'"),
        ("study.timeout=soon", "cannot read 'soon'"),
        ("study.trials=0", "study.trials: wanted a value >= 1"),
        ("study.min_clean=90", "study.min_clean: wanted a value < 1"),
        ("study.percentile=101", "study.percentile: wanted a value <= 100"),
        ("evaluation.validation_time=1fortnight", "cannot read '1fortnight'"),
        ("search.noise.shape=['exponential']", "search: noise.* cannot be trained: noise.shape=exponential needs"),
        ("device=pcmm", "unknown name 'pcmm'"),
        ("study.trails=3", "no option 'study.trails'; did you mean 'study.trials'"),
    ],
)
def test_what_is_wrong_is_told_before_any_work(alone: Path, change: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config(*(["noise.start=0.0"] if "exponential" in change else []), change)
    assert list(alone.iterdir()) == []


def test_an_unknown_keyword_is_told() -> None:
    with pytest.raises(ValueError, match="tune: no option 'epoch'; known are device, crossbar, data"):
        configure(epoch=3)


def test_without_a_server_nothing_is_begun(alone: Path, closed_port: int) -> None:
    with pytest.raises(ConnectionError, match="cannot reach the MLflow store"):
        run_study(config(f"tracking.uri=http://127.0.0.1:{closed_port}", tracking=True))
    study = optuna.load_study(study_name="digits-mlp-pcm", storage="sqlite:///optuna.db")
    assert study.trials == []
    result = run_study(config("study.trials=1"))
    assert len(result.study.trials) == 1
