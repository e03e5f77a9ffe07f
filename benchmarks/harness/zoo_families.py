"""Families of the zoo: networks whose forwards take products with weights in ways of their own.

As tiny as they can be made for tests, and of a size that people know for tables. Nothing is downloaded: every weight is
random, from seed 0. Builders import their library when they are called.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.harness.zoo_networks import (
    CLASSES,
    NETWORKS,
    SMALL,
    WORDS,
    Example,
    Network,
    hugging_face,
    images,
    timm_model,
    words,
)

# --- torch ----------------------------------------------------------------------------------------------------------


class AttentionPooling(nn.Module):
    """The pooling of CLIP's residual networks: the mean of a map attends to all of its places.

    Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021. The weights of
    four linear layers go into one call of torch's functional attention.

    Args:
        size: of the map.
        width: its channels.
        heads: of the attention.
        outputs: of the pooling.
    """

    def __init__(self, size: int, width: int, heads: int, outputs: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(size**2 + 1, width) / width**0.5)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, outputs)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, outputs)``."""
        x = x.flatten(2).permute(2, 0, 1)
        x = torch.cat([x.mean(0, keepdim=True), x]) + self.positions[:, None]
        pooled, _ = functional.multi_head_attention_forward(
            x[:1],
            x,
            x,
            x.shape[-1],
            self.heads,
            None,
            torch.cat([self.q_proj.bias, self.k_proj.bias, self.v_proj.bias]),
            None,
            None,
            False,
            0.0,
            self.c_proj.weight,
            self.c_proj.bias,
            training=self.training,
            need_weights=False,
            use_separate_proj_weight=True,
            q_proj_weight=self.q_proj.weight,
            k_proj_weight=self.k_proj.weight,
            v_proj_weight=self.v_proj.weight,
        )
        return pooled.squeeze(0)


def _pooled(width: int, size: int, heads: int) -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
    return nn.Sequential(stem, AttentionPooling(size, width, heads, CLASSES))


class _Residual(nn.LSTM):
    """An LSTM around which its input is added: the forward of a subclass that ends in torch's."""

    def forward(self, input: Tensor, hx: Any = None) -> Any:  # type: ignore[override]
        output, state = super().forward(functional.layer_norm(input, input.shape[-1:]), hx)
        return input + output, state


class _Rotary(nn.MultiheadAttention):
    """Attention that turns queries and keys by their place before torch's own forward."""

    def forward(self, query: Tensor, *rest: Any, **more: Any) -> Any:
        """Self-attention of ``(batch, length, features)``."""
        half = query.shape[-1] // 2
        places = torch.arange(query.shape[1], dtype=query.dtype, device=query.device)
        angles = places[:, None] / 10 ** torch.linspace(0, 2, half, dtype=query.dtype, device=query.device)
        one, other = query[..., :half], query[..., half:]
        turned = torch.cat([one * angles.cos() - other * angles.sin(), one * angles.sin() + other * angles.cos()], -1)
        return super().forward(turned, turned, query, need_weights=False)


class Subclasses(nn.Module):
    """Words through subclasses of torch's LSTM and attention, to words.

    Args:
        vocabulary: number of words.
        size: of the embedding.
        heads: of the attention.
        layers: of each.
    """

    def __init__(self, vocabulary: int, size: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, size)
        self.recurrent = nn.ModuleList(_Residual(size, size, batch_first=True) for _ in range(layers))
        self.attention = nn.ModuleList(_Rotary(size, heads, batch_first=True) for _ in range(layers))
        self.head = nn.Linear(size, vocabulary)

    def forward(self, found: Tensor) -> Tensor:
        """Words ``(batch, length)`` to ``(batch, length, vocabulary)``."""
        x = self.embedding(found)
        for recurrent, attention in zip(self.recurrent, self.attention, strict=True):
            x, _ = recurrent(x)
            x = x + attention(x)[0]
        return self.head(x)  # type: ignore[no-any-return]


def _sequences(vocabulary: int, length: int, batch: int) -> Example:
    return Example((torch.randint(vocabulary, (batch, length)),), samples=batch)


# --- PyTorch Geometric ----------------------------------------------------------------------------------------------


def _graph(name: str, *args: Any, **options: Any) -> nn.Module:
    import torch_geometric.nn as geometric

    return getattr(geometric, name)(*args, **options)  # type: ignore[no-any-return]


def graph(nodes: int, features: int, edges: int) -> Example:
    """Random features ``(nodes, features)`` and edges ``(2, edges)``; a sample is a node."""
    return Example((torch.randn(nodes, features), torch.randint(nodes, (2, edges))), samples=nodes)


def _on_a_graph(name: str, kind: str, title: str, **options: Any) -> Network:
    return Network(
        name,
        partial(_graph, kind, 16, 8, 2, CLASSES, **options),
        partial(graph, 12, 16, 40),
        title,
        partial(_graph, kind, 1433, 64, 2, 7, **options),
        partial(graph, 2708, 1433, 10556),
        "torch_geometric",
    )


# --- lists ----------------------------------------------------------------------------------------------------------


def _swin_v2(**options: Any) -> nn.Module:
    network = timm_model("swinv2_tiny_window8_256", **options)
    for name, parameter in network.named_parameters():
        if name.endswith(("norm1.weight", "norm2.weight")):
            nn.init.ones_(parameter)  # zero as it is made, so that no block adds anything
    return network


_TINY: dict[str, Any] = {"img_size": 32, "num_classes": CLASSES}
_NARROW: dict[str, Any] = {"embed_dim": 192, "num_heads": 3}
_TINY_VIT: dict[str, Any] = {**_TINY, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}


