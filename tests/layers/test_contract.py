"""The published contract, held by every layer that becomes analog."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_sequence

import analogsim
from analogsim.layers.registry import analog_types
from analogsim.testing import LayerContract


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


class TestLinear(LayerContract):
    def layer(self) -> nn.Module:
        return nn.Linear(5, 4)

    def inputs(self) -> tuple[Any, ...]:
        return (noise(2, 3, 5),)


class TestConv1d(LayerContract):
    def layer(self) -> nn.Module:
        return nn.Conv1d(4, 6, 3, groups=2, dilation=2, padding="same", padding_mode="circular")

    def inputs(self) -> tuple[Any, ...]:
        return (noise(2, 4, 7),)


class TestConv2d(LayerContract):
    def layer(self) -> nn.Module:
        return nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(1, 0), padding_mode="reflect")

    def inputs(self) -> tuple[Any, ...]:
        return (noise(2, 2, 5, 6),)


class TestDepthwise(LayerContract):
    def layer(self) -> nn.Module:
        return nn.Conv2d(4, 4, 3, groups=4, bias=False)

    def inputs(self) -> tuple[Any, ...]:
        return (noise(4, 5, 5),)  # without a batch


class TestConv3d(LayerContract):
    def layer(self) -> nn.Module:
        return nn.Conv3d(2, 3, 2)

    def inputs(self) -> tuple[Any, ...]:
        return (noise(2, 2, 3, 3, 3),)


class TestConvTranspose1d(LayerContract):
    def layer(self) -> nn.Module:
        return nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2, padding=1, output_padding=1)

    def inputs(self) -> tuple[Any, ...]:
        return (noise(2, 4, 5),)


class TestConvTranspose2d(LayerContract):
    def layer(self) -> nn.Module:
        return nn.ConvTranspose2d(3, 2, 3, stride=2)

    def inputs(self) -> tuple[Any, ...]:
        return noise(2, 3, 4, 4), [10, 10]


class TestConvTranspose3d(LayerContract):
    def layer(self) -> nn.Module:
        return nn.ConvTranspose3d(2, 2, 2, dilation=2, bias=False)

    def inputs(self) -> tuple[Any, ...]:
        return (noise(1, 2, 3, 3, 3),)


class TestBilinear(LayerContract):
    def layer(self) -> nn.Module:
        return nn.Bilinear(3, 4, 2)

    def inputs(self) -> tuple[Any, ...]:
        return noise(5, 3), noise(5, 4)


class TestEmbedding(LayerContract):
    options: ClassVar[dict[str, Any]] = {"embeddings": True}

    def layer(self) -> nn.Module:
        return nn.Embedding(7, 4)

    def inputs(self) -> tuple[Any, ...]:
        return (torch.tensor([[0, 3, 6], [3, 1, 2]]),)


class TestEmbeddingBag(LayerContract):
    options: ClassVar[dict[str, Any]] = {"embeddings": True}

    def layer(self) -> nn.Module:
        return nn.EmbeddingBag(7, 4, mode="mean")

    def inputs(self) -> tuple[Any, ...]:
        return torch.tensor([0, 3, 6, 3, 1]), torch.tensor([0, 2])


class TestAttention(LayerContract):
    def layer(self) -> nn.Module:
        return nn.MultiheadAttention(4, 2, dropout=0.2, kdim=3, vdim=5, batch_first=True)

    def inputs(self) -> tuple[Any, ...]:
        return noise(2, 3, 4), noise(2, 5, 3), noise(2, 5, 5)


class TestEncoderLayer(LayerContract):
    batch_axis = 1

    def layer(self) -> nn.Module:
        return nn.TransformerEncoderLayer(4, 2, 6, dropout=0.1, activation="gelu")

    def inputs(self) -> tuple[Any, ...]:
        return (noise(3, 2, 4),)


class TestDecoderLayer(LayerContract):
    batch_axis = 1

    def layer(self) -> nn.Module:
        return nn.TransformerDecoderLayer(4, 2, 6, dropout=0.0)

    def inputs(self) -> tuple[Any, ...]:
        return noise(3, 2, 4), noise(4, 2, 4)

    @pytest.mark.slow
    def test_it_takes_what_the_digital_layer_takes(self, made: Any) -> None:
        """See `LayerContract`: made of layers that are asked above."""
        super().test_it_takes_what_the_digital_layer_takes(made)


class TestRNN(LayerContract):
    compiles = False
    batch_axis = 1

    def layer(self) -> nn.Module:
        return nn.RNN(3, 4, nonlinearity="relu", bidirectional=True)

    def inputs(self) -> tuple[Any, ...]:
        return (noise(5, 2, 3),)


class TestLSTM(LayerContract):
    compiles = False

    def layer(self) -> nn.Module:
        return nn.LSTM(3, 4, num_layers=2, proj_size=2, dropout=0.2)

    def inputs(self) -> tuple[Any, ...]:
        return (pack_sequence([noise(4, 3).double(), noise(2, 3).double()]),)

    def strange(self, x: tuple[Any, ...]) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Rows that no sequence has torch does not look at."""
        return (entry for entry in super().strange(x) if "axis 0 longer" not in entry[0])

    def test_other_dtypes(self) -> None:  # type: ignore[override]
        """The packed sequences above have one dtype."""

    def test_under_autocast(self) -> None:  # type: ignore[override]
        """As above."""


