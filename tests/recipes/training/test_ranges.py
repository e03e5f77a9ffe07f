"""Ranges of converters that are calibrated or learned, and compensations that need data, through the recipes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import analogsim
from analogsim.chip.ranges import get_ranges, set_ranges
from analogsim.crossbar import as_crossbar
from analogsim.evaluation.metrics import METRICS
from analogsim.recipes import train as recipe
from analogsim.recipes import tune
from analogsim.recipes.config.options import Config
from analogsim.recipes.evaluate import ablate, evaluate
from analogsim.recipes.study.objectives import SEARCH_CHIPS
from analogsim.recipes.tasks import data_sets, networks
from analogsim.recipes.train import AWARE, PLAIN, resume_config, train
from analogsim.recipes.training import ranges
from analogsim.recipes.training.checkpoint import load_checkpoint, save_checkpoint
from analogsim.recipes.training.loop import DivergedError, Training
from analogsim.recipes.training.ranges import calibration_batches
from analogsim.recipes.training.restored import restored
from analogsim.recipes.training.setup import load_data
from analogsim.utils.digests import unsealed

# Networks of two epochs, on converters that nobody set for them.
pytestmark = pytest.mark.filterwarnings("ignore:evaluate. output converters saturate")

Tiny = Callable[..., Config]

LEARNED = "crossbar=standard(input_range='learned')"
CALIBRATED = "crossbar=standard(input_range='calibrated', output_bound='calibrated')"
BOTH = "crossbar=standard(input_range='learned', output_bound='calibrated')"
QUIET = ("noise.end=0", "noise.clip_sigmas=none")


def begun(config: Config, path: Path, kind: str = AWARE) -> Training:
    return Training(config, load_data(config), aware=kind == AWARE, path=path)


def run(training: Training, until: int = 99) -> None:
    training.set_random_state()
    while not training.done and training.epoch < until:
        training.run_epoch(lambda _: None)


def checkpoint(folder: Path, kind: str) -> dict[str, Any]:
    return load_checkpoint(folder / kind / "checkpoint.pt")


def calibrated(training: Training, learned: bool = False) -> dict[str, dict[str, torch.Tensor]]:
    """The ranges of the weights as they are, the slow obvious way; with learned input ranges as they are."""
    config = training.config
    array = as_crossbar(config.crossbar)
    given: Any = array
    if learned:
        inputs = {name: each["input_range"] for name, each in get_ranges(training.analog).items()}
        given = {name: array.replace(input_range=float(value)) for name, value in inputs.items()}
    twin = analogsim.convert(training.model, config.device, crossbar=given)
    percentile = config.calibration.percentile
    analogsim.calibrate(twin, calibration_batches(config, load_data(config)), percentile=percentile)
    return get_ranges(twin)


def test_calibration_data_are_training_data(tiny: Tiny) -> None:
    config = tiny("data.limit=none", "calibration.samples=1250")
    data = load_data(config)
    batches = list(calibration_batches(config, data))
    assert [len(inputs) for inputs, _ in batches] == [625, 625]
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    every, labels = data.train.tensors
    places = [int((every == image).flatten(1).all(1).nonzero()[0, 0]) for image in inputs]
    assert len(set(places)) == 1250
    assert torch.equal(labels[places], targets)
    few = load_data(tiny())
    assert sum(len(inputs) for inputs, _ in calibration_batches(tiny(), few)) == len(few.train) == 200
    other = next(iter(calibration_batches(replace(config, seed=1), data)))[0]
    assert not torch.equal(other, batches[0][0])


@pytest.mark.parametrize("kind", [PLAIN, AWARE])
@pytest.mark.parametrize("crossbar", [LEARNED, CALIBRATED])
def test_ranges_at_the_start_are_those_of_the_first_weights(
    tiny: Tiny, tmp_path: Path, crossbar: str, kind: str
) -> None:
    training = begun(tiny(crossbar, "calibration.percentile=95"), tmp_path / "c.pt", kind)
    expected = calibrated(training)
    assert {tuple(each) for each in expected.values()} == {
        ("input_range",) if crossbar == LEARNED else ("input_range", "output_bound")
    }
    assert get_ranges(training.analog) == expected
    if kind == AWARE:
        assert get_ranges(training._net) == expected


def test_learned_ranges_are_trained_as_one_would_by_hand(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(LEARNED, *QUIET, "optimization.optimizer=adamw", "optimization.weight_decay=0.1")
    training = begun(config, tmp_path / "c.pt")
    run(training)

    data = load_data(config)
    model = networks.build("mlp", data.shape, data.classes, seed=0)
    twin = analogsim.convert(model, "pcm", crossbar=config.crossbar)
    analogsim.set_noise_scale(twin, 0.0)
    analogsim.calibrate(twin, calibration_batches(config, data))
    first = get_ranges(twin)
    ranges = {"params": analogsim.range_parameters(twin), "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([{"params": model.parameters()}, ranges], lr=0.02, weight_decay=0.1)
    loader = data_sets.batches(data.train, 16, generator=torch.Generator().manual_seed(0))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3 * len(loader))
    for _ in range(3):
        twin.train()
        for inputs, targets in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(twin(inputs), targets).backward()
            optimizer.step()
            schedule.step()
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), training.model.parameters(), strict=True))
    learned = get_ranges(training._net)
    assert learned == get_ranges(twin) == get_ranges(training.analog)
    assert all(abs(learned[name]["input_range"] - first[name]["input_range"]) > 0.01 for name in first)


@pytest.mark.parametrize(("crossbar", "kind"), [(CALIBRATED, PLAIN), (CALIBRATED, AWARE), (LEARNED, PLAIN)])
def test_calibrated_ranges_follow_the_weights(tiny: Tiny, tmp_path: Path, crossbar: str, kind: str) -> None:
    """In plain training, which sees no converters, those to be learned do too."""
    training = begun(tiny(crossbar), tmp_path / "c.pt", kind)
    before = get_ranges(training.analog)
    run(training, until=1)
    assert get_ranges(training.analog) == calibrated(training) != before
    if kind == AWARE:
        assert get_ranges(training._net) == get_ranges(training.analog)


def test_where_ranges_are_learned_bounds_follow(tiny: Tiny, tmp_path: Path) -> None:
    training = begun(tiny(BOTH), tmp_path / "c.pt")
    before = get_ranges(training.analog)
    run(training, until=2)
    ranges = get_ranges(training.analog)
    assert get_ranges(training._net) == ranges
    for name, bounds in calibrated(training, learned=True).items():
        assert ranges[name]["output_bound"] == bounds["output_bound"] != before[name]["output_bound"]
        assert ranges[name]["input_range"] != before[name]["input_range"]
    held = [value.item() for value in training._ranges.learned]
    assert held == [each["input_range"].item() for each in ranges.values()]


def test_noise_of_a_device_with_other_full_scale_has_bounds_of_its_own(tiny: Tiny, tmp_path: Path) -> None:
    training = begun(tiny(BOTH, "noise.device=gaussian(std=0.05)"), tmp_path / "c.pt")
    run(training, until=1)
    judged, trained = get_ranges(training.analog), get_ranges(training._net)
    for name in judged:
        assert judged[name]["input_range"] == trained[name]["input_range"]
        assert judged[name]["output_bound"] > trained[name]["output_bound"]  # of a column, not of the tensor


@pytest.mark.parametrize(("crossbar", "kind"), [(BOTH, AWARE), (LEARNED, PLAIN), (CALIBRATED, AWARE)])
def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(
    tiny: Tiny, alone: Path, monkeypatch: pytest.MonkeyPatch, crossbar: str, kind: str
) -> None:
    config = tiny(crossbar)
    whole = train(config, alone / "whole", show=False)
    step, stops = recipe._Bar.step, [KeyboardInterrupt]

    def stop_once(bar: Any, at: Any) -> None:
        step(bar, at)
        if stops and bar._name == kind and (at.epoch, at.batch) == (1, 3):
            raise stops.pop()

    monkeypatch.setattr(recipe._Bar, "step", stop_once)
    with pytest.raises(KeyboardInterrupt):
        train(config, alone / "stopped", show=False)
    torch.manual_seed(99)
    result = train(resume_config(alone / "stopped"), alone / "stopped", show=False)
    for each in (PLAIN, AWARE):
        ours, theirs = checkpoint(alone / "stopped", each), checkpoint(alone / "whole", each)
        assert ours["ranges"] == theirs["ranges"] != []
        assert ours["history"] == theirs["history"]
        assert all(torch.equal(ours["model"][key], theirs["model"][key]) for key in theirs["model"])
        assert result.reports[each].to_dict() == whole.reports[each].to_dict()


def without_ranges(folder: Path) -> None:
    for kind in (PLAIN, AWARE):
        path = folder / kind / "checkpoint.pt"
        content = load_checkpoint(path)
        del content["ranges"]
        torch.save(content, path)


def test_checkpoints_of_before_there_were_ranges(tiny: Tiny, alone: Path) -> None:
    result = train(tiny("optimization.epochs=1"), alone / "run", show=False)
    without_ranges(alone / "run")
    told: list[str] = []
    for reports in (
        evaluate(alone / "run", show=False, tell=told.append),
        train(resume_config(alone / "run"), alone / "run", show=False).reports,
    ):
        assert {kind: each.to_dict() for kind, each in reports.items()} == {
            kind: each.to_dict() for kind, each in result.reports.items()
        }
    assert told == []
    train(tiny(LEARNED, "optimization.epochs=1"), alone / "learned", show=False)
    without_ranges(alone / "learned")
    with pytest.raises(ValueError, match=r"hardware-aware/checkpoint.pt' lacks the ranges that its crossbar learns"):
        train(resume_config(alone / "learned"), alone / "learned", show=False)


def test_a_network_whose_ranges_cannot_be_set_has_diverged(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = begun(tiny(CALIBRATED), tmp_path / "c.pt")
    training.save()

    def silent(*_: Any, **__: Any) -> None:
        raise ValueError("calibrate: layer 'fc2' got no input other than 0")

    monkeypatch.setattr(ranges, "calibrate", silent)
    with pytest.raises(DivergedError, match=r"diverged: after epoch 1, calibrate: layer 'fc2' .* after epoch 0"):
        run(training)
    assert load_checkpoint(tmp_path / "c.pt")["epoch"] == 0


@pytest.fixture(scope="module")
def learned(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a crossbar with learned and calibrated ranges."""
    folder = tmp_path_factory.mktemp("learned") / "run"
    train(tiny(BOTH, "evaluation.compensation=column+ranges"), folder, show=False)
    return folder


