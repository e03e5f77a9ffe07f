"""Attention and torch's transformers on crossbars; the reference is always the digital module."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import analogsim
from analogsim import ConversionWarning, Crossbar, DeviceModel, Drift, Gaussian
from analogsim.layers import AnalogMultiheadAttention, matrices_of
from analogsim.layers.matrix import AnalogMatrix

CLEAN = {"signed": Gaussian(std=0.0), "pair": DeviceModel((Drift(nu=0.0, nu_std=0.0),))}
QKV = ("q_proj", "k_proj", "v_proj")
SIZE, HEADS, BATCH, TARGET, SOURCE = 8, 2, 3, 5, 4

pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.filterwarnings("ignore:Support for mismatched"),  # torch's, on masks of two types
]


def attention(**options: Any) -> nn.MultiheadAttention:
    """A module whose biases are not 0, as they are in a fresh one."""
    module = nn.MultiheadAttention(SIZE, HEADS, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.4)
    return module


def exact(model: nn.Module, device: Any = CLEAN["signed"]) -> Any:
    """A twin without noise, which draws nothing at random, with a chip for eval."""
    analog = analogsim.convert(model, device)
    analogsim.set_noise_scale(analog, 0)
    analogsim.program(analog)
    return analog


# --- the grid of options --------------------------------------------------------------------------------------------

MODULES = [
    dict(zip(("batch_first", "bias", "add_bias_kv", "add_zero_attn", "wide"), values, strict=True))
    for values in product([False, True], repeat=5)
]
CALLS = list(
    product(
        ["self", "cross", "three"],
        [True, False],  # batched
        ["none", "2d bool", "2d float", "3d bool", "3d float", "causal"],
        ["none", "bool", "float"],
        ["none", "mean", "heads"],
    )
)


def call(
    options: dict[str, Any], kind: str, batched: bool, masked: str, padded: str, weights: str
) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """Inputs and further arguments of one call."""
    source = TARGET if kind == "self" else SOURCE
    more = 2 if options["wide"] else 0

    def sequence(length: int, size: int) -> Tensor:
        shape = (length, size) if not batched else (BATCH, length, size)
        data = torch.randn(shape) if not batched or options["batch_first"] else torch.randn(shape).transpose(0, 1)
        return data.requires_grad_()

    query = sequence(TARGET, SIZE)
    if kind == "self" and not more:
        inputs = query, query, query
    elif kind == "cross" and not more:
        key = sequence(source, SIZE)
        inputs = query, key, key
    else:
        inputs = query, sequence(source, SIZE + more), sequence(source, SIZE + 2 * more)
    rest: dict[str, Any] = {"need_weights": weights != "none", "average_attn_weights": weights == "mean"}
    if masked == "causal":
        rest |= {"attn_mask": torch.ones(TARGET, source).triu(1).bool(), "is_causal": True}
    elif masked != "none":
        lead = () if masked.startswith("2d") else ((BATCH if batched else 1) * HEADS,)
        mask = torch.rand(*lead, TARGET, source) < 0.4
        mask[..., 0] = False  # something is left for each query
        rest["attn_mask"] = mask if masked.endswith("bool") else torch.randn(mask.shape).masked_fill(mask, -torch.inf)
    if padded != "none":
        lengths = torch.tensor([[2], [source], [3]] if batched else [3])
        padding = torch.arange(source) >= lengths
        rest["key_padding_mask"] = (
            padding if padded == "bool" else torch.zeros(padding.shape).masked_fill(padding, -9.0)
        )
    return inputs, rest


def close(mine: Any, theirs: Any) -> None:
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-5)


def compare(model: nn.Module, analog: nn.Module, inputs: tuple[Tensor, ...], rest: dict[str, Any]) -> None:
    """Answers and gradients in training with dropout, and answers in eval with and without torch's fast path."""
    model.train()
    analog.train()
    answers = []
    for module in (model, analog):
        torch.manual_seed(1)
        output, weights = module(*inputs, **rest)
        sources = list(dict.fromkeys((*inputs, *module.parameters())))
        total = output.square().sum() + (0 if weights is None else weights.square().sum())
        answers.append((output, weights, torch.autograd.grad(total, sources, allow_unused=True)))
    close(answers[1], answers[0])
    model.eval()
    analog.eval()
    close(analog(*inputs, **rest), model(*inputs, **rest))
    with torch.no_grad():
        close(analog(*inputs, **rest), model(*inputs, **rest))


