"""From a table of measured cells to the accuracy of a network on them: for whoever makes the cells.

    pip install ".[recipes]"
    python examples/cells.py                       # with readings that are made up from a model that is known
    python examples/cells.py measurements.csv      # with yours: target, time, measured, cell

The fit gives the error of programming, drift and read noise with intervals, and a file that `analogsim.convert` takes
as a device. Then it is a network's turn: its accuracy on such cells through a day, and which of the three costs most.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import analogsim
from analogsim.devices import FittedDrift, FittedProgramming, FittedReadNoise
from analogsim.fit import sample_measurements


def make_up(file: Path, cells: int) -> None:
    """Readings of cells of which everything is known, in the place of measured ones."""
    known = analogsim.DeviceModel(
        (FittedProgramming(sigma=(0.02, 0.03)), FittedDrift(nu=(0.06,), nu_std=(0.02,)), FittedReadNoise((0.005,)))
    )
    columns = sample_measurements(known, cells=cells, levels=8, times=(0, "1min", "1h", "1d"), repeats=3)
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["target [µS]", "time [s]", "measured [µS]", "cell"])
        writer.writerows(zip(*columns.values(), strict=True))


def network() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A trained network, and test data: what the cells are for."""
    images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = images[order].float() / 16, labels[order]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(30):
        for batch in torch.randperm(1400).split(50):
            optimizer.zero_grad()
            cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    return model, (images[1400:], labels[1400:])


def main(words: list[str] | None = None) -> analogsim.Report:
    """Fit the cells, keep the device, and judge a network on it."""
    parser = argparse.ArgumentParser(description="What a network keeps on measured cells.")
    parser.add_argument("measurements", nargs="?", type=Path, help="a CSV file; left out: readings that are made up")
    parser.add_argument("--cells", type=int, default=40, help="a level, of those made up")
    parser.add_argument("--chips", type=int, default=25)
    parser.add_argument("--out", type=Path, default=Path(), help="the folder of what is written")
    options = parser.parse_args(words)
    file = options.measurements or options.out / "measurements.csv"
    if options.measurements is None:
        make_up(file, options.cells)

    fit = analogsim.fit_device(file, name="mine")
    print(fit)
    fit.plot().savefig(options.out / "cells-fit.png", dpi=120)
    fit.save(options.out / "mine.toml")

    model, test = network()
    analog = analogsim.convert(model, str(options.out / "mine.toml"), crossbar="standard")
    report = analogsim.evaluate(analog, [test], chips=options.chips, times=("1min", "1h", "1d"))
    print(report)
    print(analogsim.ablate(analog, [test], chips=min(5, options.chips), times=("1min", "1d")))
    report.plot().savefig(options.out / "cells.png", dpi=120)
    print(f"the device: {options.out / 'mine.toml'}, the pictures: {options.out / 'cells-fit.png'}, cells.png")
    return report


if __name__ == "__main__":
    main()
