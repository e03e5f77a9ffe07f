"""Whether analog layers have a part in what a twin answers: no clean score, no training without noise goes unseen."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import ConversionWarning
from analogsim.conversion.first_forward import FirstForward, unwatched
from analogsim.errors import BypassedError
from analogsim.layers.module import matrices_of
from analogsim.layers.state import Uses
from analogsim.utils.torch_private import forward_hooks, forward_pre_hooks

NOISE = "gaussian(std=2.0)"
ORIGINAL: ContextVar[nn.Module] = ContextVar("ORIGINAL")  # where convert does not look


class Elsewhere(nn.Module):
    """Calls the original layers, which it finds outside of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 3)
        ORIGINAL.set(self.fc)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = ORIGINAL.get()(x)
        return y


class ByHand(nn.Module):
    """Takes its child's weights, and multiplies by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(1) * self.fc.weight).sum(-1) + self.fc.bias


class Half(ByHand):
    """The first layer is analog, the second in name only."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.first(x))


def data(samples: int = 24) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(samples, 6, generator=generator), torch.randint(3, (samples,), generator=generator))]


def watchers(model: nn.Module) -> list[FirstForward]:
    hooks = [*forward_hooks(model).values(), *forward_pre_hooks(model).values()]
    return [hook.__self__ for hook in hooks if isinstance(getattr(hook, "__self__", None), FirstForward)]


ASKED: dict[str, Callable[[nn.Module], Any]] = {
    "training": lambda analog: analog.train()(data()[0][0]),
    "a chip": lambda analog: analogsim.program(analog) or analog.eval()(data()[0][0]),
    "evaluate": lambda analog: analogsim.evaluate(analog, data(), chips=2, times=(0,)),
    "together": lambda analog: analogsim.evaluate(analog, data(), chips=2, times=(0,), together=2),
    "sensitivity": lambda analog: analogsim.sensitivity(analog, data(), chips=2, t=0, metric="cross_entropy"),
    "ablate": lambda analog: analogsim.ablate(analog, data(), chips=2, times=(0,)),
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("network", [Elsewhere, ByHand])
def test_no_part_at_all_is_an_error_whoever_asks(network: type[nn.Module], asked: str) -> None:
    analog = analogsim.convert(network(), NOISE)
    for _ in range(2):  # and stays one
        with pytest.raises(BypassedError, match=r"none of the 1 analog layers had a part .* analogsim\.audit"):
            ASKED[asked](analog)


def test_the_audit_answers_what_the_errors_send_to_it_for() -> None:
    for network in (Elsewhere, ByHand):
        assert not analogsim.audit(analogsim.convert(network(), NOISE), data()[0][0]).passed


def test_calibration_and_batch_norm_from_data_that_reach_nothing() -> None:
    analog = analogsim.convert(ByHand(), NOISE, crossbar="standard(input_range='calibrated')")
    with pytest.raises(BypassedError, match="none of the 1"):
        analogsim.calibrate(analog, data())
    analog = analogsim.convert(nn.Sequential(ByHand(), nn.BatchNorm1d(3)), NOISE)
    with pytest.raises(BypassedError, match="none of the 1"):
        analogsim.evaluate(analog, data(), chips=1, times=(0,), compensation="batch-norm", calibration=data())


def test_a_part_of_the_layers_is_one_warning_in_training() -> None:
    analog = analogsim.convert(Half(), NOISE)
    with pytest.warns(
        ConversionWarning, match=r"training of Half: .* without a part in the answers: 'fc'. Either"
    ) as said:
        analog(data()[0][0])
    assert len(said) == 1
    analog(data()[0][0])
    analog.eval().train()
    analog(data()[0][0])


@pytest.mark.parametrize("asked", ["evaluate", "together", "sensitivity", "ablate"])
def test_a_part_of_the_layers_is_one_warning_where_they_are_judged(asked: str) -> None:
    analog = analogsim.convert(Half(), NOISE)
    with pytest.warns(ConversionWarning, match="without a part in the answers: 'fc'") as said:
        result = ASKED[asked](analog)
    assert len(said) == 1
    if asked == "sensitivity":
        assert result.idle == {"fc"}
        assert result.mean("fc") == 0
        assert result.mean("first") == result.mean()
        assert result.keep_digital(result.clean).layers[-1] == "first"
    with pytest.warns(ConversionWarning, match="training of Half"):  # training is looked at all the same
        analog.train()(data()[0][0])


def test_what_a_network_did_not_choose_is_named_too() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(6, 3) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.experts[1](x)
            return y

    with pytest.warns(ConversionWarning, match=r"'experts.0', 'experts.2'. Either .*experts, .* as it should be"):
        analogsim.convert(Experts(), "pcm")(data()[0][0])


def test_parts_called_alone_are_nobodys_forward() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    analog = analogsim.convert(model, "pcm")
    analog[:2](data()[0][0])
    analog[0](data()[0][0])
    assert watchers(analog), "the whole was not called yet"
    analog(data()[0][0])
    assert not watchers(analog)


def test_use_by_a_part_does_not_hide_that_the_whole_goes_past_it() -> None:
    analog = analogsim.convert(ByHand(), NOISE)
    analog.fc(data()[0][0])
    with pytest.raises(BypassedError):
        analog(data()[0][0])


def test_nothing_is_left_of_the_look_once_all_had_a_part() -> None:
    analog = analogsim.convert(nn.Sequential(nn.Linear(6, 3)), "pcm")
    with analogsim.programmed(analog), torch.no_grad():
        analog(data()[0][0])
    assert not watchers(analog)
    assert not any((*forward_hooks(analog).values(), *forward_pre_hooks(analog).values()))


def test_copies_and_files_are_looked_at_by_themselves() -> None:
    analog = analogsim.convert(Half(), NOISE)
    for again in (copy.deepcopy(analog), pickle.loads(pickle.dumps(analog))):
        with pytest.warns(ConversionWarning, match="training of Half"):
            again(data()[0][0])
        assert not watchers(again)
        assert again.first.analog.uses == 1
    assert watchers(analog)
    assert analog.first.analog.uses == 0


def test_the_digital_network_is_looked_at_by_nobody() -> None:
    analog = analogsim.convert(ByHand(), NOISE)
    plain = analogsim.to_digital(nn.Sequential(analog))
    assert not watchers(plain[0])
    plain(data()[0][0])
    assert watchers(analog)


def test_who_looks_for_himself_puts_the_look_back() -> None:
    analog = analogsim.convert(ByHand(), NOISE)
    (before,) = set(watchers(analog))
    with unwatched(nn.Sequential(analog)):
        assert not watchers(analog)
        analog(data()[0][0])
    assert set(watchers(analog)) == {before}


def test_a_forward_that_fails_proves_nothing() -> None:
    analog = analogsim.convert(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)), "pcm")
    with pytest.raises(RuntimeError):
        analog(torch.randn(2, 5))
    assert watchers(analog)
    analog(data()[0][0])
    assert not watchers(analog)