def compare_all(options: dict[str, Any], calls: list[Any]) -> None:
    wide = options["wide"]
    known = {name: value for name, value in options.items() if name != "wide"}
    model = attention(**known, dropout=0.3, kdim=SIZE + 2 if wide else None, vdim=SIZE + 4 if wide else None)
    analog = exact(model)
    assert type(analog) is AnalogMultiheadAttention
    for arguments in calls:
        compare(model, analog, *call(options, *arguments))


def ids(options: dict[str, Any]) -> str:
    return " ".join(name for name, value in options.items() if value) or "plain"


@pytest.mark.filterwarnings("ignore::analogsim.ConversionWarning")
@pytest.mark.parametrize("options", MODULES, ids=ids)
def test_without_noise_it_is_the_digital_module(options: dict[str, Any]) -> None:
    """A sample of the calls for each module; all of them in the slow test."""
    compare_all(options, random.Random(MODULES.index(options)).sample(CALLS, 12))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::analogsim.ConversionWarning")
@pytest.mark.parametrize("options", MODULES, ids=ids)
def test_without_noise_it_is_the_digital_module_everywhere(options: dict[str, Any]) -> None:
    compare_all(options, CALLS)


@pytest.mark.parametrize("device", CLEAN.values(), ids=CLEAN.keys())
@pytest.mark.parametrize("wide", [False, True])
def test_a_device_without_errors_changes_nothing(device: Any, wide: bool) -> None:
    model = attention(kdim=SIZE + 2 if wide else None, vdim=SIZE + 4 if wide else None)
    analog = analogsim.convert(model, device)
    inputs, rest = call({"wide": wide, "batch_first": False}, "cross", True, "2d bool", "bool", "heads")
    close(analog(*inputs, **rest), model(*inputs, **rest))
    analogsim.program(analog)
    analogsim.drift(analog, "1y")
    analog.eval()
    close(analog(*inputs, **rest), model(*inputs, **rest))


def test_dropout_falls_on_the_same_weights_as_in_torch() -> None:
    model = attention(dropout=0.5)
    x = torch.randn(6, 2, SIZE)
    answers = []
    for module in (model, exact(model)):
        torch.manual_seed(3)
        answers.append(module(x, x, x)[1])
    assert (answers[0] == 0).any()
    close(*answers)


Sizes = tuple[int, ...]
MISFITS: dict[str, tuple[type[Exception], tuple[Sizes, Sizes, Sizes], dict[str, Tensor | bool]]] = {
    "axes": (AssertionError, ((5, 3, 8), (4, 8), (4, 8)), {}),
    "four axes": (AssertionError, ((1, 5, 3, 8), (1, 4, 3, 8), (1, 4, 3, 8)), {}),
    "features": (AssertionError, ((5, 3, 6), (4, 3, 8), (4, 3, 8)), {}),
    "key features": (RuntimeError, ((5, 3, 8), (4, 3, 6), (4, 3, 6)), {}),
    "key and value": (AssertionError, ((5, 3, 8), (4, 3, 8), (6, 3, 8)), {}),
    "batch": (RuntimeError, ((5, 3, 8), (4, 1, 8), (4, 1, 8)), {}),
    "mask": (RuntimeError, ((5, 3, 8), (4, 3, 8), (4, 3, 8)), {"attn_mask": torch.zeros(5, 5)}),
    "mask of heads": (RuntimeError, ((5, 3, 8), (4, 3, 8), (4, 3, 8)), {"attn_mask": torch.zeros(3, 5, 4)}),
    "mask of integers": (AssertionError, ((5, 3, 8),) * 3, {"attn_mask": torch.zeros(5, 5, dtype=torch.int64)}),
    "padding": (AssertionError, ((5, 3, 8), (4, 3, 8), (4, 3, 8)), {"key_padding_mask": torch.zeros(3, 5)}),
    "padding of one": (AssertionError, ((5, 8), (4, 8), (4, 8)), {"key_padding_mask": torch.zeros(1, 4)}),
    "causal": (RuntimeError, ((5, 3, 8),) * 3, {"is_causal": True}),
}


@pytest.mark.parametrize(("kind", "shapes", "rest"), MISFITS.values(), ids=MISFITS.keys())
def test_what_does_not_fit_is_the_same_kind_of_error(kind: type[Exception], shapes: Any, rest: dict[str, Any]) -> None:
    model = attention()
    inputs = [torch.randn(shape) for shape in shapes]
    for module in (model, exact(model)):
        with pytest.raises(kind):
            module(*inputs, **rest)


