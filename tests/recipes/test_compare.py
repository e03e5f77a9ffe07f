from __future__ import annotations

import json
import re
import shutil
import sys
import webbrowser
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from analogsim.evaluation.report import Report
from analogsim.recipes.cli import main
from analogsim.recipes.compare import compare
from analogsim.recipes.comparison import charts, html_page, saved_runs
from analogsim.recipes.comparison.comparison import Comparison
from analogsim.recipes.comparison.saved_runs import SavedRun
from analogsim.recipes.tracking.tracked_run import Run

HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0
TIMES = (1.0, HOUR, DAY, 30 * DAY, YEAR)


def report(accuracy: float = 0.9, *, times: tuple[float, ...] = TIMES, **changes: Any) -> Report:
    """Two chips, which lose a hundredth from each time to the next."""
    values = np.array([[accuracy + chip - 0.01 * index for index in range(len(times))] for chip in (-0.01, 0.01)])
    settings: dict[str, Any] = {
        "values": values,
        "times": times,
        "clean": accuracy + 0.02,
        "metric": "accuracy",
        "device": "pcm",
        "seeds": (0, 1),
        "compensation": "global",
        "chance": 0.1,
        "samples": 500,
    }
    return Report(**(settings | changes))


def saved(name: str, made: Report | None, number: int = 0, **changes: Any) -> SavedRun:
    settings: dict[str, Any] = {
        "name": name,
        "report": made,
        "params": {},
        "metrics": {},
        "status": "FINISHED",
        "run_id": f"{number:032x}",
        "experiment_id": "1",
        "uri": "sqlite:////data/mlflow.db",
    }
    return SavedRun(**(settings | changes))


@pytest.fixture
def log(here: Path) -> Callable[..., str]:
    """Call it with a name and a report to have a run in the store; gives its id."""

    def run(name: str, made: Report | None, *, experiment: str = "exp", end: Any = "FINISHED", **params: Any) -> str:
        with Run.start(experiment=experiment, name=name, params=params) as tracker:
            tracker.metrics({"train/loss": 0.5, "validation/accuracy/clean": 0.75}, 1)
            if made is not None:
                tracker.metrics({"test/accuracy/drifted_1y": float(made.mean[-1])}, 1)
                tracker.text(json.dumps(made.to_dict()), "report.json")
            tracker.end(end)
        return tracker.run_id

    return run


# Finding runs


def test_a_folder_of_train_gives_both_networks(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.place)
    result = compare([finished.folder])
    assert [run.name for run in result.runs] == [
        f"{finished.folder.name} {kind}" for kind in ("plain", "hardware-aware")
    ]
    for run, (kind, made) in zip(result.runs, finished.result.reports.items(), strict=True):
        assert run.report is not None
        np.testing.assert_array_equal(run.report.values, made.values)
        assert run.run_id == finished.result.trackers[kind].run_id
        assert run.run_id in result.link
    assert list(result.differing) == ["training"]
    assert result.notes == ()
    # MLflow holds the same run, which is not shown twice
    again = compare([finished.folder, result.runs[0].run_id, result.runs[1].name])
    assert [run.run_id for run in again.runs] == [run.run_id for run in result.runs]
    alone = compare([finished.folder / "plain"])
    assert [run.name for run in alone.runs] == [result.runs[0].name]


def test_what_mlflow_knows_and_what_the_folder_knows_agree(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.place)
    for here in saved_runs.of_folder(finished.folder):
        there = saved_runs.Store(None).named(here.run_id)
        assert {**there.params, **here.params} == there.params
        assert {name: there.metrics[name] for name in here.metrics} == here.metrics
        assert (here.name, here.run_id) == (there.name, there.run_id)


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
    assert re.search(r"moved plain: not in the link: no MLflow database", result.notes[0])
    assert [path.name for path in alone.iterdir()] == ["moved"]
    for kind in ("plain", "hardware-aware"):
        (tmp_path / "moved" / kind / "checkpoint.pt").unlink()  # only reports, and the configuration beside them
    result = compare(["moved"])
    assert result.notes[0] == "moved plain: not in the link, it was made without MLflow"
    assert result.runs[0].params["model"] == "mlp"
    assert str(result).count("moved") == 4
    assert "<svg" in result.to_html()


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


