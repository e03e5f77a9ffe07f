"""Attention on crossbars: Vaswani et al., Attention Is All You Need, NeurIPS (2017)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from analogsim.errors import InvalidInputError, OperationError
from analogsim.layers.module import AnalogModule
from analogsim.layers.registry import register_layer
from analogsim.layers.slot import Slot
from analogsim.utils.torch_private import canonical_mask, dtype_of, has_joint_projection


@register_layer(nn.MultiheadAttention)
class AnalogMultiheadAttention(AnalogModule, nn.MultiheadAttention):
    """``nn.MultiheadAttention`` whose projections lie on crossbars.

    Those of queries, keys and values are matrices of its own, ``q_proj``, ``k_proj`` and ``v_proj``; the projection
    of the output is a layer in it, ``out_proj``. Products of queries with keys and of weights with values have no
    stored operand, and stay digital.
    """

    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        """See `AnalogModule.slots`."""
        attention = cast(nn.MultiheadAttention, module)
        size, joint = attention.embed_dim, has_joint_projection(attention)
        return {
            f"{name}_proj": Slot(
                "in_proj_weight" if joint else f"{name}_proj_weight",
                "in_proj_bias",
                rows=(place * size, (place + 1) * size),
            )
            for place, name in enumerate("qkv")
        }

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Arguments, shapes, answers and errors are those of ``nn.MultiheadAttention``."""
        attn_mask, key_padding_mask = self._checked(query, key, value, attn_mask, key_padding_mask, is_causal)
        batched = query.ndim == 3
        if not batched:
            query, key, value = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)
        batch_first = self.batch_first or not batched
        inputs = {"q_proj": query, "k_proj": key, "v_proj": value}
        q, k, v = (self._heads(self.draw_of(label)(input), batch_first) for label, input in inputs.items())
        k, v, added = self._lengthened(k, v)
        causal = is_causal and key_padding_mask is None and not need_weights
        mask = None if causal else self._merged(attn_mask, key_padding_mask, len(q), added)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q * self.head_dim**-0.5) @ k.transpose(-2, -1)
            weights = functional.dropout(
                (scores if mask is None else scores + mask.to(scores.dtype)).softmax(-1), dropout
            )
            attended = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            attended = functional.scaled_dot_product_attention(q, k, v, mask, dropout, causal)
        # In torch's order, (target, batch, ...): dropout behind it draws in the order of memory.
        output: Tensor = self.out_proj(attended.permute(2, 0, 1, 3).flatten(2))
        if batched:
            return output.transpose(0, 1) if self.batch_first else output, weights
        return output.squeeze(1), None if weights is None else weights.squeeze(0)

    def _checked(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None,
        key_padding_mask: Tensor | None,
        is_causal: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        """The masks as numbers to add, the second ``(batch, source)``; torch's kind of error where anything is odd."""
        if query.is_nested or key.is_nested or value.is_nested:
            raise InvalidInputError(
                "MultiheadAttention on crossbars takes no nested tensors; give padded ones and a key_padding_mask"
            )
        axes = query.ndim, key.ndim, value.ndim
        if axes not in ((2, 2, 2), (3, 3, 3)):
            raise InvalidInputError(f"query, key and value must all have 3 axes, or 2 without a batch, got {axes}")
        if is_causal and attn_mask is None:
            raise OperationError("is_causal says of an attn_mask that it is causal: give the mask too")
        padding = canonical_mask(key_padding_mask, "key_padding_mask", dtype_of(attn_mask), "attn_mask", query.dtype)
        mask = canonical_mask(attn_mask, "attn_mask", None, "", query.dtype, check_other=False)
        batch, target, source = self._sizes(query, key, value)
        if padding is not None and query.ndim == 2:
            padding = padding.unsqueeze(0)
        allowed = (target, source), (batch * self.num_heads, target, source)
        if mask is not None and tuple(mask.shape) not in allowed:
            raise OperationError(f"attn_mask must have the shape {allowed[0]} or {allowed[1]}, got {tuple(mask.shape)}")
        if padding is not None and padding.shape != (batch, source):
            raise InvalidInputError(
                f"key_padding_mask must have the shape {(batch, source)}, got {tuple(padding.shape)}"
            )
        return mask, padding

    def _sizes(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[int, int, int]:
        """Of the batch, of the sequence of queries and of that of keys; an error where they do not fit together."""
        if query.shape[-1] != self.embed_dim:
            raise InvalidInputError(f"query must have embed_dim={self.embed_dim} features, got {query.shape[-1]}")
        shared = query.ndim if has_joint_projection(self) else query.ndim - 1
        if key.shape[:shared] != value.shape[:shared]:
            raise InvalidInputError(f"key {tuple(key.shape)} and value {tuple(value.shape)} do not fit together")
        if query.ndim == 2:
            return 1, len(query), len(key)
        axis = 0 if self.batch_first else 1
        batch = query.shape[axis]
        if key.shape[axis] != batch:
            raise OperationError(f"query has a batch of {batch}, key and value one of {key.shape[axis]}")
        return batch, query.shape[1 - axis], key.shape[1 - axis]

    def _heads(self, projected: Tensor, batch_first: bool) -> Tensor:
        """One part of the features for each head: ``(batch, heads, length, head_dim)``."""
        split = projected.reshape(*projected.shape[:-1], self.num_heads, self.head_dim)
        return split.permute(0, 2, 1, 3) if batch_first else split.permute(1, 2, 0, 3)

    def _lengthened(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, int]:
        """Keys and values with those that every sequence has behind its own, and how many these are."""
        added = 0
        if self.bias_k is not None and self.bias_v is not None:
            k, v = (
                torch.cat([own, self._heads(more, True).expand(len(own), -1, -1, -1)], 2)
                for own, more in ((k, self.bias_k), (v, self.bias_v))
            )
            added += 1
        if self.add_zero_attn:
            k, v = functional.pad(k, (0, 0, 0, 1)), functional.pad(v, (0, 0, 0, 1))
            added += 1
        return k, v, added

    def _merged(self, attn_mask: Tensor | None, padding: Tensor | None, batch: int, added: int) -> Tensor | None:
        """What is added to the scores, ``(batch or 1, heads or 1, target or 1, source)``; nothing masks added keys."""
        masks = []
        if attn_mask is not None:
            masks.append(
                attn_mask if attn_mask.ndim == 2 else attn_mask.view(batch, self.num_heads, *attn_mask.shape[1:])
            )
        if padding is not None:
            masks.append(padding[:, None, None])
        if not masks:
            return None
        mask = masks[0] if len(masks) == 1 else masks[0] + masks[1]
        return functional.pad(mask, (0, added)) if added else mask


@register_layer(nn.TransformerEncoderLayer)
class AnalogTransformerEncoderLayer(AnalogModule, nn.TransformerEncoderLayer):
    """``nn.TransformerEncoderLayer`` with matrices on crossbars in the layers below it.

    In eval torch hands all their weights to one fused kernel; this one always calls the layers.
    """

    @property
    def activation_relu_or_gelu(self) -> int:  # type: ignore[override]
        """The mark for an activation that torch's fused kernel knows: 0 for none."""
        return 0

    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        """See `AnalogModule.slots`: none of its own."""
        return {}

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Arguments, shapes and answers are those of ``nn.TransformerEncoderLayer``; nested tensors without masks."""
        if not src.is_nested:
            return super().forward(src, src_mask, src_key_padding_mask, is_causal)
        if src_mask is not None or src_key_padding_mask is not None:
            raise InvalidInputError(
                "TransformerEncoderLayer takes a nested tensor without masks, or a padded one with them"
            )
        # torch's encoder packs sequences with padding like this in eval. The crossbars below see padded ones.
        lengths = [len(row) for row in src.unbind()]
        padded = src.to_padded_tensor(0.0)
        places = torch.arange(padded.shape[1], device=src.device)
        padding = places >= torch.tensor(lengths, device=src.device).unsqueeze(1)
        output = super().forward(padded, None, padding, is_causal)
        return torch.nested.as_nested_tensor([row[:length] for row, length in zip(output, lengths, strict=True)])