@pytest.mark.filterwarnings("default:Support for mismatched")
def test_masks_of_two_types_warn_as_in_torch() -> None:
    x = torch.randn(TARGET, SIZE)
    with pytest.warns(UserWarning, match="mismatched key_padding_mask and attn_mask"):
        exact(attention())(x, x, x, torch.zeros(TARGET), attn_mask=torch.zeros(TARGET, TARGET).bool())


def test_nested_tensors_are_refused() -> None:
    nested = torch.nested.nested_tensor([torch.randn(3, SIZE), torch.randn(2, SIZE)])
    with pytest.raises(AssertionError, match="padded ones and a key_padding_mask"):
        exact(attention(batch_first=True))(nested, nested, nested)


# --- torch's transformers -------------------------------------------------------------------------------------------

LENGTHS = torch.tensor([[3], [5], [4]])
PADDING = torch.arange(5) >= LENGTHS
CAUSAL = nn.Transformer.generate_square_subsequent_mask(5)


def encoder_layer(**options: Any) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(SIZE, HEADS, 12, **{"batch_first": True, **options})


def encoder(**options: Any) -> nn.TransformerEncoder:
    nested = not options.get("norm_first", False)
    norm = nn.LayerNorm(SIZE)
    with torch.no_grad():
        norm.bias.fill_(0.5)  # what padding becomes behind it
    return nn.TransformerEncoder(encoder_layer(**options), 2, norm, enable_nested_tensor=nested)


def decoder(**options: Any) -> nn.TransformerDecoder:
    layer = nn.TransformerDecoderLayer(SIZE, HEADS, 12, **{"batch_first": True, **options})
    return nn.TransformerDecoder(layer, 2, nn.LayerNorm(SIZE))


def transformer(**options: Any) -> nn.Transformer:
    options = {"batch_first": True, **options}
    return nn.Transformer(SIZE, HEADS, 1, 1, 12, custom_encoder=encoder(**options), **options)


