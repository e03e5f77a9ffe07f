from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import rnn

import analogsim
from analogsim import Crossbar, DeviceModel, Drift, Mapping
from analogsim.evaluation.operations import analog_macs, macs

DEVICE = DeviceModel((Drift(nu=0.05, nu_std=0.02),))


class Named(nn.Module):
    """A module with whatever children, whose forward is handed in."""

    def __init__(self, forward: Callable[..., Tensor], **children: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, *args: Tensor) -> Tensor:
        return self.run(self, *args)


@pytest.mark.parametrize(
    ("layer", "shape", "wanted"),
    [
        (nn.Linear(4, 3), (4,), 12),
        (nn.Linear(4, 3, bias=False), (4,), 12),
        (nn.Linear(4, 3), (5, 4), 5 * 12),
        (nn.Linear(4, 3), (2, 5, 4), 10 * 12),
        (nn.Conv1d(2, 3, 3, padding=1), (2, 2, 7), 2 * 7 * 3 * 2 * 3),
        (nn.Conv2d(4, 6, 3, stride=2, groups=2), (2, 4, 9, 7), 2 * 4 * 3 * 6 * 2 * 9),
        (nn.Conv2d(4, 4, 3, groups=4, dilation=2), (1, 4, 9, 9), 5 * 5 * 4 * 9),
        (nn.Conv3d(1, 2, 2), (1, 1, 4, 4, 4), 27 * 2 * 8),
        (nn.ConvTranspose1d(2, 3, 4, stride=2), (2, 2, 5), 2 * 5 * 2 * 3 * 4),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (2, 4, 5, 5), 2 * 25 * 4 * 3 * 9),
        (nn.RNN(3, 4), (5, 2, 3), 10 * 4 * (3 + 4)),
        (nn.LSTM(3, 4, 2, batch_first=True), (2, 5, 3), 10 * 16 * ((3 + 4) + (4 + 4))),
        (nn.LSTM(3, 4, bidirectional=True), (5, 2, 3), 2 * 10 * 16 * (3 + 4)),
        (nn.LSTM(3, 4, proj_size=2), (5, 2, 3), 10 * (16 * (3 + 2) + 4 * 2)),
        (nn.GRU(3, 4), (5, 2, 3), 10 * 12 * (3 + 4)),
        (nn.LSTMCell(3, 4), (2, 3), 2 * 16 * (3 + 4)),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:LSTM with projections")  # torch says so once, of a kernel it does not take
@pytest.mark.parametrize("graph", [False, True], ids=["no_grad", "grad"])
def test_products_of_a_layer(layer: nn.Module, shape: tuple[int, ...], wanted: int, graph: bool) -> None:
    with torch.set_grad_enabled(graph):
        assert macs(layer, torch.randn(shape)) == {"": wanted}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    "layer",
    [
        nn.RNN(3, 4),
        nn.LSTM(3, 4, 2, batch_first=True),
        nn.LSTM(3, 4, bidirectional=True),
        nn.LSTM(3, 4, proj_size=2),
        nn.GRU(3, 4),
    ],
    ids=str,
)
def test_all_products_of_a_recurrent_layer_run_on_its_crossbars(layer: nn.Module) -> None:
    """Each matrix meets each of 10 vectors once, also where one operation takes the products of two matrices."""
    wanted = {name: 10 * weight.numel() for name, weight in layer.named_parameters() if weight.ndim == 2}
    assert analog_macs(analogsim.convert(layer, "gaussian"), torch.randn(2, 5, 3)) == wanted


@pytest.mark.parametrize(
    ("one", "other", "ends"),
    [((6, 8), (2, 8, 16), [2, 6]), ((2, 8, 16), (16, 24), [8, 24]), ((8, 24), (24, 16), [8, 24])],
    ids=["rows", "columns", "inner"],
)
def test_products_with_many_matrices_at_once(one: tuple[int, ...], other: tuple[int, ...], ends: list[int]) -> None:
    """6 rows meet one matrix each; of 24 columns each meets one; 24 inner places are shared out."""

    class Grouped(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            offsets = torch.tensor(ends, dtype=torch.int32)
            return functional.grouped_mm(x, y, offs=offsets)  # type: ignore[no-any-return]

    wanted = {"rows": 6 * 8 * 16, "columns": 8 * 16 * 24, "inner": 8 * 24 * 16}
    key = "columns" if len(one) == 3 else "rows" if len(other) == 3 else "inner"
    assert macs(Grouped(), torch.randn(one), torch.randn(other)) == {"": wanted[key]}


def test_packed_sequences_count_what_is_in_them() -> None:
    packed = rnn.pack_sequence([torch.randn(5, 3), torch.randn(2, 3)])
    assert macs(nn.LSTM(3, 4), packed) == {"": 7 * 16 * (3 + 4)}


def test_bilinear() -> None:
    assert macs(nn.Bilinear(3, 4, 5), torch.randn(2, 3), torch.randn(2, 4)) == {"": 2 * 5 * 3 * 4}


def test_what_is_element_wise_or_looked_up_counts_nothing() -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.LayerNorm(4), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(8))
    assert macs(model, torch.zeros(3, 2, dtype=torch.long)) == {}