def test_a_training_that_was_stopped_is_listed_with_what_it_has(finished: Any, tmp_path: Path, alone: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "moved")
    (tmp_path / "moved" / "hardware-aware" / "report.json").unlink()
    result = compare(["moved"])
    assert list(result.reports) == ["moved plain"]
    assert re.search(r"^B +3 of 3 epochs +validation/accuracy/clean 0\.\d+, validation/", str(result), re.MULTILINE)
    (tmp_path / "moved" / "plain" / "report.json").unlink()
    with pytest.raises(ValueError, match=r"no run has a report yet.*moved plain: 3 of 3 epochs.*--resume FOLDER"):
        compare(["moved"])


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
    assert found(filter="params.seed = '0.8'") == [middle]
    few = compare(experiment="exp", order="test/accuracy/drifted_1y", limit=2)
    assert [run.run_id for run in few.runs] == [best, middle]
    assert few.notes == ("more runs match; these are the first 2: --limit gives another number",)
    assert compare(experiment="exp", limit=3).notes == ()


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


def test_a_run_without_a_report_is_listed(log: Callable[..., str]) -> None:
    done, pruned = log("done", report(), seed=1), log("pruned", None, end="KILLED", seed=2)
    result = compare([done, pruned])
    assert re.search(r"^B +KILLED +validation/accuracy/clean 0\.75$", str(result), re.MULTILINE)
    assert result.differing == {"seed": ("1", "2")}
    assert pruned in result.link
    assert list(result.reports) == ["done"]
    with pytest.raises(ValueError, match=r"no run has a report yet.*\(pruned: KILLED\)"):
        compare([pruned])


def test_a_damaged_report_names_its_run(log: Callable[..., str]) -> None:
    run_id = log("broken", report(seeds=(0, 1, 2)))
    with pytest.raises(ValueError, match=rf"run 'broken' \({run_id}\): its report\.json is no report"):
        compare([run_id])


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
    with pytest.raises(ValueError, match=r"different metrics.*many: accuracy; loss: loss"):
        compare([many, loss])


def test_runs_of_one_name_are_told_apart(log: Callable[..., str]) -> None:
    ids = [log("trial", report()) for _ in range(2)] + [log("other", report())]
    assert [run.name for run in compare(ids).runs] == [f"trial {ids[0][:8]}", f"trial {ids[1][:8]}", "other"]


# What is shown


def shown() -> Comparison:
    params = {"lr": "0.1", "same": "1", "long": "x" * 100, "only": "here"}
    return Comparison(
        (
            saved("first run", report(0.9), 1, params=params, metrics={"loss": 0.25}),
            saved("second", report(0.8), 2, params={"lr": "0.2", "same": "1", "long": "y" * 100}),
            saved("third", None, 3, status="RUNNING", metrics={"loss": 0.75}, params={"lr": "0.3", "same": "1"}),
        ),
        notes=("a note",),
    )


def test_text_has_curves_scores_parameters_and_notes() -> None:
    text = str(shown())
    assert all(len(line) <= 80 for line in text.splitlines())
    assert re.search(r"^A +first run$", text, re.MULTILINE)
    assert "pcm, 2 chips, 500 samples, compensation: global" in text
    # mean at each time, then std and 5th percentile at the last
    assert re.search(r"^ +clean +1s +1h +1d +1mo +1y +± std 1y +5th pct\. 1y$", text, re.MULTILINE)
    assert re.search(r"^A +92\.00 +90\.00 +89\.00 +88\.00 +87\.00 +86\.00 +1\.41 +85\.10$", text, re.MULTILINE)
    assert re.search(r"^C +RUNNING +loss 0\.75$", text, re.MULTILINE)
    assert re.search(r"^lr +0\.1 +0\.2 +0\.3$", text, re.MULTILINE)
    assert re.search(r"^only +here$", text, re.MULTILINE)
    assert re.search(r"^long +x{10}…x{10} +y{10}…y{10}$", text, re.MULTILINE)
    assert "same" not in text
    assert text.endswith("a note")
    wide = shown().text(120)
    assert re.search(r"^A +92\.00 +90\.00 ± 1\.41 .* 86\.00 ± 1\.41 +85\.10$", wide, re.MULTILINE)


def test_one_chip_has_no_spread() -> None:
    one = report(values=report().values[:1], seeds=(0,))
    text = Comparison((saved("a", one),)).text(200)
    assert "±" not in text.replace("mean ± std", "")
    assert "nan" not in Comparison((saved("a", one),)).text(80)


