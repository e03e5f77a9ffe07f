"""What cannot have a twin, said before any work: with the place, the reason and what to do instead."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Collection, Iterator, Mapping
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.layers.module import AnalogModule
from analogsim.utils.copying import Contents, global_reach, parts_of
from analogsim.utils.modules import title_of
from analogsim.utils.torch_private import Operation, own_buffers, own_parameters

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_WRAPPERS = {
    "DataParallel": "convert(model.module, ...)",
    "DistributedDataParallel": "convert(model.module, ...), and wrap the twin in DistributedDataParallel",
    "FullyShardedDataParallel": "convert the network before it is sharded, and shard the twin",
    "FSDPModule": "convert the network before fully_shard, and shard the twin",
}


def check_model(model: object) -> None:
    """Raise TypeError for what is no network of modules.

    Raises:
        TypeError: it is no module, or one that does not run the Python of its layers.
    """
    if isinstance(model, nn.Module) and not isinstance(model, torch.jit.ScriptModule):
        return
    kind = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule | torch.jit.ScriptFunction):
        raise InvalidTypeError(
            f"convert: the model is a scripted or traced {kind}, whose layers torch runs by itself; convert the module "
            "that it was made of"
        )
    if kind == "ExportedProgram":
        raise InvalidTypeError(
            "convert: the model is an ExportedProgram, a graph without layers; convert the module that it was exported "
            "from"
        )
    if isinstance(model, type):
        raise InvalidTypeError(
            f"convert: model must be a torch module, got the class {model.__name__}; make an instance of it"
        )
    if isinstance(model, Mapping) and any(isinstance(value, Tensor) for value in model.values()):
        raise InvalidTypeError(
            f"convert: model must be a torch module, got {kind} of tensors; load a state dict into its module first"
        )
    if callable(model):
        raise InvalidTypeError(
            f"convert: model must be a torch module, got {kind} {getattr(model, '__name__', '')}; convert the module "
            "that it calls, or write it as the forward of a module that holds its layers as attributes"
        )
    raise InvalidTypeError(f"convert: model must be a torch module, got {kind}")


def check_modules(names: Mapping[nn.Module, list[str]]) -> None:
    """Refuse modules that have no weights yet, are analog already, or do not run the layers in them as they are.

    Raises:
        ValueError: one has no weights yet, or is analog.
        TypeError: one is scripted, exported, or made for many devices.
    """
    for module, (name, *_) in names.items():
        if any(is_lazy(parameter) for parameter in module.parameters(recurse=False)):
            raise InvalidValueError(
                f"convert: {title_of(name)} has no weights yet; run a batch through the lazy module first"
            )
        if isinstance(module, AnalogModule):
            told = f"convert: {title_of(name)} is analog already; convert analogsim.to_digital(model) instead"
            raise InvalidValueError(told)
        if isinstance(module, torch.jit.ScriptModule) and any(True for _ in module.parameters()):
            raise InvalidTypeError(
                f"convert: {title_of(name)} is scripted or traced, and torch runs its layers by itself; put the module "
                "that it was made of in its place"
            )
        if _is_exported(module):
            raise InvalidTypeError(
                f"convert: {title_of(name)} is the graph of an exported program, which has operations in the place of "
                "layers; convert the module that was exported"
            )
        for kind in type(module).__mro__:
            if kind.__name__ in _WRAPPERS and kind.__module__.startswith("torch."):
                raise InvalidTypeError(f"convert: {title_of(name)} is a {kind.__name__}: {_WRAPPERS[kind.__name__]}")


def _is_exported(module: nn.Module) -> bool:
    """Whether a module is a graph of torch's own operations on Parameters; one of a traced network calls its layers."""
    if not isinstance(module, torch.fx.GraphModule):
        return False
    held = any(parameter.ndim > 1 for parameter in module.parameters())
    return held and any(
        node.op == "call_function" and isinstance(node.target, Operation) for node in module.graph.nodes
    )


