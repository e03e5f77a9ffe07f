"""Fused experts of Hugging Face transformers: Parameters ``(experts, out, in)`` from which a router chooses."""

from __future__ import annotations

import inspect
from typing import Any, cast

from torch import nn

from analogsim.layers.routing import Routed
from analogsim.layers.slot import Slot
from analogsim.utils.torch_private import own_parameters

_WEIGHTS = ("gate_up_proj", "up_proj", "down_proj")


def is_experts(kind: type[nn.Module]) -> bool:
    """Whether a type holds experts as transformers 5 does, in one of its several ways to take their products."""
    return (
        kind.__module__.startswith("transformers.")
        and hasattr(kind, "_apply_gate")  # what the decorator that adds these ways leaves behind
        and hasattr(kind.forward, "__wrapped__")
    )


class Experts(Routed):
    """Experts on crossbars of their own: ``gate_up_proj.0``, ``gate_up_proj.1``, ..., ``down_proj.0``, ...

    Their forward is the eager one of their type, which takes the products of one expert after the other, whatever the
    configuration says of grouped kernels. An expert that no token goes to is not read.
    """

    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        """See `AnalogModule.slots`."""
        own = own_parameters(module)
        transposed = bool(getattr(module, "is_transposed", False))
        found = {}
        for name in _WEIGHTS:
            weight = own.get(name)
            if weight is not None:
                bias = f"{name}_bias" if f"{name}_bias" in own else None
                for place in range(len(weight)):
                    found[f"{name}.{place}"] = Slot(name, bias, transposed=transposed, index=place)
        return found

    def digital_forward(self, *args: Any, **kwargs: Any) -> Any:
        """See `Routed.digital_forward`."""
        return inspect.unwrap(cast(Any, self.stands_for.forward))(self, *args, **kwargs)
