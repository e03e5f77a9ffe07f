from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import matrices_of
from analogsim.recipes.config.options import Config
from analogsim.recipes.tasks import data_sets, networks
from analogsim.recipes.train import AWARE, PLAIN
from analogsim.recipes.training.checkpoint import load_checkpoint
from analogsim.recipes.training.loop import DivergedError, Progress, Training
from analogsim.recipes.training.setup import load_data
from analogsim.utils.times import seconds

Tiny = Callable[..., Config]
LEARNED = "standard(input_range='learned')"


def same(a: nn.Module, b: nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def pair_of(config: Config, folder: Path) -> dict[str, Training]:
    data = load_data(config)
    return {
        kind: Training(config, data, aware=kind == AWARE, path=folder / kind / "checkpoint.pt")
        for kind in (PLAIN, AWARE)
    }


def run_all(training: Training) -> None:
    training.set_random_state()
    while not training.done:
        training.run_epoch(lambda _: None)


def test_both_networks_start_from_the_same_weights_and_see_the_same_batches(tiny: Tiny, tmp_path: Path) -> None:
    pair = pair_of(tiny("optimization.epochs=1"), tmp_path)
    assert same(pair[PLAIN].model, pair[AWARE].model)
    for training in pair.values():
        run_all(training)
    assert not same(pair[PLAIN].model, pair[AWARE].model)
    shuffled = [load_checkpoint(tmp_path / kind / "checkpoint.pt")["random"]["shuffle"] for kind in pair]
    assert torch.equal(*shuffled)


def test_plain_training_is_that_of_torch(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny()
    training = pair_of(config, tmp_path)[PLAIN]
    run_all(training)

    data = load_data(config)
    model = networks.build("mlp", data.shape, data.classes, seed=0)
    loader = data_sets.batches(data.train, 16, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3 * len(loader))
    for _ in range(3):
        for inputs, targets in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            schedule.step()
    assert same(model, training.model)


def test_without_noise_and_clipping_hardware_aware_training_is_plain(tiny: Tiny, tmp_path: Path) -> None:
    pair = pair_of(tiny("noise.end=0", "noise.clip_sigmas=none"), tmp_path)
    for training in pair.values():
        run_all(training)
    assert same(pair[PLAIN].model, pair[AWARE].model)


def plainly(model: nn.Module, config: Config, steps: int) -> nn.Module:
    """The network after some steps of plain training, whose weights are clipped after each, the slow obvious way."""
    data = load_data(config)
    loader = data_sets.batches(data.train, 16, generator=torch.Generator().manual_seed(0))
    twin = analogsim.convert(model, "pcm")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3 * len(loader))
    for inputs, targets in itertools.islice(itertools.chain.from_iterable(itertools.repeat(loader)), steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        schedule.step()
        analogsim.clip_weights(twin, 2.5)
    return model


def test_the_first_steps_are_plain_and_the_noise_comes_after_them(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("crossbar=standard", "noise.begin=0.5", "noise.ramp=1", "noise.jitter=0")
    training = pair_of(config, tmp_path)[AWARE]
    training.set_random_state()
    batches, twins, weights, ranges = 13, [], [], []
    for hook in (training._net, training.model):
        hook.register_forward_pre_hook(lambda module, _: twins.append(module) if torch.is_grad_enabled() else None)

    def watch(progress: Progress) -> None:
        at = progress.epoch * batches + progress.batch + 1
        if at == 20:
            weights.append(copy.deepcopy(training.model.state_dict()))
            ranges.append([value.clone() for value in training._ranges.learned])
        if at == 21:
            ranges.append([value.clone() for value in training._ranges.learned])

    scales = [training.run_epoch(watch)["train/noise_scale"] for _ in range(3)]
    assert twins == [training.model] * 20 + [training._net] * 19  # 39 steps in all
    data = load_data(config)
    by_hand = plainly(networks.build("mlp", data.shape, data.classes, seed=0), config, 20)
    assert all(torch.equal(weights[0][name], value) for name, value in by_hand.state_dict().items())
    assert scales == pytest.approx([0.0, 6 / 19, 1.0])
    # those of the first weights, which plain steps leave as they are, and which are trained from then on
    twin = analogsim.convert(networks.build("mlp", data.shape, data.classes, seed=0), "pcm", crossbar=LEARNED)
    analogsim.calibrate(twin, training._calibration)
    first = list(analogsim.range_parameters(twin))
    assert all(torch.equal(*pair) for pair in zip(first, ranges[0], strict=True))
    assert not any(torch.equal(*pair) for pair in zip(first, ranges[1], strict=True))


def test_a_run_stopped_among_its_plain_steps_goes_on_to_the_same_numbers(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("crossbar=standard", "noise.begin=0.5")
    whole, first = (pair_of(config, tmp_path / name)[AWARE] for name in ("whole", "stopped"))
    run_all(whole)
    first.set_random_state()
    first.run_epoch(lambda _: None)
    again = pair_of(config, tmp_path / "stopped")[AWARE]
    assert again.epoch == 1
    run_all(again)
    assert same(whole.model, again.model)
    assert whole.history == again.history


def test_ages_of_training_and_the_limit_of_weights_are_as_said(tiny: Tiny, tmp_path: Path) -> None:
    limit = ("noise.clip_start=3", "noise.clip_sigmas=1", "noise.ramp=1", "noise.clip_per=column")
    training = pair_of(tiny('noise.times=["1h", "10y"]', *limit), tmp_path)[AWARE]
    ages = {layer.analog.train_times for layer in matrices_of(training._net)}
    assert ages == {(3600.0, seconds("10y"))}
    assert {layer.analog.train_times for layer in matrices_of(training.analog)} != ages

    def largest(layer: AnalogMatrix) -> Tensor:
        rows = layer.matrix.detach().flatten(1)
        return rows.abs().amax(1) / rows.square().mean(1).sqrt()

    training.set_random_state()
    found = []
    for _ in range(3):
        training.run_epoch(lambda _: None)
        found.append(max(float(largest(layer).max()) for layer in matrices_of(training.analog)))
    # clipped to so many of what was there before, which the clipping itself has made smaller
    assert found[0] > 2 > found[2] >= 1
    again = pair_of(tiny('noise.times=["1h", "10y"]', *limit), tmp_path)[AWARE]
    again.set_random_state()
    assert again._stepper.state_dict()["clip_schedule"] == training._stepper.state_dict()["clip_schedule"]


def test_noise_of_another_device_with_parameters(tiny: Tiny, tmp_path: Path) -> None:
    training = pair_of(tiny("noise.device=gaussian(std=0.25)"), tmp_path)[AWARE]
    assert {layer.analog.device.name for layer in analog(training._net)} == {"gaussian(std=0.25)"}
    assert {layer.analog.device.name for layer in analog(training.analog)} == {"pcm"}


def analog(module: nn.Module) -> list[analogsim.AnalogLayer]:
    return [layer for layer in module.modules() if isinstance(layer, analogsim.AnalogLayer)]


@pytest.mark.parametrize("lr", ["1e9", "1e38"])
@pytest.mark.parametrize("kind", [PLAIN, AWARE])
def test_training_that_diverges_is_an_error(tiny: Tiny, tmp_path: Path, lr: str, kind: str) -> None:
    training = pair_of(tiny(f"optimization.lr={lr}", "optimization.optimizer=sgd"), tmp_path)[kind]
    training.save()
    training.set_random_state()
    with pytest.raises(ValueError, match=r"training diverged: the mean loss of epoch 1 of 3 is .*lr \(now") as told:
        training.run_epoch(lambda _: None)
    assert ("noise.end" in str(told.value)) == (kind == AWARE)
    assert load_checkpoint(tmp_path / kind / "checkpoint.pt")["epoch"] == training.epoch == 0


def test_a_network_whose_last_step_made_it_overflow_has_diverged_too(tiny: Tiny, tmp_path: Path) -> None:
    """The mean loss is that before the step; what comes after it shows when the network is judged."""
    training = pair_of(tiny(), tmp_path)[PLAIN]
    training.save()
    training.set_random_state()

    def overflow(progress: object) -> None:
        if progress.batch == progress.batches - 1:  # type: ignore[attr-defined]
            with torch.no_grad():
                training.model.fc1.bias.fill_(torch.nan)  # type: ignore[union-attr, operator]

    with pytest.raises(DivergedError, match=r"training diverged: after epoch 1, .* 'fc1' \(Linear.*; try a smaller"):
        training.run_epoch(overflow)
    assert load_checkpoint(tmp_path / PLAIN / "checkpoint.pt")["epoch"] == 0
