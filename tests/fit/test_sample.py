"""Measurements made up from a known model."""

import math

import numpy as np
import pytest

from analogsim.fit import sample_measurements
from tests.fit.conftest import FITTED, G_MAX, K, polynomial


def test_sampled_measurements_are_those_of_the_model():
    columns = sample_measurements(FITTED, cells=2000, levels=[10.0], times=(0, "1h"), repeats=2)
    target, time, measured, cell = columns.values()
    assert set(target) == {10.0}
    assert set(time) == {20.0, 3620.0}
    first = measured[time == 20].reshape(2, -1)
    sigma, offset = (G_MAX * polynomial(c, 0.4) for c in (FITTED.effects[0].sigma, FITTED.effects[0].offset))
    assert first.mean() == pytest.approx(10 + offset, abs=K * sigma / math.sqrt(2000))
    white = (first[0] - first[1]).std() / math.sqrt(2)
    assert white == pytest.approx(G_MAX * polynomial((0.003, 0.01), 0.4), rel=0.1)
    assert len(np.unique(cell)) == 2000
    again = sample_measurements(FITTED, cells=2000, levels=[10.0], times=(0, "1h"), repeats=2)
    np.testing.assert_array_equal(again["measured"], measured)
    for wrong in ({"cells": 0}, {"times": ()}, {"repeats": 0}, {"levels": [30.0]}):
        with pytest.raises(ValueError, match="sample_measurements: "):
            sample_measurements("pcm", **wrong)