TRANSFORMERS: dict[str, tuple[Callable[..., nn.Module], int, list[dict[str, Any]]]] = {
    "encoder layer": (
        encoder_layer,
        1,
        [{}, {"src_key_padding_mask": PADDING}, {"src_mask": CAUSAL, "is_causal": True}, {"src_mask": CAUSAL < 0}],
    ),
    "decoder layer": (
        lambda **options: decoder(**options).layers[0],
        2,
        [{}, {"tgt_key_padding_mask": PADDING, "memory_key_padding_mask": PADDING, "tgt_mask": CAUSAL < 0}],
    ),
    "encoder": (encoder, 1, [{}, {"src_key_padding_mask": PADDING}, {"mask": CAUSAL}]),
    "decoder": (
        decoder,
        2,
        [{}, {"tgt_mask": CAUSAL, "tgt_is_causal": True}, {"memory_key_padding_mask": PADDING, "tgt_mask": CAUSAL < 0}],
    ),
    "transformer": (
        transformer,
        2,
        [{}, {"src_key_padding_mask": PADDING, "tgt_mask": CAUSAL < 0, "memory_key_padding_mask": PADDING}],
    ),
}
OPTIONS = [{}, {"norm_first": True}, {"activation": "gelu", "bias": False}, {"batch_first": False}]


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("make", "inputs", "calls"), TRANSFORMERS.values(), ids=TRANSFORMERS.keys())
def test_transformers_without_noise_are_the_digital_ones(
    make: Callable[..., nn.Module], inputs: int, calls: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    """Every answer, at padded places too, which torch's encoder sets to 0 in eval without gradients."""
    model = make(**options)
    analog = exact(model)
    matrices = {name for name, value in model.named_parameters() if name.endswith("weight") and value.ndim == 2}
    assert len(matrices_of(analog)) == len(matrices) + 2 * sum("in_proj" in name for name in matrices)
    x = torch.randn(inputs, *((3, 5) if options.get("batch_first", True) else (5, 3)), SIZE)
    for rest in calls:
        for mode in (True, False):
            answers = []
            for module in (model, analog):
                torch.manual_seed(1)
                answers.append(module.train(mode)(*x, **rest))
            close(answers[1], answers[0])
        for context in (torch.no_grad, torch.inference_mode):
            with context():
                close(analog(*x, **rest), model(*x, **rest))


def test_an_encoder_layer_takes_nested_tensors_as_in_torch() -> None:
    model = encoder_layer().eval()
    analog = exact(model)
    nested = torch.nested.nested_tensor([torch.randn(3, SIZE), torch.randn(5, SIZE)])
    with torch.no_grad():
        mine, theirs = analog(nested), model(nested)
    assert mine.is_nested
    close(mine.to_padded_tensor(0.0), theirs.to_padded_tensor(0.0))
    with pytest.raises(AssertionError, match="nested tensor without masks"):
        analog(nested, src_key_padding_mask=PADDING)


def test_the_digital_layer_keeps_its_kernel() -> None:
    model = encoder_layer()
    analog = analogsim.convert(model, "gaussian")
    assert analog.activation_relu_or_gelu == 0
    plain = analogsim.to_digital(analog)
    assert plain.activation_relu_or_gelu == model.activation_relu_or_gelu == 1
    assert type(plain) is nn.TransformerEncoderLayer
    stack = analogsim.convert(encoder(), {"layers.0.*": None, "*": "gaussian"})
    assert [type(layer) is nn.TransformerEncoderLayer for layer in stack.layers] == [True, False]
    assert stack.layers[0].activation_relu_or_gelu == 1


class Doubled(nn.TransformerEncoderLayer):
    """A subclass whose forward ends in torch's."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = 2 * super().forward(*args, **kwargs)
        return output


@torch.no_grad()
def test_a_subclass_of_the_encoder_layer_calls_its_layers_too() -> None:
    model = nn.TransformerEncoder(Doubled(SIZE, HEADS, 12, batch_first=True), 2).eval()
    x = torch.randn(3, 5, SIZE)
    noisy, analog = analogsim.convert(model, Gaussian(0.3)), exact(model)
    analogsim.program(noisy)
    for rest in ({}, {"src_key_padding_mask": PADDING}):
        seen = ~PADDING if rest else torch.ones_like(PADDING)
        close(analog(x, **rest)[seen], model(x, **rest)[seen])
        assert (noisy(x, **rest) - model(x, **rest))[seen].abs().max() > 0.05


# --- every matrix is seen (traps 8 and 9) ---------------------------------------------------------------------------


def moved(analog: nn.Module, matrix: AnalogMatrix, answer: Callable[[], Tensor]) -> float:
    """How far an answer moves when what the chip holds of one matrix does."""
    before = answer()
    chip = matrix.analog.chip
    assert chip is not None
    kept = chip._weight
    chip._weight = kept + 0.3 * torch.randn(kept.shape, generator=torch.Generator().manual_seed(1))
    try:
        return float((answer() - before).detach().abs().max())
    finally:
        chip._weight = kept


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("make", [encoder_layer, encoder], ids=["layer", "encoder"])
def test_trap_08_each_matrix_of_the_chip_moves_the_answer(
    make: Callable[[], nn.Module], padded: bool, context: Callable[[], Any]
) -> None:
    analog = analogsim.convert(make(), "gaussian").eval()
    analogsim.program(analog)
    x = torch.randn(3, 5, SIZE)
    rest = {"src_key_padding_mask": PADDING} if padded else {}
    matrices = matrices_of(analog)
    assert len(matrices) == (6 if make is encoder_layer else 12)
    with context():
        for matrix in matrices:
            assert moved(analog, matrix, lambda: analog(x, **rest)[~PADDING]) > 1e-3, matrix.analog.name


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("wide", [False, True])
@torch.no_grad()
def test_trap_09_each_projection_of_the_chip_moves_the_answer(wide: bool, need_weights: bool) -> None:
    model = attention(batch_first=True, kdim=6 if wide else None, vdim=7 if wide else None)
    analog = analogsim.convert(model, "gaussian").eval()
    analogsim.program(analog)
    x = torch.randn(3, 5, SIZE)
    inputs = x, x[..., : model.kdim], x[..., : model.vdim]
    matrices = {matrix.analog.name: matrix for matrix in matrices_of(analog)}
    assert matrices.keys() == {*QKV, "out_proj"}
    for matrix in matrices.values():
        assert moved(analog, matrix, lambda: analog(*inputs, PADDING, need_weights)[0]) > 1e-2
    if need_weights:
        scores = {name: moved(analog, matrix, lambda: analog(*inputs)[1]) for name, matrix in matrices.items()}
        assert scores["q_proj"] > 1e-2
        assert scores["k_proj"] > 1e-2
        assert scores["v_proj"] == scores["out_proj"] == 0


@pytest.mark.parametrize("device", ["gaussian", "pcm", "read-noise"])
def test_training_draws_anew_and_reaches_every_weight(device: str) -> None:
    model = attention()
    analog = analogsim.convert(model, device)
    x = torch.randn(5, 3, SIZE)
    first, second = analog(x, x, x)[0], analog(x, x, x)[0]
    assert (first - second).abs().max() > 1e-3
    first.square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())


# --- which matrices -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ({"*.k_proj": None, "*": "pcm"}, {"q_proj", "v_proj", "out_proj"}),
        ({"attn.out_proj": None, "*": "pcm"}, set(QKV)),
        ({"attn.out_proj": "pcm", "*": None}, {"out_proj"}),
        ({"attn.v_proj": "pcm", "*": None}, {"v_proj"}),
        ({"attn": "pcm"}, set(QKV)),
        ({"attn*": "pcm"}, {*QKV, "out_proj"}),
    ],
)
@pytest.mark.filterwarnings("ignore::analogsim.ConversionWarning")
@torch.no_grad()
def test_patterns(patterns: dict[str, str | None], names: set[str]) -> None:
    model = nn.ModuleDict({"attn": attention(batch_first=True)}).eval()
    analog = analogsim.convert(model, patterns)
    assert {matrix.analog.name for matrix in matrices_of(analog)} == {f"attn.{name}" for name in names}
    analogsim.program(analog)
    x = torch.randn(3, 5, SIZE)
    for matrix in matrices_of(analog):
        assert moved(analog, matrix, lambda: analog["attn"](x, x, x)[0]) > 1e-2
    clean = exact(model, {pattern: None if device is None else CLEAN["signed"] for pattern, device in patterns.items()})
    close(clean["attn"](x, x, x), model["attn"](x, x, x))


def test_what_stays_digital_is_told() -> None:
    with pytest.warns(ConversionWarning, match="attn.out_proj"):
        analogsim.convert(nn.ModuleDict({"attn": attention()}), {"attn.q_proj": "pcm", "attn.[kv]_proj": None})


@pytest.mark.parametrize("wide", [False, True])
def test_summary_counts_each_part_once(wide: bool) -> None:
    model = nn.Sequential(attention(kdim=SIZE + 2 if wide else None, vdim=SIZE + 4 if wide else None))
    table = analogsim.summary(analogsim.convert(model, {"0.k_proj": None, "*": "pcm"}))
    rows = {row.name: row for row in table.rows}
    assert rows.keys() == {"0.q_proj", "0.v_proj", "0.out_proj", "0"}
    k, v = (SIZE + 2, SIZE + 4) if wide else (SIZE, SIZE)
    assert [rows[name].parameters for name in rows] == [
        SIZE * (SIZE + 1),
        SIZE * (v + 1),
        SIZE * (k + 1),
        SIZE * (SIZE + 1),
    ]
    assert rows["0.v_proj"].shape == (SIZE, v)
    assert [rows[name].analog for name in rows] == [True, True, False, True]
    assert sum(row.share for row in table.rows) == pytest.approx(1)


# --- converters, read noise and time --------------------------------------------------------------------------------

CROSSBARS: dict[str, str | Crossbar] = {
    "dynamic": Crossbar(dac_bits=8, adc_bits=8),
    "calibrated": Crossbar(rows=5, dac_bits=8, adc_bits=8, input_range="calibrated", output_bound="calibrated"),
    "learned": Crossbar(dac_bits=8, input_range="learned"),
    "standard": "standard",
}


@pytest.mark.parametrize("crossbar", CROSSBARS.values(), ids=CROSSBARS.keys())
def test_converters_in_training_and_on_a_chip(crossbar: str | Crossbar) -> None:
    model = encoder_layer(dropout=0.0)
    analog = analogsim.convert(model, "gaussian", crossbar=crossbar)
    x = torch.randn(3, 5, SIZE)
    analogsim.calibrate(analog, [x])
    output = analog(x, src_key_padding_mask=PADDING)
    output[~PADDING].square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert model.self_attn.in_proj_weight.grad.abs().amax(1).min() > 0
    states = [matrix.analog for matrix in matrices_of(analog)]
    if crossbar != "standard" and cast(Crossbar, crossbar).needs_range:
        assert all(state.input_range is not None for state in states)
        ranges = [float(state.input_range.detach().max()) for state in states[:3] if state.input_range is not None]
        assert ranges[0] == ranges[1] == ranges[2] == pytest.approx(float(x.abs().max()), rel=0.01)
    analogsim.program(analog)
    analog.eval()
    with torch.no_grad():
        error = (analog(x, src_key_padding_mask=PADDING) - model.eval()(x, src_key_padding_mask=PADDING))[~PADDING]
    assert 1e-3 < error.abs().max() < 2


def test_many_bits_are_no_converters() -> None:
    model = attention(batch_first=True).eval()
    fine = Crossbar(dac_bits=20, adc_bits=20, output_bound=100.0)
    analog = analogsim.convert(model, CLEAN["pair"], crossbar=fine)
    analogsim.program(analog)
    x = torch.randn(3, 5, SIZE)
    for mode in (True, False):
        torch.testing.assert_close(analog.train(mode)(x, x, x, PADDING), model(x, x, x, PADDING), rtol=0, atol=1e-3)


@torch.no_grad()
def test_read_noise_is_new_in_each_use_and_of_each_projection() -> None:
    analog = analogsim.convert(attention(), "read-noise").eval()
    analogsim.program(analog)
    x = torch.randn(5, 3, SIZE)
    first, second = analog(x, x, x)[0], analog(x, x, x)[0]
    assert (first - second).abs().max() > 1e-3
    analogsim.program(analog)
    assert torch.equal(analog(x, x, x)[0], first)
    drawn = [analog.draw_of(label) for label in QKV]
    assert all(draw.plain is None for draw in drawn)
    assert not torch.equal(drawn[0](x), drawn[0](x))


@torch.no_grad()
def test_a_chip_ages_and_comes_back_from_a_file(tmp_path: Path) -> None:
    model = encoder()
    analog = analogsim.convert(model, "pcm").eval()
    analogsim.program(analog, seed=3)
    x = torch.randn(3, 5, SIZE)

    def answer(twin: nn.Module = analog) -> Tensor:
        output: Tensor = twin(x, src_key_padding_mask=PADDING)
        return output

    young = answer()
    analogsim.drift(analog, "1y")
    old = answer()
    assert (old - young).abs().max() > 1e-3
    analogsim.save_chip(analog, tmp_path / "chip")
    again = analogsim.convert(model, "pcm").eval()
    analogsim.load_chip(again, tmp_path / "chip")
    assert torch.equal(answer(again), old)
    analogsim.drift(again, 0)
    assert torch.equal(answer(again), young)
    analogsim.erase(again)
    with pytest.raises(analogsim.NotProgrammedError, match=r"layers\.0\.self_attn\.q_proj"):
        answer(again)
    model.layers[0].self_attn.in_proj_weight[SIZE + 1, 2] += 1  # of k_proj
    with pytest.raises(analogsim.StaleChipError, match=r"self_attn\.[qkv]_proj"):
        answer()


# --- state ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wide", [False, True])
def test_to_digital(wide: bool) -> None:
    model = attention(batch_first=True, kdim=6 if wide else None, vdim=7 if wide else None)
    analog = analogsim.convert(model, {"k_proj": None, "*": "pcm"})
    plain = analogsim.to_digital(analog)
    assert type(plain) is nn.MultiheadAttention
    assert "matrices" not in vars(plain)
    assert all(mine is theirs for mine, theirs in zip(plain.parameters(), model.parameters(), strict=True))
    assert repr(plain) == repr(model)
    analogsim.program(analog)
    analogsim.drift(analog, "1d")
    written = analogsim.to_digital(analog, "programmed").eval()
    x = torch.randn(3, 5, SIZE)
    inputs = x, x[..., : model.kdim], x[..., : model.vdim]
    close(written(*inputs), analog.eval()(*inputs))
    assert (written(*inputs)[0] - model.eval()(*inputs)[0]).abs().max() > 1e-3
    kept = dict(zip(QKV, model.in_proj_weight.chunk(3), strict=True)) if not wide else {"k_proj": model.k_proj_weight}
    there = written.in_proj_weight.chunk(3)[1] if not wide else written.k_proj_weight
    assert torch.equal(kept["k_proj"], there)
    assert torch.equal(written.in_proj_bias, model.in_proj_bias)


def test_state_dicts_and_parameters_are_those_of_the_model() -> None:
    model = transformer()
    analog = analogsim.convert(model, "pcm")
    assert list(analog.state_dict()) == list(model.state_dict())
    assert all(mine is theirs for mine, theirs in zip(analog.parameters(), model.parameters(), strict=True))
    torch.manual_seed(1)
    other = transformer()
    analog.load_state_dict(other.state_dict(), strict=True)
    assert torch.equal(
        model.encoder.layers[0].self_attn.in_proj_weight, other.encoder.layers[0].self_attn.in_proj_weight
    )
    other.load_state_dict(analog.state_dict(), strict=True)
    model.double()
    x = torch.randn(2, 3, 5, SIZE, dtype=torch.float64)
    assert analog(*x).dtype == torch.float64


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda twin: pickle.loads(pickle.dumps(twin))])
@pytest.mark.parametrize(
    "make", [encoder_layer, lambda: attention(batch_first=True, kdim=8)], ids=["layer", "attention"]
)
def test_copies_keep_the_chip(make: Callable[[], nn.Module], duplicate: Callable[[Any], Any]) -> None:
    analog = analogsim.convert(make(), "pcm").eval()
    analogsim.program(analog, seed=2)
    x = torch.randn(3, 5, SIZE)
    inputs = (x,) if isinstance(analog, nn.TransformerEncoderLayer) else (x, x, x)
    copied = duplicate(analog)
    close(copied(*inputs), analog(*inputs))
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(1)
    with pytest.raises(analogsim.StaleChipError):
        copied(*inputs)
    analog(*inputs)
    analogsim.program(copied)
    copied.train()(*inputs)


def test_functional_call_takes_other_weights() -> None:
    model, other = attention(), attention()
    analog, twin = analogsim.convert(model, "pcm"), analogsim.convert(other, "pcm")
    x = torch.randn(5, 3, SIZE)
    torch.manual_seed(2)
    called = functional_call(analog, dict(other.named_parameters()), (x, x, x))
    torch.manual_seed(2)
    close(called, twin(x, x, x))
    analogsim.program(analog)
    analog.eval()
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    close(functional_call(analog, weights, (x, x, x)), analog(x, x, x))
    with pytest.raises(analogsim.StaleChipError):
        functional_call(analog, dict(other.named_parameters()), (x, x, x))


class Renamed(nn.MultiheadAttention):
    """A subclass without a forward of its own."""


def test_a_subclass_without_a_forward() -> None:
    analog = analogsim.convert(Renamed(SIZE, HEADS), "pcm")
    assert isinstance(analog, AnalogMultiheadAttention)
    assert isinstance(analog, Renamed)
    assert len(matrices_of(pickle.loads(pickle.dumps(analog)))) == 4


class Rotated(nn.MultiheadAttention):
    """A subclass that prepares its inputs, as rotary embeddings do, and ends in torch's forward."""

    def forward(self, query: Tensor, *rest: Any, **more: Any) -> Any:
        turned = torch.cat([-query[..., 1:], query[..., :1]], -1)
        return super().forward(turned, turned, query, *rest, **more)


def test_a_subclass_that_ends_in_the_forward_of_torch() -> None:
    torch.manual_seed(0)
    model = Rotated(SIZE, HEADS, dropout=0.0)
    x = torch.randn(4, 2, SIZE)
    silent = exact(model).train()
    wanted, got = model(x), silent(x)
    torch.testing.assert_close(got, wanted)
    slopes = [torch.autograd.grad(each[0].square().sum(), list(model.parameters())) for each in (got, wanted)]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-5)
    noisy = analogsim.convert(model, "gaussian(std=0.3)")
    analogsim.program(noisy, seed=1)
    answer = noisy.eval()(x)[0]
    assert (answer - wanted[0]).abs().max() > 1e-2
    report = analogsim.audit(noisy, x)
    assert report.passed
    assert {row.name for row in report.rows} == {"q_proj", "k_proj", "v_proj", "out_proj"}
    plain = analogsim.to_digital(noisy, "programmed")
    assert type(plain) is Rotated
    torch.testing.assert_close(plain(x)[0], answer)
    torch.testing.assert_close(pickle.loads(pickle.dumps(noisy))(x)[0], answer)


