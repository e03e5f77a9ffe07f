"""A forward of the twin on an example, at once: what would run digital, fail or answer otherwise is said at convert."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from analogsim.errors import InvalidTypeError, InvalidValueError, NotRoutedError
from analogsim.layers.module import exactly, matrices_of
from analogsim.layers.products.computed import examples_of, untouched
from analogsim.layers.registry import discover
from analogsim.layers.routing import RoutedLayer
from analogsim.layers.state import Uses
from analogsim.utils.batches import Inputs, call, moved
from analogsim.utils.modules import names_of, title_of
from analogsim.utils.torch_private import own_buffers, tree_leaves, tree_map, version_of


def try_example(model: nn.Module, twin: nn.Module, example: Inputs) -> list[str]:
    """One forward of a network and one of its twin without noise and converters, both in eval; all is left as it was.

    Args:
        model: the network.
        twin: made of it.
        example: inputs: a tensor, a tuple of arguments, or a mapping of keyword arguments.

    Returns:
        The names of the analog matrices that took no part.

    Raises:
        TypeError: the example is nothing of that.
        ValueError: the network fails on it, the twin fails or answers otherwise, or nothing analog took part.
        NotRoutedError: a forward takes a product with an analog weight in a way that cannot be followed.
    """
    if not isinstance(example, Tensor | tuple | Mapping):
        raise InvalidTypeError(
            "convert: example must be a tensor, a tuple of arguments or a mapping of keyword arguments, got "
            f"{type(example).__name__}"
        )
    parameter = next(iter(twin.parameters()))
    inputs = moved(example, parameter.device)
    states = [matrix.analog for matrix in matrices_of(twin)]
    with _left_as_it_was(model, twin):
        try:
            clean = _answer(model, inputs)
        except Exception as error:
            raise InvalidValueError(
                f"convert: the example does not go through the model itself: {type(error).__name__}: {error}"
            ) from error
    with _left_as_it_was(model, twin):  # again: what the model's forward wrote into buffers would be seen by the twin's
        uses = Uses(states)
        with exactly(twin), _Place(twin) as place:
            try:
                found = _answer(twin, inputs)
            except NotRoutedError:  # which names the layer
                raise
            except Exception as error:
                raise InvalidValueError(
                    f"convert: on the example the twin fails in {place}: {type(error).__name__}: {error}"
                ) from error
        idle = [state.title for state in uses.idle]
        for state in states:
            state.uses = 0  # what follows is the twin's own
    if len(idle) == len(states):
        raise InvalidValueError(
            f"convert: no analog layer of {type(model).__name__} took part in the forward on the example: all of it "
            "runs digital. Its forward goes past the layers, as with functional.linear(x, layer.weight); call them, or "
            f"see analogsim.register_routed. The layers are: {_listed(idle)}"
        )
    _compare(clean, found, type(model).__name__)
    return idle


def try_layers(twin: nn.Module) -> None:
    """Let layers of known types with forwards of their own show that these take their weights in products.

    Each is given made-up inputs of its type, alone, without hooks, in eval and in training; all is left as it was. What
    a forward raises besides is the inputs' fault, and shows in the network's own.

    Raises:
        NotRoutedError: a forward takes no product with its weight that can be followed, whatever it was given.
    """
    for layer in twin.modules():
        if isinstance(layer, RoutedLayer):
            refused = [_refusal(layer, training) for training in (False, True)]
            for matrix in matrices_of(layer):
                matrix.analog.uses = 0  # what follows is the network's own
            if refused[0] is not None and refused[1] is not None:
                raise refused[0]


def _refusal(layer: nn.Module, training: bool) -> NotRoutedError | None:
    """Why a layer's product cannot be followed; None where it can, or no input goes through it."""
    refused = None
    for input in examples_of(layer):
        with _parameters_kept(layer), untouched(layer), exactly(layer), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is said of made-up inputs is nothing to the user
            layer.training = training
            try:
                with torch.no_grad(), torch.compiler.set_stance("force_eager"):
                    layer.forward(input)
            except NotRoutedError as error:
                refused = error
            except Exception:
                continue
            else:
                return None
    return refused


@contextmanager
def _parameters_kept(layer: nn.Module) -> Iterator[None]:
    """Parameters of a layer that are written into within the block are as before afterwards."""
    kept = [(parameter, parameter.detach().clone()) for parameter in layer.parameters()]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, before in kept:
                if not torch.equal(parameter, before):  # a write to .data counts no version
                    parameter.copy_(before)


