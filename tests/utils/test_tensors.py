from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from analogsim.utils.tensors import clamp_own, stamp_of

# --- stamps ---------------------------------------------------------------------------------------------------------


def swap(tensor: Tensor) -> None:
    tensor[0], tensor[1] = 1.0, 0.0


@pytest.mark.parametrize(
    "write",
    [
        lambda tensor: tensor.add_(1),
        lambda tensor: tensor.copy_(torch.ones(4)),
        swap,
        lambda tensor: tensor[2:].zero_(),
        lambda tensor: tensor.view(2, 2).mul_(2),
        lambda tensor: nn.init.ones_(tensor),
        lambda tensor: setattr(tensor, "data", torch.ones(4)),  # other memory
    ],
)
def test_writes_change_a_stamp(write: Callable[[Tensor], object]) -> None:
    tensor, other = torch.zeros(4), torch.zeros(4)
    before, both = stamp_of(tensor), stamp_of(other, tensor)
    assert stamp_of(tensor) == before
    write(tensor)
    assert stamp_of(tensor) != before
    assert stamp_of(other, tensor) != both


def test_reading_and_writing_elsewhere_leave_a_stamp() -> None:
    tensor, other = torch.zeros(4), torch.zeros(4)
    before = stamp_of(tensor)
    other.add_(1)
    tensor.add(1).mul_(2)
    assert torch.equal(tensor, other - 1)
    assert stamp_of(tensor) == before
    assert stamp_of(tensor, other) != stamp_of(other, tensor)


def test_writes_through_data_leave_no_trace() -> None:
    """It is why chips are compared by value whenever they become suspect."""
    tensor = torch.zeros(4)
    before = stamp_of(tensor)
    tensor.data.add_(1)
    assert stamp_of(tensor) == before


class Silent(torch.optim.Optimizer):
    """Writes as fused optimizers may: with no trace in the version counter."""

    def __init__(self, parameters: list[Tensor]) -> None:
        super().__init__(parameters, {})

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.add_(1)


@pytest.mark.parametrize(
    "kind",
    [
        Silent,
        lambda parameters: torch.optim.SGD(parameters, 0.1, fused=True),
        lambda parameters: torch.optim.Adam(parameters, 0.1, fused=True),
        lambda parameters: torch.optim.AdamW(parameters, 0.1, fused=True),
    ],
    ids=["silent", "sgd", "adam", "adamw"],
)
def test_steps_of_optimizers_change_a_stamp(kind: Callable[[list[Tensor]], torch.optim.Optimizer]) -> None:
    weight = nn.Parameter(torch.ones(4))
    weight.grad = torch.ones(4)
    optimizer = kind([weight])
    for _ in range(2):
        before, value = stamp_of(weight), weight.detach().clone()
        optimizer.step()
        assert not torch.equal(weight, value)
        assert stamp_of(weight) != before


def test_tensors_of_inference_mode_have_a_stamp() -> None:
    with torch.inference_mode():
        tensor = torch.zeros(4)
    assert stamp_of(tensor) == stamp_of(tensor)
    assert stamp_of(tensor) != stamp_of(torch.zeros(4))


# --- limits ---------------------------------------------------------------------------------------------------------

VALUES = (-2.0, -0.5, 0.0, 0.3, 5.0)
CLAMPED = (-0.5, -0.5, 0.0, 0.3, 1.0)


def test_values_are_stopped_where_they_are() -> None:
    values = torch.tensor(VALUES)
    found = clamp_own(values, -0.5, 1.0)
    assert found is values
    assert torch.equal(values, torch.tensor(CLAMPED))


def test_values_under_vmap_are_stopped_too_and_left_as_they_were() -> None:
    values = torch.tensor([VALUES, VALUES[::-1]])
    found = torch.vmap(lambda row: clamp_own(row, -0.5, 1.0))(values)
    assert torch.equal(found, torch.tensor([CLAMPED, CLAMPED[::-1]]))
    assert torch.equal(values[0], torch.tensor(VALUES))


def test_values_in_compiled_code_are_stopped_in_one_graph() -> None:
    def double(values: Tensor) -> Tensor:
        return clamp_own(values * 2, -0.5, 1.0)

    compiled = torch.compile(double, backend="eager", fullgraph=True)
    assert torch.equal(compiled(torch.tensor(VALUES) / 2), torch.tensor(CLAMPED))
