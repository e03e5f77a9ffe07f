"""A trained network, a chip, and no time to train again: what it loses, why, and what helps today.

    pip install ".[recipes]"
    python examples/deadline.py

Your network and data come in the place of those here (digits that are bundled with scikit-learn); steps 3 and 4 need no
labels. ``analogsim judge`` does steps 1 to 3 for a network and data in files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import analogsim


def delivered() -> tuple[nn.Module, Tensor, tuple[Tensor, Tensor]]:
    """What an engineer is handed: a trained network, inputs without labels, and test data."""
    images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = images[order].float().reshape(-1, 1, 8, 8) / 16, labels[order]
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10)),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(30):
        for batch in torch.randperm(1200).split(50):
            optimizer.zero_grad()
            cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    return model.eval(), images[1200:1400], (images[1400:], labels[1400:])


def main(words: list[str] | None = None) -> dict[str, analogsim.Report]:
    """Judge the network as it is, find what costs most and what helps, and judge that."""
    parser = argparse.ArgumentParser(description="What a trained network loses on chips, and what helps today.")
    parser.add_argument("--chips", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=120, help="for what is tried without training")
    parser.add_argument("--steps", type=int, default=200, help="of the adapters' training")
    parser.add_argument("--out", type=Path, default=Path("deadline.png"), help="the picture")
    options = parser.parse_args(words)
    model, inputs, test = delivered()

    print("\n1. What is left\n")
    analog = analogsim.convert(model, "pcm", crossbar="standard", example=inputs[:2])
    reports = {"as it is": analogsim.evaluate(analog, [test], chips=options.chips)}
    print(reports["as it is"])

    print("\n2. Why: each part of the hardware switched off in turn\n")
    print(analogsim.ablate(analog, [test], chips=min(5, options.chips), times=("1s", "1y")))

    print("\n3. What helps without training and without labels\n")
    prepared = analogsim.prepare(analog, inputs, budget=options.seconds)
    print(prepared)
    reports["prepared"] = analogsim.evaluate(
        *(prepared.analog, [test]), chips=options.chips, compensation=prepared.compensation, calibration=[inputs]
    )

    print("\n4. Small digital adapters for all chips, taught by the network itself\n")
    analogsim.fine_tune(prepared.analog, inputs, steps=options.steps)
    reports["with adapters"] = analogsim.evaluate(
        *(prepared.analog, [test]), chips=options.chips, compensation=prepared.compensation, calibration=[inputs]
    )
    print(analogsim.compare_table(reports))
    analogsim.compare_plot(reports).savefig(options.out, dpi=120)
    print(f"the picture: {options.out}")
    return reports


if __name__ == "__main__":
    main()
