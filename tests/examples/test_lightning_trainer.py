"""The Lightning Trainer with a twin: the example, and what its arguments do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import analogsim

pytestmark = [
    pytest.mark.slow,  # lightning alone takes seconds to import
    # Deprecations inside the framework are its own to heed; the others are its advice on workers and small data.
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning",
        "ignore::FutureWarning",
        "ignore:The .*dataloader.* does not have many workers",
        "ignore:Precision bf16-mixed is not supported by the model summary",
        "ignore:Checkpoint directory .* exists and is not empty",
    ),
]


@pytest.fixture(scope="module")
def example(load: Callable[[str], ModuleType]) -> ModuleType:
    for package in ("lightning", "sklearn"):
        pytest.importorskip(package, reason='needs pip install "analogsim-torch[frameworks]"')
    return load("lightning_trainer")


@pytest.fixture
def few(example: ModuleType) -> tuple[Any, Any]:
    """Four batches to train with, and one to test with."""
    train, test = example.digits()
    subset = torch.utils.data.Subset(train.dataset, range(128))
    return torch.utils.data.DataLoader(subset, 32, shuffle=True), test


def module_of(example: ModuleType, device: str = "pcm") -> Any:
    torch.manual_seed(0)
    return example.Classifier(device)


def schedule_of(trainer: Any, example: ModuleType) -> Any:
    (hardware,) = (each for each in trainer.callbacks if isinstance(each, example.HardwareCallback))
    return hardware.course.schedules["noise"]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def test_the_example_learns_and_its_network_survives_a_year(example: ModuleType, tmp_path: Path) -> None:
    report = example.main(tmp_path)
    assert report.clean > 0.94
    assert report.mean.min() > 0.93
    assert report.values.shape == (10, 5)


def test_a_validation_needs_a_chip(example: ModuleType, few: tuple[Any, Any], tmp_path: Path) -> None:
    module = module_of(example)
    trainer = example.trainer(tmp_path, max_epochs=1)
    trainer.callbacks = [each for each in trainer.callbacks if not isinstance(each, example.HardwareCallback)]
    with pytest.raises(analogsim.NotProgrammedError, match=r"analogsim.program\(analog, seed=...\) first"):
        trainer.validate(module, few[1], verbose=False)
    with analogsim.programmed(module.analog, seed=3, t="1y") as analog:
        (told,) = trainer.validate(module, few[1], verbose=False)
        ((images, labels),) = few[1]
        assert told["accuracy"] == pytest.approx(float((analog(images).argmax(1) == labels).float().mean()))


OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "bf16": {"precision": "bf16-mixed"},
    "double": {"precision": "64-true"},
    "accumulation": {"accumulate_grad_batches": 2},
    "clipped gradients": {"gradient_clip_val": 0.1},
    "anomalies": {"detect_anomaly": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_arguments_of_the_trainer(
    example: ModuleType, few: tuple[Any, Any], tmp_path: Path, options: dict[str, Any]
) -> None:
    module = module_of(example)
    before = module.analog[0].weight.detach().clone()
    trainer = example.trainer(tmp_path, max_epochs=2, **options)
    trainer.fit(module, *few)
    assert not torch.equal(module.analog[0].weight.to(before.dtype), before)
    steps = 4 if "accumulate_grad_batches" in options else 8
    schedule = schedule_of(trainer, example)
    assert (trainer.global_step, schedule.state_dict()["last_step"]) == (steps, steps)
    assert schedule.get_last_scale() == 2.0
    module.float()
    assert 0 <= analogsim.evaluate(module.analog, few[1], chips=1, times=(0,)).clean <= 1


def test_checkpoints_are_plain_and_a_training_goes_on(
    example: ModuleType, few: tuple[Any, Any], tmp_path: Path
) -> None:
    first = example.trainer(tmp_path, max_epochs=2)
    module = module_of(example)
    first.fit(module, *few)
    path = tmp_path / "last.ckpt"
    first.save_checkpoint(path)
    saved = torch.load(path, weights_only=True)
    plain = example.network()
    plain.load_state_dict(
        {name.removeprefix("analog."): value for name, value in saved["state_dict"].items()}, strict=True
    )
    assert same(plain.state_dict(), module.analog.state_dict())
    loaded = example.Classifier.load_from_checkpoint(path, weights_only=True)
    assert same(loaded.state_dict(), module.state_dict())
    module.load_state_dict({f"analog.{name}": value for name, value in plain.state_dict().items()}, strict=True)

    on = example.trainer(tmp_path, max_epochs=3)
    again = module_of(example)
    on.fit(again, *few, ckpt_path=str(path), weights_only=True)
    assert on.global_step == 12
    # The schedule goes on where it was: at its end, which the first training reached.
    assert schedule_of(on, example).state_dict() == {**schedule_of(first, example).state_dict(), "last_step": 12}
    assert not same(again.state_dict(), module.state_dict())


def test_a_whole_module_can_be_converted(example: ModuleType, few: tuple[Any, Any], tmp_path: Path) -> None:
    """Its optimizer holds the Parameters of the digital module, whose answer stays the clean one."""
    import lightning

    class Plain(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = example.network()

        def forward(self, images: Tensor) -> Tensor:
            output: Tensor = self.network(images)
            return output

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    model = Plain()
    analog = analogsim.convert(model, "pcm")
    before = model.network[0].weight.detach().clone()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = lightning.Trainer(accelerator="cpu", devices=1, max_epochs=1, **quiet)
    trainer.fit(analog, few[0])
    assert not torch.equal(model.network[0].weight, before)
    report = analogsim.evaluate(analog, few[1], chips=1, times=(0,))
    ((images, labels),) = few[1]
    with torch.no_grad():
        clean = float((model.eval()(images).argmax(1) == labels).float().mean())
    assert report.clean == pytest.approx(clean)
