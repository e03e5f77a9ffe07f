"""Corrections after reading, made only from what a real chip can measure."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Compensation = Literal["global"]


def check_compensation(compensation: str | None) -> None:
    """Raise ValueError unless the name is one of ours, or None for no compensation."""
    if compensation is not None and compensation not in get_args(Compensation):
        raise ValueError(f'compensation: must be "global" or None, got {compensation!r}')


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
    measured = now.abs().sum()
    return torch.where(measured > 0, reference / measured, 1.0)
