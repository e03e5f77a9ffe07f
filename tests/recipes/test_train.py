from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import analogsim
from analogsim.device.parse import as_device_model
from analogsim.evaluation.report import Report
from analogsim.recipes import train as recipe
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import flatten, load_toml
from analogsim.recipes.tasks import data_sets, networks, task
from analogsim.recipes.tracking import tracked_run
from analogsim.recipes.tracking.tracker import NoRun
from analogsim.recipes.train import AWARE, PLAIN, train
from analogsim.recipes.training.checkpoint import load_checkpoint
from analogsim.recipes.training.loop import Training
from analogsim.recipes.training.setup import load_data
from analogsim.utils.digests import unsealed

Tiny = Callable[..., Config]


def checkpoint(folder: Path, kind: str) -> dict[str, Any]:
    return load_checkpoint(folder / kind / "checkpoint.pt")


@pytest.fixture(scope="module")
def logged(finished: Any) -> dict[str, Any]:
    """The two runs of the finished one in MLflow."""
    return {kind: finished.store.run(tracker.run_id) for kind, tracker in finished.result.trackers.items()}


def test_both_networks_are_reported(finished: Any) -> None:
    result = finished.result
    assert list(result.reports) == [PLAIN, AWARE]
    for report in result.reports.values():
        assert report.times == (1.0, 86400.0)
        assert report.seeds == (0, 1)
        assert report.samples == 200
        assert report.values.shape == (2, 2)
        assert report.clean > 0.2
    assert PLAIN in str(result)
    assert AWARE in str(result)


def test_the_gain_is_taken_chip_by_chip_and_positive_where_the_score_is_better(finished: Any) -> None:
    plain, aware = (finished.result.reports[kind] for kind in (PLAIN, AWARE))
    better = replace(plain, values=plain.values + np.array([[0.01, 0.04], [0.03, 0.04]]))
    told = replace(finished.result, reports={PLAIN: plain, AWARE: better}).gained()
    assert told == (
        "gained by training with the noise (chip by chip, mean ± standard error): "
        "+2.00 ± 1.00 after 1s, +4.00 ± 0.00 after 1d"
    )
    lower = {
        PLAIN: replace(plain, metric="loss", unit=None, higher_is_better=False),
        AWARE: replace(better, metric="loss", unit=None, higher_is_better=False),
    }
    assert "-0.02 ± 0.01 after 1s" in replace(finished.result, reports=lower).gained()
    for reports in (
        {PLAIN: plain},
        {PLAIN: replace(plain, metric="mine", higher_is_better=None), AWARE: replace(aware, metric="mine")},
        {
            kind: replace(report, values=report.values[:1], seeds=(0,))
            for kind, report in finished.result.reports.items()
        },
    ):
        assert replace(finished.result, reports=reports).gained() == ""


def test_the_folder_holds_everything(finished: Any) -> None:
    found = {str(path.relative_to(finished.folder)) for path in finished.folder.rglob("*") if path.is_file()}
    each = {f"{kind}/{name}" for kind in (PLAIN, AWARE) for name in ("checkpoint.pt", "report.json")}
    assert found == {"config.toml", "report.txt", "drift.png", *each}
    assert finished.folder.parent == finished.place / "runs"
    assert finished.folder.name.endswith("-digits-mlp-pcm")
    assert load_toml(Config, finished.folder / "config.toml") == finished.config
    assert (finished.folder / "report.txt").read_text(encoding="utf-8") == f"{finished.result}\n"
    assert (finished.folder / "drift.png").read_bytes().startswith(b"\x89PNG")
    for kind, report in finished.result.reports.items():
        stored = json.loads((finished.folder / kind / "report.json").read_text())
        assert unsealed(stored) == report.to_dict() == Report.from_dict(stored).to_dict()


def test_a_checkpoint_holds_the_network_that_was_judged(finished: Any) -> None:
    data = load_data(finished.config)
    for kind, report in finished.result.reports.items():
        content = checkpoint(finished.folder, kind)
        assert content["epoch"] == len(content["history"]) == 3
        model = networks.build("mlp", data.shape, data.classes)
        model.load_state_dict(content["model"])
        again = analogsim.evaluate(
            analogsim.convert(model, "pcm"), data_sets.batches(data.test, 1000), chips=2, times=("1s", "1d")
        )
        assert again.to_dict() == report.to_dict()


