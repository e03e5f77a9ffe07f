from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import ConversionWarning, Gaussian
from analogsim.conversion.refusals import check_weight
from tests.conversion.networks import assert_shared, mlp

# --- what is no network of modules ------------------------------------------------------------------------------------


def script(model: nn.Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(model)


def trace(model: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(model, torch.ones(2, 4))


def double(x: Tensor) -> Tensor:
    return 2 * x


NO_NETWORKS: dict[str, tuple[Callable[[], Any], str]] = {
    "script": (
        lambda: script(mlp()),
        "scripted or traced RecursiveScriptModule.*convert the module that it was made of",
    ),
    "trace": (lambda: trace(mlp().eval()), "scripted or traced TopLevelTracedModule"),
    "scripted function": (lambda: script(double), "scripted or traced ScriptFunction"),
    "function": (lambda: double, "got function double; convert the module that it calls"),
    "bound method": (lambda: mlp().forward, "got method forward; convert the module that it calls"),
    "class": (lambda: nn.Linear, "got the class Linear; make an instance"),
    "mapping": (lambda: {"layers": 3}, "must be a torch module, got dict$"),
    "empty mapping": (lambda: {}, "must be a torch module, got dict$"),
    "state dict": (lambda: mlp().state_dict(), "OrderedDict of tensors; load a state dict into its module"),
    "number": (lambda: 3, "must be a torch module, got int"),
    "scripted part": (
        lambda: nn.Sequential(nn.Linear(4, 4), script(nn.Linear(4, 4))),
        "'1' is scripted or traced, and torch runs its layers by itself",
    ),
    "data parallel": (
        lambda: nn.DataParallel(mlp()),
        r"the model itself is a DataParallel: convert\(model.module, ...\)",
    ),
}


@pytest.mark.parametrize(("make", "words"), NO_NETWORKS.values(), ids=NO_NETWORKS.keys())
def test_what_is_no_network_of_modules(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(TypeError, match=f"convert: .*{words}"):
        analogsim.convert(make(), "pcm")


@pytest.mark.slow
def test_exported_programs() -> None:
    program = torch.export.export(mlp().eval(), (torch.ones(2, 4),))
    with pytest.raises(TypeError, match="an ExportedProgram, a graph without layers"):
        analogsim.convert(program, "pcm")  # type: ignore[type-var]
    with pytest.raises(TypeError, match="the graph of an exported program"):
        analogsim.convert(program.module(), "pcm")


def test_a_graph_that_calls_its_layers_is_a_network() -> None:
    model = torch.fx.symbolic_trace(mlp().eval())
    analog = analogsim.convert(model, Gaussian(std=0.0))
    x = torch.randn(3, 4)
    analogsim.program(analog)
    torch.testing.assert_close(analog(x), model(x))
    analogsim.audit(analog, x).check()
    assert_shared(model, analog)


def test_a_scripted_part_without_weights_is_no_obstacle() -> None:
    model = nn.Sequential(nn.Linear(4, 4), script(nn.ReLU()))
    x = torch.randn(3, 4)
    torch.testing.assert_close(analogsim.convert(model, Gaussian(std=0.0))(x), model(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantized_layers_say_what_they_are() -> None:
    from torch.ao.quantization import quantize_dynamic

    quantized = quantize_dynamic(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), {nn.Linear})
    with pytest.raises(
        ValueError, match=r"'0' \(Linear\): quantized, its weight is packed away: convert the network of"
    ):
        analogsim.convert(quantized, "pcm")
    with pytest.warns(ConversionWarning, match="quantized, its weight is packed away"):
        analogsim.convert(nn.Sequential(nn.Linear(4, 4), quantized), "pcm")


# --- weights ----------------------------------------------------------------------------------------------------------


def with_weight(weight: Tensor, trained: bool = True) -> nn.Linear:
    layer = nn.Linear(4, 3)
    layer.weight = nn.Parameter(weight, requires_grad=trained)
    return layer


WEIGHTS: dict[str, tuple[Callable[[], nn.Module], type[Exception], str]] = {
    "complex": (
        lambda: nn.Linear(4, 3, dtype=torch.complex64),
        TypeError,
        "is complex .torch.complex64.*real and imag",
    ),
    "complex convolution": (lambda: nn.Conv2d(1, 2, 3, dtype=torch.complex128), TypeError, "is complex"),
    "sparse": (lambda: with_weight(torch.eye(3, 4).to_sparse()), TypeError, "is sparse .*to_dense"),
    "compressed": (lambda: with_weight(torch.eye(3, 4).to_sparse_csr()), TypeError, "is sparse .*sparse_csr"),
    "meta": (lambda: nn.Linear(4, 3, device="meta"), ValueError, "on the meta device.*load the weights first"),
    "int8": (lambda: with_weight(torch.ones(3, 4, dtype=torch.int8), False), TypeError, "int8.*before it is quantized"),
    "uint8": (lambda: with_weight(torch.ones(3, 4, dtype=torch.uint8), False), TypeError, "uint8"),
    "bool": (lambda: with_weight(torch.ones(3, 4, dtype=torch.bool), False), TypeError, "holds torch.bool"),
    "float8": (lambda: with_weight(torch.ones(3, 4).to(torch.float8_e4m3fn), False), TypeError, "holds torch.float8"),
    "no outputs": (lambda: with_weight(torch.ones(0, 4)), ValueError, r"is empty, \(0, 4\)"),
    "no inputs": (lambda: with_weight(torch.ones(3, 0)), ValueError, r"is empty, \(3, 0\)"),
    "lstm": (lambda: nn.LSTM(4, 3, device="meta"), ValueError, "'1.weight_ih_l0' is on the meta device"),
    "attention": (lambda: nn.MultiheadAttention(4, 2, device="meta"), ValueError, "'1.q_proj' is on the meta device"),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize(("make", "kind", "words"), WEIGHTS.values(), ids=WEIGHTS.keys())
def test_weights_that_cannot_lie_on_crossbars(make: Callable[[], nn.Module], kind: type[Exception], words: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), make())
    with pytest.raises(kind, match=words) as error:
        analogsim.convert(model, "pcm")
    assert "'1" in str(error.value)
    assert type(analogsim.convert(model, {"1*": None, "*": "pcm"})[1]) is type(model[1])


def test_weights_of_numbers_are_taken() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        check_weight("0", torch.ones(2, 2, dtype=dtype))
    with pytest.raises(ValueError, match="layer the model itself holds NaN or infinite"):
        check_weight("", torch.tensor([[float("nan")]]))


# --- what was made ----------------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("shift", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) + self.shift


class Fresh(Block):
    """Copies are made from scratch, with the same numbers in other tensors."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        made = type(self)()
        made.load_state_dict(self.state_dict())
        return made


class Itself(Block):
    """A thing of which there is one."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class Detached(Block):
    """Copies are made without the memo."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        made = type(self).__new__(type(self))
        made.__dict__.update(copy.deepcopy(self.__dict__))
        return made


class Reduced(Block):
    def __reduce__(self) -> Any:
        return type(self), ()


class Forgetful(Block):
    """Leaves its layer out of what is copied, and makes another."""

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state["_modules"] = {}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.fc = nn.Linear(4, 4)


class Dropping(Block):
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_modules": {}}


class OwnBuffers(Block):
    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._buffers = {"shift": torch.ones(4)}


COPIES: dict[str, tuple[type[Block], str]] = {
    "from scratch": (Fresh, "'0.*' of the twin .*; Fresh has a __deepcopy__ of its own"),
    "itself": (Itself, "'0' of the twin is the module of the model itself; Itself has a __deepcopy__"),
    "without memo": (Detached, "'0' of the twin has another .*; Detached has a __deepcopy__"),
    "reduced": (Reduced, "'0' of the twin .*; Reduced has a __reduce__ of its own"),
    "another layer": (Forgetful, "'0.fc' of the twin is not the analog layer .*; Forgetful has a __getstate__"),
    "no layer": (Dropping, "'0.fc' of the twin is missing; Dropping has a __getstate__"),
    "other buffers": (OwnBuffers, "'0' of the twin has another buffer 'shift' .*; OwnBuffers has a __setstate__"),
}


@pytest.mark.parametrize(("kind", "words"), COPIES.values(), ids=COPIES.keys())
def test_a_block_that_copies_itself_otherwise_is_refused(kind: type[Block], words: str) -> None:
    with pytest.raises(TypeError, match=f"convert: {words}"):
        analogsim.convert(nn.Sequential(kind(), nn.Linear(4, 2)), "pcm")
    with pytest.raises(TypeError, match="convert:"):
        analogsim.convert(nn.Sequential(kind(), nn.Linear(4, 2)), {"0.*": None, "*": "pcm"})


class Careful(Block):
    """A copy of its own that is a copy."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return made


def test_a_copy_of_its_own_that_is_one_is_fine() -> None:
    model = nn.Sequential(Careful(), nn.Linear(4, 2))
    analog = analogsim.convert(model, "pcm")
    assert_shared(model, analog)
    analogsim.audit(analog, torch.ones(2, 4)).check()


def test_layers_kept_where_copies_do_not_go_are_refused() -> None:
    class Holder:
        def __init__(self, layer: nn.Module) -> None:
            self.layer = layer

        def __deepcopy__(self, memo: dict[int, Any]) -> Self:
            return self

    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model.holder = Holder(model[0])
    with pytest.raises(TypeError, match=r"the twin still holds '0' of the model, in 'holder.layer'"):
        analogsim.convert(model, "pcm")


# --- layers that torch does not know of -------------------------------------------------------------------------------


class Box:
    def __init__(self, layer: Any) -> None:
        self.layer = layer


class Slots:
    __slots__ = ("layer",)

    def __init__(self, layer: Any) -> None:
        self.layer = layer


def closure(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: layer(x)


HIDDEN: dict[str, tuple[Callable[[nn.Module], object], str]] = {
    "list": (lambda layer: [layer], "hidden.0"),
    "dict": (lambda layer: {"head": layer}, "hidden.head"),
    "nested": (lambda layer: {"heads": [(layer,)]}, "hidden.heads.0.0"),
    "object": (Box, "hidden.layer"),
    "slots": (Slots, "hidden.layer"),
    "closure": (closure, "hidden.layer"),
    "inside": (lambda layer: [nn.Sequential(layer)], "hidden.0.0"),
    "parameter": (lambda layer: [layer.weight], "hidden.0"),
}


@pytest.mark.parametrize(("hide", "path"), HIDDEN.values(), ids=HIDDEN.keys())
def test_layers_outside_of_the_tree_are_told(hide: Callable[[nn.Module], object], path: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    model.hidden = hide(nn.Linear(4, 2, bias=False))
    with pytest.warns(ConversionWarning, match=rf"1 x \w+ \(not registered.*'{path}'") as record:
        analog = analogsim.convert(model, "pcm")
    assert len(record) == 1
    summary = analogsim.summary(analog)
    (row,) = (row for row in summary.rows if not row.analog)
    assert (row.name, row.parameters, row.share) == (path, 8, 8 / 28)
    assert row.device.startswith("not registered")
    assert summary.analog_share == pytest.approx(20 / 28)
    analogsim.convert(model, {path: None, "*": "pcm"})  # any warning is an error here


def test_a_network_all_of_whose_layers_are_outside_says_so() -> None:
    class Lost(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(4, 4)]

    with pytest.raises(ValueError, match=r"nothing in Lost can run analog: 'layers.0' \(Linear\): not registered"):
        analogsim.convert(Lost(), "pcm")


def test_a_layer_on_the_class_is_told() -> None:
    class Shared(nn.Module):
        head = nn.Linear(4, 2)

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

    with pytest.warns(ConversionWarning, match="not registered.*'head'"):
        analogsim.convert(Shared(), "pcm")


def test_other_networks_that_hooks_reach_are_no_part() -> None:
    teacher = nn.Linear(4, 4)
    model = nn.Sequential(nn.Linear(4, 4))
    model.register_forward_hook(lambda module, args, output: output + 0 * teacher(args[0]))
    analogsim.convert(model, "pcm")


# --- why nothing is analog --------------------------------------------------------------------------------------------


def test_the_reasons_are_told() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 3))

    class Attention(nn.MultiheadAttention):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return args[0]

    with pytest.raises(
        ValueError, match=r"'0' \(Own\): bare Parameters.*'1' \(Attention\): a subclass of MultiheadAtt"
    ):
        analogsim.convert(nn.Sequential(Own(), Attention(4, 2)), "pcm")
    with pytest.raises(ValueError, match=r"1 of its 2 matrices are mapped to None, no pattern matches '1'"):
        analogsim.convert(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), {"0": None})
