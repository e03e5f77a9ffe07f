"""Several draws of the noise in one training step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from analogsim.errors import InvalidValueError
from analogsim.training.step import Loss
from analogsim.utils.checks import as_number

Of = Literal["mean", "worst", "cvar"]
"""What is made of the losses of several draws: their mean, the largest, or the mean of the largest ones."""


@dataclass(frozen=True)
class SeveralDraws:
    r"""A training step on several draws of the noise at once; see `analogsim.training.step`.

    With the losses :math:`l_1 \ge l_2 \ge \dots \ge l_n` of n draws on one batch the gradient is that of

    * ``"mean"``: :math:`\frac1n \sum_i l_i`, a less noisy gradient of what one draw minimises;
    * ``"worst"``: :math:`l_1`;
    * ``"cvar"``: :math:`\frac1k \sum_{i \le k} l_i` with :math:`k = \lceil share \cdot n \rceil`, the conditional value
      at risk: for chips in the bad tail.

    It costs n forwards, and as many backwards as draws count. But for the mean the graphs of all draws are in memory
    until it is known which ones count. Batch norm sees n batches.

    Args:
        count: of draws.
        of: what is made of them.
        share: of the draws that ``"cvar"`` counts, in (0, 1].

    Source: R. T. Rockafellar, S. Uryasev, J. Risk 2 (2000), for the conditional value at risk.

    Example:
        >>> import torch, analogsim
        >>> from analogsim.training import SeveralDraws
        >>> analog = analogsim.convert(torch.nn.Linear(4, 2), device="pcm")
        >>> step = SeveralDraws(4, "cvar", share=0.5)
        >>> step(analog, lambda: analog(torch.ones(3, 4)).square().mean()).requires_grad
        False
    """

    count: int = 2
    of: Of = "mean"
    share: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise InvalidValueError(f"SeveralDraws: count must be an integer >= 1, got {self.count!r}")
        if self.of not in get_args(Of):
            raise InvalidValueError(f"SeveralDraws: of must be one of {', '.join(get_args(Of))}, got {self.of!r}")
        if not 0 < as_number(self.share) <= 1:
            raise InvalidValueError(f"SeveralDraws: share must be in (0, 1], got {self.share!r}")

    def __call__(self, network: nn.Module, loss: Loss) -> Tensor:
        """Leave the gradient in the Parameters.

        Args:
            network: in training.
            loss: of the batch.

        Returns:
            What was minimised, a scalar without graph.
        """
        if self.of == "mean":  # draw by draw, so that one graph is in memory
            parts = []
            for _ in range(self.count):
                part = loss() / self.count
                part.backward()  # type: ignore[no-untyped-call]
                parts.append(part.detach())
            return torch.stack(parts).sum()
        counted = 1 if self.of == "worst" else _share_of(self.share, self.count)
        value = torch.stack([loss() for _ in range(self.count)]).topk(counted).values.mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()


def _share_of(share: float, count: int) -> int:
    """``ceil(share * count)``, as if the product were not rounded: 0.07 of 100 comes out as the next number above 7."""
    return math.ceil(share * count * (1 - 2**-50))
