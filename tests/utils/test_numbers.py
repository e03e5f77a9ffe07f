import math

import numpy as np
import pytest
import torch

from analogsim.utils.numbers import as_number


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), torch.tensor(2.0), torch.tensor([2])])
def test_numbers(value):
    assert as_number(value) == 2.0
    assert type(as_number(value)) is float


@pytest.mark.parametrize("value", ["2", b"2", True, None, [2.0], (), torch.ones(2), np.ones(2), object(), 1j])
def test_what_is_none(value):
    assert math.isnan(as_number(value))