def test_a_call_past_the_hooks_is_told() -> None:
    class Calling(ByHand):
        def __call__(self, x: Tensor) -> Tensor:
            return self.forward(x)

    class Ending(ByHand):
        def __call__(self, x: Tensor) -> Any:
            return super().__call__(x)

    with pytest.warns(ConversionWarning, match="Calling has a __call__ of its own.*analogsim.audit"):
        analogsim.convert(Calling(), NOISE)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConversionWarning)
        analog = analogsim.convert(Ending(), NOISE)
        analogsim.convert(nn.Sequential(Calling()), NOISE)
    with pytest.raises(BypassedError):
        analog(data()[0][0])


# --- compiled -------------------------------------------------------------------------------------------------------


@pytest.fixture
def compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def good() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.usefixtures("compiler")
def test_compiled_twins_leave_a_trace(whole: bool) -> None:
    analog = analogsim.convert(good(), "gaussian")
    compiled = torch.compile(analog, backend="eager", fullgraph=whole)
    compiled(data()[0][0]).sum().backward()
    assert all(matrix.analog.traced for matrix in matrices_of(analog))
    assert not Uses([matrix.analog for matrix in matrices_of(analog)]).idle
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mine = analogsim.evaluate(compiled, data(), chips=2, times=(0,), metric="cross_entropy")
    theirs = analogsim.evaluate(analog, data(), chips=2, times=(0,), metric="cross_entropy")
    assert mine.values == pytest.approx(theirs.values)


@pytest.mark.usefixtures("compiler")
def test_compiled_twins_that_go_past_their_layers_are_errors() -> None:
    for mode in (True, False):
        analog = analogsim.convert(ByHand(), NOISE).train(mode)
        with pytest.raises(BypassedError, match="forward of ByHand"):  # in eager code, to which torch falls back
            torch.compile(analog, backend="eager")(data()[0][0])
        with pytest.raises(RuntimeError, match=r"BypassedError|none of the 1"):
            torch.compile(analog, backend="eager", fullgraph=True)(data()[0][0])
    with pytest.raises(BypassedError, match="evaluate: none of the 1"):
        analogsim.evaluate(torch.compile(analog, backend="eager"), data(), chips=1, times=(0,))
    analog.compile(backend="eager")
    with pytest.raises(BypassedError, match="evaluate: none of the 1"):
        analogsim.evaluate(analog, data(), chips=1, times=(0,))


@pytest.mark.usefixtures("compiler")
def test_compiled_training_of_a_half_warns_once() -> None:
    analog = analogsim.convert(Half(), NOISE)
    compiled = torch.compile(analog, backend="eager", fullgraph=True)
    with pytest.warns(ConversionWarning, match="training of Half: .*: 'fc'. Either") as said:
        compiled(data()[0][0])
    assert len(said) == 1
    compiled(data()[0][0])
    compiled(torch.randn(5, 6))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's of its own tracing
@pytest.mark.usefixtures("compiler")
def test_layers_compiled_one_by_one_count_too() -> None:
    analog = analogsim.convert(good(), "gaussian")
    for layer in (analog[0], analog[2]):
        layer.compile(backend="eager", fullgraph=True)
    analog(data()[0][0])
    analog(data()[0][0])
    assert not watchers(analog)


def shut() -> nn.Module:
    network = good()
    network.forward = torch.compile(network.forward, backend="eager")  # type: ignore[method-assign]
    return network


@pytest.mark.parametrize("network", [good, shut])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.usefixtures("compiler")
def test_a_twin_that_runs_a_graph_made_for_another_one_counts(network: Callable[[], nn.Module], train: bool) -> None:
    wanted = ["0", "2"]
    for _ in range(3):
        analog = analogsim.convert(network(), "gaussian", example=data()[0][0]).train(train)
        analogsim.program(analog)
        compiled = analog if network is shut else torch.compile(analog, backend="eager", fullgraph=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConversionWarning)
            compiled.train(train)(data()[0][0])
        assert [matrix.analog.name for matrix in matrices_of(analog) if matrix.analog.traced] == wanted


@pytest.mark.usefixtures("compiler")
def test_an_exported_forward_counts() -> None:
    analog = analogsim.convert(good(), "gaussian")
    analogsim.program(analog)
    torch.export.export(analog.eval(), (data()[0][0],))
    assert all(matrix.analog.traced for matrix in matrices_of(analog))
