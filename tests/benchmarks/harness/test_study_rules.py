"""Each rule finds its violation in a history made by hand, and nothing in one that holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import study_rules
from benchmarks.harness.study_rules import History, Recorded, Trial, violations

EPOCHS, CURVE = 3, "validation/accuracy/drifted_1d"
SAID = "trial 0  complete  12.00 %\nwarning: slow\ntrial 2  pruned  3.00 %\n"


def params(value: float) -> tuple[tuple[str, Any], ...]:
    return (("noise.end", value),)


TRIALS = (
    Trial(0, "COMPLETE", params(1), value=0.1, epochs=(1, 2, 3)),
    Trial(1, "FAIL", params(2), epochs=(1,)),
    Trial(2, "PRUNED", params(2), retries=(1,), epochs=(1, 2)),
    Trial(3, "FAIL", began=False),  # one too many
)


def curve(epochs: int) -> dict[str, tuple[int, ...]]:
    return {CURVE: tuple(range(1, epochs + 1)), "train/loss": tuple(range(1, epochs + 1))}


RUNS = (
    Recorded("s", "FINISHED", "study", points={"objective": (0,)}),
    Recorded("a", "FINISHED", "trial", 0, "COMPLETE", points=curve(3), objective=0.1),
    Recorded("b", "FAILED", "trial", 1, "FAIL", points=curve(1)),
    Recorded("c", "KILLED", "trial", 2, "PRUNED", points=curve(2)),
    *(Recorded(name, "FINISHED", "final", network=name, points=curve(3)) for name in ("plain", "default", "tuned")),
    Recorded("dead", "FAILED", "final", network="plain", points=curve(1)),
)
WELL = History(2, EPOCHS, TRIALS, RUNS, [SAID, "trial 1: its worker died\n"], [0, -9, 130])


def trial(number: int, **changes: Any) -> Callable[[History], History]:
    return lambda well: replace(
        well, trials=[replace(one, **changes) if one.number == number else one for one in well.trials]
    )


def run(name: str, **changes: Any) -> Callable[[History], History]:
    return lambda well: replace(well, runs=[replace(one, **changes) if one.id == name else one for one in well.runs])


def more(*added: Trial | Recorded) -> Callable[[History], History]:
    return lambda well: replace(
        well,
        trials=[*well.trials, *(one for one in added if isinstance(one, Trial))],
        runs=[*well.runs, *(one for one in added if isinstance(one, Recorded))],
    )


def without(name: str) -> Callable[[History], History]:
    return lambda well: replace(well, runs=[one for one in well.runs if one.id != name])


def test_nothing_is_found_where_the_rules_hold() -> None:
    assert violations(WELL) == []


CASES = [
    ("each_trial_once", more(TRIALS[0]), "trial 0 is there 2 times"),
    ("each_trial_once", lambda well: replace(well, trials=[*well.trials[:1], *well.trials[2:]]), "trial 1 is there 0"),
    ("each_trial_once", trial(2, params=params(1)), "2 trials are kept of the settings"),
    ("as_many_as_wanted", trial(3, state="RUNNING"), "trial 3 is still RUNNING"),
    ("as_many_as_wanted", trial(3, state="WAITING"), "trial 3 is still WAITING"),
    ("as_many_as_wanted", lambda well: replace(well, wanted=3), "2 trials are kept, and 3 were wanted"),
    ("each_failed_one_tried_again_once", trial(2, retries=()), "trial 1 failed and is tried again 0 times"),
    ("each_failed_one_tried_again_once", trial(3, retries=(1,)), "trial 1 failed and is tried again 2 times"),
    ("each_failed_one_tried_again_once", trial(3, retries=(0,)), "trial 0 is kept, and tried again all the same"),
    ("each_failed_one_tried_again_once", trial(2, params=params(5)), "trial 2 tries 1 again with other settings"),
    ("told_once_by_one_worker", lambda well: replace(well, said=[SAID, SAID]), "trial 0 was done by 2 workers"),
    ("one_run_a_trial", without("c"), "trial 2, PRUNED, is 0 runs in MLflow"),
    ("one_run_a_trial", more(replace(RUNS[1], id="again")), "trial 0, COMPLETE, is 2 runs"),
    ("one_run_a_trial", more(replace(RUNS[2], id="again")), "trial 1, FAIL, is 2 runs"),
    ("one_run_a_trial", more(replace(RUNS[2], trial=9)), "1 runs of trial 9, which is not there"),
    ("one_run_a_trial", run("a", status="KILLED"), "trial 0 is COMPLETE, its run KILLED"),
    ("one_run_a_trial", run("a", state="RUNNING"), "its run FINISHED and said to be RUNNING"),
    ("no_run_left_running", run("b", status="RUNNING"), "the trial run b of trial 1, network None, is left RUNNING"),
    ("no_run_left_running", run("dead", status="RUNNING"), "the final run dead of trial None, network plain"),
    ("each_point_once", run("b", points={"train/loss": (1, 1)}), "has points of train/loss twice: [1, 1]"),
    ("each_point_once", run("b", points={CURVE: (2, 3)}), "has a gap: [2, 3]"),
    ("each_point_once", run("a", points=curve(2)), "has 2 epochs of 3"),
    ("each_point_once", run("c", points=curve(1)), "has 1 epochs of 2"),
    ("each_point_once", run("a", objective=0.1 + 1e-16), "says 0.1000000000000001 where Optuna has 0.1"),
    ("one_study_with_its_comparison", without("s"), "the study is 0 runs"),
    ("one_study_with_its_comparison", more(replace(RUNS[0], id="t")), "the study is 2 runs"),
    ("one_study_with_its_comparison", run("s", points={}), "the study's run has the values of [], complete are [0]"),
    ("one_study_with_its_comparison", run("s", status="KILLED"), "the study's run ended as KILLED"),
    ("one_study_with_its_comparison", run("tuned", status="FAILED"), "no run of the network 'tuned'"),
    ("workers_end_in_order", lambda well: replace(well, codes=[1]), "1 workers ended with 1"),
    (
        "workers_end_in_order",
        lambda well: replace(well, said=["Traceback (most recent call last):\n x"]),
        "a worker said",
    ),
]


@pytest.mark.parametrize(("rule", "spoil", "told"), CASES)
def test_each_violation_is_found(rule: str, spoil: Callable[[History], History], told: str) -> None:
    found = violations(spoil(WELL))
    assert any(line.startswith(f"{rule}: ") and told in line for line in found), found


def test_each_rule_has_a_case() -> None:
    assert {rule for rule, _, _ in CASES} == {rule.__name__ for rule in study_rules.RULES}


@pytest.mark.slow
def test_a_history_is_read(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")
    pytest.importorskip("mlflow", reason="needs analogsim-torch[recipes]")
    from analogsim.recipes.tracking.tracked_run import Run

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = f"sqlite:///{tmp_path}/optuna.db"
    study = optuna.create_study(storage=storage, study_name="it")
    done = study.ask()
    done.suggest_float("x", 0, 1)
    done.set_user_attr("folder", "here")
    done.report(0.5, 1)
    study.tell(done, 0.25)
    study.ask()
    tracking = f"sqlite:///{tmp_path}/mlflow.db"
    tags = {"role": "trial", "optuna.trial.number": "0", "optuna.trial.state": "COMPLETE"}
    with Run.start(experiment="e", name="n", uri=tracking, params={}, tags=tags) as tracked:
        for epoch in (1, 2):
            tracked.metrics({CURVE: 0.5}, epoch)
        tracked.metrics({"objective": 0.25}, 0)
    (tmp_path / "worker-1.log").write_text("trial 0  complete  ", encoding="utf-8")
    found = study_rules.read_history(storage, tracking, "it", wanted=1, epochs=2, logs=tmp_path, codes=[0])
    assert found.trials == [
        Trial(0, "COMPLETE", (("x", done.params["x"]),), 0.25, epochs=(1,)),
        Trial(1, "RUNNING", began=False),
    ]
    points = {CURVE: (1, 2), "objective": (0,)}
    assert found.runs == [Recorded(tracked.run_id, "FINISHED", "trial", 0, "COMPLETE", points=points, objective=0.25)]
    assert (list(found.said), found.codes, found.wanted, found.epochs) == (["trial 0  complete  "], [0], 1, 2)