def test_parameters_are_logged(finished: Any, logged: dict[str, Any]) -> None:
    flat = {key: str(value) for key, value in flatten(finished.config).items()}
    for kind, run in logged.items():
        params = run.data.params
        assert params["training"] == kind
        for key, value in flat.items():
            if not key.startswith(("tracking.", "out")):
                assert params[key] == value
        for key, value in as_device_model("pcm").parameters().items():
            assert params[f"device.{key}"] == str(value)
        assert params["seed"] == "0"
        assert params["noise.end"] == "1.0"
        assert params["data.name"] == "digits"
        assert float(params["model.analog_share"]) > 0.9
        assert int(params["model.cells"]) == 2 * (64 * 100 + 100 * 100 + 100 * 10)


def test_tags_say_what_the_run_was_made_with(finished: Any, logged: dict[str, Any]) -> None:
    for kind, run in logged.items():
        tags = run.data.tags
        assert tags["training"] == kind
        assert tags["folder"] == finished.folder.name
        assert tags["version.torch"] == torch.__version__
        assert {"version.analogsim", "version.python", "hardware.cpu"} <= tags.keys()
        assert tags.get("git.commit") == finished.commit
        if finished.commit:
            assert tags["git.dirty"] == "false"
        assert run.info.run_name == f"{kind}, pcm, mlp, digits, {finished.folder.name[:15]}"
        assert run.info.status == "FINISHED"


def test_metrics_of_every_epoch_are_logged_with_their_step(finished: Any, logged: dict[str, Any]) -> None:
    for kind, run in logged.items():
        history = checkpoint(finished.folder, kind)["history"]
        names = {"train/loss", "train/lr", "validation/accuracy/clean", "validation/accuracy/drifted_1d"}
        assert set(history[0]) == names | ({"train/noise_scale"} if kind == AWARE else set())
        for name in history[0]:
            assert finished.store.points(run.info.run_id, name) == [
                (step, history[step - 1][name]) for step in (1, 2, 3)
            ]
        assert history[-1]["train/lr"] == 0
    scales = [value for _, value in finished.store.points(logged[AWARE].info.run_id, "train/noise_scale")]
    assert scales == pytest.approx([2 / 3, 1, 1], rel=0.11)  # a ramp over the first half, and jitter


def test_the_drift_curve_is_logged_over_seconds(finished: Any, logged: dict[str, Any]) -> None:
    for kind, run in logged.items():
        report = finished.result.reports[kind]
        expected = list(zip((1, 86400), report.mean.tolist(), strict=True))
        assert finished.store.points(run.info.run_id, "test/accuracy/drift") == expected
        lower = list(zip((1, 86400), report.quantile(0.05).tolist(), strict=True))
        assert finished.store.points(run.info.run_id, "test/accuracy/drift_p05") == lower
        assert finished.store.points(run.info.run_id, "test/accuracy/clean") == [(3, report.clean)]
        assert run.data.metrics["test/accuracy/drifted_1d"] == report.mean[1]
        assert run.data.metrics["test/accuracy/drifted_1d_p05"] == report.quantile(0.05)[1]
        assert run.data.metrics["test/accuracy/drifted_1d_std"] == report.std[1]


def test_figure_table_and_checkpoint_are_logged(finished: Any, logged: dict[str, Any]) -> None:
    for kind, run in logged.items():
        kept = {entry.path for entry in finished.store.client.list_artifacts(run.info.run_id)}
        assert kept == {"chips.json", "checkpoint", "drift.png", "report.json", "report.txt"}
        local = finished.store.artifact(run.info.run_id, "checkpoint/checkpoint.pt")
        assert local.read_bytes() == (finished.folder / kind / "checkpoint.pt").read_bytes()
        chips = json.loads(finished.store.artifact(run.info.run_id, "chips.json").read_text())
        assert chips["columns"] == ["chip", "seconds", "time", "accuracy"]
        assert len(chips["data"]) == 4
        text = finished.store.artifact(run.info.run_id, "report.txt").read_text(encoding="utf-8")
        assert text == str(finished.result)


