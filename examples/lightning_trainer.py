"""A Lightning `Trainer` trains a network for phase-change memory.

    pip install ".[frameworks]"
    python examples/lightning_trainer.py

The module holds the analog twin in the place of the network; the trainer takes it as it takes any module. The data are
the handwritten digits that come with scikit-learn, so that nothing is downloaded.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import analogsim
from analogsim.integrations.lightning import HardwareCallback

Loader = DataLoader[tuple[Tensor, ...]]


def digits(batch_size: int = 32) -> tuple[Loader, Loader]:
    """1,400 digits to train with and 397 to test with: images ``(batch, 1, 8, 8)`` in [-1, 1] and class numbers."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = images[order], torch.tensor(data.target)[order]
    train, test = TensorDataset(images[:1400], labels[:1400]), TensorDataset(images[1400:], labels[1400:])
    return DataLoader(train, batch_size, shuffle=True), DataLoader(test, 500)


def network() -> nn.Sequential:
    """Two convolutions and two layers behind them."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


class Classifier(lightning.LightningModule):
    """The twin of `network` and its training.

    Args:
        device: the device model.
        lr: learning rate.
    """

    def __init__(self, device: str = "pcm", lr: float = 2e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        # The twin holds the network's Parameters. The network beside it would double every key of a checkpoint;
        # analogsim.to_digital(self.analog) gives it back.
        self.analog = analogsim.convert(network(), device)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """The loss under fresh noise."""
        images, labels = batch
        return cross_entropy(self.analog(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """The accuracy of the chip that `HardwareCallback` has programmed."""
        images, labels = batch
        self.log("accuracy", (self.analog(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Any optimizer, over the Parameters of the network."""
        return torch.optim.Adam(self.parameters(), self.hparams["lr"])


def trainer(folder: Path, **options: Any) -> lightning.Trainer:
    """The trainer; ``options`` are its own. It keeps the best checkpoint on a chip."""
    settings = {"accelerator": "cpu", "devices": 1, "max_epochs": 10, "logger": False, "enable_progress_bar": False}
    checkpoints = ModelCheckpoint(folder, monitor="accuracy", mode="max")
    return lightning.Trainer(callbacks=[checkpoints, HardwareCallback(time="1d")], **{**settings, **options})


def main(folder: Path) -> analogsim.Report:
    """Convert, train, save, load, evaluate."""
    lightning.seed_everything(0)
    train, test = digits()
    trainer(folder).fit(Classifier(), train, test)

    (best,) = folder.glob("*.ckpt")  # the one it kept
    trained = Classifier.load_from_checkpoint(best, weights_only=True)
    # The same keys as the plain network's, strictly.
    plain = network()
    plain.load_state_dict(trained.analog.state_dict(), strict=True)
    return analogsim.evaluate(analogsim.convert(plain, "pcm"), test, chips=10)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        sys.stdout.write(f"{main(Path(scratch))}\n")
