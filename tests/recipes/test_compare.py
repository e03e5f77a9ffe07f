from __future__ import annotations

import json
import re
import shutil
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analogsim.recipes.cli import main
from analogsim.recipes.compare import compare
from analogsim.recipes.comparison.saved_runs import SavedRun, Store
from tests.recipes.reports import DAY, HOUR, YEAR, report, saved


def test_a_folder_of_train_gives_both_networks(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.place)
    result = compare([finished.folder])
    assert [run.name for run in result.runs] == [
        f"{kind}, pcm, mlp, digits, {finished.folder.name[:15]}" for kind in ("plain", "hardware-aware")
    ]
    for run, (kind, made) in zip(result.runs, finished.result.reports.items(), strict=True):
        assert run.report is not None
        np.testing.assert_array_equal(run.report.values, made.values)
        assert run.run_id == finished.result.trackers[kind].run_id
    assert "viewStateShareKey=side-by-side-" in result.link
    assert list(result.differing) == ["training"]
    assert result.notes == ()
    # MLflow holds the same run, which is not shown twice
    again = compare([finished.folder, result.runs[0].run_id, result.runs[1].name])
    assert [run.run_id for run in again.runs] == [run.run_id for run in result.runs]
    alone = compare([finished.folder / "plain"])
    assert [run.name for run in alone.runs] == [result.runs[0].name]


def test_a_folder_without_mlflow_needs_none(
    finished: Any, tmp_path: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished.folder, tmp_path / "moved")
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlflow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mlflow", None)  # importing it fails
    result = compare(["moved"])
    assert len(result.reports) == 2
    assert (result.link, result.command) == ("", "")
    assert re.search(r"plain, pcm, mlp, digits, moved: not in the link: no MLflow database", result.notes[0])
    assert [path.name for path in alone.iterdir()] == ["moved"]
    for kind in ("plain", "hardware-aware"):
        (tmp_path / "moved" / kind / "checkpoint.pt").unlink()  # only reports, and the configuration beside them
    result = compare(["moved"])
    assert result.notes[0] == "plain, pcm, mlp, digits, moved: not in the link, it was made without MLflow"
    assert result.runs[0].params["model"] == "mlp"
    assert str(result).count("moved") == 4
    assert "<svg" in result.to_html()


def test_a_training_that_was_stopped_is_listed_with_what_it_has(finished: Any, tmp_path: Path, alone: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "moved")
    (tmp_path / "moved" / "hardware-aware" / "report.json").unlink()
    result = compare(["moved"])
    assert list(result.reports) == ["plain, pcm, mlp, digits, moved"]
    assert re.search(r"^B +3 of 3 epochs +validation/accuracy/clean 0\.\d+, validation/", str(result), re.MULTILINE)
    (tmp_path / "moved" / "plain" / "report.json").unlink()
    with pytest.raises(
        ValueError, match=r"no run has a report yet.*plain, pcm, mlp, digits, moved: 3 of 3 epochs.*--resume FOLDER"
    ):
        compare(["moved"])


def test_a_run_without_a_report_is_listed(log: Callable[..., str]) -> None:
    done, pruned = log("done", report(), seed=1), log("pruned", None, end="KILLED", seed=2)
    result = compare([done, pruned])
    assert re.search(r"^B +KILLED +validation/accuracy/clean 0\.75$", str(result), re.MULTILINE)
    assert result.differing == {"seed": ("1", "2")}
    assert pruned in result.link
    assert list(result.reports) == ["done"]
    with pytest.raises(ValueError, match=r"no run has a report yet.*\(pruned: KILLED\)"):
        compare([pruned])


def test_runs_of_other_times_are_compared_at_those_they_share(log: Callable[..., str]) -> None:
    many = log("many", report(0.9))
    few = log("few", report(0.8, times=(HOUR, 2 * DAY, YEAR)))
    none = log("none", report(0.8, times=(7.0,)))
    loss = log("loss", report(metric="loss"))
    result = compare([many, few])
    assert [made.labels for made in result.reports.values()] == [("1h", "1y"), ("1h", "1y")]
    np.testing.assert_array_equal(result.reports["many"].values, report(0.9).values[:, [1, 4]])
    assert result.notes == ("left out, because not all runs were evaluated then: 1s, 1d, 2d, 1mo",)
    with pytest.raises(ValueError, match=r"no common time \(many: 1s, 1h, .*; none: 7s\); .*analogsim evaluate"):
        compare([many, none])
    told = r"different metrics.*many: accuracy \[%\]; loss: loss; .*--filter \"tags.metric = 'accuracy'\""
    with pytest.raises(ValueError, match=told):
        compare([many, loss])