def learn_products(model: nn.Module, example: Inputs) -> None:
    """Let modules of unregistered types show, in one forward in eval, what they take products with.

    An example that fails teaches nothing; `try_example` says what is wrong with it.
    """
    parameter = next(iter(model.parameters()), None)
    if parameter is None or not isinstance(example, Tensor | tuple | Mapping):
        return
    inputs = moved(example, parameter.device)
    with _left_as_it_was(model), suppress(Exception):
        discover(model, lambda: _answer(model, inputs))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more


def _answer(model: nn.Module, inputs: Inputs) -> list[Any]:
    """The leaves of what a network answers to inputs of its own, from the random state as it is now."""
    own = tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, inputs)
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    with torch.no_grad(), torch.random.fork_rng(devices), torch.compiler.set_stance("force_eager"):
        return _leaves(call(model, own))


def _leaves(value: Any) -> list[Any]:
    """Tensors and numbers of an answer, also in objects with attributes such as those of transformers."""
    found: list[Any] = []
    for leaf in tree_leaves(value):
        inside = vars(leaf) if hasattr(leaf, "__dict__") and not isinstance(leaf, Tensor | nn.Module) else None
        found += [leaf] if inside is None else tree_leaves(dict(inside))
    return [leaf for leaf in found if isinstance(leaf, Tensor)]


@contextmanager
def _left_as_it_was(*trees: nn.Module) -> Iterator[None]:
    """Both trees in eval for a block; modes and buffers are put back."""
    held = [(own_buffers(module), dict(own_buffers(module))) for module in trees[0].modules()]
    modes = [(module, module.training) for tree in trees for module in tree.modules()]
    buffers = {id(buffer): (buffer, buffer.detach().clone(), version_of(buffer)) for buffer in trees[0].buffers()}
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for buffers_of, before_it in held:
            if list(map(id, buffers_of.values())) != list(map(id, before_it.values())):
                buffers_of.clear()
                buffers_of.update(before_it)
        with torch.no_grad():
            for buffer, before, version in buffers.values():
                if version_of(buffer) != version:
                    buffer.resize_(before.shape).copy_(before)


class _Place:
    """Within a block, the innermost module of a network whose forward has begun and not come back."""

    def __init__(self, model: nn.Module) -> None:
        self._names = {module: names[0] for module, names in names_of(model).items()}
        self._inside: list[nn.Module] = []
        self._hooks = ExitStack()

    def __enter__(self) -> _Place:
        def enter(module: nn.Module, args: object) -> None:
            if module in self._names:
                self._inside.append(module)

        def leave(module: nn.Module, args: object, output: object) -> None:
            while module in self._inside and self._inside.pop() is not module:
                continue

        self._hooks.callback(register_module_forward_pre_hook(enter).remove)
        self._hooks.callback(register_module_forward_hook(leave).remove)
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.close()

    def __str__(self) -> str:
        if not self._inside:
            return "the model itself"
        module = self._inside[-1]
        kind = getattr(module, "stands_for", type(module)).__name__
        return f"{title_of(self._names[module])} ({kind})"


def _compare(clean: list[Tensor], found: list[Tensor], model: str) -> None:
    """Raise ValueError unless two answers are one to rounding."""
    what = f"convert: without any noise the twin of {model} answers otherwise than the model to the example"
    remedy = (
        "something in the network is not as it is in the twin, such as a layer that its forward changes, or it is "
        "random besides torch's generators"
    )
    shapes = [[tuple(tensor.shape) for tensor in answer] for answer in (clean, found)]
    if shapes[0] != shapes[1]:
        raise InvalidValueError(f"{what}: its tensors are {shapes[1]} and not {shapes[0]}; {remedy}")
    for mine, theirs in zip(clean, found, strict=True):
        if not (mine.is_floating_point() or mine.is_complex()) or mine.is_nested:
            continue
        one, other = (tensor.to_dense() if tensor.layout is not torch.strided else tensor for tensor in (mine, theirs))
        if not torch.equal(one.isfinite(), other.isfinite()):
            raise InvalidValueError(f"{what}: NaN or infinite values in other places; {remedy}")
        kind = torch.complex128 if one.is_complex() else torch.float64
        wide = [tensor.to(kind).nan_to_num(0.0, 0.0, 0.0) for tensor in (one, other)]
        apart = float(torch.linalg.vector_norm(wide[0] - wide[1]))
        size = float(torch.linalg.vector_norm(wide[0]))
        limit = math.sqrt(torch.finfo(min((one, other), key=lambda each: each.dtype.itemsize).dtype).eps)
        if apart > limit * size:
            share = apart / size if size else math.inf
            raise InvalidValueError(f"{what}, by {share:.2g} of its size; {remedy}")