def check_weight(name: str, weight: Tensor) -> None:
    """Refuse weights that cannot lie on crossbars.

    Raises:
        TypeError: it is sparse, or holds other numbers than floats.
        ValueError: it has no values: it is on the meta device, empty, NaN or infinite.
    """
    layer = f"convert: the weight of layer {title_of(name)}"
    remedy = "; or map the layer to None"
    if weight.is_meta:
        raise InvalidValueError(
            f"{layer} is on the meta device, without values; load the weights first (to_empty, assign=True)"
        )
    if weight.layout is not torch.strided or weight.is_nested:
        raise InvalidTypeError(
            f"{layer} is sparse ({weight.layout}); crossbars hold all of a matrix: give it to_dense(){remedy}"
        )
    if weight.is_complex():
        raise InvalidTypeError(
            f"{layer} is complex ({weight.dtype}), and a conductance is a real number; give real and imaginary part a "
            f"layer each{remedy}"
        )
    if weight.is_quantized or weight.dtype not in _FLOATS:
        raise InvalidTypeError(
            f"{layer} holds {weight.dtype}; convert the network of floats before it is quantized (a device rounds by "
            f"itself, see analogsim.Quantization){remedy}"
        )
    if not weight.numel():
        raise InvalidValueError(f"{layer} is empty, {tuple(weight.shape)}: there is nothing to write{remedy}")
    if not weight.isfinite().all():
        raise InvalidValueError(f"{layer} holds NaN or infinite values")


# --- functions that reach layers by ways that a copy cannot follow ---------------------------------------------------


def check_functions(contents: Contents, names: Mapping[nn.Module, list[str]], planned: Collection[nn.Module]) -> None:
    """Refuse functions by which the twin would run layers of the model.

    Functions that hold modules are made anew for the twin, see `Copier`. Left are those that find one by a global
    variable, those that a class holds, and callables that cannot be looked into.

    Args:
        contents: of the model.
        names: its modules.
        planned: those that become analog.

    Raises:
        TypeError: there is one.
    """
    counting = [module for module in names if _counts(module, planned)]
    for function in contents.of(FunctionType):
        found = global_reach(function, counting)
        if found is not None:
            where = contents.path_of(function, names) or function.__qualname__
            raise InvalidTypeError(
                f"convert: the function at {where!r} ({function.__qualname__}) reaches the network by the global "
                f"variable {found!r}, and would run the digital layers in the twin; {_REMEDY}"
            )
    checked: set[type] = set()
    for module, (name, *_) in names.items():
        kind = type(module)
        if kind not in checked:
            checked.add(kind)
            _check_class(kind, name, counting)
        replaced = vars(module).get("forward")
        if replaced is None or _can_be_looked_into(replaced):
            continue
        if any(below in planned for below in module.modules()):
            raise InvalidTypeError(
                f"convert: the forward of {title_of(name)} was replaced by a {type(replaced).__name__}, which convert "
                "cannot look into, and which may run the digital layers; put it on the twin instead"
            )


_REMEDY = (
    "let it take the layer from its module, an argument or a closure (def make(layer): return lambda x: layer(x)), or "
    "put it on after convert"
)


def _counts(module: nn.Module, planned: Collection[nn.Module]) -> bool:
    """Whether it matters which of the two networks runs a module: it holds analog layers, or goes by its mode."""
    return any(below in planned or "training" in _words_of(below) for below in module.modules())


def _words_of(module: nn.Module) -> tuple[str, ...]:
    code = getattr(inspect.unwrap(inspect.getattr_static(type(module), "forward")), "__code__", None)
    return () if code is None else code.co_names


def _check_class(kind: type[nn.Module], name: str, counting: Collection[nn.Module]) -> None:
    """Refuse a class whose forward reaches modules of the network otherwise than through its instance."""
    wanted = set(map(id, counting))
    for what, part in _forward_parts(kind):
        found = global_reach(part, counting) if isinstance(part, FunctionType) else None
        if found is None:
            holding = Contents(part)
            inside = next((module for module in holding.of(nn.Module) if id(module) in wanted), None)
            if inside is not None:
                steps = ([] if isinstance(part, FunctionType) else [what]) + [holding.path_of(inside, {})]
                found = ".".join(filter(None, steps))
        if found is not None:
            called = getattr(part, "__qualname__", f"{kind.__name__}.{what}")
            raise InvalidTypeError(
                f"convert: {called} of {title_of(name)} reaches the network by the variable {found!r} "
                "outside of its instance, and would run the digital layers in the twin; let it use its attributes"
            )


