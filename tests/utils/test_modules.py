from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from analogsim.utils.modules import copy_tree, in_eval, names_of, own_copy, visited


class Twin(nn.Linear):
    """Takes the place of a linear layer, and answers differently."""

    def double(self, input: Tensor) -> Tensor:
        return 2 * self(input) + 1


class Doubling(nn.Linear):
    def double(self, input: Tensor) -> Tensor:
        return 2 * self(input)


class Branches(nn.Module):
    """Holds its layers in every way that people hold them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Doubling(3, 3)
        self.second = nn.Linear(3, 3)
        self.tied = self.second
        self.second.weight = self.first.weight
        self.alias = [self.first, {"second": self.second}]
        self.call: Callable[[Tensor], Tensor] = self.first.double
        self.own: Callable[[Tensor], Tensor] = self.shifted
        self.constant = torch.ones(3)
        self.held = {"constant": self.constant, "made": (torch.zeros(3),)}
        self.register_buffer("shift", torch.full((3,), 0.5))

    def shifted(self, input: Tensor) -> Tensor:
        return input + self.shift

    def forward(self, input: Tensor) -> Tensor:
        return self.tied(self.own(self.call(input)))


def shell(kind: type[nn.Module]) -> nn.Module:
    return kind.__new__(kind)


# --- names ----------------------------------------------------------------------------------------------------------


def test_every_module_goes_by_all_its_names() -> None:
    model = Branches()
    names = names_of(model)
    assert names[model.second] == ["second", "tied"]
    assert names[model.first] == ["first"]
    assert names[model] == [""]
    assert len(names) == 3


# --- a second tree over the same tensors ----------------------------------------------------------------------------


def test_a_second_tree_has_modules_of_its_own_and_the_same_tensors() -> None:
    model = Branches()
    other = copy_tree(model, {})
    assert set(model.modules()).isdisjoint(other.modules())
    for one, two in zip(model.modules(), other.modules(), strict=True):
        assert type(one) is type(two)
        for name, value in (*one._parameters.items(), *one._buffers.items()):
            assert getattr(two, name) is value
    assert other.constant is model.constant
    assert other.held["constant"] is model.constant
    assert other.held["made"][0] is model.held["made"][0]


def test_what_is_assigned_in_one_tree_is_so_in_the_other() -> None:
    model = Branches()
    other = copy_tree(model, {})
    other.first.weight = nn.Parameter(torch.eye(3))
    assert model.first.weight is other.first.weight
    assert model.second.weight is not other.first.weight  # a Parameter that was shared, not a name
    model.double()
    assert other.shift.dtype == other.second.weight.dtype == torch.float64
    other.extra = nn.Linear(1, 1)  # modules are the tree's own
    assert not hasattr(model, "extra")


def test_ties_and_aliases_are_those_of_the_model() -> None:
    model = Branches()
    old, new = model.first, shell(Twin)
    other = copy_tree(model, {old: new})
    assert other.first is new
    assert type(new) is Twin
    assert other.tied is other.second
    assert other.alias[0] is new
    assert other.alias[1]["second"] is other.second
    assert other.second.weight is new.weight is old.weight
    assert model.first is old
    assert type(old) is Doubling


def test_bound_methods_belong_to_the_new_modules() -> None:
    model = Branches()
    new = shell(Twin)
    other = copy_tree(model, {model.first: new})
    assert other.own.__self__ is other  # type: ignore[attr-defined]
    assert other.call.__self__ is new  # type: ignore[attr-defined]
    assert other.call.__func__ is Twin.double  # type: ignore[attr-defined]
    x = torch.randn(2, 3)
    torch.testing.assert_close(other.call(x), model.call(x) + 1)
    torch.testing.assert_close(other(x), model.second(model.call(x) + 1 + 0.5))


def test_a_method_that_the_class_does_not_know_stays_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].forward = nn.Linear.forward.__get__(model[0])  # hung there by hand, under the name of the class's own
    model[0].odd = Doubling.double.__get__(model[0])  # a method of another class
    new = shell(Twin)
    copy_tree(model, {model[0]: new})
    assert new.odd.__func__ is Doubling.double
    assert new.odd.__self__ is new
    assert new.forward.__self__ is new


def test_objects_that_are_shared_are_not_copied() -> None:
    class Log:
        pass

    model = nn.Linear(1, 1)
    model.log, model.other = Log(), Log()
    copied = copy_tree(model, {}, shared=[model.log])
    assert copied.log is model.log
    assert copied.other is not model.other


def test_a_compiled_call_stays_behind() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model[0]._compiled_call_impl = lambda input: input
    new = shell(Twin)
    copy_tree(model, {model[0]: new})
    assert new._compiled_call_impl is None  # the class's own
    assert torch.equal(new(torch.ones(1, 2)), nn.functional.linear(torch.ones(1, 2), new.weight, new.bias))


def test_what_cannot_be_copied_says_what_to_do() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.lock = threading.Lock()
    with pytest.raises(TypeError, match=r"cannot build a second module tree of Sequential: .*lock.* Convert before"):
        copy_tree(model, {})


# --- a copy with tensors of its own ---------------------------------------------------------------------------------


def test_a_copy_of_its_own_shares_nothing_and_keeps_ties() -> None:
    model = Branches()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = own_copy(model)
    assert other.first.weight is other.second.weight
    assert other.tied is other.second
    assert other.held["constant"] is other.constant
    with torch.no_grad():
        for value in (*other.parameters(), *other.buffers(), other.constant):
            value.fill_(7)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert torch.equal(model.constant, torch.ones(3))
    assert other.call.__self__ is other.first  # type: ignore[attr-defined]


def test_tensors_in_a_graph_are_cut_off_by_value() -> None:
    model = nn.Linear(2, 2)
    model.kept = [model.weight * 2]
    other = own_copy(model)
    assert torch.equal(other.kept[0], model.kept[0])
    assert other.kept[0].is_leaf
    assert not other.kept[0].requires_grad
    assert other.kept[0].data_ptr() != model.kept[0].data_ptr()
    assert model.kept[0].requires_grad
    assert other.weight.requires_grad


# --- forwards that are heard of -------------------------------------------------------------------------------------


def test_forwards_are_heard_of_from_outside_in_and_back() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    heard: list[tuple[str, nn.Module]] = []
    with visited(lambda module: heard.append(("in", module)), lambda module: heard.append(("out", module))):
        model(torch.ones(2))
    inner = [(what, module) for module in model for what in ("in", "out")]
    assert heard == [("in", model), *inner, ("out", model)]
    model(torch.ones(2))
    assert len(heard) == 6


def test_a_forward_that_fails_ends_too_and_leaves_no_hook() -> None:
    class Failing(nn.Module):
        def forward(self, input: Tensor) -> Tensor:
            raise RuntimeError("no")

    model = nn.Sequential(Failing())
    depth: list[int] = [0]

    def enter(module: nn.Module) -> None:
        depth.append(depth[-1] + 1)

    def leave(module: nn.Module) -> None:
        depth.append(depth[-1] - 1)

    with pytest.raises(RuntimeError, match="no"), visited(enter, leave):
        model(torch.ones(1))
    assert depth == [0, 1, 2, 1, 0]
    nn.Linear(1, 1)(torch.ones(1))
    assert len(depth) == 5


def test_each_module_has_its_own_mode_again_whatever_happens_in_eval() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout().eval(), nn.Sequential(nn.Dropout()))
    before = [module.training for module in model.modules()]
    assert len(set(before)) == 2
    seen = []

    def fail() -> None:
        with in_eval(model):
            seen.extend(module.training for module in model.modules())
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        fail()
    assert not any(seen)
    assert [module.training for module in model.modules()] == before
