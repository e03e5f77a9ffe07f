"""Networks of another tool beside ours: with files that stand in for it, and with itself where it is installed."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import analogsim
from analogsim.chip.ranges import get_ranges
from analogsim.recipes.training.loop import Training
from analogsim.recipes.training.restored import restored
from analogsim.recipes.training.setup import load_data
from benchmarks import beside, robust
from benchmarks.harness import peer_methods
from benchmarks.harness.peer_networks import PeerNetwork, question

QUICK = ["digits-mlp", "--seeds", "1", "--epochs", "1", "--limit", "96"]

with_lightning = pytest.mark.skipif(
    importlib.util.find_spec("aihwkit_lightning") is None,
    reason="aihwkit-lightning is not installed: it wants an environment of its own (python -m benchmarks.peers)",
)


def judged(tmp_path: Path, *more: str) -> list[dict[str, Any]]:
    """The cells of a quick comparison with two chips."""
    out = tmp_path / "beside.json"
    places = ["--peers", str(tmp_path / "peers"), "--work", str(tmp_path / "work"), "--out", str(out)]
    status = beside.main(["judge", *QUICK, "--chips", "2", "--remedies", "auto", *places, *more])
    assert status == 0
    cells: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))["cells"]
    return cells


def options_of(tmp_path: Path, *more: str) -> beside.Asked:
    places = ["--peers", str(tmp_path / "peers"), "--work", str(tmp_path / "work")]
    return beside.Asked(beside.parser().parse_args(["judge", *QUICK, *places, *more]))


def leave_ours_as_theirs(tmp_path: Path, *more: str) -> None:
    """Write the network of our default row as if another tool had trained it."""
    judged(tmp_path, "--rows", "default", "--device", "pcm", *more)
    (checkpoint,) = (tmp_path / "work" / "networks").glob("*/checkpoint.pt")
    ((_, network),) = restored(checkpoint, {"trust": True}, lambda _: None)
    ranges = {name: found["input_range"].reshape(1) for name, found in get_ranges(network.analog).items()}
    asked = question(network.config, peer_methods.LIGHTNING, beside.PEERS["lightning"])
    PeerNetwork(asked, network.analog.state_dict(), ranges, 3.0, {}).save(tmp_path / "peers")


def test_the_same_weights_and_ranges_have_the_same_scores_whoever_trained_them(tmp_path: Path) -> None:
    leave_ours_as_theirs(tmp_path)
    ours, theirs = judged(tmp_path, "--rows", "default", "lightning", "--device", "pcm")
    assert (ours["row"], theirs["row"]) == ("default", "lightning")
    for key in ("mean", "std", "tail", "clean", "times"):
        assert ours[key] == theirs[key]
    assert theirs["trained"] == 3.0


def test_the_learning_rate_that_is_better_on_validation_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = judged(tmp_path, "--rows", "default", "--device", "pcm", "--lr", "1e-9", "1e-2")
    assert [cell["settings"][0] for cell in cells] == ["optimization.lr=0.01"]
    chosen = json.loads((tmp_path / "beside.chosen.json").read_text(encoding="utf-8"))["cells"]
    assert [cell["settings"][0] for cell in chosen] == ["optimization.lr=1e-09", "optimization.lr=0.01"]
    assert chosen[1]["mean"] != cells[0]["mean"]
    assert "digits-mlp default pcm: of learning rates 1e-09 (" in capsys.readouterr().out


def test_what_is_chosen_by_are_validation_data_and_chips_that_no_table_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def evaluate(analog: object, batches: Any, **asked: Any) -> Any:
        seen.append((asked["seed"], sum(len(targets) for _, targets in batches)))
        raise InterruptedError

    judged(tmp_path, "--rows", "plain", "--device", "pcm")  # trains it
    monkeypatch.setattr(analogsim, "evaluate", evaluate)
    for chosen in (False, True):
        ladder = robust.Ladder(None, tmp_path / "work", ["optimization.epochs=1", "data.limit=96"], chosen=chosen)
        where: dict[str, Any] = {"device": "pcm", "crossbar": "standard", "remedies": ("none",), "chips": 2}
        with pytest.raises(InterruptedError):
            ladder.measure("digits-mlp", robust.Row.read("plain"), 0, **where)
    data = load_data(options_of(tmp_path).config("digits-mlp", 0))
    assert seen == [(0, len(data.test)), (1_000_000, len(data.validation))]


def test_networks_that_are_missing_are_told_with_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert beside.main(["judge", *QUICK, "--peers", str(tmp_path), "--out", str(tmp_path / "beside.json")]) == 2
    told = capsys.readouterr().err
    assert "has no network of lightning with lr 0.005 and seed 0" in told
    assert "python -m benchmarks.beside train" in told
    assert len(told.splitlines()) == 1


def test_seeds_that_are_missing_are_told_when_they_are_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_ours_as_theirs(tmp_path)
    places = ["--peers", str(tmp_path / "peers"), "--work", str(tmp_path / "work"), "--out", str(tmp_path / "b.json")]
    asked = [*QUICK, "--seeds", "2", "--rows", "lightning", "--device", "pcm", "--chips", "1", "--remedies", "auto"]
    assert beside.main(["judge", *asked, *places]) == 2
    told = capsys.readouterr()
    assert "digits-mlp lightning 0 pcm standard auto" in told.out
    assert "has no network of lightning with lr 0.005 and seed 1" in told.err


@pytest.mark.parametrize("step", ["train", "time"])
def test_without_it_the_message_says_what_to_install(
    step: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peer_methods, "available", lambda: False)
    assert beside.main([step, *QUICK]) == 2
    assert "aihwkit-lightning is not installed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["judge", "digits-mpl"], "invalid choice: 'digits-mpl'"),
        (["judge"], "required: TASK"),
        (["guess", "digits-mlp"], "invalid choice: 'guess'"),
        (["judge", "digits-mlp", "--lr", "fast"], "invalid float value: 'fast'"),
    ],
)
def test_mistakes_on_the_command_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        beside.main(arguments)
    assert words in capsys.readouterr().err


def test_a_row_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert beside.main(["judge", "digits-mlp", "--rows", "lightening"]) == 2
    assert (
        "there is no row 'lightening'; there are plain, gaussian, default, lightning, lightning-0.04"
        in capsys.readouterr().err
    )


@with_lightning
def test_it_trains_from_our_weights_through_our_batches(tmp_path: Path) -> None:
    """Without noise, converters and clipping its training is plain training."""
    config = options_of(tmp_path).config("digits-mlp", 0, "crossbar=ideal")
    data = load_data(config)
    training = Training(config, data, aware=False, path=tmp_path / "checkpoint.pt")
    training.set_random_state()
    training.run_epoch(lambda _: None)
    network = peer_methods.train_peer(config, data, {"pre_post.input_range.enable": False})
    for name, value in training.model.state_dict().items():
        torch.testing.assert_close(network.weights[name], value, rtol=1e-4, atol=1e-6)


@with_lightning
def test_all_three_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--peers", str(tmp_path / "peers"), "--work", str(tmp_path / "work")]
    assert beside.main(["train", *QUICK, *places]) == 0
    assert [cell["row"] for cell in judged(tmp_path, "--device", "pcm")] == ["plain", "default", *beside.PEERS]
    capsys.readouterr()
    assert beside.main(["time", *QUICK, *places, "--rounds", "2"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in ("plain", "lightning", "default"))


@with_lightning
@pytest.mark.parametrize("settings", [{"forward.bits": 8}, {"clip.type": "LAYER"}, {"nothing.at_all": 1}])
def test_settings_that_it_does_not_know(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"aihwkit-lightning .* has no .* in its configuration"):
        peer_methods.configured(settings)