def _forward_parts(kind: type[nn.Module]) -> Iterator[tuple[str, Any]]:
    """The forward and the call of a class that are not torch's, and what of the class they name."""
    todo, seen = ["forward", "__call__", "__getattr__"], set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        entry = next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)
        entry = getattr(entry, "fget", getattr(entry, "__func__", entry))
        if entry is None or isinstance(entry, type) or (getattr(entry, "__module__", "") or "").startswith("torch."):
            continue
        yield name, entry
        functions = [entry] if isinstance(entry, FunctionType) else list(Contents(entry).of(FunctionType))
        yield from ((name, function) for function in functions if function is not entry)
        for function in functions:
            todo += [word for part in (function, *_wrapped(function)) for word in part.__code__.co_names]


def _wrapped(function: FunctionType) -> list[FunctionType]:
    """The functions that a decorated one holds."""
    return [part for _, part in parts_of(function) if isinstance(part, FunctionType)]


def _can_be_looked_into(forward: Any) -> bool:
    if isinstance(forward, FunctionType | MethodType | functools.partial | type(functools.lru_cache(_wrapped))):
        return True
    return any(isinstance(vars(kind).get("__call__"), FunctionType) for kind in type(forward).__mro__)


# --- what was made ---------------------------------------------------------------------------------------------------


def check_twin(twin: nn.Module, names: Mapping[nn.Module, list[str]], replaced: Mapping[nn.Module, nn.Module]) -> None:
    """Raise unless a twin is one of its model: analog where it was planned, over the same Parameters, and apart.

    Args:
        twin: what was made.
        names: the modules of the model.
        replaced: those that are analog in the twin.

    Raises:
        TypeError: a module is missing or of the model, or holds other Parameters or buffers.
    """
    there = dict(twin.named_modules(remove_duplicate=False))
    for module, all_names in names.items():
        for name in all_names:
            made = there.get(name)
            reason = _difference(module, made, replaced)
            if reason:
                raise InvalidTypeError(f"convert: {title_of(name)} of the twin {reason}; {_culprit(name, there)}")
    held = Contents(twin)
    for module in held.of(nn.Module):
        if module in names:
            raise InvalidTypeError(
                f"convert: the twin still holds {title_of(names[module][0])} of the model, in "
                f"{held.path_of(module, {found: [name] for name, found in there.items()})!r}, by something that copies "
                "itself or that cannot be copied; keep layers in attributes, lists or dictionaries of their module"
            )


def _difference(module: nn.Module, made: nn.Module | None, replaced: Mapping[nn.Module, nn.Module]) -> str:
    """How a module of the twin is not what it should be; empty if it is."""
    if made is None:
        return "is missing"
    if made is module:
        return "is the module of the model itself"
    if module in replaced and made is not replaced[module]:
        return "is not the analog layer that was made for it"
    for kind, mine, theirs in (
        ("Parameter", own_parameters(module), own_parameters(made)),
        ("buffer", own_buffers(module), own_buffers(made)),
    ):
        for name in {**mine, **theirs}:
            if mine.get(name) is not theirs.get(name):
                return f"has another {kind} {name!r} than the model, so that training one would not train the other"
        if mine and mine is not theirs:
            return f"keeps its {kind}s apart from those of the model, so that a new one would be in only one of them"
    return ""


def _culprit(name: str, there: Mapping[str, nn.Module]) -> str:
    """What made a copy of a module otherwise: it or the nearest module around it that says how it is copied."""
    for above in (name, *(name[:at] for at in range(len(name) - 1, 0, -1) if name[at] == "."), ""):
        module = there.get(above)
        if module is None:
            continue
        for method in ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"):
            own = getattr(type(module), method, None)
            if own is not None and own is not getattr(nn.Module, method, None):
                return f"{type(module).__name__} has a {method} of its own: make it share Parameters, or take it out"
    return "it is copied by rules of its own"
