from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import analogsim
from analogsim.evaluation.report import Report
from analogsim.recipes import train as recipe
from analogsim.recipes.cli import PROGRAMS, main
from analogsim.recipes.cli.command_line import make_parser
from analogsim.recipes.config.arguments import Program
from analogsim.recipes.config.options import Config, StudyConfig
from analogsim.recipes.config.ready import ready_file
from analogsim.recipes.config.toml import flatten, load_toml
from analogsim.recipes.tasks import networks
from analogsim.recipes.training.checkpoint import load_checkpoint


def test_version_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "analogsim", "--version"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"analogsim {analogsim.__version__}\n", "")


def test_the_version_is_told_without_torch() -> None:
    """So that it takes a tenth of a second: nothing heavy is imported for it."""
    command = [sys.executable, "-X", "importtime", "-m", "analogsim", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"analogsim {analogsim.__version__}\n"
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "analogsim" in imported
    assert imported.isdisjoint({"torch", "numpy", "scipy"})


def test_the_command_line_starts_without_what_is_heavy() -> None:
    heavy = {"mlflow", "torchvision", "optuna", "matplotlib", "pandas", "sklearn"}
    code = f"import sys, analogsim.recipes.cli; print(sorted({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ((), ("train", "tune", "compare", "ui", "evaluate", "devices", "summary", "--version", "--debug")),
        (("tune",), ("--study", "--storage", "--min-clean", "noise.clip_sigmas  1.5 to 4", "search.noise.end=none")),
        (("train",), ("--resume", "--no-tracking", "--download", "FILE.toml | KEY=VALUE")),
        (("evaluate",), ("--chips", "--times", "--json", "--plot", "--compensation")),
        (("devices",), ("NAME", "--json FILE", "--quiet", "examples:")),
        (("summary",), ("--device", "--data")),
    ],
)
def test_help(capsys: pytest.CaptureFixture[str], command: tuple[str, ...], words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert all(word in out for word in words)
    every = {("train",): flatten(Config()), ("tune",): flatten(StudyConfig()).keys() - {"search"}}
    assert all(re.search(rf"^{re.escape(name)} ", out, re.MULTILINE) for name in every.get(command, ()))


def test_no_command_and_an_unknown_one(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["trian"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert "COMMAND" in capsys.readouterr().err


def test_devices_lists_every_name(capsys: pytest.CaptureFixture[str]) -> None:
    main(["devices"])
    rows = capsys.readouterr().out.splitlines()[2:]
    described = {row.split()[0]: row.split(maxsplit=1)[1:] for row in rows[: rows.index("")]}
    assert tuple(described) == analogsim.available_devices()
    assert all(described.values())


def test_devices_shows_one_with_its_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    main(["devices", "gaussian(std=0.1)"])
    out = capsys.readouterr().out
    assert out.startswith("Error of programming")
    assert re.search(r"^Gaussian\.std +0\.1 +fraction of g_max +>= 0$", out, re.MULTILINE)
    assert "constant, proportional, inverse" in out
    main(["devices", "quantization(levels=16)+drift"])
    out = capsys.readouterr().out
    assert out.startswith("parameter")  # what several do together is not told by the text on the first
    assert re.search(r"^Quantization\.levels +16 ", out, re.MULTILINE)
    assert "Drift.nu" in out
    main(["devices", "pcm(copies=2, scale='crossbar')"])
    out = capsys.readouterr().out
    assert re.search(r"^Mapping\.copies +2 ", out, re.MULTILINE)
    assert re.search(r"^Mapping\.scale +crossbar ", out, re.MULTILINE)
    for name in analogsim.available_devices():
        main(["devices", name])


def test_devices_names_the_nearest(fail: Callable[..., str]) -> None:
    assert "unknown name 'gausian'; did you mean 'gaussian'?" in fail("devices", "gausian")
    assert "has no parameter 'sdt'; did you mean 'std'?" in fail("devices", "gaussian(sdt=1)")


def test_summary(capsys: pytest.CaptureFixture[str]) -> None:
    main(["summary", "resnet20"])
    out = capsys.readouterr().out
    assert "20 analog layers" in out
    assert re.search(r"^fc +Linear +analog +pcm", out, re.MULTILINE)
    main(["summary", "mlp", "--device", "gaussian(std=0.3)", "--data", "mnist"])
    out = capsys.readouterr().out
    assert re.search(r"^fc1 +Linear +analog +gaussian\(std=0\.3\) +100x784", out, re.MULTILINE)


def test_summary_of_a_network_of_torchvision(capsys: pytest.CaptureFixture[str], fail: Callable[..., str]) -> None:
    pytest.importorskip("torchvision")
    main(["summary", "mobilenet_v3_small", "--data", "cifar10"])
    out, err = capsys.readouterr()
    assert "model.features.0.0" in out
    assert err == ""
    assert "did you mean 'resnet18'" in fail("summary", "resnet19")
    assert "did you mean 'lenet5'" in fail("summary", "lenet")


def test_train_prints_the_table_and_how_to_look_at_the_runs(
    settings: list[str], here: Path, store: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run.toml").write_text('model = "lenet5"\nseed = 4\n[optimization]\nepochs = 9\n')
    changes = [setting for setting in settings if not setting.startswith("model")]
    main(["train", "run.toml", *changes, "optimization.epochs=1", "--seed", "0", "--device", "gaussian(std=0.05)"])
    out, err = capsys.readouterr()
    assert "accuracy [%]" in out
    assert re.search(r"gaussian\(std=0\.05\).*, 2 chips, 200 samples", out)
    assert "plain:" in err  # the progress bar
    (folder,) = Path("runs").iterdir()
    assert f"report, drift curve, checkpoints: {folder}" in out
    config = load_toml(Config, folder / "config.toml")
    assert (config.model, config.seed, config.optimization.epochs) == ("lenet5", 0, 1)  # later ones win
    ids = {kind: load_checkpoint(folder / kind / "checkpoint.pt")["run_id"] for kind in ("plain", "hardware-aware")}
    assert "\nanalogsim ui\n" in out
    assert f"/#/experiments/1/runs/{ids['hardware-aware']}" in out
    (experiment,) = store.client.search_experiments(filter_string="name = 'analogsim'")
    views = {name.rpartition(".")[2] for name in experiment.tags if "sharedViewState" in name}
    (beside,) = views - {"analogsim"}
    assert re.search(rf"^Both networks side by side:\n.*&viewStateShareKey={beside}&compareRunsMode=CHART$", out, re.M)
    assert re.search(r"^All runs, with their scores:\n.*&viewStateShareKey=analogsim$", out, re.M)
    assert store.run(ids["plain"]).info.run_name.startswith("plain, gaussian(std=0.05), lenet5, digits, ")
    assert store.run(ids["plain"]).data.params["device.Gaussian.std"] == "0.05"


def test_every_short_option_is_heard(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Config] = []

    def stop(config: Config, *_: object, **__: object) -> None:
        seen.append(config)
        raise analogsim.AnalogsimError("seen")

    monkeypatch.setattr(recipe, "train", stop)
    options = "--device drift --data mnist --folder x --model resnet20 --epochs 7 --chips 3 --seed 0 --out there"
    for more in ("", "--download --no-baseline --no-tracking"):
        with pytest.raises(SystemExit):
            main(["train", "seed=8", *options.split(), *more.split()])
    first, second = seen
    assert (first.device, first.data.name, first.data.folder, first.model) == ("drift", "mnist", "x", "resnet20")
    assert (first.optimization.epochs, first.evaluation.chips, first.seed, first.out) == (7, 3, 0, "there")
    assert (first.data.download, first.baseline, first.tracking.enabled) == (False, True, True)
    assert (second.data.download, second.baseline, second.tracking.enabled) == (True, False, False)


def test_settings_may_stand_anywhere(
    alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Config] = []
    monkeypatch.setattr(recipe, "train", lambda config, *_, **__: seen.append(config) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["train", "model=mlp", "--quiet", "noise.end=3", "--epochs", "7", "data.limit=9"])
    config = seen[0]
    assert (config.model, config.noise.end, config.optimization.epochs, config.data.limit) == ("mlp", 3, 7, 9)
    for wrong in (["train", "--quiet", "--fast"], ["devices", "pcm", "drift"]):
        with pytest.raises(SystemExit) as ended:
            main(wrong)
        assert ended.value.code == 2
        assert f"unrecognized arguments: {wrong[-1]}" in capsys.readouterr().err
    for option, hint in (
        ("--limit", "data.limit=..."),
        ("--lr=3", "optimization.lr=..."),
        ("--batch-size", "data.batch_size=... or evaluation.batch_size=..."),
        ("--data.limit", "data.limit=..."),
    ):
        with pytest.raises(SystemExit):
            main(["train", option, "100"])
        assert f"; did you mean {hint}, without dashes?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--device pmc", "unknown name 'pmc'; did you mean 'pcm'?"),
        ("--device=", "cannot read ''"),
        ("--device gaussian(std=-1)", "std must be >= 0"),
        ("--data fashon-mnist", "unknown name 'fashon-mnist', known are digits,"),
        ("--data fashon-mnist", "did you mean 'fashion-mnist'?"),
        ("--model lenet", "did you mean 'lenet5'"),
        ("epochs=3", "no option 'epochs'; did you mean 'optimization.epochs'?"),
        ("optimization.epoch=3", "did you mean 'optimization.epochs'?"),
        ("--epochs -1", "optimization.epochs: wanted a value >= 0, got -1"),
        ("--epochs 0", "optimization.epochs=0 puts a network on chips as it is, and model='mlp' starts at random"),
        ("--chips 0", "evaluation.chips: wanted a value >= 1, got 0"),
        ("--seed -1", "seed: wanted a value >= 0, got -1"),
        ("--epochs many", "optimization.epochs: wanted int, got 'many'"),
        ("optimization.optimizer=adma", "wanted one of 'adam', 'adamw', 'sgd', got 'adma'"),
        ("evaluation.times=true", "wanted list[str, ...], got True"),
        ("evaluation.times=-5", "must be finite and >= 0 seconds after programming, got '-5s'"),
        ('evaluation.times=["1s","1x"]', "cannot read '1x'"),
        ("a.toml b.toml", "give one configuration file, and options as key=value; got a.toml, b.toml"),
        ("a.toml", "no configuration file 'a.toml'"),
        ("data.name=mnist data.folder=nowhere", "were not found; looked in nowhere"),
        ("--out file", "cannot make the folder 'file/"),
        ("--resume nowhere", "'nowhere' is no run of analogsim train"),
        ("--resume nowhere --epochs 3", "--resume goes on with the options of the run; the only others are"),
        ("--resume nowhere seed=3", "--resume goes on with the options of the run; the only others are"),
        ("--resume nowhere --no-baseline", "--resume goes on with the options of the run; the only others are"),
    ],
)
def test_what_is_wrong_with_a_training_is_told_in_one_line(
    alone: Path, fail: Callable[..., str], arguments: str, message: str
) -> None:
    if "lenet" in arguments:
        pytest.importorskip("torchvision")
    Path("file").write_text("")
    given = [] if "--resume" in arguments else ["model=mlp"]
    assert message in fail("train", "--no-tracking", "--quiet", *given, *arguments.split())
    assert not list(Path().glob("runs/*"))


def test_a_server_that_does_not_answer(alone: Path, fail: Callable[..., str], closed_port: int) -> None:
    pytest.importorskip("mlflow")
    line = fail("train", "--quiet", f"tracking.uri=http://127.0.0.1:{closed_port}")
    assert "cannot reach the MLflow store" in line
    assert "--no-tracking" in line


def test_training_that_diverges(alone: Path, settings: list[str], fail: Callable[..., str]) -> None:
    line = fail("train", *settings, "--no-tracking", "--quiet", "optimization.lr=1e9")
    assert "training diverged: the mean loss of epoch 1 of 3 is " in line
    assert "smaller optimization.lr (now 1e+09)" in line


def test_debug_shows_the_traceback(alone: Path) -> None:
    with pytest.raises(ValueError, match="unknown name 'pmc'"):
        main(["--debug", "train", "--device", "pmc"])


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in ``analogsim devices | head -1``."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", buffering=1) as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        with pytest.raises(SystemExit) as ended:
            main(["devices"])
        monkeypatch.undo()
    assert ended.value.code == 1


