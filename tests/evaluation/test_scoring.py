from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim.errors import NonFiniteError
from analogsim.evaluation.metrics import METRICS, Metric
from analogsim.evaluation.scoring import Ask, ask_alone, score_networks
from analogsim.utils.batches import Data, Inputs

CPU = torch.device("cpu")


def data(*sizes: int) -> Data:
    return Data([(torch.randn(size, 3), torch.randint(3, (size,))) for size in sizes], CPU)


def test_several_networks_are_scored_apart() -> None:
    batches = data(5, 4)
    models = [nn.Linear(3, 3), nn.Linear(3, 3)]

    def both(inputs: Inputs, ask: Ask) -> list[Tensor]:
        return [ask(model, inputs) for model in models]

    found = score_networks(both, batches, METRICS["cross_entropy"])
    assert found.values == [
        score_networks(ask_alone(model), batches, METRICS["cross_entropy"]).values[0] for model in models
    ]
    assert found.values[0] != found.values[1]
    assert (found.samples, found.classes) == (9, 3)
    assert all(type(value) is float for value in found.values)


def test_the_mean_is_that_of_all_samples_in_the_order_of_batches() -> None:
    batches = data(7, 2, 1)
    model = nn.Linear(3, 3)
    total = 0.0
    with torch.no_grad():
        for x, y in batches:
            total += float(METRICS["cross_entropy"].score(model(x), y).double().mean()) * len(y)  # type: ignore[operator]
    assert score_networks(ask_alone(model), batches, METRICS["cross_entropy"]).values == [total / 10]


def test_no_gradients_are_recorded_and_answers_without_classes_have_none() -> None:
    seen = []

    def metric(output: Tensor, target: Tensor) -> Tensor:
        seen.append((output.requires_grad, torch.is_grad_enabled()))
        return output

    found = score_networks(lambda inputs, ask: [ask(nn.Linear(3, 1), inputs)[:, 0]], data(4), Metric("first", metric))
    assert seen == [(False, False)]
    assert found.classes is None


def test_a_networks_own_loss_needs_labels_by_name() -> None:
    with pytest.raises(TypeError, match="give batches that are mappings with 'labels', got a pair of Tensor"):
        score_networks(ask_alone(nn.Linear(3, 3)), data(4), METRICS["loss"])


# --- NaN, infinite values and targets that are none ------------------------------------------------------------------

NAN, INF = torch.nan, torch.inf


def twin(device: str = "gaussian(std=0.1)") -> nn.Module:
    torch.manual_seed(0)
    return analogsim.convert(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4)), device)


def pairs(size: int = 12) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(size, 3, generator=generator), torch.randint(4, (size,), generator=generator))] * 2


JUDGES: dict[str, Callable[..., Any]] = {
    "evaluate": lambda analog, data, **o: analogsim.evaluate(analog, data, chips=2, times=(0,), **o),
    "together": lambda analog, data, **o: analogsim.evaluate(analog, data, chips=2, times=(0,), together=2, **o),
    "sensitivity": lambda analog, data, **o: analogsim.sensitivity(analog, data, chips=2, t=0, **o),
    "ablate": lambda analog, data, **o: analogsim.ablate(analog, data, chips=2, times=(0,), **o),
}


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("metric", ["accuracy", "cross_entropy"])
def test_inputs_that_are_nan_are_an_error_whoever_judges(judge: str, metric: str) -> None:
    data = pairs()
    x = data[1][0].clone()
    x[3, 1] = NAN
    said = r"answers of the digital network to batch 1 hold NaN: .* is '0' \(Linear\); .* this batch hold some already"
    with pytest.raises(NonFiniteError, match=said):
        JUDGES[judge](twin(), [data[0], (x, data[1][1])], metric=metric)


@pytest.mark.parametrize("judge", JUDGES)
def test_weights_that_overflow_are_an_error(judge: str) -> None:
    analog = twin()
    with torch.no_grad():
        analog[2].weight.fill_(3e38)
    with pytest.raises(
        NonFiniteError, match=r"hold (NaN|infinite values|minus infinity).*'2' \(Linear\); .* hold none"
    ):
        JUDGES[judge](analog, pairs())