def test_evaluate_takes_the_ranges_of_the_run(learned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    for kind, report in evaluate(learned, show=False, tell=told.append).items():
        assert report.to_dict() == unsealed(json.loads((learned / kind / "report.json").read_text()))
    assert told == []
    # The same with its default written out is the same crossbar.
    same = "standard(input_range='learned', output_bound='calibrated', dac_bits=8)"
    evaluate(learned, crossbar=same, show=False, tell=told.append)
    assert told == []


def test_evaluate_sets_ranges_where_the_run_has_none_that_fit(learned: Path, tiny: Tiny) -> None:
    told: list[str] = []
    crossbar = "standard(input_range='calibrated', rows=32)"
    path = learned / AWARE / "checkpoint.pt"
    asked: Any = {"show": False, "tell": told.append, "times": ("1d",), "compensation": "column"}
    found = evaluate(path, crossbar=crossbar, **asked)[AWARE]
    assert told == [f"{AWARE}: ranges of converters were set on training data"]

    config = tiny(BOTH)
    data = load_data(config)
    model = networks.build("mlp", data.shape, data.classes)
    model.load_state_dict(load_checkpoint(path)["model"])
    twin = analogsim.convert(model, "pcm", crossbar=crossbar)
    analogsim.calibrate(twin, calibration_batches(config, data))
    loader = data_sets.batches(data.test, 1000)
    expected = analogsim.evaluate(twin, loader, chips=2, times=("1d",), compensation="column")
    assert found.to_dict() == expected.to_dict()

    told.clear()
    found = evaluate(path, device="gaussian(std=0.1)", **asked)[AWARE]
    assert told == [f"{AWARE}: output bounds were set on training data"]
    ranges = load_checkpoint(path)["ranges"][0]
    array = as_crossbar("standard(output_bound='calibrated')")
    fixed = {name: array.replace(input_range=float(each["input_range"])) for name, each in ranges.items()}
    twin = analogsim.convert(model, "gaussian(std=0.1)", crossbar=fixed)
    analogsim.calibrate(twin, calibration_batches(config, data))
    expected = analogsim.evaluate(twin, loader, chips=2, times=("1d",), compensation="column")
    assert (found.values == expected.values).all()


def test_compensation_takes_training_data(learned: Path, tiny: Tiny) -> None:
    config = tiny(BOTH)
    data = load_data(config)
    model = networks.build("mlp", data.shape, data.classes)
    content = checkpoint(learned, AWARE)
    model.load_state_dict(content["model"])
    twin = analogsim.convert(model, "pcm", crossbar=config.crossbar)
    set_ranges(twin, content["ranges"][0])
    expected = analogsim.evaluate(
        twin,
        data_sets.batches(data.test, 1000),
        chips=2,
        times=("1s", "1d"),
        compensation="column+ranges",
        calibration=calibration_batches(config, data),
    )
    assert unsealed(json.loads((learned / AWARE / "report.json").read_text())) == expected.to_dict()


def test_the_ablation_takes_the_ranges_of_the_run(learned: Path) -> None:
    path = learned / AWARE / "checkpoint.pt"
    asked: Any = {"times": ("1d",), "chips": 1, "compensation": "global"}
    ablation = ablate(path, **asked)[AWARE]
    everything = evaluate(path, show=False, **asked)[AWARE]
    assert (ablation.reports["everything on"].values == everything.values).all()
    assert {"ADC", "DAC", "output noise"} <= ablation.reports.keys()
    adapted = ablate(path)[AWARE]  # with the run's own compensation, which needs data
    assert adapted.reports["drift compensation"].compensation == "ranges"
    assert adapted.reports["everything on"].compensation == "column+ranges"


def test_batch_norm_on_each_chip(tiny: Tiny, alone: Path) -> None:
    norm = ["model=resnet20", "data.limit=24", "optimization.epochs=1", "evaluation.chips=1", "baseline=false"]
    config = tiny(*norm, LEARNED, "evaluation.compensation=global+batch-norm", 'evaluation.times=["1d"]')
    result = train(config, alone / "run", show=False)
    assert result.reports[AWARE].compensation == "global+batch-norm"
    ranges = checkpoint(alone / "run", AWARE)["ranges"]
    assert len(ranges[0]) == 20
    again = evaluate(alone / "run", show=False)[AWARE]
    assert again.to_dict() == result.reports[AWARE].to_dict()
    with pytest.warns(UserWarning, match="has batch norm, whose statistics are others on chips, and .none. keeps them"):
        assert evaluate(alone / "run", show=False, compensation="none")[AWARE].compensation is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluation.compensation=global+norm"], "compensation: must be None, or one of .* got 'global.norm'"),
        (["evaluation.compensation=global+column"], "compensation: must be None, or one of"),
        (["evaluation.compensation=ranges"], r"'ranges' sets ranges again, and crossbar='ideal' leaves none to cal"),
        (["evaluation.compensation=batch-norm"], r"'batch-norm' is for networks with batch norm, and model='mlp' has"),
        (["crossbar=standard(input_range='learnt')"], "input_range must be a number > 0 or one of dynamic, calibrated"),
        (["crossbar=standard(input_range='learned', dac='unsigned')"], "its converter is unsigned"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_trained(
    tiny: Tiny, learned: Path, alone: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.setattr(Training, "run_epoch", None)
    with pytest.raises(ValueError, match=message):
        train(tiny(*overrides), show=False)
    assert not list((alone / "runs").glob("*"))
    (option, _, value) = overrides[0].rpartition("evaluation.")[2].partition("=")
    asked: Any = {option: value, "show": False}
    if "ranges" in value:
        asked["crossbar"] = "ideal"
    elif "unsigned" in value:
        asked["compensation"] = "none"
    with pytest.raises(ValueError, match=message):
        evaluate(learned, **asked)
    if "unsigned" not in value:
        with pytest.raises(ValueError, match=message):
            tune.configure(None, ["data.name=digits", "model=mlp", *overrides])


def test_a_study_on_learned_ranges(alone: Path, settings: list[str]) -> None:
    pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")
    changes = [
        BOTH,
        "evaluation.compensation=column+ranges",
        "study.trials=2",
        "study.chips=2",
        "study.over_chips=mean",
    ]
    config = tune.configure(None, [*settings, *changes, "optimization.epochs=2", "tracking.enabled=false"])
    result = tune.tune(config)
    best = result.study.best_trial
    path = result.folder / f"trial-{best.number:04d}" / "checkpoint.pt"
    training = begun(load_checkpoint_config(path), path)
    validation = load_data(config).validation
    assert best.value == training.judge(validation, chips=2, times=("1d",), seed=SEARCH_CHIPS).mean[0]
    final = result.final
    assert final is not None
    assert {report.compensation for each in final.reports.values() for report in each} == {"column+ranges"}
    tuned = f"tuned-trial-{best.number:04d}-seed0"
    again = evaluate(result.folder / "final" / tuned / "checkpoint.pt", show=False)[tuned]
    assert (again.values == final.reports["tuned"][0].values).all()


def load_checkpoint_config(path: Path) -> Config:
    return recipe.load_toml(Config, path.with_name("config.toml"))


def test_mlflow_shows_what_the_crossbar_is_and_the_ranges(store: Any, tiny: Tiny, here: Path) -> None:
    config = tiny(BOTH, "optimization.epochs=1", "baseline=false", tracking=True)
    result = train(config, here / "run", show=False)
    run_id = result.trackers[AWARE].run_id
    params = store.run(run_id).data.params
    assert {key: value for key, value in params.items() if key.startswith("crossbar.")} == {
        "crossbar.rows": "512",
        "crossbar.dac_bits": "8",
        "crossbar.adc_bits": "8",
        "crossbar.input_range": "learned",
        "crossbar.output_bound": "calibrated",
        "crossbar.output_noise": "0.04",
    }
    table = json.loads(store.artifact(run_id, "ranges.json").read_text())
    assert table["columns"] == ["layer", "input_range", "output_bound"]
    (judged, _) = checkpoint(here / "run", AWARE)["ranges"]
    assert table["data"] == [[name, *(value.item() for value in each.values())] for name, each in judged.items()]


def test_clean_is_behind_the_converters_that_training_saw(tiny: Tiny, alone: Path) -> None:
    """Of the plain network, which has seen none, it is that of the digital one; so in a run that is judged again."""
    train(tiny(LEARNED, "optimization.epochs=1"), alone / "run", show=False)
    again = evaluate(alone / "run", metric="cross_entropy")
    assert again[PLAIN].clean == again[PLAIN].digital
    assert again[AWARE].clean != again[AWARE].digital
    training = begun(tiny(LEARNED), alone / "plain.pt", PLAIN)
    judged = training.judge(training._data.validation, chips=1, times=("1d",), metric=METRICS["cross_entropy"])
    assert judged.clean == judged.digital


def test_ranges_are_learned_by_default_and_the_plain_network_keeps_the_crossbar(tiny: Tiny, alone: Path) -> None:
    result = train(tiny("crossbar=standard", "optimization.epochs=1"), alone / "run", show=False)
    plain, aware = (checkpoint(alone / "run", kind)["ranges"] for kind in (PLAIN, AWARE))
    assert not any(plain)
    assert all(set(each) == {"input_range"} for each in aware[0].values())
    assert len(aware[0]) == 3
    again = evaluate(alone / "run", show=False)
    assert {kind: each.to_dict() for kind, each in again.items()} == {
        kind: each.to_dict() for kind, each in result.reports.items()
    }
    # as if it were said
    said = train(tiny(LEARNED, "optimization.epochs=1"), alone / "said", show=False)
    assert said.reports[AWARE].to_dict() == result.reports[AWARE].to_dict()


def test_another_crossbar_is_taken_as_it_is_said(tiny: Tiny, alone: Path) -> None:
    train(tiny("baseline=false", "optimization.epochs=1"), alone / "run", show=False)
    ((_, network),) = restored(alone / "run", {"crossbar": "standard"}, print)
    assert not get_ranges(network.analog)
    assert not network.config.calibration.learn_ranges


def test_a_run_of_before_goes_on_as_it_was_begun(tiny: Tiny, alone: Path) -> None:
    config = tiny("crossbar=standard", "calibration.learn_ranges=false", "baseline=false", "optimization.epochs=1")
    result = train(config, alone / "run", show=False)
    file = alone / "run" / "config.toml"
    file.write_text(
        "\n".join(
            line for line in file.read_text().splitlines() if not line.startswith(("learn_ranges", "begin", "# sha256"))
        )
    )
    path = alone / "run" / AWARE / "checkpoint.pt"
    content = load_checkpoint(path)
    del content["config"]["calibration"]["learn_ranges"], content["config"]["noise"]["begin"]
    save_checkpoint(content, path)
    assert resume_config(alone / "run") == replace(config, out=resume_config(alone / "run").out)
    assert evaluate(alone / "run", show=False)[AWARE].to_dict() == result.reports[AWARE].to_dict()
    assert train(resume_config(alone / "run"), alone / "run", show=False).reports[AWARE].to_dict() == (
        result.reports[AWARE].to_dict()
    )


def test_first_ranges_of_a_network_with_batch_norm_are_those_of_normalised_activations(
    tiny: Tiny, tmp_path: Path
) -> None:
    config = tiny("crossbar=standard", "model=resnet20", "data.limit=64", "calibration.samples=64")
    training = begun(config, tmp_path / "c.pt")
    before = {name: value.clone() for name, value in training.model.named_buffers()}
    assert all(float(value.sum()) == 0 for name, value in before.items() if name.endswith("running_mean"))
    # the slow obvious way: what each layer gets when batch norm takes the statistics of the batch
    model = copy.deepcopy(training.model).train()
    seen: dict[str, float] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(
                lambda _, inputs, name=name: seen.update({name: float(inputs[0].abs().quantile(0.9999))})
            )
    with torch.no_grad():
        for inputs, _ in training._calibration:
            model(inputs)
    for twin in (training.analog, training._net):
        found = {name: float(each["input_range"].max()) for name, each in get_ranges(twin).items()}
        assert found == pytest.approx(seen, rel=0.25)
