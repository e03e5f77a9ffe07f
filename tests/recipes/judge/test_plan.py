"""What is recommended, on networks and hardware of which the right answer is known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from analogsim.evaluation.metrics import Metric
from analogsim.evaluation.report import Report
from analogsim.recipes.judge import bench, judge, plan, rounds
from analogsim.recipes.judge.bench import Measured, NoTimeError, Part
from analogsim.recipes.judge.clock import Clock
from analogsim.recipes.judge.findings import Findings, Tried
from analogsim.recipes.judge.judgement import NO_REMEDY, NOTHING_TO_DO, RECOMMENDED, Judgement
from analogsim.recipes.judge.remedies import all_remedies
from analogsim.recipes.judge.samples import Samples
from analogsim.recipes.judge.sizes import Sizes
from analogsim.recipes.judge.variant import Variant


@pytest.fixture(autouse=True)
def few_chips(monkeypatch):
    """As a budget of a few seconds would have it; what the answers are does not hang on it here."""

    def sizes(clock, *, times, remedies, layers, available):
        return Sizes(available, 6, 6, 4, 4, layers)

    monkeypatch.setattr(rounds, "plan", sizes)
    monkeypatch.setattr(plan, "_MOST_CHIPS", 6)


FEW = ("column", "batch-norm", "largest-weight-97", "copies-2")


def blobs(count: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Points around eight corners, in batches."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(8, (count,), generator=generator)
    corners = torch.tensor([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)]).float() * 2 - 1
    x = corners[y] + 0.4 * torch.randn(count, 3, generator=generator)
    return list(zip(x.split(100), y.split(100), strict=True))


def trained(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for layer in layers:
        for module in layer.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    data = blobs(500, 0)
    for _ in range(30):
        for x, y in data:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return trained(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 8))


def judged(model: nn.Module, **how) -> Judgement:
    given = {"validation": blobs(400, 1), "calibration": blobs(300, 2), "times": ("1y",), "only": FEW} | how
    return judge(model, blobs(600, 3), **given)


def test_a_network_that_loses_nothing(small):
    found = judged(small, device="gaussian(std=0.0)")
    assert found.verdict == NOTHING_TO_DO
    assert not found.recommended
    assert found.loss.mean == 0


def test_the_remedy_that_helps(small):
    """Without a gain, phase-change memory has half its currents after a year, and biases are digital."""
    found = judged(small, compensation=None, only=("global", "column", "copies-2"))
    assert found.verdict == RECOMMENDED
    assert found.recommended[0] in ("global", "column")
    assert found.gain.beyond()
    assert found.final.seeds == found.report.seeds
    assert max(found.report.seeds) < 1_000_000


def test_what_hurts_is_not_recommended(small):
    found = judged(small, device="pcm+gaussian(std=0.15)", only=("no-gain", "largest-weight-97"))
    row = next(row for row in found.remedies if row.name == "no-gain")
    assert row.gain < 0
    assert "no-gain" not in found.recommended


def test_one_layer_that_costs_everything_becomes_digital(small):
    device = {"0": "gaussian(std=1.5)", "*": "gaussian(std=0.0)"}
    found = judged(small, device=device, only=None, times=("0s",))
    assert found.verdict == RECOMMENDED
    assert "'0': None" in found.python
    assert found.layers
    assert max(found.layers, key=lambda row: row.gain).name == "0"


def test_a_metric_of_which_less_is_better(small):
    metric = Metric(
        "negative log-likelihood",
        lambda output, target: nn.functional.cross_entropy(output, target, reduction="none"),
        higher_is_better=False,
    )
    found = judged(small, compensation=None, metric=metric, only=("global",))
    assert found.loss.mean > 0
    assert found.recommended == ("global",)
    assert found.gain.mean > 0
    assert found.final.mean[-1] < found.report.mean[-1]


def test_where_nothing_helps_it_says_so(small):
    found = judged(small, device="gaussian(std=1.0)", only=("largest-weight-97",), times=("0s",))
    assert found.verdict == NO_REMEDY
    assert "No remedy helps" in found.advice
    assert not found.recommended


def test_guessing_on_chips_is_said(small):
    found = judged(small, device="gaussian(std=30.0)", only=("column",), times=("0s",))
    assert any("no better than guessing" in note for note in found.notes)


def test_remedies_that_fail_are_told(small, monkeypatch):
    from analogsim.chip import COMPENSATIONS, Gain

    def fails(reference, now, layout):
        raise RuntimeError("no such instrument")

    monkeypatch.setitem(COMPENSATIONS, "broken", Gain("broken", fails))
    found = judged(small, only=("broken", "column"), compensation=None)
    assert dict(found.untried)["broken"] == "no such instrument"


def test_remedies_are_chosen_on_other_chips_and_data(small, monkeypatch):
    asked = []
    judge_chips = bench.judge_chips

    def noted(twin, loader, **how):
        asked.append((len(loader), how["seed"]))
        return judge_chips(twin, loader, **how)

    monkeypatch.setattr(bench, "judge_chips", noted)
    judged(small, compensation=None, only=("global",))
    assert {samples for samples, seed in asked if seed < 1_000_000} == {600}
    assert 600 not in {samples for samples, seed in asked if seed >= 1_000_000}


AS_IS = [0.70] * 6
BY_LUCK = [0.70, 0.90, 0.70, 0.71, 0.70, 0.71]
BETTER = [0.88, 0.88, 0.89, 0.88, 0.89, 0.88]
BEST = [("affine", "remap", *more) for more in ((), ("column",), ("crossbar",), ("no-gain",))]
CHIPS = {(): AS_IS, ("affine",): BY_LUCK, **dict.fromkeys(BEST, BETTER)}


def scored(names: tuple[str, ...], chips: int) -> Measured:
    values = np.array(CHIPS[names][:chips])[:, None]
    rows = (np.linspace(0, 1, 400, endpoint=False) < values[..., None]).astype(float)
    report = Report(values, (1.0,), 0.9, "accuracy", "pcm", tuple(range(chips)), None, samples=400)
    return Measured(report, rows, np.ones(400))


def chosen_of(names: tuple[str, ...], chips: int) -> Tried:
    taken = tuple(all_remedies()[name] for name in names)
    return Tried(taken, Variant(compensation="+".join(names) or None), scored(names, chips), len(names))


class Measures:
    """Says what stands above, as long as there is time for it; for one of them there may be none."""

    clock = Clock(1e6)

    def __init__(self, late: tuple[str, ...] | None) -> None:
        self.late = late

    def estimate(self, variant, part, chips):
        return 0.0

    def measure(self, variant, part, chips, *, reserve=0.0):
        names = tuple(variant.compensation.split("+")) if variant.compensation else ()
        if names == self.late:
            raise NoTimeError
        return scored(names, chips)


@pytest.mark.parametrize(("late", "expected", "chips"), [(None, BEST[0], 6), (("affine",), ("affine",), 2)])
def test_what_is_cheapest_has_been_on_as_many_chips_as_the_best(late, expected, chips):
    """Of two chips nearly all is within the error of the best; four others hide what is cheapest from a second look."""
    part = Part(Samples([(torch.zeros(1), torch.zeros(1))]), 0, (1.0,))
    found = Findings(at="1s", where=0, tolerance=0.01, notes=[], guess=0.1)
    found.tried = [chosen_of(names, 2) for names in CHIPS]
    found.asis = found.start = found.tried[0].measured
    sizes = SimpleNamespace(tried=2, final=2)
    made = plan.Plan(bench=Measures(late), base=Variant(), test=part, choice=part, sizes=sizes, found=found)
    taken = made._choose()
    assert tuple(each.name for each in taken.remedies) == expected
    assert len(taken.measured.rows) == chips
