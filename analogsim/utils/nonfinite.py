"""Where NaN and infinite values come from in a network's answer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from analogsim.utils.modules import names_of
from analogsim.utils.tensors import holds_nonfinite


@dataclass(frozen=True)
class Source:
    """The first module that answered with NaN or infinite values.

    Args:
        name: in the network; None where no module did, but what the network does with their answers.
        kind: its type.
        fed: whether its inputs held some already.
        weights: whether its own Parameters hold some.
        inputs: whether the inputs of the network hold some.
        layer: whether it has Parameters of its own, and made them of inputs without any.
    """

    name: str | None
    kind: str
    fed: bool
    weights: bool
    inputs: bool
    layer: bool

    def __str__(self) -> str:
        if self.name is None:
            first = f"no layer answers with any, so that the forward of {self.kind} makes them"
        else:
            first = f"the first layer whose answer holds some is {self.name or '(the model itself)'!r} ({self.kind}"
            first += ", whose weights hold some)" if self.weights else ")"
        return f"{first}; the inputs of this batch hold {'some already' if self.inputs else 'none'}"


@torch.no_grad()
def find_source(network: nn.Module, inputs: Any, run: Callable[[], Any]) -> Source:
    """The first module whose answer holds NaN or infinite values, by one more forward.

    Minus infinity counts where a module with Parameters of its own makes it of finite inputs; elsewhere it is a mask.

    Args:
        network: that answered with some.
        inputs: what it was given.
        run: makes the forward.
    """
    found: list[Source] = []
    given = holds_nonfinite(inputs, masks=True)

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if found or not holds_nonfinite(output):
                return
            own = list(module.parameters(recurse=False))
            fed = holds_nonfinite((args, kwargs))
            layer = bool(own) and not fed
            if layer or holds_nonfinite(output, masks=True):
                found.append(Source(name, type(module).__name__, fed, holds_nonfinite(own), given, layer))

        return hook

    hooks = [
        module.register_forward_hook(note(names[0]), with_kwargs=True) for module, names in names_of(network).items()
    ]
    try:
        # Compiled code runs past hooks. Without the compiler, which takes seconds to load, there is none.
        loaded = "torch._dynamo" in sys.modules
        with torch.compiler.set_stance("force_eager") if loaded else nullcontext():
            run()
    finally:
        for each in hooks:
            each.remove()
    return found[0] if found else Source(None, type(network).__name__, False, False, given, False)
