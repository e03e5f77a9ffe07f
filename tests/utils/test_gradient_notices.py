from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

from analogsim.utils.gradient_notices import Notice, Tie, tied_answer, tied_constant


class Said(UserWarning):
    """Of these tests."""


def made() -> tuple[Notice, Tie, nn.Parameter]:
    return Notice("no gradient", Said), Tie(), nn.Parameter(torch.randn(3, 3))


def test_a_notice_is_given_once() -> None:
    notice = made()[0]
    with pytest.warns(Said, match="no gradient"):
        notice.give(stacklevel=1)
    notice.give(stacklevel=1)


def test_only_who_asks_for_the_parameter_is_told() -> None:
    notice, tie, weight = made()
    x = torch.randn(2, 3, requires_grad=True)

    def answer() -> torch.Tensor:
        zero = tie.zero(weight, None, notice)
        assert zero is not None
        return tied_answer(x @ weight.detach(), zero).relu_()

    (slope,) = torch.autograd.grad(answer().sum(), x)
    answer().sum().backward(inputs=[x])
    assert torch.equal(slope, x.grad)  # type: ignore[arg-type]
    assert not notice.given
    with pytest.warns(Said):
        answer().sum().backward()
    assert weight.grad is None
    assert tie.zero(weight, None, notice) is None


def test_a_constant_is_tied_without_a_write_into_it() -> None:
    notice, tie, weight = made()
    constant = torch.randn(3, 3)
    version = constant._version
    zero = tie.zero(weight, None, notice)
    tied = tied_constant(constant, zero)  # type: ignore[arg-type]
    assert torch.equal(tied, constant)
    assert constant._version == version
    assert not constant.requires_grad
    with pytest.warns(Said):
        (tied * 2).sum().backward()


def test_no_zero_where_no_gradient_could_come() -> None:
    notice, tie, weight = made()
    with torch.no_grad():
        assert tie.zero(weight, None, notice) is None
    assert tie.zero(weight.detach(), None, notice) is None
    assert tie.zero(weight.detach(), nn.Parameter(torch.zeros(3)), notice) is not None
    torch.func.vmap(lambda x: x if tie.zero(weight, None, notice) is None else x / 0)(torch.ones(2)).sum()


def test_a_computed_weight_has_a_zero_of_its_own_in_each_forward() -> None:
    notice, tie, weight = made()
    assert tie.zero(weight, None, notice) is tie.zero(weight, None, notice)
    assert tie.zero(weight * 2, None, notice) is not tie.zero(weight * 2, None, notice)
    other = nn.Parameter(weight.detach().clone())
    zero = tie.zero(other, None, notice)
    assert zero is tie.zero(other, None, notice)
    assert zero is not tie.zero(weight, None, notice)


def test_copies_leave_the_graph_behind() -> None:
    notice, tie, weight = made()
    tie.zero(weight, None, notice)
    for again in (copy.deepcopy(tie), pickle.loads(pickle.dumps(tie))):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert again.zero(weight, None, notice) is not tie.zero(weight, None, notice)