def _of_timm(name: str, known: str, title: str, full: dict[str, Any], tiny: dict[str, Any]) -> Network:
    return Network(
        name,
        partial(timm_model, known, **tiny),
        partial(images, 32),
        f"{title} of timm",
        partial(timm_model, known, **full),
        partial(images, 224),
        "timm",
    )


def _of_transformers(
    name: str, kind: str, title: str, full: dict[str, Any], example: Callable[[], Example], **tiny: Any
) -> Network:
    # The kernel for all experts at once knows no float64.
    make = partial(hugging_face, f"{kind}ForCausalLM", f"{kind}Config", use_cache=False, experts_implementation="eager")
    return Network(
        name, partial(make, **tiny), partial(words, 8), title, partial(make, **full), example, "transformers"
    )


_MIXTURE: dict[str, Any] = {
    "vocab_size": 10000,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}

FAMILIES: dict[str, Network] = {
    network.name: network
    for network in (
        _of_timm("beit", "beit_base_patch16_224", "BEiT, 192 wide,", _NARROW, _TINY_VIT),
        _of_timm("beit-v2", "beitv2_base_patch16_224", "BEiT v2, 192 wide,", _NARROW, _TINY_VIT),
        _of_timm("eva-02", "eva02_tiny_patch14_224", "eva02_tiny_patch14_224", {}, _TINY_VIT),
        Network(
            "timm-swin-v2",
            partial(_swin_v2, **_TINY, patch_size=2, window_size=4, embed_dim=8, depths=(1, 2), num_heads=(2, 2)),
            partial(images, 32),
            "swinv2_tiny_window8_256 of timm",
            _swin_v2,
            partial(images, 256),
            "timm",
        ),
        Network(
            "nfnet",
            partial(timm_model, "test_nfnet", num_classes=CLASSES),
            partial(images, 32),
            "nf_resnet26 of timm, standardised weights",
            partial(timm_model, "nf_resnet26"),
            partial(images, 224),
            "timm",
        ),
        Network(
            "attention-pooling",
            partial(_pooled, 8, 4, 2),
            partial(images, 8),
            "attention pooling of CLIP's RN50",
            partial(_pooled, 2048, 7, 32),
            partial(images, 14),
        ),
        Network(
            "subclasses",
            partial(Subclasses, WORDS, 8, 2, 1),
            partial(_sequences, WORDS, 6, 2),
            "subclasses of LSTM and attention, 2 x 256",
            partial(Subclasses, 10000, 256, 4, 2),
            partial(_sequences, 10000, 40, 16),
        ),
        _of_transformers(
            "mamba",
            "Mamba",
            "Mamba of 8 M parameters",
            {"vocab_size": 10000, "hidden_size": 256, "num_hidden_layers": 12},
            partial(words, 32, 1, 10000),
            vocab_size=WORDS,
            hidden_size=16,
            num_hidden_layers=2,
            state_size=4,
            time_step_rank=4,
        ),
        _of_transformers(
            "mamba-2",
            "Mamba2",
            "Mamba-2 of 11 M parameters",
            {"vocab_size": 10000, "hidden_size": 256, "num_hidden_layers": 12, "num_heads": 8, "n_groups": 1},
            partial(words, 32, 1, 10000),
            vocab_size=WORDS,
            hidden_size=16,
            num_hidden_layers=2,
            state_size=4,
            num_heads=4,
            head_dim=8,
            n_groups=1,
            chunk_size=8,
        ),
        _of_transformers(
            "falcon",
            "Falcon",
            "Falcon of 11 M parameters",
            {"vocab_size": 10000, "hidden_size": 256, "num_hidden_layers": 12, "num_attention_heads": 4},
            partial(words, 128, 1, 10000),
            **SMALL,
        ),
        _of_transformers(
            "mixtral",
            "Mixtral",
            "Mixtral of 18 M parameters",
            {**_MIXTURE, "intermediate_size": 512, "num_local_experts": 8},
            partial(words, 128, 1, 10000),
            **SMALL,
            intermediate_size=32,
            num_key_value_heads=1,
            num_local_experts=4,
        ),
        _of_transformers(
            "qwen2-moe",
            "Qwen2Moe",
            "Qwen2-MoE of 20 M parameters",
            {**_MIXTURE, "moe_intermediate_size": 256, "shared_expert_intermediate_size": 512, "num_experts": 16},
            partial(words, 128, 1, 10000),
            **SMALL,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=32,
            num_key_value_heads=1,
            num_experts=4,
            num_experts_per_tok=2,
        ),
        _of_transformers(
            "gpt-oss",
            "GptOss",
            "GPT-OSS of 19 M parameters",
            {**_MIXTURE, "head_dim": 64, "intermediate_size": 512, "num_local_experts": 8, "num_experts_per_tok": 2},
            partial(words, 128, 1, 10000),
            **SMALL,
            head_dim=8,
            intermediate_size=16,
            num_key_value_heads=1,
            num_local_experts=4,
            num_experts_per_tok=2,
        ),
        _on_a_graph("gcn", "GCN", "GCN, 2 layers, on a graph as large as Cora"),
        _on_a_graph("gat", "GAT", "GAT, 2 layers, on a graph as large as Cora", heads=4),
        _on_a_graph("graph-sage", "GraphSAGE", "GraphSAGE, 2 layers, on a graph as large as Cora"),
    )
}

ZOO: dict[str, Network] = {**NETWORKS, **FAMILIES}
"""All networks of the zoo by name."""
