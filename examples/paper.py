"""How much noise in training? A paper's recipe, tried on chips: for whoever follows one.

    pip install ".[recipes]"
    python examples/paper.py

Joshi et al. (Nat. Commun. 11:2473, 2020) train with normal noise on the weights, a fraction of the largest weight of
each layer, and judge on phase-change memory. Here that is done with a small network on the handwritten digits that come
with scikit-learn: the same first weights and batches for every strength of the noise, beside training under the errors
of the chip itself. It prints the table and draws accuracy through a year.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import analogsim


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """1,400 digits to train with and 397 to test with: images ``(n, 64)`` in [0, 1] and class numbers."""
    images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = images[order].float() / 16, labels[order]
    return (images[:1400], labels[:1400]), (images[1400:], labels[1400:])


def network() -> nn.Sequential:
    """64-16-16-10: so small that the error of every weight is felt."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 10))


def trained(noise: str | None, scale: float, data: tuple[Tensor, Tensor], epochs: int) -> nn.Sequential:
    """A network trained under noise: the name of a device, or None, and how much of it."""
    model = network()
    twin = model if noise is None else analogsim.convert(model, noise).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    images, labels = data
    steps = epochs * (len(images) // 50)
    schedule = None if noise is None else analogsim.NoiseSchedule(twin, "linear", end=scale, steps=steps // 2)
    batches = torch.Generator().manual_seed(1)
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=batches).split(50):
            optimizer.zero_grad()
            cross_entropy(twin(images[batch]), labels[batch]).backward()
            optimizer.step()
            if schedule is not None:
                analogsim.clip_weights(twin, 2.5)
                schedule.step()
    return model


def main(words: list[str] | None = None) -> dict[str, analogsim.Report]:
    """Train one network for each strength, judge all on the same chips, and write what came of it."""
    parser = argparse.ArgumentParser(description="Accuracy through a year against the noise of training.")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--chips", type=int, default=25)
    parser.add_argument("--out", type=Path, default=Path("paper.png"), help="the picture")
    options = parser.parse_args(words)
    train, test = digits()
    recipes = {"no noise": (None, 0.0)}
    recipes |= {f"{std:.0%} of the largest weight": (f"gaussian(std={std})", 1.0) for std in (0.02, 0.05, 0.1)}
    recipes["the chip's own errors, twice"] = ("pcm", 2.0)
    reports = {}
    for name, (noise, scale) in recipes.items():
        model = trained(noise, scale, train, options.epochs)
        chip = analogsim.convert(model, "pcm", crossbar="standard")
        reports[name] = analogsim.evaluate(chip, [test], chips=options.chips)
    print(analogsim.compare_table(reports))
    analogsim.compare_plot(reports).savefig(options.out, dpi=120)
    print(f"the picture: {options.out}")
    return reports


if __name__ == "__main__":
    main()
