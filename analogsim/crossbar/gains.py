r"""Digital gains on the outputs of a crossbar, made only from what a real chip can measure.

What is wanted is the factor that takes a column back to how it was written: :math:`\sum_j w_j w_j(0) / \sum_j w_j
w_j(t)` for the weights w, found right after programming and at time t. Both sums are linear in what is read, so that
errors of cells, slow noise and noise of reading make them scatter and shift neither; how they are measured stands in
`measurement`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from analogsim.mapping.layout import Layout

Rule = Callable[[Tensor, Tensor, Layout], Tensor]
"""Gains from two measurements: the sums over columns right after programming, those now, and the blocks. A scalar for
the whole layer, or ``(out, row blocks)``; all of them finite, of columns that read zero too."""


def _ratio(reference: Tensor, now: Tensor, otherwise: Tensor | float) -> Tensor:
    """What the two say; where one of them says nothing, as of a column of zeros, what is known otherwise."""
    return torch.where((reference > 0) & (now > 0), reference / now, otherwise)


def global_gain(clean: Tensor, fresh: Tensor, now: Tensor) -> Tensor:
    r"""Global drift compensation: the digital factor on a layer's outputs that undoes its mean decay.

    .. math:: \alpha = \frac{\sum_{ij} w_{ij} w_{ij}(0)}{\sum_{ij} w_{ij} w_{ij}(t)}

    No drift exponent is known to it. It is what a measurement without any noise of its own gives, so that training
    takes it.

    Args:
        clean: the weights that were to be written.
        fresh: what the cells stand for right after programming, like ``clean``.
        now: the same at time t.

    Returns:
        The gain, a scalar tensor; 1 for an array that reads nothing of its weights.

    Source: compensation by one factor after Le Gallo et al., Adv. Electron. Mater. (2018), who take a ratio of summed
    currents. Departure: readings are weighted by the weights, since a sum of magnitudes counts the errors of weights
    near zero as signal.
    """
    return _ratio((clean * fresh).sum(), (clean * now).sum(), 1.0)


def layer_gain(reference: Tensor, now: Tensor, layout: Layout) -> Tensor:
    """One gain for the layer, a scalar, see `global_gain`; 1 where nothing is read."""
    return _ratio(reference.sum(), now.sum(), 1.0)


def crossbar_gains(reference: Tensor, now: Tensor, layout: Layout) -> Tensor:
    """A gain for each crossbar, over the sum of its columns, ``(out, row blocks)``; the layer's where it reads none."""
    return _ratio(layout.block_sums(reference), layout.block_sums(now), layer_gain(reference, now, layout))


def column_gains(reference: Tensor, now: Tensor, layout: Layout) -> Tensor:
    """A gain for each column of each crossbar, ``(out, row blocks)``; its crossbar's where it reads nothing."""
    return _ratio(reference, now, crossbar_gains(reference, now, layout))
