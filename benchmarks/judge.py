"""Whether ``analogsim judge`` is right: its recommendation beside an exhaustive search over all cheap remedies.

Networks are trained here for less than a minute each. Each is judged; then every combination of cheap remedies (of each
kind one or none) is evaluated on all test data and chips that the judgement has not seen, and what was recommended is
compared with the best of them, chip by chip.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from analogsim.evaluation.display import number
from analogsim.evaluation.metrics import Metric, as_metric
from analogsim.recipes.judge import judge
from analogsim.recipes.judge.bench import Bench, Measured, Part
from analogsim.recipes.judge.clock import Clock
from analogsim.recipes.judge.judgement import Judgement
from analogsim.recipes.judge.remedies import Remedy, all_remedies, combine, read_remedies
from analogsim.recipes.judge.samples import Samples
from analogsim.recipes.judge.variant import Subject, Variant, set_ranges_again
from analogsim.utils.files import write_whole
from analogsim.utils.text import table

_OTHER = 5_000_000


@dataclass(frozen=True)
class Case:
    """A trained network and its data.

    Args:
        model: the network.
        train: inputs and targets.
        validation: the same.
        test: the same.
        metric: what it is judged by.
    """

    model: nn.Module
    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    metric: Metric


def _digits(rows: bool = False) -> tuple[tuple[Tensor, Tensor], ...]:
    from sklearn.datasets import load_digits

    found = load_digits()
    x, y = torch.tensor(found.images).float().unsqueeze(1) / 8 - 1, torch.tensor(found.target).long()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = (x[order, 0] if rows else x[order]), y[order]
    return (x[:1100], y[:1100]), (x[1100:1300], y[1100:1300]), (x[1300:], y[1300:])


def _fashion() -> tuple[tuple[Tensor, Tensor], ...]:
    from analogsim.recipes.tasks import data_sets

    splits = data_sets.load("fashion-mnist", limit=12_000)
    sizes = {"train": 12_000, "validation": 1_000, "test": 2_000}
    return tuple(
        tuple(torch.stack(part) for part in zip(*(getattr(splits, name)[i] for i in range(size)), strict=True))  # type: ignore[misc]
        for name, size in sizes.items()
    )


def _diabetes() -> tuple[tuple[Tensor, Tensor], ...]:
    from sklearn.datasets import load_diabetes

    found = load_diabetes()
    x, y = torch.tensor(found.data).float() * 20, (torch.tensor(found.target).float()[:, None] - 152) / 77
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    return (x[:260], y[:260]), (x[260:340], y[260:340]), (x[340:], y[340:])


class Recurrent(nn.Module):
    """Rows of an image, one after the other, and the classes after the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 48, batch_first=True)
        self.out = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, rows, pixels)`` to ``(batch, classes)``."""
        states, _ = self.gru(x)
        found: Tensor = self.out(states[:, -1])
        return found


def _separable() -> nn.Module:
    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]

    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        *block(16, 32, 2),
        *block(32, 48, 1),
        *block(48, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def _transformer() -> nn.Module:
    from torchvision.models import VisionTransformer

    class Grey(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = VisionTransformer(
                image_size=8, patch_size=2, num_layers=3, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=10
            )

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.net(x.expand(-1, 3, -1, -1))
            return found

    return Grey()


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 10))


def _lenet() -> nn.Module:
    from analogsim.recipes.tasks import networks

    return networks.build("lenet5", (1, 28, 28), 10)


def _regressor() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 1))


def _squared(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().flatten(1).mean(1)


_MSE = Metric("mean_squared_error", _squared, higher_is_better=False)
_ACCURACY = as_metric("accuracy")

# The network, its data, its metric, epochs, learning rate.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], Metric, int, float]] = {
    "mlp": (_mlp, _digits, _ACCURACY, 40, 5e-3),
    "gru": (Recurrent, lambda: _digits(rows=True), _ACCURACY, 40, 5e-3),
    "vit": (_transformer, _digits, _ACCURACY, 40, 2e-3),
    "regression": (_regressor, _diabetes, _MSE, 60, 3e-3),
    "lenet5": (_lenet, _fashion, _ACCURACY, 5, 3e-3),
    "separable": (_separable, _fashion, _ACCURACY, 8, 5e-3),
}


def trained(name: str, *, epochs: int | None = None) -> Case:
    """A network after its training.

    Args:
        name: one of `NETWORKS`.
        epochs: fewer, for tests.
    """
    torch.manual_seed(0)
    build, load, metric, usual, rate = NETWORKS[name]
    train, validation, test = load()
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), rate)
    count = usual if epochs is None else epochs
    steps = -(-len(train[0]) // 64) * count
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(steps, 1))
    model.train()
    for _ in range(count):
        order = torch.randperm(len(train[0]))
        for index in torch.split(order, 64):
            optimizer.zero_grad()
            answer = model(train[0][index])
            loss = nn.functional.cross_entropy if metric is _ACCURACY else nn.functional.mse_loss
            loss(answer, train[1][index]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return Case(model.eval(), train, validation, test, metric)


def loader(part: tuple[Tensor, Tensor], size: int = 250) -> list[tuple[Tensor, Tensor]]:
    """Batches of a part."""
    return list(zip(*(torch.split(tensor, size) for tensor in part), strict=True))


def combinations(subject: Subject) -> Iterator[tuple[Remedy, ...]]:
    """Of each kind of cheap remedies one or none, as far as they can be done."""
    kinds: dict[str, list[Remedy | None]] = {}
    for remedy in all_remedies().values():
        if remedy.price <= 3.0 and not remedy.why_not(Variant(), subject):
            kinds.setdefault(remedy.kind, [None]).append(remedy)
    for chosen in itertools.product(*kinds.values()):
        yield tuple(remedy for remedy in chosen if remedy is not None)


def search(case: Case, judgement: Judgement, *, device: str, crossbar: str, chips: int) -> list[tuple[str, Measured]]:
    """Every combination on test data and chips that nobody has seen, the best first; and what was recommended, last."""
    import analogsim

    inputs = [entry for entry, _ in loader((case.train[0][:512], case.train[1][:512]))]
    analog = analogsim.convert(case.model, device, crossbar=crossbar)
    set_ranges_again(analog, inputs, 99.99)
    subject = Subject(analog, inputs, device, crossbar)
    bench = Bench(subject, case.metric, Clock(1e9))
    part = Part(Samples(loader(case.test)), _OTHER, (judgement.at,))
    found = []
    for remedies in combinations(subject):
        variant = combine(remedies, Variant(), subject)
        found.append((variant.name, bench.measure(variant, part, chips)))
    start = found[0][1]
    found.sort(key=lambda entry: -entry[1].over(start).mean)
    taken = read_remedies("+".join(judgement.recommended), subject) if judgement.recommended else []
    variant = combine(taken, Variant(), subject)
    return [*found, (variant.name, bench.measure(variant, part, chips))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the networks, search, and print both."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judge", description=__doc__)
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(NETWORKS)} (default: all)")
    parser.add_argument("--device", default="pcm")
    parser.add_argument("--crossbar", default="standard")
    parser.add_argument("--minutes", type=float, default=2.0, help="for each judgement (default: 2)")
    parser.add_argument("--chips", type=int, default=20, help="of the search (default: 20)")
    parser.add_argument("--epochs", type=int, help="of the training (default: each network's own)")
    parser.add_argument("--html", type=Path, help="a folder for the pages")
    options = parser.parse_args(arguments)
    unknown = set(options.networks) - set(NETWORKS)
    if unknown:
        parser.error(f"unknown networks: {', '.join(sorted(unknown))}; there are {', '.join(NETWORKS)}")
    rows = []
    for name in options.networks or NETWORKS:
        case = trained(name, epochs=options.epochs)
        start = time.monotonic()
        found = judge(
            case.model,
            loader(case.test),
            validation=loader(case.validation),
            calibration=loader((case.train[0][:512], case.train[1][:512])),
            metric=case.metric,
            device=options.device,
            crossbar=options.crossbar,
            minutes=options.minutes,
        )
        took = time.monotonic() - start
        print(f"{name}\n\n{found}\n", flush=True)
        if options.html:
            write_whole(options.html / f"{name}.html", found.to_html())
        *every, (_, taken) = search(case, found, device=options.device, crossbar=options.crossbar, chips=options.chips)
        (best_name, best), unit = every[0], found.report.unit
        apart = best.over(taken)
        as_is = next(measured for title, measured in every if title == "as it is")
        rows.append(
            (
                name,
                number(found.clean, unit),
                number(as_is.score(), unit),
                f"{'+'.join(found.recommended) or found.verdict}",
                number(taken.score(), unit),
                f"{best_name}",
                number(best.score(), unit),
                f"{number(apart.mean, unit)} ± {number(apart.error, unit)}",
                f"{took:.0f} s",
            )
        )
        print(table(_HEAD, rows, right=9), flush=True)
    return 0


_HEAD = ("network", "clean", "as it is", "recommended", "score", "best of all", "score", "best - recommended", "took")

if __name__ == "__main__":
    raise SystemExit(main())