class Root(nn.Module):
    """Of what noise makes negative it is NaN."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


@pytest.mark.parametrize("judge", ["evaluate", "together"])
def test_a_chip_that_answers_so_is_named_with_its_time_and_layer(judge: str) -> None:
    said = r"answers of chip \d after 0s to batch 0 hold"
    model = nn.Sequential(nn.Linear(3, 4), Root())
    nn.init.constant_(model[0].weight, 1.0)
    data = [(x.abs(), y) for x, y in pairs()]
    with pytest.raises(NonFiniteError, match=rf"{said} NaN: .* is '1' \(Root\); .* hold none"):
        JUDGES[judge](analogsim.convert(model, "gaussian(std=2.0)"), data)
    large = nn.Sequential(nn.Linear(1, 4, bias=False))
    nn.init.constant_(large[0].weight, 1.0)
    data = [(torch.full((4, 1), 3e38), torch.zeros(4).long())]
    with pytest.raises(NonFiniteError, match=rf"{said} (infinite|minus).* is '0' \(AnalogLinear\); .* hold none"):
        JUDGES[judge](analogsim.convert(large, "gaussian(std=2.0)"), data)


class Masked(nn.Module):
    """Some classes are out of the question."""

    def __init__(self, value: float, last: int = 4) -> None:
        super().__init__()
        self.fc, self.value, self.last = nn.Linear(3, 4), value, last

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(x)
        return y.masked_fill(torch.arange(4) >= self.last, self.value)


@pytest.mark.parametrize("judge", JUDGES)
def test_minus_infinity_of_masks_is_no_error(judge: str) -> None:
    data = [(x, y % 3) for x, y in pairs()]
    torch.manual_seed(0)
    low = JUDGES[judge](analogsim.convert(Masked(-1e9, 3), "pcm"), data)
    torch.manual_seed(0)
    masked = JUDGES[judge](analogsim.convert(Masked(-INF, 3), "pcm"), data)
    assert str(masked) == str(low)


def test_masks_that_leave_nothing_and_other_values_are_errors() -> None:
    for value, last, wrong in ((-INF, 0, "minus infinity for all classes"), (INF, 3, "infinite"), (NAN, 3, "NaN")):
        with pytest.raises(NonFiniteError, match=f"the digital network to batch 0 hold {wrong}"):
            JUDGES["evaluate"](analogsim.convert(Masked(value, last), "pcm"), pairs())
    with pytest.raises(
        NonFiniteError, match="the metric 'cross_entropy' makes inf of answers that are finite, or minus"
    ):
        JUDGES["evaluate"](analogsim.convert(Masked(-INF, 3), "pcm"), pairs(), metric="cross_entropy")


def test_a_score_of_ones_own_that_is_nan_is_an_error_unless_it_says_so() -> None:
    def score(output: Tensor, target: Tensor) -> Tensor:
        return torch.full((len(target),), NAN)

    class Whole:
        def update(self, output: Tensor, target: Tensor) -> None: ...

        def compute(self) -> float:
            return NAN

        def reset(self) -> None: ...

    for own in (score, Whole()):
        with pytest.raises(NonFiniteError, match=r"makes nan of answers .*Metric\(..., finite=False\)"):
            JUDGES["evaluate"](twin(), pairs(), metric=own)
        report = JUDGES["evaluate"](twin(), pairs(), metric=Metric("own", own, finite=False))
        assert np.isnan(report.values).all()
    x = torch.full((4, 3), NAN)
    judged = Metric("first", lambda output, target: output[:, 0].nan_to_num(), finite=False)
    assert JUDGES["evaluate"](twin(), [(x, torch.zeros(4).long())], metric=judged).clean == 0


@pytest.mark.parametrize("metric", ["accuracy", "cross_entropy"])
@pytest.mark.parametrize(
    ("targets", "error", "said"),
    [
        (torch.tensor([0, 1, 4]), ValueError, "class numbers from 0 to 3, or -100 .*, got some from 0 to 4"),
        (torch.tensor([0, -1, 3]), ValueError, "class numbers from 0 to 3, or -100 .*, got some from -1 to 3"),
        (torch.tensor([0.0, 1.0, 2.0]), TypeError, "targets must be class numbers, integers, got torch.float32"),
        (torch.tensor([True, False, True]), TypeError, "got torch.bool"),
        (torch.tensor([0j, 1, 2]), TypeError, "got torch.complex64"),
        (torch.zeros(3, 4), ValueError, r"needs outputs .*got \(3, 4\) and \(3, 4\)"),
        (torch.zeros(2).long(), ValueError, r"needs outputs .*got \(3, 4\) and \(2,\)"),
        (torch.zeros(0).long(), ValueError, r"each batch needs samples, .* shape \(0,\)"),
        (torch.tensor(2), ValueError, r"each batch needs samples, .* shape \(\)"),
        (torch.tensor([-100, -100, -100]), ValueError, "no sample to score: none was given, or all targets are -100"),
    ],
)
def test_targets_that_are_no_classes(metric: str, targets: Tensor, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        JUDGES["evaluate"](twin(), [(torch.randn(3, 3), targets)], metric=metric)


def test_complex_answers_have_no_largest() -> None:
    class Waves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.fc(x)
            return torch.complex(y, y)

    with pytest.raises(TypeError, match="accuracy: of complex outputs none is the largest"):
        JUDGES["evaluate"](analogsim.convert(Waves(), "pcm"), pairs())
    with pytest.raises(TypeError, match=r"one score per sample, or their mean, got complex \(12,\) for 12"):
        JUDGES["evaluate"](analogsim.convert(Waves(), "pcm"), pairs(), metric=lambda output, target: output[:, 0])


@pytest.mark.parametrize("metric", ["accuracy", "cross_entropy"])
@pytest.mark.parametrize("kind", [torch.int64, torch.int16])
def test_samples_without_a_target_that_counts_do_not_count(metric: str, kind: torch.dtype) -> None:
    ((x, y), _) = pairs()
    marked = y.to(kind).clone()
    marked[::3] = -100
    some = JUDGES["evaluate"](twin(), [(x, marked)], metric=metric)
    chosen = torch.arange(len(y)) % 3 != 0
    without = JUDGES["evaluate"](twin(), [(x[chosen], y[chosen])], metric=metric)
    assert some.clean == pytest.approx(without.clean)
    np.testing.assert_allclose(some.values, without.values, rtol=1e-6)


def test_a_narrow_type_has_no_minus_one_hundred() -> None:
    """Class 156 is 156 also as one byte, in which -100 would be the same."""
    torch.manual_seed(0)
    analog = analogsim.convert(nn.Linear(3, 200), "pcm")
    x = torch.randn(4, 3)
    y = torch.full((4,), 156, dtype=torch.uint8)
    for metric in ("accuracy", "cross_entropy"):
        narrow = JUDGES["evaluate"](analog, [(x, y)], metric=metric)
        assert narrow.clean == JUDGES["evaluate"](analog, [(x, y.long())], metric=metric).clean
