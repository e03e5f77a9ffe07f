"""Torch's convolutions, and what a call of one says."""

from __future__ import annotations

from typing import Any

from torch.nn import functional

TRANSPOSED = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)

CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d, *TRANSPOSED)

# In order: of convolutions, and of transposed ones.
_NAMES = (
    ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
)


def named_call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a convolution, all by name."""
    return {**dict(zip(_NAMES[func in TRANSPOSED], args, strict=False)), **kwargs}