class Joined(nn.MultiheadAttention):
    """A subclass that takes the products with its weights by itself, all three in one."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        joint = torch.nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = (each.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for each in joint.chunk(3, -1))
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out_proj(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Handed(nn.MultiheadAttention):
    """A subclass that hands its weights to torch's functional attention, with keys of their own."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        weights = (self.in_proj_weight, self.in_proj_bias, None, None, False, 0.0)
        turned = x.transpose(0, 1)
        output, _ = torch.nn.functional.multi_head_attention_forward(
            turned, turned.flip(0), turned, SIZE, self.num_heads, *weights, self.out_proj.weight, self.out_proj.bias
        )
        return output.transpose(0, 1)


@pytest.mark.parametrize("kind", [Joined, Handed])
def test_a_subclass_that_takes_its_products_by_itself(kind: type[nn.MultiheadAttention]) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(kind(SIZE, HEADS)).double(), torch.randn(2, 5, SIZE, dtype=torch.float64)
    nn.init.normal_(model[0].in_proj_bias)
    silent = exact(model).train()
    wanted, got = model(x), silent(x)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    slopes = [torch.autograd.grad(each.square().sum(), list(model.parameters())) for each in (got, wanted)]
    torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-10)
    noisy = analogsim.convert(model, "gaussian(std=0.3)")
    analogsim.program(noisy, seed=1)
    assert (noisy.eval()(x) - wanted).abs().max() > 1e-2
    report = analogsim.audit(noisy, x)
    assert report.passed
    assert {row.name for row in report.rows} == {f"0.{name}_proj" for name in ("q", "k", "v", "out")}
    torch.testing.assert_close(analogsim.to_digital(noisy, "programmed")(x), noisy(x))