class TestGRU(LayerContract):
    compiles = False

    def layer(self) -> nn.Module:
        return nn.GRU(3, 4, batch_first=True)

    def inputs(self) -> tuple[Any, ...]:
        return noise(2, 5, 3), noise(1, 2, 4)


class TestRNNCell(LayerContract):
    def layer(self) -> nn.Module:
        return nn.RNNCell(3, 4)

    def inputs(self) -> tuple[Any, ...]:
        return noise(2, 3), noise(2, 4)


class TestLSTMCell(LayerContract):
    def layer(self) -> nn.Module:
        return nn.LSTMCell(3, 4)

    def inputs(self) -> tuple[Any, ...]:
        return noise(2, 3), (noise(2, 4), noise(2, 4))


class TestGRUCell(LayerContract):
    def layer(self) -> nn.Module:
        return nn.GRUCell(3, 4, bias=False)

    def inputs(self) -> tuple[Any, ...]:
        return noise(3), noise(4)  # without a batch


class Named(nn.Linear):
    """A subclass that changes nothing."""


class Shortcut(nn.Linear):
    """A subclass with a forward of its own."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.weight, self.bias) + 0.5 * input


class TestSubclass(LayerContract):
    def layer(self) -> nn.Module:
        return Named(5, 4)

    def inputs(self) -> tuple[Any, ...]:
        return (noise(3, 5),)


class TestRouted(LayerContract):
    def layer(self) -> nn.Module:
        return Shortcut(4, 4)

    def inputs(self) -> tuple[Any, ...]:
        return (noise(3, 4),)


class Gated(nn.GRUCell):
    """A subclass whose forward ends in that of its base."""

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return super().forward(input.relu(), hx).tanh()


class TestExtended(LayerContract):
    def layer(self) -> nn.Module:
        return Gated(3, 4)

    def inputs(self) -> tuple[Any, ...]:
        return noise(2, 3), noise(2, 4)


class Lent(nn.Module):
    """Takes the products of a layer in it by itself, with another bias."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(4, 6, bias=False), nn.Linear(6, 3)
        self.q_bias = nn.Parameter(torch.randn(6))

    def forward(self, input: Tensor) -> Tensor:
        return self.proj(functional.linear(input, weight=self.qkv.weight, bias=self.q_bias).relu())


class TestBorrowing(LayerContract):
    def layer(self) -> nn.Module:
        return Lent()

    def inputs(self) -> tuple[Any, ...]:
        return (noise(5, 4),)


class TestWeightNorm(LayerContract):
    pickles = False
    computed = True

    def layer(self) -> nn.Module:
        return parametrizations.weight_norm(nn.Linear(4, 3))

    def inputs(self) -> tuple[Any, ...]:
        return (noise(3, 4),)


class Bare(nn.Module):
    """Two matrices of its own, of which torch knows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(6, 4))
        self.down = nn.Parameter(torch.randn(4, 6))

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(functional.linear(input, self.up).relu(), self.down)


class TestRegisteredRouted(LayerContract):
    @pytest.fixture(autouse=True)
    def _registered(self) -> Any:
        before = dict(analog_types)
        analogsim.register_routed(Bare, {"up": None, "down": None})
        yield
        analog_types.clear()
        analog_types.update(before)

    def layer(self) -> nn.Module:
        return Bare()

    def inputs(self) -> tuple[Any, ...]:
        return (noise(3, 4),)


class TestConv1DOfTransformers(LayerContract):
    def layer(self) -> nn.Module:
        module = pytest.importorskip("transformers.pytorch_utils", reason="needs analogsim-torch[zoo]")
        layer: nn.Module = module.Conv1D(4, 5)
        return layer

    def inputs(self) -> tuple[Any, ...]:
        return (noise(3, 5),)


class TestGeometricLinear(LayerContract):
    compiles = False  # what torch.compile does with it is tested with nn.Linear

    def layer(self) -> nn.Module:
        module = pytest.importorskip("torch_geometric.nn", reason="needs analogsim-torch[graphs]")
        made: nn.Module = module.Linear(5, 4)
        nn.init.normal_(made.bias)
        return made

    def inputs(self) -> tuple[Any, ...]:
        return (torch.randn(3, 5),)


class _Swin(LayerContract):
    version = ""

    def layer(self) -> nn.Module:
        module = pytest.importorskip("torchvision.models.swin_transformer", reason="needs analogsim-torch[recipes]")
        layer: nn.Module = getattr(module, f"ShiftedWindowAttention{self.version}")(8, [2, 2], [1, 1], 2)
        return layer

    def convert(self, model: nn.Module, device: Any, **more: Any) -> Any:
        with (
            pytest.warns(analogsim.ConversionWarning, match="relative_position_bias_table")
            if not self.version
            else nullcontext()
        ):
            return super().convert(model, device, **more)

    def inputs(self) -> tuple[Any, ...]:
        return (noise(2, 4, 4, 8),)

    @pytest.mark.slow
    def test_it_takes_what_the_digital_layer_takes(self, made: Any) -> None:
        """See `LayerContract`: made of layers that are asked above."""
        super().test_it_takes_what_the_digital_layer_takes(made)


class TestSwin(_Swin):
    pass


class TestSwinV2(_Swin):
    version = "V2"
