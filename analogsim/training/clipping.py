"""Weight clipping: the largest weight sets the scale of all others."""

from __future__ import annotations

import torch
from torch import nn

from analogsim.layers.module import matrices_of


@torch.no_grad()
def clip_weights(analog: nn.Module, sigmas: float) -> None:
    """Clip each analog layer's weights to ``sigmas`` of their own standard deviations, in place on the Parameters.

    Called after each optimizer step it keeps single large weights from setting the scale of their column, which all
    other weights pay for in noise. Source: Joshi et al., Nat. Commun. 11:2473 (2020), who clip at 2 to 2.5.

    Args:
        analog: the twin; layers that stay digital are left alone.
        sigmas: the limit in standard deviations of the layer's weights.

    Raises:
        ValueError: an impossible limit, or a weight that is computed from other Parameters.
    """
    if not 0 < sigmas < float("inf"):
        raise ValueError(f"clip_weights: sigmas must be finite and > 0, got {sigmas!r}")
    layers = matrices_of(analog)
    computed = [layer.analog.title for layer in layers if layer.computed]
    if computed:
        raise ValueError(
            f"clip_weights: the weight of layer {computed[0]!r} is computed from other Parameters (pruning, weight "
            "norm); make it permanent first"
        )
    for layer in layers:
        weight = layer.matrix
        limit = sigmas * weight.std(correction=0)
        layer.put(weight.clamp(min=-limit, max=limit))
