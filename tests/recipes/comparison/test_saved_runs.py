from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analogsim.recipes.compare import compare
from analogsim.recipes.comparison import saved_runs
from analogsim.recipes.tracking.log_report import log_report
from analogsim.recipes.tracking.tracked_run import Run
from tests.recipes.reports import report


def test_what_mlflow_knows_and_what_the_folder_knows_agree(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.place)
    for here in saved_runs.of_folder(finished.folder):
        there = saved_runs.Store(None).named(here.run_id)
        assert {**there.params, **here.params} == there.params
        assert {name: there.metrics[name] for name in here.metrics} == here.metrics
        assert (here.name, here.run_id) == (there.name, there.run_id)


def test_a_folder_that_holds_a_report(alone: Path) -> None:
    for place in ("a/trial-0001", "b/trial-0001"):
        Path(place).mkdir(parents=True)
        Path(place, "report.json").write_text(json.dumps(report().to_dict()))
    result = compare(["a/trial-0001", Path("b/trial-0001")])
    assert [run.name for run in result.runs] == ["trial-0001 a/trial-0001", "trial-0001 b/trial-0001"]
    assert len(compare(["a"]).runs) == 1
    Path("b/trial-0001/report.json").write_text('{"values": []}')
    with pytest.raises(ValueError, match=r"folder 'b/trial-0001': its report\.json is no report of analogsim"):
        compare(["b/trial-0001"])
    Path("empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"folder 'empty': no report\.json in it"):
        compare(["empty"])
    with pytest.raises(FileNotFoundError, match=r"no folder 'a/nothing' .*, and no MLflow database"):
        compare(["a/nothing"])


def test_a_run_is_found_by_id_beginning_and_name(log: Callable[..., str]) -> None:
    first, second = log("it's a/first", report(0.9)), log("second", report(0.8))
    for word in (first, first[:8], first[:4].upper(), "it's a/first"):
        assert [run.run_id for run in compare([word, second]).runs] == [first, second]
    (run, _) = compare([first, second]).runs
    assert run.report is not None
    np.testing.assert_array_equal(run.report.values, report(0.9).values)
    assert (run.status, run.metrics["train/loss"]) == ("FINISHED", 0.5)


def test_what_is_not_one_run_is_told(log: Callable[..., str], here: Path) -> None:
    first, second, third = log("twin", report()), log("twin", report()), log("third", report())
    with pytest.raises(
        ValueError, match=r"'twin' stands for 2 runs: give the id of one, from [0-9a-f]{8} \(twin\)"
    ) as told:
        compare(["twin"])
    assert all(run_id[:8] in str(told.value) for run_id in (first, second))
    with pytest.raises(ValueError, match=r"no run 'thrid' in sqlite.* first four letters.*; did you mean 'third'\?"):
        compare(["third", "thrid"])
    with pytest.raises(ValueError, match=f"no run '{third[:3]}'"):
        compare([third[:3]])
    Run.start(experiment="exp", name="x", params={})._client.delete_run(third)
    for word in (third, third[:6], "third"):
        with pytest.raises(ValueError, match=f"run '{word}' is deleted: restore it in the MLflow UI"):
            compare([word])
    with pytest.raises(ValueError, match="both kinds of quotes"):
        compare(["'\""])


def test_the_beginning_of_several_ids_is_ambiguous(log: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    import uuid

    same = iter(range(100))
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(f"abcd{next(same):028x}"))
    first, _ = log("one", report()), log("two", report())
    with pytest.raises(ValueError, match=r"'abcd' stands for 2 runs: .*\(one\)"):
        compare(["abcd"])
    assert compare([first]).runs[0].name == "one"
    named = log("abcd", report())
    assert compare(["abcd"]).runs[0].run_id == named  # a name is one run, whatever begins so


def test_the_runs_of_an_experiment(log: Callable[..., str]) -> None:
    worst, best, middle = (log(f"run {a}", report(a), seed=a) for a in (0.7, 0.9, 0.8))
    log("elsewhere", report(), experiment="other")

    def found(**choice: Any) -> list[str]:
        return [run.run_id for run in compare(experiment="exp", **choice).runs]

    assert sorted(found()) == sorted([worst, best, middle])
    assert found(order="test/accuracy/drifted_1y") == [best, middle, worst]
    assert found(order="test/accuracy/drifted_1y ASC") == [worst, middle, best]
    assert found(order="test/accuracy/drifted_1y desc") == [best, middle, worst]
    assert found(filter="params.seed = '0.8'") == [middle]
    few = compare(experiment="exp", order="test/accuracy/drifted_1y", limit=2)
    assert [run.run_id for run in few.runs] == [best, middle]
    assert few.notes == ("more runs match; these are the first 2: --limit gives another number",)
    assert compare(experiment="exp", limit=3).notes == ()


@pytest.mark.parametrize(("name", "part"), [("cross_entropy", "cross_entropy"), ("error (dB)", "error _dB_")])
def test_the_best_run_is_first_where_lower_is_better(here: Path, name: str, part: str) -> None:
    for score in (3.0, 5.0, 4.0):
        with Run.start(experiment="exp", name=f"{score:g}", params={}) as tracker:
            made = report(score, metric=name, higher_is_better=False)
            log_report(made, tracker, step=1, part="test")
            tracker.metrics({"train/loss": score}, 1)
            tracker.text(json.dumps(made.to_dict()), "report.json")

    def found(order: str) -> list[str]:
        return [run.name for run in compare(experiment="exp", order=order).runs]

    assert found(f"test/{part}/drifted_1y") == found(f"test/{part}/drifted_1y asc") == ["3", "4", "5"]
    assert found(f"test/{part}/drifted_1y_p95") == ["3", "4", "5"]
    assert found(f"test/{part}/drifted_1y desc") == ["5", "4", "3"]
    assert found("train/loss") == ["5", "4", "3"]  # as ever: the highest, unless it is said otherwise


def test_what_is_wrong_with_an_experiment_is_told(log: Callable[..., str]) -> None:
    run_id = log("run", report())
    for choice, message in (
        ({"experiment": "exq"}, r"no experiment 'exq' in sqlite.*; there are 'Default', 'exp'; did you mean 'exp'\?"),
        ({"experiment": "Default"}, "the experiment 'Default' in sqlite.* has no runs; make some: analogsim train"),
        ({"experiment": "exp", "filter": "params.a = '1'"}, "has no runs for which params.a = '1'"),
        ({"experiment": "exp", "filter": "params.a ="}, "MLflow at sqlite.*: Invalid clause"),
        (
            {"experiment": "exp", "order": "train/los"},
            r"none of the runs has a metric 'train/los'; did you mean 'train/loss'\?",
        ),
        ({"experiment": "exp", "order": "`"}, "order: wanted the name of a metric"),
        ({"experiment": "exp", "order": "zzz"}, "there are test/accuracy/drifted_1y, train/loss, validation"),
        ({"experiment": "exp", "limit": 0}, "--limit must be from 1 to 52, got 0"),
        ({"runs": [run_id], "experiment": "exp"}, "give runs .*, or --experiment NAME"),
        ({}, "give runs .*, or --experiment NAME"),
        ({"runs": [run_id], "order": "train/loss"}, "choose from an experiment"),
    ):
        with pytest.raises(ValueError, match=message):
            compare(**choice)  # type: ignore[arg-type]
    saved_runs.Store(None)._client.delete_experiment("1")
    with pytest.raises(ValueError, match=r"the experiment 'exp' .* is deleted: .*--experiment-id 1"):
        compare(experiment="exp")


def test_no_database_is_made_by_looking(alone: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder 'abcd' .*, and no MLflow database"):
        compare(["abcd"])
    with pytest.raises(FileNotFoundError, match="no MLflow database"):
        compare(experiment="exp")
    assert not list(alone.iterdir())


def test_a_damaged_report_names_its_run(log: Callable[..., str]) -> None:
    run_id = log("broken", report(seeds=(0, 1, 2)))
    with pytest.raises(ValueError, match=rf"run 'broken' \({run_id}\): its report\.json is no report"):
        compare([run_id])
