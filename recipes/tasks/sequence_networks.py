"""Networks that answer at each place of a sequence: a small GPT over characters, and an LSTM that tags them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from analogsim.errors import InvalidValueError


class Block(nn.Module):
    """Causal self-attention and a perceptron, each behind a layer norm and beside a residual path.

    Args:
        width: of the residual path.
        heads: of the attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, places, width)`` to the same shape."""
        batch, places, width = x.shape
        parts = self.qkv(self.norm1(x)).view(batch, places, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, places, width))
        answer: Tensor = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return answer


class CharGPT(nn.Module):
    """A decoder with norms in front, as A. Radford et al., Language models are unsupervised multitask learners (2019).

    Args:
        vocabulary: how many characters.
        context: the longest sequence.
        width: of the residual path.
        depth: how many blocks.
        heads: of each attention.
    """

    def __init__(self, vocabulary: int, context: int, *, width: int = 64, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)
        nn.init.normal_(self.tokens.weight, std=0.1)
        nn.init.normal_(self.places.weight, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Numbers of characters ``(N, places)`` to logits of the next ones, ``(N, places, vocabulary)``.

        Raises:
            ValueError: more places than the context.
        """
        if x.shape[1] > len(self.places.weight):
            raise InvalidValueError(f"char-gpt: {x.shape[1]} characters, and its context is {len(self.places.weight)}")
        states = self.tokens(x) + self.places(torch.arange(x.shape[1], device=x.device))
        for block in self.blocks:
            states = block(states)
        logits: Tensor = self.head(self.norm(states))
        return logits


class LSTMTagger(nn.Module):
    """An LSTM in both directions over the characters, and a linear layer on its states.

    Args:
        vocabulary: how many characters.
        classes: how many tags.
        width: of the embedding, and of each direction's state.
    """

    def __init__(self, vocabulary: int, classes: int, *, width: int = 64) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Numbers of characters ``(N, places)`` to logits of their tags, ``(N, places, tags)``."""
        states, _ = self.lstm(self.tokens(x))
        logits: Tensor = self.fc(states)
        return logits


def _char_gpt(facts: Mapping[str, Any]) -> nn.Module:
    return CharGPT(facts["vocabulary"], facts["shape"][0])


def _lstm_tagger(facts: Mapping[str, Any]) -> nn.Module:
    return LSTMTagger(facts["vocabulary"], facts.get("outputs", facts.get("classes")))


SEQUENCE_NETWORKS: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "char-gpt": _char_gpt,
    "lstm-tagger": _lstm_tagger,
}
"""By the names that ``--model`` takes; of data with ``vocabulary`` and a ``shape`` of one axis."""
