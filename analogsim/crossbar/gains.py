"""Digital gains on the outputs of a crossbar, made only from what a real chip can measure."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from analogsim.mapping.layout import Layout

Rule = Callable[[Tensor, Tensor, Layout], Tensor]
"""Gains from two measurements: `measured_sums` right after programming, those now, and the blocks. A scalar for the
whole layer, or ``(out, row blocks)``; all of them finite, of columns that read zero too."""


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


def layer_gain(reference: Tensor, now: Tensor, layout: Layout) -> Tensor:
    """One gain for the layer, a scalar, see `global_gain`; 1 where nothing is read, as in all of them."""
    return _ratio(reference.sum(), now.sum())


def crossbar_gains(reference: Tensor, now: Tensor, layout: Layout) -> Tensor:
    """A gain for each crossbar, over the sum of its columns, ``(out, row blocks)``."""
    return _ratio(layout.block_sums(reference), layout.block_sums(now))


def column_gains(reference: Tensor, now: Tensor, layout: Layout) -> Tensor:
    """A gain for each column of each crossbar, ``(out, row blocks)``."""
    return _ratio(reference, now)