@pytest.mark.parametrize("weights", [False, True])
def test_attention_counts_projections_and_products(weights: bool) -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    x, y = torch.randn(3, 5, 8), torch.randn(3, 7, 8)
    found = Named(lambda self, q, k: self.inner(q, k, k, need_weights=weights)[0], inner=attention)
    projected, attended = 3 * (5 + 7 + 7) * 8 * 8, 2 * 3 * 5 * 7 * 8
    assert macs(found, x, y) == {"inner": projected + attended, "inner.out_proj": 3 * 5 * 8 * 8}


def test_grouped_queries_and_masks() -> None:
    def attend(self: nn.Module, q: Tensor, k: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=True)

    assert macs(Named(attend), torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8)) == {"": 2 * 2 * 4 * 5 * 5 * 8}


def test_fused_encoder_is_taken_apart_and_put_back() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    found = macs(layer, torch.randn(3, 5, 8))
    assert found["linear1"] == found["linear2"] == 15 * 8 * 16
    assert found["self_attn"] == 15 * 8 * 24 + 2 * 3 * 5 * 5 * 8
    assert found["self_attn.out_proj"] == 15 * 8 * 8
    assert torch.backends.mha.get_fastpath_enabled()


def test_products_belong_to_who_holds_the_weight() -> None:
    """A layer that another module reads past; a tied one that is called; one that computes its weight."""
    past = Named(lambda self, x: functional.linear(x, self.inner.weight), inner=nn.Linear(4, 3))
    assert macs(past, torch.ones(2, 4)) == {"inner": 24}
    tied = Named(lambda self, x: self.b(x) @ self.a.weight, a=nn.Linear(4, 3), b=nn.Linear(4, 3))
    tied.b.weight = tied.a.weight
    assert macs(tied, torch.ones(2, 4)) == {"b": 24, "a": 24}
    computed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)))
    assert macs(computed, torch.ones(2, 4)) == {"0": 24}
    alone = Named(lambda self, x: x @ x.T)
    assert macs(alone, torch.ones(2, 4)) == {"": 16}


def test_everything_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    model[1].eval()
    analog = analogsim.convert(model, "pcm", crossbar="standard")
    analogsim.program(analog, seed=0)
    chips = [analog[index].analog.chip for index in (0, 3)]
    modes = [module.training for module in analog.modules()]
    state = {name: value.clone() for name, value in analog.state_dict().items()}
    before = torch.get_rng_state()
    assert macs(analog, torch.randn(3, 4, generator=torch.Generator())) == {"0": 48, "3": 24}
    assert analog_macs(analog, torch.randn(3, 4, generator=torch.Generator())) == {"0": 48, "3": 24}
    assert torch.equal(before, torch.get_rng_state())
    assert modes == [module.training for module in analog.modules()]
    assert all(torch.equal(value, state[name]) for name, value in analog.state_dict().items())
    assert all(analog[index].analog.chip is chip for index, chip in zip((0, 3), chips, strict=True))
    assert analog[0].analog.crossbar.dac_bits == 8


def test_an_error_leaves_everything_as_it_was() -> None:
    analog = analogsim.convert(nn.Linear(4, 2), "pcm")
    analogsim.program(analog, seed=0)
    chip = analog.analog.chip
    for count in (macs, analog_macs):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            count(analog, torch.randn(3, 5))
    assert analog.training
    assert analog.analog.chip is chip
    assert analog_macs(analog, torch.randn(3, 4)) == {"": 24}


# --- on crossbars ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "crossbar",
    [Crossbar(), Crossbar(rows=3, cols=4), Crossbar(rows=3, dac_bits=8, adc_bits=8, bit_serial=True)],
    ids=["ideal", "blocks", "converters"],
)
@pytest.mark.parametrize(
    "mapping", [Mapping(), Mapping(bias_rows=2), Mapping(slices=2)], ids=["pair", "bias", "slices"]
)
def test_the_periphery_counts_once(crossbar: Crossbar, mapping: Mapping) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 5))
    device = DeviceModel((Drift(nu=0.05, nu_std=0.02),), mapping=mapping)
    analog = analogsim.convert(model, {"0": device, "2": None}, crossbar=crossbar)
    x = torch.randn(3, 2, 4, 4)
    assert macs(analog, x) == {"0": 3 * 4 * 4 * 18, "2": 3 * 80}
    assert analog_macs(analog, x) == {"0": 3 * 4 * 4 * 18}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_casts_of_weights_are_followed(dtype: torch.dtype) -> None:
    analog = analogsim.convert(nn.Linear(4, 3).to(dtype), DEVICE)
    with torch.autocast("cpu", torch.bfloat16):
        assert analog_macs(analog, torch.randn(2, 4)) == {"": 24}