def test_a_bug_keeps_its_traceback(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(recipe, "train", bug)
    with pytest.raises(KeyError, match="a bug") as told:
        main(["train"])
    (request,) = told.value.__notes__
    assert "Please report it with the lines above, the command, and these versions:\nanalogsim " in request
    assert f"torch {torch.__version__.partition('+')[0]}" in request


@pytest.mark.parametrize("error", [ValueError, TypeError, RuntimeError, ImportError])
def test_an_error_that_nobody_foresaw_is_a_bug(
    alone: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Whatever built-in type it has: what is said in one line is of a class of ours."""
    monkeypatch.setattr(recipe, "train", lambda *_, **__: _raise(error))
    with pytest.raises(error, match="Overflow when unpacking") as told:
        main(["train"])
    assert told.value.__notes__


def _raise(error: type[Exception]) -> None:
    raise error("Overflow when unpacking long long")


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device", "x"), MemoryError("too much"), torch.OutOfMemoryError("too much")]
)
def test_what_the_machine_lacks_is_no_bug(
    alone: Path, monkeypatch: pytest.MonkeyPatch, fail: Callable[..., str], error: Exception
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(recipe, "train", full)
    assert str(error) in fail("train")


def test_a_file_whose_path_has_an_equals_sign(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Config] = []
    monkeypatch.setattr(recipe, "train", lambda config, *_, **__: seen.append(config) or 1 / 0)
    Path("lr=0.1").mkdir()
    Path("lr=0.1/run.toml").write_text("seed = 3\n")
    with pytest.raises(ZeroDivisionError):
        main(["train", "lr=0.1/run.toml", "model=mlp"])
    assert (seen[0].seed, seen[0].model) == (3, "mlp")


def test_ctrl_c_says_how_to_go_on(
    alone: Path, settings: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def stop(bar: Any, at: Any) -> None:
            if at.epoch == 1:
                raise KeyboardInterrupt

        patch.setattr(recipe._Bar, "step", stop)
        with pytest.raises(SystemExit) as ended:
            main(["train", *settings, "--no-tracking", "--quiet", "--out", "my runs"])
    assert ended.value.code == 130
    (folder,) = Path("my runs").iterdir()
    err = capsys.readouterr().err
    assert err == f"\nstopped; go on with: analogsim train --resume '{folder}'\n"
    main(["train", "--resume", str(folder), "--quiet", "--no-tracking"])
    assert "accuracy [%]" in capsys.readouterr().out
    assert load_checkpoint(folder / "plain" / "checkpoint.pt")["epoch"] == 3


def test_ctrl_c_before_there_is_anything_to_go_on_with(
    alone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("load_data", "Training"):
        with monkeypatch.context() as patch:
            patch.setattr(recipe, name, stop if name == "load_data" else lambda *_, **__: stop())
            with pytest.raises(SystemExit) as ended:
                main(["train", "--no-tracking"])
        assert ended.value.code == 130
        assert capsys.readouterr().err == "\nstopped\n"
        assert not Path("runs").exists()


class Odd(nn.Module):
    """A network with a weight that cannot be analog."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(64, 10)
        self.gain = nn.Parameter(torch.ones(1, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.flatten(x)) * self.gain


def test_a_warning_is_one_readable_line(
    alone: Path, settings: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "build", lambda *_, **__: Odd())
    main(["train", *settings, "optimization.epochs=1", "--no-tracking", "--quiet"])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1  # once, for four conversions
    assert lines[0].startswith("analogsim: warning: convert: weights that stay digital: 1 x ")


def test_a_device_file_is_shown_and_trained_for(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    analogsim.save_device(analogsim.as_device_model("gaussian(std=0.07)"), "mine.toml")
    main(["devices", "mine.toml"])
    assert "Gaussian.std" in capsys.readouterr().out
    quick = ["--model", "mlp", "--epochs", "1", "--chips", "1", "--no-tracking", "--quiet", "data.limit=100"]
    main(["train", *quick, "--device", "mine.toml", "baseline=false"])
    assert "gaussian(std=0.07), 1 chip" in capsys.readouterr().out


def test_a_mapping_in_text_is_trained_with_and_kept(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--model", "mlp", "--epochs", "1", "--chips", "1", "--no-tracking", "--quiet", "data.limit=100"]
    main(["train", *quick, "--device", "pcm(copies=2, percentile=99.5)", "baseline=false"])
    (folder,) = Path("runs").iterdir()
    assert 'device = "pcm(copies=2, percentile=99.5)"' in (folder / "config.toml").read_text()
    assert "pcm(copies=2,percentile=99.5), 1 chip" in capsys.readouterr().out
    main(["summary", "mlp", "--device", "pcm(copies=2)"])
    assert "on 69,600 cells" in capsys.readouterr().out  # twice two for each of the 17,400 weights


def test_a_crossbar_is_trained_with_and_kept(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--model", "mlp", "--epochs", "1", "--chips", "1", "--no-tracking", "--quiet", "data.limit=100"]
    main(["train", *quick, "--crossbar", "standard(rows=32)", "baseline=false"])
    (folder,) = Path("runs").iterdir()
    assert 'crossbar = "standard(rows=32)"' in (folder / "config.toml").read_text()
    assert "crossbars of 32 rows" in capsys.readouterr().out
    main(["evaluate", str(folder), "--quiet"])
    assert "crossbars of 32 rows" in capsys.readouterr().out
    main(["summary", "mlp", "--crossbar", "standard(rows=32)"])
    assert "crossbars" in capsys.readouterr().out


def test_a_crossbar_with_ranges_that_are_learned(
    alone: Path, capsys: pytest.CaptureFixture[str], fail: Callable[..., str]
) -> None:
    quick = ["--model", "mlp", "--epochs", "1", "--chips", "1", "--no-tracking", "--quiet", "data.limit=100"]
    main(["train", *quick, "--crossbar", "standard(input_range='learned')", "evaluation.compensation=crossbar"])
    (folder,) = Path("runs").iterdir()
    capsys.readouterr()
    main(["evaluate", str(folder), "--quiet"])
    assert capsys.readouterr().out == (folder / "report.txt").read_text(encoding="utf-8")
    other = ["--crossbar", "standard(output_bound='calibrated')", "--compensation", "column+ranges", "--times", "1d"]
    main(["evaluate", str(folder), "--quiet", *other])
    out = capsys.readouterr().out
    for line, kind in zip(out.splitlines(), ("plain", "hardware-aware"), strict=False):
        assert line == f"{kind}: ranges of converters were set on training data"
    assert "compensation: column+ranges" in out
    main(["evaluate", str(folder), "--quiet", *other, "--ablate"])
    assert "without drift compensation" in capsys.readouterr().out
    assert "leaves none to calibration" in fail("evaluate", str(folder), "--ablate", "--compensation=ranges")
    assert "'batch-norm' is for networks with" in fail("evaluate", str(folder), "--compensation", "batch-norm")
    assert "joined by '+', got 'best'" in fail("evaluate", str(folder), "--compensation", "best")


def test_times_end_where_the_formulas_of_the_device_do(
    alone: Path, capsys: pytest.CaptureFixture[str], fail: Callable[..., str]
) -> None:
    quick = ["--model", "mlp", "--epochs", "1", "--chips", "1", "--no-tracking", "--quiet", "data.limit=100"]
    main(["train", *quick, "--device", "reram-wan2022", "baseline=false"])
    out = capsys.readouterr().out
    assert "after 1d" in out
    assert "after 1mo" not in out
    message = fail("train", *quick, "--device", "reram-wan2022", 'evaluation.times=["1s","1y"]')
    assert "after programming, got 1y; choose times within" in message
    assert "choose times within" in fail("train", *quick, "--device", "reram-wan2022", "evaluation.validation_time=1y")


def test_tune_tells_each_trial_and_the_result(
    settings: list[str], alone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    words = ["--no-tracking", "study.chips=2", "--study", "my study", "--time", "1h"]
    main(["tune", *settings, "--trials", "2", *words, "search={noise={end={low=1, high=4}}}"])
    out = capsys.readouterr().out
    assert out.startswith("study 'my study', 2 trials, of\nsearched   values\n")
    assert re.search(r"^noise.end  1 to 4$", out, re.MULTILINE)
    assert re.search(
        r"^trial 1  complete  [\d.]+ %  \(best: trial [01], [\d.]+ %\)  \d+ s  end [\d.]+$", out, re.MULTILINE
    )
    assert "study 'my study' in sqlite:///" in out
    assert "1h after programming [%]" in out
    assert "best settings, trials, checkpoints: runs/my_study" in out
    main(["tune", "--study", "my study", "--trials", "3", "--quiet"])  # all else is known
    out = capsys.readouterr().out
    assert "3 complete" in out
    assert not re.search(r"^trial \d", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sampler", "tep"], "study.sampler: unknown name 'tep'"),
        (
            ["--storage", "optuna.db"],
            "study.storage: 'optuna.db' is not the URL of a database; write sqlite:///optuna.db",
        ),
        (["--storage", "sqlite:////missing/optuna.db"], "study.storage: cannot open sqlite:////missing/optuna.db: "),
        (["--min-clean", "90"], "study.min_clean: wanted a value < 1, got 90.0 (float); did you mean 0.9?"),
        (["study.sampler=tpe(gamma=3)"], "study.sampler: gamma of 'tpe': is a Callable, which cannot be said here"),
        (["study.sampler=tpe(n_ei_candidates=0)"], "study.sampler: 'tpe(n_ei_candidates=0"),
        (["search.noise.ende=none"], "search: no option 'noise.ende'; did you mean 'noise.end'?"),
        (["search.noize=none"], "search: no option 'noize'"),
        (['search.device=["pcm", "pmc"]'], "search: device=pmc cannot be trained: "),
        (["study.seed=1000000000000000000000000000000"], "study.seed: wanted a value < 4294967296, got 1000"),
        (["search.noise.ende={low=1, high=2}"], "search: no option 'noise.ende'; did you mean 'noise.end'?"),
        (["missing.toml"], "no configuration file 'missing.toml'"),
        (["--out", "taken"], "out: cannot write to the folder 'taken': File exists"),
    ],
)
def test_what_is_wrong_with_a_study_is_told_in_one_line(
    alone: Path, settings: list[str], fail: Callable[..., str], arguments: list[str], words: str
) -> None:
    (alone / "taken").write_text("a file")
    assert words in fail("tune", *settings, "--no-tracking", "--quiet", *arguments)
    assert [path.name for path in alone.iterdir()] == ["taken"], "a refused command leaves nothing"


def test_tune_is_not_for_torchrun(alone: Path, fail: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "start the same command several times" in fail("tune")


def test_sigterm_ends_as_ctrl_c_does(settings: list[str], alone: Path) -> None:
    command = [sys.executable, "-m", "analogsim", "train", *settings, "optimization.epochs=100000", "--no-tracking"]
    with subprocess.Popen([*command, "--quiet"], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not list(alone.glob("runs/*/plain/checkpoint.pt")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert re.search(r"^stopped; go on with: analogsim train --resume runs/", err, re.MULTILINE)
    assert "Traceback" not in err


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_the_examples_of_every_help_can_be_read(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([program.name, "--help"])
    told = capsys.readouterr().out
    assert program.examples
    for example in program.examples:
        assert f"\n  analogsim {example}\n" in f"{told}\n"
        options, rest = make_parser().parse_known_args(shlex.split(example))
        assert options.program is program
        if program.words == "settings":  # which the configuration must take, too
            files = [word for word in (*options.settings, *rest) if "=" not in word]
            assert all(word.endswith(".toml") or ready_file(word) for word in files)
            load_toml(StudyConfig, None, [word for word in (*options.settings, *rest) if "=" in word])
        else:
            assert rest == []


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_every_help_is_of_one_style(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    """Defaults behind a semicolon, no line of options and description beyond 80 columns, no escape codes."""
    with pytest.raises(SystemExit):
        main([program.name, "--help"])
    told = capsys.readouterr().out
    own = told.partition("\nexamples:")[0]
    assert max(map(len, own.splitlines())) <= 80
    assert "(default" not in own
    assert "\x1b" not in told
    assert "--quiet" in own


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("trian", "there is no command 'trian'; did you mean 'train'?"),
        ("device pcm", "there is no command 'device'; did you mean 'devices'?"),
        ("evalute runs/x", "did you mean 'evaluate'?"),
        ("xyz", "there is no command 'xyz'; COMMAND is one of judge, train,"),
        ("train --epoks 3", "unrecognized arguments: --epoks; did you mean '--epochs'?"),
        ("train --quite", "did you mean '--quiet'?"),
        ("devices --jsno -", "did you mean '--json'?"),
        ("evaluate x --chip-count 3", "unrecognized arguments: --chip-count 3"),
    ],
)
def test_what_was_meant_is_guessed(arguments: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    assert ended.value.code == 2
    assert meant in capsys.readouterr().err


def test_a_configuration_is_found_by_its_name(
    alone: Path, monkeypatch: pytest.MonkeyPatch, fail: Callable[..., str]
) -> None:
    seen: list[Config] = []
    monkeypatch.setattr(recipe, "train", lambda config, *_, **__: seen.append(config) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["train", "fashion-mnist-lenet5", "--epochs", "1"])
    assert (seen[0].data.name, seen[0].noise.end, seen[0].optimization.epochs) == ("fashion-mnist", 2.0, 1)
    assert "no configuration 'fashon-mnist-lenet5'; did you mean 'fashion-mnist-lenet5'?" in fail(
        "train", "fashon-mnist-lenet5"
    )
    Path("fashion-mnist-lenet5").write_text("seed = 3\n")  # a file of one's own comes first
    with pytest.raises(ZeroDivisionError):
        main(["train", "fashion-mnist-lenet5"])
    assert (seen[1].seed, seen[1].data.name) == (3, "digits")


def test_train_and_what_follows_write_json_alone(
    alone: Path, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["train", *settings, "optimization.epochs=2", "--no-tracking", "--json", "-"])
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert list(found["reports"]) == ["plain", "hardware-aware"]
    assert Report.from_dict(found["reports"]["plain"]).labels == ("1s", "1d")
    assert found["runs"] == {}
    assert "accuracy [%]" in err
    # A line for each epoch of each network, where there is no terminal, and no bar that is drawn over itself.
    lines = re.findall(r"^(\S+): epoch (\d) of 2, loss [\d.]+, clean [\d.]+ %, drifted_1d [\d.]+ %$", err, re.MULTILINE)
    assert lines == [(name, epoch) for name in ("plain", "hardware-aware") for epoch in "12"]
    assert "\r" not in err
    assert "\x1b" not in err
    main(["evaluate", found["folder"], "--json", "-", "--quiet"])
    out, err = capsys.readouterr()
    assert json.loads(out) == found["reports"]
    assert err == ""
    main(["sensitivity", found["folder"], "--chips", "1", "--json", "-"])
    out, err = capsys.readouterr()
    assert set(json.loads(out)["plain"]["layers"]) == {"fc1", "fc2", "fc3"}
    main(["compare", found["folder"], "--json", "compare.json", "--quiet"])
    capsys.readouterr()
    stored = json.loads(Path("compare.json").read_text())
    assert [run["report"]["metric"] for run in stored["runs"]] == ["accuracy"] * 2
    assert not Path("-").exists()


@pytest.mark.parametrize("command", ["", *(program.name for program in PROGRAMS)])
def test_help_fits_80_columns(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"] if command else ["--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 5
    assert [line for line in lines if len(line) > 80] == []


class Terminal(io.StringIO):
    """An error stream on which bars are drawn."""

    def isatty(self) -> bool:
        return True


def test_the_bar_fits_80_columns(alone: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    main(["train", *settings, "optimization.epochs=2", "--no-tracking"])
    drawn = [line for line in re.split(r"[\r\n]", screen.getvalue()) if line.startswith("hardware-aware")]
    assert drawn
    assert max(map(len, drawn)) <= 80
    scores = r"loss=[\d.]+, clean=[\d.]+ %, drifted_1d=[\d.]+ %"
    assert re.fullmatch(rf"hardware-aware: 100%\|.+\| [\d:]+, {scores}", drawn[-1])
    assert "\x1b" not in screen.getvalue()