def test_the_seed_makes_the_weights_and_the_result(tiny: Tiny, tmp_path: Path) -> None:
    weights, results = [], []
    for number, seed in enumerate((5, 5, 6)):
        torch.manual_seed(number)  # what the global state was before does not matter
        result = train(tiny(f"seed={seed}"), tmp_path / str(number), show=False)
        pair = [checkpoint(result.folder, kind)["model"] for kind in (PLAIN, AWARE)]
        weights.append([tensor for state in pair for tensor in state.values()])
        results.append(str(result))
    assert all(map(torch.equal, weights[0], weights[1]))
    assert not any(map(torch.equal, weights[0], weights[2]))
    assert results[0] == results[1] != results[2]


def test_tracking_switched_off_makes_no_database(tiny: Tiny, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # importing it would fail
    result = train(tiny("optimization.epochs=1"), show=False)
    assert all(isinstance(tracker, NoRun) for tracker in result.trackers.values())
    assert [path.name for path in alone.iterdir()] == ["runs"]


def test_without_the_baseline_there_is_one_network(store: Any, tiny: Tiny, here: Path) -> None:
    result = train(tiny("baseline=false", "optimization.epochs=1", tracking=True), show=False)
    assert list(result.reports) == list(result.trackers) == [AWARE]
    assert not (result.folder / PLAIN).exists()
    assert AWARE not in str(result.reports[AWARE])
    assert len(store.client.search_runs([result.trackers[AWARE].experiment_id])) == 1


def test_times_are_brought_in_order_and_may_lie_within_a_second(store: Any, tiny: Tiny, here: Path) -> None:
    times = ["1d", "0s", "0.2s", "1234567.5s"]
    config = tiny(f"evaluation.times={times}", "optimization.epochs=1", "baseline=false", tracking=True)
    result = train(config, show=False)
    report, run_id = result.reports[AWARE], result.trackers[AWARE].run_id
    assert report.times == (0, 0.2, 86400, 1234567.5)
    assert [step for step, _ in store.points(run_id, "test/accuracy/drift")] == [0, 86400, 1234568]
    assert store.points(run_id, "test/accuracy/drift")[0][1] == report.mean[1]
    metrics = store.run(run_id).data.metrics
    assert {"test/accuracy/drifted_0.2s", "test/accuracy/drifted_1.23457e06s"} <= metrics.keys()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("device=pmc", r"unknown name 'pmc'; did you mean 'pcm'\?"),
        ("noise.device=gausian(std=0.1)", r"unknown name 'gausian'; did you mean 'gaussian'\?"),
        ("data.name=digit", r"did you mean 'digits'\?"),
        ("model=lenet", r"did you mean 'lenet5'"),
        ("evaluation.times=[]", "give at least one time"),
        ('evaluation.times=["1s", "soon"]', "cannot read 'soon'"),
        ('evaluation.times=["24h", "1s", "1d"]', "'24h' and '1d' are the same time"),
        ("evaluation.validation_time=never", "cannot read 'never'"),
        ("evaluation.compensation=local", "compensation: must be None, or one of global, crossbar, column"),
        ("noise.shape=exponential", r"noise\.start and noise\.end > 0"),
        ("data.folder=x", "not from a folder"),
    ],
)
def test_wrong_options_are_told_before_anything_is_made(tiny: Tiny, alone: Path, override: str, message: str) -> None:
    if "model" in override:
        pytest.importorskip("torchvision")
    with pytest.raises(ValueError, match=message):
        train(tiny(override, tracking=True), show=False)
    assert not [path for path in alone.rglob("*") if path.is_file()]
    assert not list((alone / "runs").glob("*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_told(tiny: Tiny, alone: Path) -> None:
    with pytest.raises(ValueError, match='"cuda" was asked for, but torch finds no GPU'):
        train(tiny("run_on=cuda"), show=False)


def test_a_server_that_does_not_answer_is_told_before_training(tiny: Tiny, alone: Path, closed_port: int) -> None:
    pytest.importorskip("mlflow")
    config = tiny(f"tracking.uri=http://127.0.0.1:{closed_port}", tracking=True)
    began = time.monotonic()
    with pytest.raises(ConnectionError, match=r"cannot reach the MLflow store .*--no-tracking"):
        train(config, show=False)
    assert time.monotonic() - began < 15
    assert not list((alone / "runs").glob("*"))


def test_a_run_that_was_started_ends_where_the_next_one_cannot_start(
    store: Any, tiny: Tiny, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, made = tracked_run.start, []

    def second_fails(*args: Any, **kwargs: Any) -> Any:
        if made:
            raise ConnectionError("gone")
        made.append(start(*args, **kwargs))
        return made[0]

    monkeypatch.setattr(tracked_run, "start", second_fails)
    with pytest.raises(ConnectionError, match="gone"):
        train(tiny(tracking=True), show=False)
    assert store.run(made[0].run_id).info.status == "FAILED"
    assert not list((here / "runs").glob("*"))


def test_a_folder_that_cannot_be_made_is_told_before_training(tiny: Tiny, alone: Path) -> None:
    (alone / "file").write_text("")
    message = r"out: cannot make the folder 'file.*': Not a directory; give another place"
    with pytest.raises(OSError, match=message):
        train(tiny("out=file", tracking=True), show=False)
    with pytest.raises(OSError, match=message):
        train(tiny(tracking=True), Path("file/inside/it"), show=False)
    assert [path.name for path in alone.iterdir()] == ["file"]


def test_two_runs_started_at_once_have_folders_of_their_own(
    tiny: Tiny, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        @staticmethod
        def now() -> datetime:
            return datetime(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(recipe, "datetime", Clock)
    config = tiny("device=gaussian(std=0.05)")
    names = [recipe.new_folder(config) for _ in range(3)]
    first = "20260102-030405-digits-mlp-gaussian_std_0.05_"
    assert [name.name for name in names] == [first, f"{first}-2", f"{first}-3"]
    assert all(name.is_dir() for name in names)
    long = tiny("device=" + "+".join(["gaussian(std=0.05)"] * 20))
    assert recipe.new_folder(long).is_dir()


def test_the_checkpoint_of_the_last_good_epoch_is_kept(
    store: Any, tiny: Tiny, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = nn.functional.cross_entropy

    class Functional:
        """The loss is NaN from one moment on."""

        broken = False

        @classmethod
        def cross_entropy(cls, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return loss(output, target) * (math.nan if cls.broken else 1)

    save = Training.save

    def break_after_two(self: Training) -> None:
        save(self)
        Functional.broken = self.epoch == 2

    monkeypatch.setattr(task, "functional", Functional)
    monkeypatch.setattr(Training, "save", break_after_two)
    with pytest.raises(ValueError, match=r"epoch 3 of 3 is nan; .*plain/checkpoint.pt' is still .* after epoch 2"):
        train(tiny(tracking=True), Path("run"), show=False)
    content = checkpoint(Path("run"), PLAIN)
    assert content["epoch"] == 2
    assert all(weight.isfinite().all() for weight in content["model"].values())
    run = store.run(content["run_id"])
    assert run.info.status == "FAILED"
    assert [step for step, _ in store.points(run.info.run_id, "train/loss")] == [1, 2]
    assert not Path("run/report.txt").exists()


def test_color_images_and_residual_networks_train(tiny: Tiny, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With random images for CIFAR-10, through the recipe as it is used."""
    generator = torch.Generator().manual_seed(0)

    def part(count: int) -> data_sets.Samples:
        images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
        return data_sets.Samples(images, torch.arange(count) % 10)

    monkeypatch.setitem(data_sets.READERS, "cifar10", lambda *_: (part(40), part(10)))
    config = tiny("data.name=cifar10", "model=resnet20", "optimization.epochs=1", "evaluation.chips=1")
    result = train(replace(config, data=replace(config.data, batch_size=18)), show=False)
    assert result.reports[AWARE].samples == 10
    content = checkpoint(result.folder, AWARE)
    assert content["model"]["bn1.num_batches_tracked"] == 2


def test_a_network_of_torchvision_trains(tiny: Tiny, alone: Path) -> None:
    pytest.importorskip("torchvision")
    config = tiny("model=shufflenet_v2_x0_5", "data.limit=16", "optimization.epochs=1", "evaluation.chips=1")
    result = train(replace(config, baseline=False), show=False)
    assert result.reports[AWARE].device == "pcm"
