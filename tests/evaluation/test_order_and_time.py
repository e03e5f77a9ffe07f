"""What `evaluate` does to a chip, against the same by hand: in this order, and as if each time were the only one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar
from analogsim.chip.batch_norm import own_statistics, reestimate_batch_norm

CALIBRATED = Crossbar(dac_bits=4, adc_bits=4, input_range="calibrated", output_bound="calibrated")
TIMES = ("1h", "1mo", "1y")


@pytest.fixture
def twin() -> tuple[nn.Module, Tensor, Tensor, list[Tensor]]:
    """A twin with batch norm behind converters, data, and two different batches to calibrate with."""
    model = nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))
    x = torch.randn(300, 20) + 1
    y = (x[:, :5].sum(1) > x[:, 5:10].sum(1)).long()
    with torch.no_grad():
        for _ in range(50):
            model(x)
    analog = analogsim.convert(model.eval(), "pcm", crossbar=CALIBRATED)
    batches = [x[:100], x[100:] + 0.5]
    analogsim.calibrate(analog, batches)
    return analog, x, y, batches


def by_hand(twin: tuple[nn.Module, Tensor, Tensor, list[Tensor]], chip: int, t: str, order: str) -> float:
    """The loss of a chip of an age, with column gains, and ranges and statistics set again in an order."""
    analog, x, y, batches = twin
    with analogsim.programmed(analog, chip), own_statistics(analog):
        analogsim.drift(analog, t, compensation="column")
        for what in order.split("+"):
            if what == "ranges":
                analogsim.calibrate(analog, batches)
            else:
                reestimate_batch_norm(analog, batches)
        with torch.no_grad():
            found = float(nn.functional.cross_entropy(analog(x), y))
    analogsim.calibrate(analog, batches)  # the ranges of clean weights again
    return found


@pytest.mark.parametrize("written", ["column+batch-norm+ranges", "ranges+batch-norm+column"])
def test_ranges_are_set_before_statistics_are_estimated_through_them(
    written: str, twin: tuple[nn.Module, Tensor, Tensor, list[Tensor]]
) -> None:
    analog, x, y, batches = twin
    options = {"chips": 2, "metric": "cross_entropy", "compensation": written, "calibration": batches}
    for t in TIMES:
        found = analogsim.evaluate(analog, [(x, y)], times=(t,), **options).values[:, 0]
        np.testing.assert_allclose(found, [by_hand(twin, chip, t, "ranges+batch-norm") for chip in (0, 1)], rtol=1e-4)
        other = np.array([by_hand(twin, chip, t, "batch-norm+ranges") for chip in (0, 1)])
        assert (abs(other / found - 1) > 1e-3).any(), "the order counts"


@pytest.mark.parametrize(
    "compensation",
    [
        *(None, "global", "crossbar", "column", "batch-norm", "ranges", "column+batch-norm+ranges"),
        *("global+affine", "bias@1h", "ranges+affine@1h+batch-norm"),
    ],
)
def test_a_score_does_not_depend_on_the_other_times(
    compensation: str | None, twin: tuple[nn.Module, Tensor, Tensor, list[Tensor]]
) -> None:
    analog, x, y, batches = twin
    options = {"chips": 2, "metric": "cross_entropy", "compensation": compensation, "calibration": batches}
    forwards = analogsim.evaluate(analog, [(x, y)], times=TIMES, **options).values
    backwards = analogsim.evaluate(analog, [(x, y)], times=TIMES[::-1], **options).values
    np.testing.assert_array_equal(backwards, forwards[:, ::-1])
    alone = analogsim.evaluate(analog, [(x, y)], times=TIMES[1:2], **options).values
    np.testing.assert_array_equal(alone, forwards[:, 1:2])