def test_different_settings_are_told_for_each() -> None:
    runs = (saved("a", report()), saved("b", report(device="drift"), 1), saved("c", report(), 2))
    text = str(Comparison(runs))
    assert "A C: pcm, 2 chips" in text
    assert "B: drift, 2 chips" in text


def test_many_runs_and_parameters_stay_in_the_width() -> None:
    runs = tuple(
        saved(f"run {n}", report(0.9 - n / 100), n, params={"noise.end": f"{n}.123456789", "device": f"gaussian({n})"})
        for n in range(12)
    )
    text = str(Comparison(runs))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.count("noise.end") > 1  # in several tables
    assert all(f"{n}.123456789" in text for n in range(12))


def test_parameters_of_a_run_without_any_are_no_difference() -> None:
    runs = (
        saved("a", report(), params={"x": "1"}),
        saved("b", report(), 1),
        saved("c", report(), 2, params={"x": "1"}),
    )
    assert Comparison(runs).differing == {}


def test_the_frame_has_a_row_for_each_run_and_time() -> None:
    frame = shown().to_frame()
    assert list(frame.columns) == ["run", "seconds", "time", "clean", "mean", "std", "p05", "chips"]
    assert len(frame) == 10
    row = frame[(frame.run == "second") & (frame.time == "1y")].iloc[0]
    assert row["mean"] == pytest.approx(0.76)
    assert (row["seconds"], row["chips"]) == (YEAR, 2)
    assert row["std"] == pytest.approx(np.std([0.75, 0.77], ddof=1))


def test_the_link_is_of_one_store() -> None:
    result = shown()
    assert result.link.startswith("http://127.0.0.1:5000/#/compare-runs?runs=")
    assert result.command == "analogsim ui --uri sqlite:////data/mlflow.db"
    other = saved("b", report(), 9, uri="sqlite:////other/mlflow.db")
    assert Comparison((*result.runs, other)).link == ""
    folder = saved("c", report(), 9, experiment_id="")
    assert Comparison((*result.runs, folder)).link == result.link


# The chart


def chart(*reports: Report, width: int = 80) -> list[str]:
    return charts.drift_chart(dict(zip(charts.MARKS, reports, strict=False)), width).splitlines()


def level(lines: list[str], mark: str, column: int) -> float:
    """The value at which a letter stands, read as a person does: from the labels of the axis."""
    labels = {row: float(line.split()[0]) for row, line in enumerate(lines[1:-2]) if "┤" in line}
    (low, high), rows = (min(labels.values()), max(labels.values())), (max(labels), min(labels))
    (row,) = [row for row, line in enumerate(lines[1:-2]) if column < len(line) and line[column] == mark]
    return low + (high - low) * (rows[0] - row) / (rows[0] - rows[1])


