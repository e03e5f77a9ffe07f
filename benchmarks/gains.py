"""Digital gains against drift: what estimators say of one array, how many vectors they need, and a pruned network.

    OMP_NUM_THREADS=1 python -m benchmarks.gains

The tables of docs/hardware.md, "How a gain is measured". Nothing of an estimator but its formula is taken from the
simulator: the weights right after programming and later are read out of the chip.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import analogsim
from analogsim.crossbar.measurement import sign_vectors
from analogsim.evaluation.report import Report
from analogsim.mapping.layout import Layout
from analogsim.recipes.tasks import data_sets
from analogsim.utils.text import table

AGES = {"pcm": "1y", "reram-cmo": "1mo", "reram-wan2022": "2d"}
VECTORS = (1, 4, 16, 64, 256, 512)


def weights(kind: str, out: int, inputs: int) -> Tensor:
    """Gaussian weights ``(out, inputs)``: ``"dense"``, ``"90 % zero"``, ``"one-sided"``."""
    source = torch.Generator().manual_seed(3)
    values = torch.randn(out, inputs, generator=source)
    if kind == "90 % zero":
        values *= torch.rand(values.shape, generator=source) < 0.1
    return values.abs() if kind == "one-sided" else values


def states(weight: Tensor, device: str, age: str, seed: int) -> tuple[Tensor, Tensor]:
    """The weights that a chip holds right after programming, and at an age, without any gain."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    analog = analogsim.convert(layer, device)
    held = []
    for t in (0.0, age):
        with analogsim.programmed(analog, seed=seed, t=t, compensation=None):
            held.append(analogsim.to_digital(analog, "programmed").weight.detach().clone())
    return held[0], held[1]


def estimators(w: Tensor, first: Tensor, now: Tensor) -> list[Tensor]:
    """One gain for an array, by five rules; ours comes first."""
    return [
        (w * first).sum() / (w * now).sum(),
        first.abs().sum() / now.abs().sum(),
        (first * now).sum() / now.square().sum(),
        first.square().sum() / (first * now).sum(),
        w.square().sum() / (w * now).sum(),
    ]


def compare_estimators(chips: int) -> str:
    """What each rule says, mean over chips."""
    rows = []
    for (device, age), kind in itertools.product(AGES.items(), ("dense", "90 % zero", "one-sided")):
        w = weights(kind, 256, 784)
        found = [torch.stack(estimators(w, *states(w, device, age, seed))) for seed in range(chips)]
        rows.append((device, age, kind, *(f"{value:.3f}" for value in torch.stack(found).mean(0).tolist())))
    rules = ("w I(0) / w I(t)", "|I(0)| / |I(t)|", "I(0) I(t) / I(t)^2", "I(0)^2 / I(0) I(t)", "w^2 / w I(t)")
    return table(("device", "age", "weights", *rules), rows)


def count_vectors(chips: int) -> str:
    """The error that few vectors add to the gain of all, root mean square."""
    rows = []
    for kind in ("dense", "90 % zero"):
        w = weights(kind, 64, 512)
        vectors = torch.cat(list(sign_vectors(w, 512, torch.zeros(()), Layout.of(w.shape), 512)))
        held = [states(w, "pcm", "1y", seed) for seed in range(chips)]
        source = torch.Generator().manual_seed(0)
        for count in VECTORS:
            errors: dict[str, list[Tensor]] = {"of 64 columns": [], "of each column": []}
            for first, now in held:
                driven = vectors[torch.randperm(512, generator=source)[:count]]
                wanted = driven @ w.t()
                few = [(wanted * (driven @ state.t())).sum(0) for state in (first, now)]
                every = [(w * state).sum(1) for state in (first, now)]
                whole = (few[0].sum() / few[1].sum()) / (every[0].sum() / every[1].sum())
                errors["of 64 columns"].append(whole - 1)
                errors["of each column"].append((few[0] / few[1]) / (every[0] / every[1]) - 1)
            # Of few vectors some columns answer nearly nothing, and have no mean square: the middle of them, as of a
            # normal law.
            one = torch.stack(errors["of 64 columns"]).square().mean().sqrt()
            each = torch.stack(errors["of each column"]).abs().median() / 0.6745
            rows.append((kind, str(count), f"{100 * one:.2f} %", f"{100 * each:.2f} %"))
    return table(("weights", "vectors", "gain of 64 columns", "gain of each column"), rows)


def pruned_network(train: TensorDataset, epochs: tuple[int, int], share: float = 0.9) -> nn.Sequential:
    """A perceptron trained, cut by magnitude, and trained on with what is left."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    masks = [torch.ones_like(layer.weight) for layer in layers]
    images, labels = train.tensors
    for part, count in enumerate(epochs):
        if part:
            sizes = [layer.weight.detach().abs() for layer in layers]
            masks = [(size > size.flatten().kthvalue(int(share * size.numel())).values).float() for size in sizes]
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for _ in range(count):
            for chosen in torch.split(torch.randperm(len(labels)), 256):
                with torch.no_grad():
                    for layer, mask in zip(layers, masks, strict=True):
                        layer.weight.mul_(mask)
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    with torch.no_grad():
        for layer, mask in zip(layers, masks, strict=True):
            layer.weight.mul_(mask)
    return model.eval()


def judge_pruned(model: nn.Sequential, test: TensorDataset, chips: int) -> str:
    """The pruned network on chips, with and without gains."""
    rows = []
    for device, times in (("reram-cmo", ("1s", "1d", "1mo")), ("pcm", ("1s", "1d", "1y"))):
        for crossbar, compensation in itertools.product(("ideal", "standard"), (None, "global", "column")):
            analog = analogsim.convert(model, device, crossbar=crossbar)
            report: Report = analogsim.evaluate(
                analog, [(test.tensors[0], test.tensors[1])], chips=chips, times=times, compensation=compensation
            )
            cells = [f"{100 * mean:.2f} ± {100 * std:.2f}" for mean, std in zip(report.mean, report.std, strict=True)]
            rows.append((device, crossbar, compensation or "none", f"{100 * report.clean:.2f}", *cells))
    return table(("device", "crossbar", "gain", "clean", "1 s", "1 day", "1 month (pcm: 1 year)"), rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the three tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gains", description=__doc__)
    parser.add_argument("--chips", type=int, default=5, help="of the pruned network (default: %(default)d)")
    parser.add_argument("--quick", action="store_true", help="a network that was hardly trained")
    options = parser.parse_args(arguments)
    print(f"torch {torch.__version__}\n\n{compare_estimators(2)}\n\n{count_vectors(2 if options.quick else 8)}\n")
    data = data_sets.load("fashion-mnist", limit=2000 if options.quick else None)
    print(judge_pruned(pruned_network(data.train, (1, 1) if options.quick else (4, 2)), data.test, options.chips))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
