"""What `convert` asks of digital modules: which could be analog, and why others are not."""

from __future__ import annotations

from torch import Tensor, nn

from analogsim.layers.module import AnalogLayer, AnalogModule
from analogsim.layers.registry import analog_type, analog_types, failed_offer, replaced_type

UNREGISTERED = "not registered, in no parameters() and no state dict (nn.ModuleList, nn.ModuleDict, nn.ParameterList)"
"""Why what a network holds outside of its module tree stays digital."""


def is_matrix(parameter: Tensor) -> bool:
    """Whether a Parameter could be the weight of a product: not what is added to, or scales, each sample alike."""
    if parameter.ndim < 2 or parameter.shape[1:].numel() < 2:
        return False
    return parameter.ndim == 2 or len(parameter) > 1


def is_quantized(module: nn.Module) -> bool:
    """Whether a module keeps its weight packed as integers, out of reach, as torch's quantized layers do."""
    kind = type(module)
    quantized = any(f"{base.__module__}.".startswith("torch.ao.nn.quantized.") for base in kind.__mro__)
    return quantized and any(callable(getattr(kind, name, None)) for name in ("weight", "get_weight"))


def holds_matrix(module: nn.Module) -> bool:
    """Whether a module has Parameters of its own, or a packed weight, that could be meant for a crossbar."""
    if is_quantized(module):
        return True
    element_wise = isinstance(module, nn.LayerNorm | nn.RMSNorm)
    return not element_wise and any(map(is_matrix, module.parameters(recurse=False)))


def hides_layers(module: nn.Module) -> bool:
    """Whether a module may read the weights of the layers in it by itself, as the type that it derives from does."""
    if isinstance(module, AnalogModule) or analog_type(module) is not None:
        return False
    known = [analog_types[kind] for kind in type(module).__mro__ if kind in analog_types]
    return any(not issubclass(kind, AnalogLayer) and kind.slots(module) for kind in known)


def unplaced(module: nn.Module, kind: type[AnalogModule]) -> list[str]:
    """Parameters of a module that could be matrices, and belong to none of those that its analog class knows of."""
    placed = {tensor for slot in kind.slots(module).values() for tensor in slot.parameters(module)}
    return [
        name
        for name, parameter in module.named_parameters(recurse=False)
        if is_matrix(parameter) and parameter not in placed
    ]


def weight_rules(module: nn.Module) -> set[nn.Module]:
    """The modules from which torch's parametrizations compute a module's weights."""
    return set(getattr(module, "parametrizations", nn.Module()).modules())


def asked_digital(module: nn.Module) -> bool:
    """Whether a digital module could have become analog without more ado."""
    kind = analog_type(module)
    return kind is not None and not kind.stored


def why_digital(module: nn.Module) -> str:
    """Why a module with Parameters of its own stays digital when nobody asked for it."""
    kind = analog_type(module)
    if kind is not None:
        if kind.stored:
            return "a table that is looked up (convert(..., embeddings=True))"
        if not kind.slots(module):  # its products are those of the layers in it
            return f"its {', '.join(unplaced(module, kind))} are no weights of a product it is known for"
        return "no pattern matches it"
    failure = failed_offer(module)
    if failure is not None:
        return str(failure).removeprefix("convert: ")
    if is_quantized(module):
        return "quantized, its weight is packed away: convert the network of floats"
    if not holds_matrix(module):
        return "element-wise, no matrix"
    if replaced_type(module) is not None:
        return "its forward was replaced, which may compute something else"
    base = next((kind.__name__ for kind in type(module).__mro__[1:] if kind in analog_types), None)
    if base is not None:
        return f"a subclass of {base}, which may compute something else (register_layer)"
    remedies = "convert(..., example=inputs), register_layer, register_routed"
    return f"bare Parameters, no analog layer for {type(module).__name__} ({remedies})"
