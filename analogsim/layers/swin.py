"""Swin transformers of torchvision, whose attention takes products with its layers' weights by itself."""

from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

from analogsim.layers.registry import register_routed

# The weights of ``qkv`` and ``proj``. Version 2 takes the keys without their bias, which is then subtracted digitally.
register_routed(ShiftedWindowAttention)
register_routed(ShiftedWindowAttentionV2)
