"""Whether ``analogsim judge`` is right: its recommendation beside an exhaustive search over all cheap remedies.

Networks are trained here for less than a minute each. Each is judged; then every combination of cheap remedies (of each
kind one or none) is evaluated on all test data and chips that the judgement has not seen, and what was recommended is
compared with the best of them, chip by chip.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from analogsim.evaluation.display import number
from analogsim.recipes.judge import judge
from analogsim.recipes.judge.bench import Bench, Measured
from analogsim.recipes.judge.bench import Part as Judged
from analogsim.recipes.judge.clock import Clock
from analogsim.recipes.judge.judgement import Judgement
from analogsim.recipes.judge.remedies import Remedy, all_remedies, combine, read_remedies
from analogsim.recipes.judge.samples import Samples
from analogsim.recipes.judge.variant import Subject, Variant, set_ranges_again
from analogsim.utils.files import write_whole
from analogsim.utils.text import table
from benchmarks.harness.judged_networks import NETWORKS, Case, Part, at, loader, trained

_OTHER = 5_000_000


def _some(part: Part) -> Part:
    index = torch.arange(min(512, len(part[1])))
    return at(part[0], index), part[1][index]


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

    inputs = [entry for entry, _ in loader(_some(case.train))]
    analog = analogsim.convert(case.model, device, crossbar=crossbar, example=inputs[0])
    set_ranges_again(analog, inputs, 99.99)
    subject = Subject(analog, inputs, device, crossbar)
    bench = Bench(subject, case.metric, Clock(1e9))
    part = Judged(Samples(loader(case.test)), _OTHER, (judgement.at,))
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
            calibration=loader(_some(case.train)),
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