# --- precision and compilation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_autocast_gives_the_types_of_the_digital_module(training: bool, need_weights: bool) -> None:
    model = attention(batch_first=True, add_zero_attn=True).train(training)
    analog = exact(model).train(training)
    x = torch.randn(3, 5, SIZE)
    with torch.autocast("cpu", torch.bfloat16):
        mine, theirs = (module(x, x, x, PADDING, need_weights) for module in (analog, model))
    assert mine[0].dtype == theirs[0].dtype == torch.bfloat16
    torch.testing.assert_close(mine, theirs, rtol=0.05, atol=0.05)
    noisy = analogsim.convert(model, "pcm").train()
    with torch.autocast("cpu", torch.bfloat16):
        noisy(x, x, x, PADDING, need_weights)[0].float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions(dtype: torch.dtype) -> None:
    model = encoder_layer(dropout=0.0).to(dtype)
    analog = exact(model)
    x = torch.randn(3, 5, SIZE, dtype=dtype)
    tolerance = 1e-10 if dtype == torch.float64 else 0.1
    for mode in (True, False):
        mine, theirs = (module.train(mode)(x, src_key_padding_mask=PADDING) for module in (analog, model))
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)
    noisy = analogsim.convert(model, "pcm").train()
    assert noisy(x).dtype == dtype
    analogsim.program(noisy)
    assert noisy.eval()(x).dtype == dtype


