"""Weight clipping: the largest weight sets the scale of all others."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from analogsim.errors import InvalidValueError
from analogsim.layers.module import matrices_of
from analogsim.utils.checks import as_number
from analogsim.utils.text import in_short

Per = Literal["layer", "column"]
"""What shares a limit: all weights of a matrix, or those of each of its outputs, which lie in one column."""


@torch.no_grad()
def clip_weights(analog: nn.Module, sigmas: float, *, per: Per = "layer") -> None:
    """Clip each analog layer's weights to ``sigmas`` of their own standard deviations, in place on the Parameters.

    Called after each optimizer step it keeps single large weights from setting the scale of their column, which all
    other weights pay for in noise. `ClipSchedule` moves the limit. Source: Joshi et al., Nat. Commun. 11:2473 (2020),
    who clip layers at 2 to 2.5.

    Args:
        analog: the twin; layers that stay digital are left alone.
        sigmas: the limit in standard deviations of the weights that share it.
        per: ``"layer"``: all weights of a matrix share a limit. ``"column"``: those of each output do; about zero, the
            root of their mean square, since a few weights have no mean near zero, and a single one no spread.

    Raises:
        ValueError: an impossible limit, or a weight that is computed from other Parameters.
    """
    if not 0 < as_number(sigmas) < float("inf"):
        raise InvalidValueError(f"clip_weights: sigmas must be finite and > 0, got {in_short(sigmas)}")
    sigmas = float(sigmas)
    if per not in get_args(Per):
        raise InvalidValueError(f"clip_weights: per must be one of {', '.join(get_args(Per))}, got {per!r}")
    layers = matrices_of(analog)
    computed = [layer.analog.title for layer in layers if layer.computed]
    if computed:
        raise InvalidValueError(
            f"clip_weights: the weight of layer {computed[0]!r} is computed from other Parameters (pruning, weight "
            "norm); make it permanent first"
        )
    for layer in layers:
        weight = layer.matrix
        limit = sigmas * (weight.std(correction=0) if per == "layer" else _of_columns(weight))
        layer.put(weight.clamp(min=-limit, max=limit))


def _of_columns(weight: Tensor) -> Tensor:
    """The root mean square of the weights of each output, shaped to broadcast against ``(out, ...)``."""
    return weight.square().mean(tuple(range(1, weight.ndim)), keepdim=True).sqrt()
