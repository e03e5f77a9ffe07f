"""Operations in place on tensors of one's own, where torch can."""

import torch
from torch import Tensor


def clamp_own(values: Tensor, low: float, high: float) -> Tensor:
    """Values of one's own, stopped at two limits: in place, but under functorch, whose vmap has no rule for that."""
    if torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(values):
        return values.clamp(low, high)
    return values.clamp_(low, high)