COMPILED: dict[str, tuple[Callable[[], nn.Module], str, int, dict[str, Any]]] = {
    "attention": (lambda: attention(batch_first=True), "pcm", 3, {"attn_mask": CAUSAL < 0, "need_weights": False}),
    "more keys": (
        lambda: attention(add_bias_kv=True, batch_first=True, kdim=8),
        "read-noise",
        3,
        {"key_padding_mask": PADDING},
    ),
    "encoder": (encoder, "gaussian", 1, {"src_key_padding_mask": PADDING}),
    "decoder layer": (lambda: decoder().layers[0], "gaussian", 2, {"tgt_mask": CAUSAL, "tgt_is_causal": True}),
}


@pytest.mark.parametrize(("make", "device", "inputs", "rest"), COMPILED.values(), ids=COMPILED.keys())
@pytest.mark.filterwarnings("ignore::analogsim.ConversionWarning")
def test_trap_13_one_graph_in_training_and_eval(
    make: Callable[[], nn.Module], device: str, inputs: int, rest: dict[str, Any]
) -> None:
    analog = analogsim.convert(make(), device)
    graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, example: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    def first(output: Any) -> Tensor:
        answer: Tensor = output[0] if isinstance(output, tuple) else output
        return answer

    torch._dynamo.reset()
    compiled = torch.compile(analog, backend=backend, fullgraph=True)
    x = torch.randn(3, 5, SIZE)
    for _ in range(2):
        first(compiled(*[x] * inputs, **rest)).square().sum().backward()
    assert len(graphs) == 1
    assert all(parameter.grad.isfinite().all() for parameter in analog.parameters())
    analogsim.program(analog)
    analog.eval()
    with torch.no_grad():
        answer = first(compiled(*[x] * inputs, **rest))
    assert len(graphs) == 2
    if device != "read-noise":
        close(answer, first(analog(*[x] * inputs, **rest)))
    torch._dynamo.reset()