def test_matrices_that_are_joined_share_the_products() -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        weights = [layer.draw().plain[0] for layer in (self.a, self.b)]
        return functional.linear(x, torch.cat(weights))

    model = Named(forward, a=nn.Linear(4, 3), b=nn.Linear(4, 5))
    assert analog_macs(analogsim.convert(model, DEVICE), torch.randn(2, 4)) == {"a": 24, "b": 40}


def test_a_layer_that_is_read_past_has_none_on_crossbars() -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return functional.linear(x, self.past.weight) + self.called(x)

    model = Named(forward, past=nn.Linear(4, 3), called=nn.Linear(4, 3), unused=nn.Linear(4, 3))
    analog = analogsim.convert(model, DEVICE)
    x = torch.ones(2, 4)
    assert macs(analog, x) == {"past": 24, "called": 24}
    assert analog_macs(analog, x) == {"past": 0, "called": 24, "unused": 0}


def test_products_of_activations_stay_digital() -> None:
    model = Named(lambda self, x: self.a(x) @ self.a(x).transpose(-1, -2), a=nn.Linear(4, 3))
    analog = analogsim.convert(model, DEVICE)
    x = torch.ones(5, 2, 4)
    assert macs(analog, x) == {"a": 2 * 10 * 12, "": 5 * 2 * 2 * 3}
    assert analog_macs(analog, x) == {"a": 2 * 10 * 12}


def test_a_digital_model_has_no_crossbars() -> None:
    with pytest.raises(ValueError, match="no analog layer"):
        analog_macs(nn.Linear(2, 2), torch.ones(2))


@pytest.mark.parametrize("bag", [False, True])
def test_what_is_read_from_a_table_is_no_weight_of_the_layer_behind_it(bag: bool) -> None:
    table = nn.EmbeddingBag(5, 4) if bag else nn.Embedding(5, 4)
    model = nn.Sequential(table, nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    x = torch.randint(0, 5, (6, 7))
    wanted = {"1": 6 * 4 * 3, "3": 6 * 3 * 2} if bag else {"1": 6 * 7 * 4 * 3, "3": 6 * 7 * 3 * 2}
    for embeddings in (True, False):
        analog = analogsim.convert(model, "pcm", embeddings=embeddings)
        assert analog_macs(analog, x) == ({"0": 0, **wanted} if embeddings else wanted)
    assert macs(analog, x) == wanted


def test_a_table_tied_to_its_head_counts_for_the_head() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False))
    model[1].weight = model[0].weight
    analog = analogsim.convert(model, "pcm", embeddings=True)
    assert analog_macs(analog, torch.arange(3)) == {"0": 0, "1": 3 * 4 * 5}


# --- published numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "mobilenet_v3_small",
        "swin_t",
        "vit_b_16",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "convnext_tiny",
                "densenet121",
                "efficientnet_b0",
                "googlenet",
                "inception_v3",
                "mnasnet1_0",
                "regnet_y_400mf",
                "shufflenet_v2_x1_0",
                "squeezenet1_1",
                "swin_v2_t",
                "vgg16_bn",
            )
        ),
    ],
)
def test_torchvision_publishes_the_same_numbers(name: str) -> None:
    """Billions of multiply-accumulates, with three decimals, beside the weights of each network."""
    models = pytest.importorskip("torchvision.models", reason="needs torchvision")
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("cpu" if name == "regnet_y_400mf" else "meta"):  # which computes its widths with tensors
        model = models.get_model(name, weights=None, **options)
    size = {"inception_v3": 299, "swin_v2_t": 256}.get(name, 224)
    found = macs(model.to("meta"), torch.empty(1, 3, size, size, device="meta"))
    published = models.get_model_weights(name).DEFAULT.meta["_ops"]
    assert round(sum(found.values()) / 1e9, 3) == published


@pytest.mark.parametrize(
    ("product", "shapes", "wanted"),
    [
        (torch.addbmm, [(3, 5), (2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        (torch.bmm, [(2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        (torch.addmm, [(3, 5), (3, 4), (4, 5)], 3 * 4 * 5),
        (torch.addmv, [(3,), (3, 4), (4,)], 3 * 4),
        (torch.mv, [(3, 4), (4,)], 3 * 4),
        (torch.dot, [(4,), (4,)], 4),
        (torch.outer, [(3,), (4,)], 0),  # element by element
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize("graph", [False, True], ids=["no_grad", "grad"])
def test_every_product_of_torch_counts(
    product: Callable[..., Tensor], shapes: list[tuple[int, ...]], wanted: int, graph: bool
) -> None:
    tensors = [torch.randn(shape, requires_grad=graph) for shape in shapes]
    with torch.set_grad_enabled(graph):
        found = macs(Named(lambda module, *args: product(*args)), *tensors)
    assert sum(found.values()) == wanted