def test_letters_stand_where_the_axes_say() -> None:
    lines = chart(report(0.9), report(0.82))
    half_row = 0.5
    labels = re.finditer(r"\S+", lines[-1])
    for index, label in enumerate(labels):
        column = label.start() + (len(label[0]) - 1) // 2
        for mark, made in (("A", report(0.9)), ("B", report(0.82))):
            value = made.clean if index == 0 else made.mean[index - 1]
            assert level(lines, mark, column) == pytest.approx(100 * value, abs=half_row)
    assert lines[-1].split() == ["clean", "1s", "1h", "1d", "1mo", "1y"]
    assert lines[0] == "accuracy [%], mean over chips; the scale starts at 75, not at 0"
    # time is logarithmic: from 1 s to 1 h as far as from 1 h to 3600 h
    far = chart(report(times=(1.0, 3600.0, 3600.0**2)))[-1]
    positions = [match.start() + (len(match[0]) - 1) // 2 for match in re.finditer(r"\S+", far)][1:]
    assert abs((positions[1] - positions[0]) - (positions[2] - positions[1])) <= 1


@pytest.mark.parametrize("width", [70, 80, 100])
def test_a_chart_has_its_width(width: int) -> None:
    lines = chart(*(report(0.9 - 0.05 * n) for n in range(10)), width=width)
    assert max(map(len, lines)) == width
    assert len(lines) < 30


def test_letters_at_one_place_stand_side_by_side() -> None:
    text = "\n".join(chart(*[report()] * 3))
    assert text.count("ABC") == 6
    crowded = "\n".join(chart(*[report(times=(1.0, 2.0, YEAR))] * 9, width=60))
    assert "ABCDE+" in crowded  # a plus where there is no room
    assert re.search(r"┤ +\+$", crowded, re.MULTILINE)


@pytest.mark.parametrize(
    ("made", "first"),
    [
        (
            report(values=np.full((2, 5), 0.5), clean=0.5),
            "accuracy [%], mean over chips; the scale starts at 49.4, not at 0",
        ),
        (
            report(values=np.full((2, 1), 0.0), clean=0.0, times=(0.0,)),
            "accuracy [%], mean over chips; the scale starts at",
        ),
        (
            report(values=np.full((2, 5), 0.0), clean=0.0, metric="loss"),
            "loss, mean over chips; the scale starts at -0.6",
        ),
        (
            report(values=np.full((2, 5), np.nan), metric="loss", clean=1.0),
            "loss, mean over chips; the scale starts at",
        ),
        (report(values=np.array([[1e-5] * 5, [3e-5] * 5]), clean=0.0, metric="loss"), "loss, mean over chips"),
        (report(times=(100.0, 101.0, 102.0)), "accuracy"),
    ],
    ids=["flat", "zero", "zero loss", "nan", "small", "close times"],
)
def test_a_chart_of_odd_values(made: Report, first: str) -> None:
    lines = chart(made)
    assert lines[0].startswith(first)
    assert "A" in "".join(lines)
    spread = [float(line.split()[0]) for line in lines if "┤" in line]
    assert spread == sorted(spread, reverse=True)
    assert len(set(spread)) == len(spread) > 1
    if made.metric == "accuracy":  # noise of a tenth of a percent is not blown up
        assert spread[0] - spread[-1] >= 1


# The page


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += f"{data}\n"


EVIL = "<script>alert('x')</script>\"&$a_b$"


def test_the_page_escapes_every_name() -> None:
    made = report(device=EVIL)
    runs = (
        saved(EVIL, made, 1, params={EVIL: EVIL}, metrics={"loss": 1.0, EVIL: 2.0}),
        saved("b", None, 2, status=EVIL, params={EVIL: "1"}),
    )
    page = Page(Comparison(runs, notes=(EVIL,)).to_html())
    assert not {"script", "img", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    assert page.words.count(EVIL) >= 6


def test_the_page_needs_nothing_beside_it() -> None:
    text = shown().to_html()
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag not in ("script", "img", "iframe", "link")
        assert "src" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        if tag == "a":
            assert (attributes["href"] or "").startswith("http://127.0.0.1:5000/#/")
        elif "xlink:href" in attributes:
            assert (attributes["xlink:href"] or "").startswith("#")
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []
    assert "default-src 'none'" in text
    assert text == shown().to_html()  # the same runs, the same page


def test_the_page_holds_everything() -> None:
    text = shown().to_html()
    words = Page(text).words
    for expected in (
        "first run",
        "second",
        "third",
        "90.00 ± 1.41",
        "85.10",
        "no report, RUNNING",
        "lr",
        "0.3",
        "a note",
    ):
        assert expected in words
    assert "x" * 100 in words  # there is room for all of it
    assert "analogsim ui --uri sqlite:////data/mlflow.db" in words
    assert "same" not in words.split()
    links = [attributes["href"] for tag, attributes in Page(text).tags if tag == "a"]
    assert links[-1] == shown().link
    assert links[0] == f"http://127.0.0.1:5000/#/experiments/1/runs/{1:032x}"
    assert "1 run:" in Comparison(shown().runs[:1]).to_html()


def test_the_drawing_takes_its_ink_from_the_page() -> None:
    reports = {mark: report(0.9 - index / 50) for index, mark in enumerate("ABCDEFGHIJKL")}
    colors = dict(zip(reports, html_page._COLORS, strict=False))
    drawn = html_page.drawing(reports, colors)
    picture = ElementTree.fromstring(drawn)
    assert picture.tag.endswith("svg")
    assert "1mo" in picture.itertext()
    evil = ElementTree.fromstring(html_page.drawing({"A": report(device=EVIL)}, colors))
    assert any(text.startswith(EVIL) for text in evil.itertext())  # neither markup nor a formula
    assert "currentColor" in drawn
    assert html_page._INK not in drawn
    assert "#000000" not in drawn
    assert all(color in drawn for color in colors.values())
    assert len(set(colors.values())) == 12


# The command line


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
