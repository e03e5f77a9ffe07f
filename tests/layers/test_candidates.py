"""Which modules could be analog, and why others are not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from analogsim.layers import AnalogLinear, AnalogMultiheadAttention
from analogsim.layers.candidates import (
    asked_digital,
    hides_layers,
    holds_matrix,
    is_matrix,
    unplaced,
    weight_rules,
    why_digital,
)


class Own(nn.Linear):
    """A forward and a Parameter of its own."""

    def __init__(self) -> None:
        super().__init__(4, 3)
        self.extra = nn.Parameter(torch.ones(2, 4))
        self.gain = nn.Parameter(torch.ones(3))

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.gain


class OwnAttention(nn.MultiheadAttention):
    """Reads the weights of the layer in it by itself, in a forward of its own."""

    def forward(self, *args: Tensor) -> Tensor:  # type: ignore[override]
        return args[0]


class Bare(nn.Module):
    """A Parameter that torch knows nothing of."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(2, 4))


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((), False),
        ((3,), False),
        ((3, 1), False),
        ((3, 2), True),
        ((1, 4), True),
        ((1, 4, 4), False),
        ((2, 1, 3), True),
    ],
)
def test_shapes_of_matrices(shape: tuple[int, ...], wanted: bool) -> None:
    """A position embedding ``(1, length, features)`` is added to each sample alike; one row of a product is one."""
    assert is_matrix(torch.zeros(shape)) is wanted


def test_who_holds_a_matrix() -> None:
    assert holds_matrix(nn.Linear(4, 3))
    assert not holds_matrix(nn.Sequential(nn.Linear(4, 3)))
    assert not holds_matrix(nn.LayerNorm((4, 4))), "element by element"
    assert not holds_matrix(nn.BatchNorm2d(3))


def test_parameters_that_no_slot_places() -> None:
    assert unplaced(Own(), AnalogLinear) == ["extra"]
    assert unplaced(nn.Linear(4, 3), AnalogLinear) == []
    assert unplaced(nn.MultiheadAttention(4, 2), AnalogMultiheadAttention) == []


def test_who_hides_layers() -> None:
    assert hides_layers(OwnAttention(4, 2))
    assert not hides_layers(nn.MultiheadAttention(4, 2))
    assert not hides_layers(Own())
    assert not hides_layers(nn.Sequential(nn.Linear(4, 3)))


def test_rules_of_weights() -> None:
    layer = parametrizations.weight_norm(nn.Linear(4, 3))
    assert weight_rules(layer) & set(layer.modules())
    assert layer not in weight_rules(layer)
    plain = nn.Linear(4, 3)
    assert not weight_rules(plain) & set(plain.modules())


def test_who_was_asked_to_stay_digital() -> None:
    assert asked_digital(nn.Linear(4, 3))
    assert not asked_digital(nn.Embedding(4, 3)), "analog on request only"
    assert not asked_digital(nn.ReLU())


def test_reasons() -> None:
    replaced = nn.Linear(4, 3)
    replaced.forward = lambda input: input  # type: ignore[method-assign]
    for module, reason in (
        (nn.Embedding(4, 3), r"a table that is looked up \(convert"),
        (nn.Linear(4, 3), "no pattern matches it"),
        (nn.LayerNorm(4), "element-wise, no matrix"),
        (replaced, "its forward was replaced"),
        (OwnAttention(4, 2), "a subclass of MultiheadAttention, which may compute something else"),
        (Bare(), r"bare Parameters, no analog layer for Bare \(convert\(.*\), register_layer, register_routed\)"),
    ):
        with pytest.raises(ValueError, match=reason):
            raise ValueError(why_digital(module))
