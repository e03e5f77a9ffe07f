from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
import torch

from analogsim.evaluation.report import Report
from analogsim.recipes.cli import main
from analogsim.recipes.training.checkpoint import load_checkpoint


def test_evaluate_gives_the_numbers_of_the_training(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", str(stopped), "--quiet"])
    assert capsys.readouterr().out == (stopped / "report.txt").read_text(encoding="utf-8")


def test_evaluate_with_everything_changed(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--device gaussian(std=0.2) --chips 3 --times 1h,0s --compensation none --seed 7 --quiet"
    main(["evaluate", str(stopped), *options.split(), "--json", "a.json", "--plot", "a.svg"])
    out, err = capsys.readouterr()
    assert err == ""
    assert "gaussian(std=0.2), 3 chips, 200 samples, compensation: none" in out
    reports = {name: Report.from_dict(stored) for name, stored in json.loads(Path("a.json").read_text()).items()}
    assert list(reports) == ["plain", "hardware-aware"]
    for report in reports.values():
        assert report.times == (0, 3600)
        assert report.seeds == (7, 8, 9)
    assert b"<svg" in Path("a.svg").read_bytes()


def test_evaluate_part_by_part_on_another_crossbar(
    stopped: Path, capsys: pytest.CaptureFixture[str], fail: Callable[..., str]
) -> None:
    options = ["--crossbar", "standard(adc_bits=6)", "--chips", "2", "--times", "1d"]
    main(["evaluate", str(stopped), *options, "--ablate"])
    out = capsys.readouterr().out
    assert out.index("plain network") < out.index("hardware-aware network")
    for part in ("\neverything on", "without PCMDrift", "without ADC", "without drift compensation"):
        assert out.count(part) == 2
    assert "6-bit ADC" in out
    assert "leave out --plot" in fail("evaluate", str(stopped), "--ablate", "--plot", "a.svg")
    main(["evaluate", str(stopped), *options, "--ablate", "--json", "a.json"])
    stored = json.loads(Path("a.json").read_text())
    assert list(stored) == ["plain", "hardware-aware"]
    assert Report.from_dict(stored["plain"]["everything on"]).values.shape == (2, 1)
    assert "unknown name 'standart'" in fail("evaluate", str(stopped), "--crossbar", "standart")


def test_evaluate_until_the_mean_is_known(
    stopped: Path, capsys: pytest.CaptureFixture[str], fail: Callable[..., str]
) -> None:
    file = str(stopped / "plain" / "checkpoint.pt")
    options = ["--times", "1d", "--json", "a.json", "--quiet"]
    main(["evaluate", file, *options, "--precision", "0.02", "--samples-per-chip", "auto"])
    assert "95 % interval of the mean, at the time when it is widest: ±" in capsys.readouterr().out
    (stored,) = json.loads(Path("a.json").read_text()).values()
    report = Report.from_dict(stored)
    assert report.precision == 0.02
    assert report.sampled is not None
    assert report.sampled.wanted == "auto"
    assert len(report.seeds) >= 16
    main(["evaluate", file, *options, "--chips", "3", "--samples-per-chip", "50"])
    assert "3 chips on " in capsys.readouterr().out
    for wrong, told in (
        (["--precision", "0"], "precision must be a number above 0"),
        (["--precision", "2"], "precision is a share"),
        (["--precision", "0.1", "--chips", "3"], "chips=3 with a precision is the most"),
        (["--samples-per-chip", "some"], "samples_per_chip must be"),
        (["--samples-per-chip", "0"], "samples_per_chip must be"),
        (["--samples-per-chip", "9", "--metric", "f1"], "'f1' is computed of all samples together"),
        (["--ablate", "--precision", "0.1"], "leave out --precision and --samples-per-chip"),
    ):
        assert told in fail("evaluate", file, *options, *wrong), wrong


def test_train_with_a_precision(
    settings: list[str], alone: Path, capsys: pytest.CaptureFixture[str], fail: Callable[..., str]
) -> None:
    quick = [*settings, "optimization.epochs=1", "baseline=false", "--no-tracking", "--quiet"]
    assert "'f1' is computed of all" in fail("train", *quick, "metric=f1", "evaluation.samples_per_chip=50")
    main(["train", *quick, "evaluation.precision=0.03", "evaluation.samples_per_chip=auto"])
    capsys.readouterr()
    (folder,) = Path("runs").iterdir()
    stored = json.loads((folder / "hardware-aware" / "report.json").read_text())
    report = Report.from_dict(stored)
    assert (report.precision, report.sampled is not None) == (0.03, True)
    main(["evaluate", str(folder), "--quiet", "--json", "again.json"])
    again = json.loads(Path("again.json").read_text())["hardware-aware"]
    assert Report.from_dict(again) == report


def test_evaluate_one_checkpoint_file(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", str(stopped / "plain" / "checkpoint.pt"), "--quiet"])
    out = capsys.readouterr().out
    assert "plain" in out
    assert "hardware-aware" not in out


def test_evaluate_keeps_the_compensation_of_the_run(
    settings: list[str], alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*settings, "optimization.epochs=1", "--no-tracking", "--quiet", "evaluation.compensation=none"]
    main(["train", *options])
    (folder,) = Path("runs").iterdir()
    capsys.readouterr()
    main(["evaluate", str(folder), "--quiet"])
    assert "compensation: none" in capsys.readouterr().out
    main(["evaluate", str(folder), "--quiet", "--compensation", "global"])
    assert "compensation: global" in capsys.readouterr().out


def test_evaluate_says_that_a_training_was_stopped(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stopped / "hardware-aware" / "checkpoint.pt"
    content = load_checkpoint(path)
    torch.save({**content, "epoch": 0}, path)
    main(["evaluate", str(stopped), "--quiet"])
    err = capsys.readouterr().err
    assert err.startswith("analogsim: warning: evaluate: the hardware-aware network was stopped after 0 of 1 epochs")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--times 1s,soon", "cannot read 'soon'"),
        ("--times=", "cannot read ''"),
        ("--times 1d,24h", "'1d' and '24h' are the same time"),
        ("--chips 0", "chips must be an integer >= 1, got 0"),
        ("--device pmc", "did you mean 'pcm'?"),
        ("--device=", "cannot read ''"),
        ("--json no/where.json", "there is no folder for 'no/where.json'"),
        ("--plot no/where.png", "there is no folder for 'no/where.png'"),
        ("--folder here", "not from a folder; got 'here'"),
    ],
)
def test_what_is_wrong_with_an_evaluation_is_told_in_one_line(
    stopped: Path, fail: Callable[..., str], options: str, message: str
) -> None:
    assert message in fail("evaluate", str(stopped), "--quiet", *options.split())


def test_evaluate_without_a_run(alone: Path, fail: Callable[..., str]) -> None:
    assert "no checkpoint at 'runs/none'; give a run's folder or a checkpoint file" in fail("evaluate", "runs/none")
    Path("x.pt").write_text("no checkpoint")
    assert "'x.pt' cannot be read, it may be damaged" in fail("evaluate", "x.pt")


def test_evaluate_prepared(stopped: Path, capsys: pytest.CaptureFixture[str], fail: Callable[..., str]) -> None:
    """What is tried within no time at all; tests of `prepare` have the rest."""
    options = ["--device", "pcm+stuck-at", "--chips", "2", "--times", "1s,1d", "--quiet"]
    main(["evaluate", str(stopped), *options, "--prepare", "0.001s", "--copies", "2", "--json", "a.json"])
    out = capsys.readouterr().out
    assert out.count("relative squared error of the answers") == 2
    assert out.count("at 1d,") == 2, "for the last of the times"
    assert len(re.findall("copies-2 .*no time was left", out)) == 2
    reports = {name: Report.from_dict(stored) for name, stored in json.loads(Path("a.json").read_text()).items()}
    assert list(reports) == ["plain", "plain, prepared", "hardware-aware", "hardware-aware, prepared"]
    for name in ("plain", "hardware-aware"):
        assert (reports[name].values == reports[f"{name}, prepared"].values).all(), "the same chips"
    assert "--copies, --digital and --track go with --prepare" in fail("evaluate", str(stopped), "--copies", "2")
    assert "not both" in fail("evaluate", str(stopped), "--prepare", "--ablate")
    assert "cannot read 'soon'" in fail("evaluate", str(stopped), "--prepare", "soon")


@pytest.mark.slow
def test_what_is_prepared_goes_to_mlflow(
    settings: list[str], alone: Path, capsys: pytest.CaptureFixture[str], fail: Callable[..., str]
) -> None:
    quick = [*settings, "optimization.epochs=1", "--quiet", "evaluation.chips=2", "baseline=false"]
    main(["train", *quick, "tracking.uri=sqlite:///kept.db"])
    (folder,) = Path("runs").iterdir()
    main(["evaluate", str(folder), "--times", "1d", "--prepare", "1s", "--track", "--quiet"])
    client = mlflow.MlflowClient("sqlite:///kept.db")
    run_id = load_checkpoint(folder / "hardware-aware" / "checkpoint.pt")["run_id"]
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert "prepared/accuracy/drifted_1d" in run.data.metrics
    assert run.data.tags["prepared"]
    assert {"prepared.txt", "prepared.json"} <= {item.path for item in client.list_artifacts(run_id)}
    shutil.rmtree("runs")
    main(["train", *quick, "--no-tracking"])
    (folder,) = Path("runs").iterdir()
    assert "has none" in fail("evaluate", str(folder), "--prepare", "1s", "--track")
