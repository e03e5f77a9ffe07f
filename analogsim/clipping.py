"""Weight clipping: the largest weight sets the scale of all others."""

from __future__ import annotations

import torch
from torch import nn

from analogsim.layers.base import analog_layers


@torch.no_grad()
def clip_weights(analog: nn.Module, sigmas: float) -> None:
    """Clip each analog layer's weights to ``sigmas`` of their own standard deviations, in place on the Parameters.

    Called after each optimizer step it keeps single large weights from setting the scale of their column, which all
    other weights pay for in noise. Source: Joshi et al., Nat. Commun. 11:2473 (2020), who clip at 2 to 2.5.

    Args:
        analog: the twin; layers that stay digital are left alone.
        sigmas: the limit in standard deviations of the layer's weights.
    """
    if not 0 < sigmas < float("inf"):
        raise ValueError(f"clip_weights: sigmas must be finite and > 0, got {sigmas!r}")
    for layer in analog_layers(analog):
        weight = layer.weight
        limit = sigmas * weight.std(correction=0)
        weight.clamp_(min=-limit, max=limit)