def test_scores_that_are_read_in_two_ways_are_not_mixed(log: Callable[..., str]) -> None:
    low = log("low", report(3.0, metric="error", unit="dB", higher_is_better=False))
    high = log("high", report(3.0, metric="error", unit="dB", higher_is_better=True))
    other = log("other", report(3.0, metric="error", unit="V", higher_is_better=False))
    unknown = log("unknown", report(4.0, metric="error", unit="dB"))
    with pytest.raises(ValueError, match=r"do not agree which error is the better one: low: lower; high: higher"):
        compare([low, high])
    with pytest.raises(ValueError, match=r"different metrics.*low: error \[dB\]; other: error \[V\]"):
        compare([low, other])
    result = compare([unknown, low])  # one knows it for both
    assert {made.tail for made in result.reports.values()} == {0.95}
    assert "95th pct. 1y" in str(result)
    assert "95th percentile" in result.to_html()
    assert "error [dB]" in result.to_html()
    frame = result.to_frame()
    assert "p05" not in frame
    assert frame["p95"].iloc[-1] == result.reports["low"].quantile(0.95)[-1]


def test_runs_of_one_name_are_told_apart(log: Callable[..., str]) -> None:
    ids = [log("trial", report()) for _ in range(2)] + [log("other", report())]
    assert [run.name for run in compare(ids).runs] == [f"trial {ids[0][:8]}", f"trial {ids[1][:8]}", "other"]


def test_the_command_line(
    log: Callable[..., str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    first, second = log("first", report(0.9), seed=1), log("second", report(0.8), seed=2)
    monkeypatch.setenv("COLUMNS", "80")
    main(["compare", first[:8], "--html", "page.html", "second", "--port", "5001"])  # words may stand anywhere
    out, err = capsys.readouterr()
    result = compare([first, second], port=5001)
    assert err == ""
    assert (
        out == f"{result}\n\nas a page: page.html\n\nSide by side in MLflow:\nanalogsim ui --port 5001\n{result.link}\n"
    )
    assert Path("page.html").read_text(encoding="utf-8") == result.to_html()
    monkeypatch.setenv("COLUMNS", "120")
    main(["compare", "--experiment", "exp", "--order", "train/loss", "--filter", "params.seed = '2'", "--limit", "1"])
    out = capsys.readouterr().out
    assert "78.00 ± 1.41" in out
    assert "first" not in out

    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    with pytest.raises(SystemExit):
        main(["compare", first, "--open", "--port", str(closed_port)])
    out, err = capsys.readouterr()
    assert "compare-runs" in out
    assert f"nothing answers at http://127.0.0.1:{closed_port}" in err
    assert opened == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "compare: give runs (ids, names or folders), or --experiment NAME"),
        (["runs/none"], "compare: no folder 'runs/none'"),
        (["abcd", "--html", "no/where.html"], "there is no folder for 'no/where.html'; make it first"),
        (["abcd", "--uri", "sqlite:///no.db"], "no folder 'abcd'"),
        (["one", "--open"], "--open: there is no page of MLflow for these runs"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    alone: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    Path("one").mkdir()
    Path("one/report.json").write_text(json.dumps(report().to_dict()))
    with pytest.raises(SystemExit) as ended:
        main(["compare", *arguments])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runs": ["one"], "experiment": "exp"}, "give runs .*, or --experiment NAME"),
        ({"runs": ["one"], "filter": "params.seed = '2'"}, "--filter, --order and --limit choose from an experiment"),
        ({"runs": ["one"], "order": "train/loss"}, "--filter, --order and --limit choose from an experiment"),
        ({"runs": ["one"], "limit": 11}, "--filter, --order and --limit choose from an experiment"),
        ({"experiment": "exp", "limit": 0}, "--limit must be from 1 to 52, got 0"),
        ({"experiment": "exp", "limit": 53}, "--limit must be from 1 to 52, got 53"),
    ],
)
def test_what_chooses_from_an_experiment_is_not_for_runs(alone: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(**arguments)


@pytest.mark.parametrize("limit", [1, 52])
def test_as_many_runs_of_an_experiment_as_there_are_letters(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    def of_experiment(self: Store, name: str, *, limit: int, **_: Any) -> tuple[list[SavedRun], bool]:
        return [saved(f"run {n}", report(), n) for n in range(limit)], limit == 1

    monkeypatch.setattr(Store, "of_experiment", of_experiment)
    result = compare(experiment="exp", limit=limit)
    assert len(result.runs) == limit
    more = "more runs match; these are the first 1: --limit gives another number"
    assert result.notes == ((more,) if limit == 1 else ())


def test_runs_of_two_stores_have_no_link(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is said; runs that only lie in folders are in none."""
    runs = {
        "a": saved("a", report(), run_id="aaaaaaaa"),
        "b": saved("b", report(), run_id="bbbbbbbb"),
        "c": saved("c", report(), run_id="cccccccc", uri="sqlite:////other/mlflow.db"),
        "d": saved("d", report(), run_id="", uri="", experiment_id="", folder=Path("d")),
    }
    monkeypatch.setattr(Store, "named", lambda _, name: runs[name])
    for words, notes in (("ab", ()), ("ad", ()), ("ac", ("no link: the runs are in different MLflow stores",))):
        result = compare(list(words))
        assert [run.name for run in result.runs] == list(words)
        assert result.notes == notes
        assert bool(result.link) is not bool(notes)


def test_more_runs_than_letters_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "named", lambda _, name: saved(name, report(), run_id=f"{int(name):08x}"))
    assert len(compare([str(n) for n in range(52)]).runs) == 52
    with pytest.raises(ValueError, match="53 runs are too many to tell apart; give at most 52"):
        compare([str(n) for n in range(53)])
