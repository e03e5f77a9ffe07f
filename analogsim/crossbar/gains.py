"""Digital gains on the outputs of a crossbar, made only from what a real chip can measure."""

from __future__ import annotations

import torch
from torch import Tensor

from analogsim.mapping.layout import Layout

GAINS = ("global", "crossbar", "column")


def _ratio(reference: Tensor, measured: Tensor) -> Tensor:
    return torch.where(measured > 0, reference / measured, 1.0)


def global_gain(reference: Tensor, now: Tensor) -> Tensor:
    r"""Global drift compensation: the digital factor on a layer's outputs that undoes its mean decay.

    .. math:: \alpha = \frac{\sum_{ij} |I_{ij}(0)|}{\sum_{ij} |I_{ij}(t)|}

    where :math:`I_{ij}` is the current measured at output i while input j alone is driven, first right after
    programming and again at time t. No drift exponent is known to it.

    Args:
        reference: the sum over the measured weights' magnitudes right after programming, a scalar.
        now: measured weights at time t.

    Returns:
        The gain, a scalar tensor; 1 for an array that reads zero everywhere.

    Source: after Le Gallo et al., Adv. Electron. Mater. (2018).
    """
    return _ratio(reference, now.abs().sum())


def measured_sums(weight: Tensor, layout: Layout) -> Tensor:
    """What a measurement gives: for each column of each crossbar the sum of magnitudes, ``(out, row blocks)``."""
    return layout.column_sums(weight.abs())


def gains(kind: str, reference: Tensor, now: Tensor, layout: Layout) -> Tensor:
    """Digital gains that undo the decay between two measurements, see `global_gain`.

    Args:
        kind: ``"global"``, ``"crossbar"`` or ``"column"``: over what the sums are taken.
        reference: `measured_sums` right after programming.
        now: those at time t.
        layout: the blocks.

    Returns:
        A scalar for ``"global"``, else ``(out, row blocks)``; 1 where nothing is read.
    """
    if kind == "global":
        return _ratio(reference.sum(), now.sum())
    if kind == "crossbar":
        reference, now = layout.block_sums(reference), layout.block_sums(now)
    return _ratio(reference, now)
