"""What calls of convolutions say."""

from __future__ import annotations

import torch
from torch.nn import functional

from analogsim.layers.products.calls import CONVOLUTIONS, TRANSPOSED, named_call


def test_arguments_by_place_are_those_of_torch() -> None:
    """In the order of the two signatures: the call by name answers the same."""
    x, w, b = torch.randn(1, 4, 9), torch.randn(4, 2, 3), torch.randn(4)
    for func, args in (
        (functional.conv1d, (x, w, b, 2, 1, 2, 2)),
        (functional.conv_transpose1d, (x, w, b, 3, 1, 2, 2, 2)),
    ):
        bias = None if func in TRANSPOSED else b
        call = named_call(func, (*args[:2], bias, *args[3:]), {})
        torch.testing.assert_close(func(**call), func(*args[:2], bias, *args[3:]))
    assert named_call(functional.conv2d, (x,), {"weight": w, "groups": 2}) == {"input": x, "weight": w, "groups": 2}
    assert set(TRANSPOSED) < set(CONVOLUTIONS)
