"""Tables on crossbars: a lookup reads one word line; an ideal chip answers as torch does."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar, DeviceModel, Effect, Gaussian, Mapping, ReadNoise, StuckAt
from analogsim.inspection.carrying import audit
from analogsim.layers import AnalogEmbedding, AnalogEmbeddingBag, register_routed
from tests.hardware import LARGE, Exact

CUT = LARGE.replace(rows=3, cols=10)
PERIPHERIES = pytest.mark.parametrize("periphery", [Crossbar(), Crossbar(rows=3), LARGE, CUT], ids=str)


@dataclass(frozen=True)
class Flicker(Effect):
    """Read noise that differs from cell to cell."""

    def read_std(self, g: Tensor, cells: Any) -> Tensor:
        return 0.05 * g


IDEAL = DeviceModel((Exact(),))


def convert(model: nn.Module, device: Any = IDEAL, crossbar: Crossbar | None = None) -> nn.Module:
    """The twin, with a chip."""
    analog = analogsim.convert(model, device, crossbar=crossbar or Crossbar(), embeddings=True)
    analogsim.program(analog, seed=1)
    return analog


def table(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return nn.Embedding(11, 5, **options).double()


def bag(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return nn.EmbeddingBag(11, 5, **options).double()


def tokens() -> Tensor:
    return torch.tensor([[0, 3, 10], [3, 3, 7]])


def gradients(output: Tensor, model: nn.Module) -> tuple[Tensor, ...]:
    return torch.autograd.grad(output.square().sum(), list(model.parameters()))


def test_tables_stay_digital_unless_asked_for() -> None:
    model = nn.Sequential(table(), nn.Linear(5, 2).double())
    analog = analogsim.convert(model, "pcm")
    assert type(analog[0]) is nn.Embedding
    (row, _) = analogsim.summary(analog).rows
    assert row.device == "a table that is looked up (convert(..., embeddings=True))"
    analog = analogsim.convert(model, "pcm", embeddings=True)
    assert type(analog[0]) is AnalogEmbedding
    (row, _) = analogsim.summary(analog).rows
    assert (row.shape, row.parameters, row.cells) == ((5, 11), 55, 110)  # (features, entries), in pairs


@pytest.mark.parametrize("cells", ["pair", "offset", "signed"])
@pytest.mark.parametrize("scale", ["column", "crossbar", "tensor"])
@PERIPHERIES
@pytest.mark.parametrize("kind", [table, bag])
def test_ideal_is_digital(cells: str, scale: str, periphery: Crossbar, kind: Callable[..., nn.Module]) -> None:
    """In training and on a chip, with its gradients, for every mapping, whatever the table is cut into."""
    model, x = kind(), tokens()
    wanted = model(x)
    slopes = gradients(wanted, model)
    kinds = [(1, 1, 0)] if cells == "signed" else [(1, 1, 2), (3, 1, 0), (2, 2, 1)]
    for slices, copies, bias_rows in kinds:
        mapping = Mapping(cells, scale, slices=slices, copies=copies, bias_rows=bias_rows)  # type: ignore[arg-type]
        effect = Gaussian(std=0.0) if cells == "signed" else Exact()
        analog = convert(model, DeviceModel((effect,), g_min=1.0, mapping=mapping), periphery)
        trained = analog.train()(x)
        torch.testing.assert_close(trained, wanted, rtol=1e-12, atol=1e-12)
        for ours, theirs in zip(gradients(trained, model), slopes, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(analog.eval()(x), wanted, rtol=1e-12, atol=1e-12)
        plain = analogsim.to_digital(analog, "programmed")
        torch.testing.assert_close(plain(x), wanted, rtol=1e-12, atol=1e-12)


@PERIPHERIES
@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 4), (0, 3)])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_any_shape_of_indices(periphery: Crossbar, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    model, x = table(), torch.randint(11, shape, dtype=dtype)
    analog = convert(model, crossbar=periphery)
    for mode in (True, False):
        torch.testing.assert_close(analog.train(mode)(x), model(x))


@PERIPHERIES
@pytest.mark.parametrize("row", ["zeros", "set"])
def test_padding_is_not_read(periphery: Crossbar, row: str) -> None:
    """Its row answers digitally, without noise, and gets no gradient; as in torch it may be set to something."""
    model, x = table(padding_idx=3), tokens()
    if row == "set":
        with torch.no_grad():
            model.weight[3] = 7.0
    crossbar = periphery.replace(output_noise=0.1) if periphery.converts else periphery
    analog = convert(model, [Gaussian(0.1), ReadNoise(0.1)], crossbar)
    for mode in (True, False):
        answer = analog.train(mode)(x)
        assert torch.equal(answer[x == 3], model(x)[x == 3])
        assert not torch.isclose(answer[x != 3], model(x)[x != 3]).any()
    (slope,) = gradients(analog.train()(x), model)
    assert not slope[3].any()
    assert slope[[0, 7, 10]].all()


@PERIPHERIES
def test_gradients_by_frequency(periphery: Crossbar) -> None:
    model, x = table(scale_grad_by_freq=True), tokens()
    for ours, theirs in zip(
        gradients(convert(model, crossbar=periphery)(x), model), gradients(model(x), model), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("norm_type", [1.0, 2.0])
@pytest.mark.parametrize("kind", [table, bag])
@PERIPHERIES
def test_long_rows_are_shortened(norm_type: float, kind: Callable[..., nn.Module], periphery: Crossbar) -> None:
    """In training in the Parameter too, as in torch; in eval only what was read, and the chip stays valid."""
    x = tokens()
    reference, model = (kind(max_norm=1.5, norm_type=norm_type) for _ in range(2))
    analog = convert(model, crossbar=periphery)
    before = model.weight.detach().clone()
    torch.testing.assert_close(analog.eval()(x), reference(x))
    assert torch.equal(model.weight, before)
    torch.testing.assert_close(analog.train()(x), reference(x))
    torch.testing.assert_close(model.weight, reference.weight)
    assert not torch.equal(model.weight, before)
    torch.testing.assert_close(gradients(analog(x), model), gradients(reference(x), reference))
    noisy = convert(kind(max_norm=1.5, norm_type=norm_type, **({"mode": "sum"} if kind is bag else {})), Gaussian(0.5))
    lengths = noisy.eval()(x[:, :1] if kind is bag else x).norm(norm_type, -1)
    assert lengths.max() <= 1.5 + 1e-6


def test_sparse_gradients_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the table '1' has sparse=True.*sparse=False"):
        convert(nn.Sequential(nn.Linear(2, 2), table(sparse=True)))
    analogsim.convert(nn.Sequential(nn.Linear(2, 2), table(sparse=True)), "pcm")


@PERIPHERIES
@pytest.mark.parametrize("kind", [table, bag])
def test_read_noise_is_that_of_the_cells_that_are_read(periphery: Crossbar, kind: Callable[..., nn.Module]) -> None:
    """Mean and variance of 4000 lookups; five standard errors. The mean of three entries has a ninth of their sum."""
    model, x = kind(), tokens()[:1]
    analog = convert(model, DeviceModel((Flicker(),)), periphery)
    with torch.no_grad():
        _, variance = analog.analog.chip.weight_for(analog.matrix)
        law = variance.to(torch.float64).t()[:11][x[0]]
        wanted, law = (model(x), law.mean(0, keepdim=True) / 3) if kind is bag else (model(x)[0], law)
        uses = analog.eval()(x.expand(4000, -1))
        if kind is bag:
            uses = uses.unsqueeze(1)
        assert ((uses.var(0) / law - 1) / (2 / 4000) ** 0.5).abs().max() < 5
        assert ((uses.mean(0) - wanted) / (law / 4000).sqrt()).abs().max() < 5


@pytest.mark.parametrize("rows", [None, 4])
def test_converters_see_one_full_scale_line(rows: int | None) -> None:
    """Steps of the output converter are those of bound x largest weight, whatever the input converter is."""
    model, x = table(), torch.arange(11)
    answers = []
    for dac in ({}, {"dac_bits": 2}, {"dac_bits": 8, "bit_serial": True}, {"input_range": 0.3}):
        crossbar = Crossbar(rows=rows, adc_bits=4, output_bound=1.0, **dac)  # type: ignore[arg-type]
        analog = convert(model, crossbar=crossbar)
        answers.append(analog.eval()(x))
        torch.testing.assert_close(analog.train()(x), answers[-1])
    for other in answers[1:]:
        torch.testing.assert_close(other, answers[0])
    weight = model.weight.detach()
    for start, end in analog.analog.layout.rows:
        step = weight[start:end].abs().amax(0) / 7
        torch.testing.assert_close(answers[0][start:end], (weight[start:end] / step).round() * step)


def test_mismatched_converters_and_their_noise() -> None:
    """Each bit line of each block has a converter of its own; its offset is seen in every entry of the block."""
    model, x = table(), torch.arange(11)
    crossbar = Crossbar(rows=4, gain_mismatch=0.1, offset_mismatch=0.1)
    device = DeviceModel((Exact(),), mapping=Mapping("pair", "tensor"))
    analog = convert(model, device, crossbar).eval()
    weight, full = model.weight.detach(), model.weight.detach().abs().max()
    gain, offset = analog.analog.chip.array_for(analog.matrix).converter_errors.values()
    for block, (start, end) in enumerate(analog.analog.layout.rows):
        wanted = weight[start:end] * (1 + gain[0, :, block]) + offset[0, :, block] * full
        torch.testing.assert_close(analog(x)[start:end], wanted, rtol=1e-6, atol=1e-6)
    noisy = convert(model, device, Crossbar(rows=4, output_noise=0.1)).eval()
    spread = noisy(x.expand(4000, -1)).detach().std(0) / (0.1 * full)
    assert ((spread - 1) / (2 * 4000) ** -0.5).abs().max() < 5  # standard errors


def test_calibration_finds_the_bound_of_the_output_converter() -> None:
    model, x = nn.Sequential(table(), nn.Linear(5, 2).double()), torch.arange(11)
    crossbar = Crossbar(dac_bits=12, adc_bits=12, input_range="calibrated", output_bound="calibrated")
    analog = analogsim.convert(model, IDEAL, crossbar=crossbar, embeddings=True)
    with pytest.raises(analogsim.NotCalibratedError, match="'0'"):
        analog(x)
    analogsim.calibrate(analog, [x])
    assert analog[0].analog.output_bound == pytest.approx(1.0)
    assert analog[0].analog.input_range == 1.0
    analogsim.program(analog)
    torch.testing.assert_close(analog.eval()(x), model(x), rtol=0.02, atol=0.02)


def test_stuck_cells_pass_no_gradient() -> None:
    model = table()
    analog = convert(model, StuckAt(p_off=0.0, p_on=1.0))
    (slope,) = gradients(analog.train()(tokens()), model)
    assert not slope.any()


BAGS: list[dict[str, Any]] = [
    {"mode": "sum"},
    {"mode": "mean", "padding_idx": 3},
    {"mode": "max"},
    {"mode": "max", "padding_idx": 3},
    {"mode": "sum", "padding_idx": -1},
    {"mode": "sum", "scale_grad_by_freq": True},
    {"mode": "mean", "include_last_offset": True},
]


@pytest.mark.parametrize("options", BAGS, ids=str)
@PERIPHERIES
def test_bags_as_in_torch(options: dict[str, Any], periphery: Crossbar) -> None:
    """With offsets, an empty bag and bags of fixed length, in all modes; every entry is looked up on its own.

    Gradients are divided by how often an entry is looked up here, by hand: torch 2.11 miscounts in bags.
    """
    model = bag(**options)
    plain = bag(**{**options, "scale_grad_by_freq": False})
    plain.weight = model.weight
    often = tokens().flatten().bincount(minlength=model.num_embeddings).clamp(min=1)
    scale = 1 / often[:, None] if model.scale_grad_by_freq else torch.ones_like(often)[:, None]
    flat, offsets = tokens().flatten(), torch.tensor([0, 2, 2, 6])
    for args in ((tokens(),), (flat, offsets), (flat.int(), offsets.int())):
        if len(args) == 2 and not model.include_last_offset:
            args = (args[0], args[1][:-1])
        analog = convert(model, crossbar=periphery)
        wanted = model(*args)
        torch.testing.assert_close(analog.eval()(*args), wanted)
        trained = analog.train()(*args)
        torch.testing.assert_close(trained, wanted)
        (ours,), (theirs,) = gradients(trained, model), gradients(plain(*args), model)
        torch.testing.assert_close(ours, theirs * scale)


@PERIPHERIES
def test_weights_of_samples(periphery: Crossbar) -> None:
    model, x = bag(mode="sum"), tokens()
    weights = torch.rand(x.shape, dtype=torch.float64, requires_grad=True)
    analog = convert(model, crossbar=periphery)
    for mode in (True, False):
        answer, wanted = analog.train(mode)(x, None, weights), model(x, per_sample_weights=weights)
        torch.testing.assert_close(answer, wanted)
        (ours,), (theirs,) = (torch.autograd.grad(out.square().sum(), [weights]) for out in (answer, wanted))
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_a_bag_pools_the_noisy_lookups_of_the_same_table(mode: str) -> None:
    one, many = table(), bag(mode=mode)
    one.weight = many.weight
    single, pooled = (convert(nn.Sequential(each), "pcm").eval() for each in (one, many))
    wanted = getattr(single(tokens()), {"sum": "sum", "mean": "mean", "max": "amax"}[mode])(1)
    torch.testing.assert_close(pooled(tokens()), wanted)


class Language(nn.Module):
    """A table tied to the output layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(11, 5)
        self.head = nn.Linear(5, 11, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.table(x))
        return output


def test_tied_to_an_output_layer_it_lies_on_two_arrays() -> None:
    model, x = Language().double(), tokens()
    analog = convert(model, Gaussian(0.1))
    assert analog.head.weight is analog.table.weight is model.table.weight
    first, second = (layer.analog.chip.weight_for(layer.matrix)[0] for layer in (analog.table, analog.head))
    assert not torch.allclose(first.t(), second)
    assert audit(analog.eval(), x).passed
    found = analogsim.summary(analog)
    assert [row.analog for row in found.rows] == [True, True]
    assert [row.parameters for row in found.rows] == [55, 0]
    torch.testing.assert_close(analogsim.to_digital(analog, "programmed")(x), analog(x))
    exact = convert(model)
    torch.testing.assert_close(gradients(exact.train()(x), model), gradients(model(x), model))


class Scaled(nn.Embedding):
    """A subclass with a forward of its own, as language models have them."""

    def forward(self, input: Tensor) -> Tensor:
        return 3.0 * super().forward(input + 1)


class Handing(Language):
    """The same, with the weights handed on by itself."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(nn.functional.embedding(x, self.table.weight), self.head.weight)


register_routed(Handing)


@PERIPHERIES
def test_a_lookup_and_a_product_with_one_parameter_meet_two_arrays(periphery: Crossbar) -> None:
    model, x = Handing().double(), tokens()
    torch.testing.assert_close(convert(model, crossbar=periphery)(x), model(x))
    analog = convert(model, Gaussian(0.1)).eval()
    assert audit(analog, x).passed
    torch.testing.assert_close(analogsim.to_digital(analog, "programmed")(x), analog(x))


@PERIPHERIES
def test_a_subclass_with_a_forward_of_its_own_is_followed(periphery: Crossbar) -> None:
    torch.manual_seed(0)
    model, x = Scaled(11, 5, padding_idx=4).double(), tokens() - 1
    x = x.clamp(min=0)
    analog = convert(model, crossbar=periphery)
    for mode in (True, False):
        torch.testing.assert_close(analog.train(mode)(x), model(x))
    assert audit(analog, x).passed
    head = Language().double()
    head.table, head.head.weight = model, model.weight
    torch.testing.assert_close(convert(head, crossbar=periphery)(x), head(x))


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("periphery", [Crossbar(), CUT], ids=["ideal", "converted"])
@pytest.mark.parametrize("kind", [table, bag])
def test_compiled_in_one_graph(mode: bool, periphery: Crossbar, kind: Callable[..., nn.Module]) -> None:
    model, x = kind(padding_idx=3), tokens()
    analog = convert(model, crossbar=periphery).train(mode)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(analog, fullgraph=True, backend="aot_eager")(x), model(x))


def test_autocast_and_half_precision() -> None:
    for kind, made in ((table, AnalogEmbedding), (bag, AnalogEmbeddingBag)):
        for crossbar, dtype in itertools.product((Crossbar(), LARGE), (torch.float32, torch.bfloat16)):
            model = kind().to(dtype)
            analog = convert(model, crossbar=crossbar)
            assert type(analog) is made
            with torch.autocast("cpu", torch.bfloat16):
                for mode in (True, False):
                    answer = analog.train(mode)(tokens())
                    assert answer.dtype == dtype
                    torch.testing.assert_close(answer, model(tokens()))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("crossbar", ["ideal", "standard"])
def test_bags_take_what_torch_takes(crossbar: str) -> None:
    """Nested bags, and indices that torch's kernel makes as wide as the offsets are."""
    layer = nn.EmbeddingBag(7, 4, mode="sum", padding_idx=2)
    analog = analogsim.convert(layer, "gaussian(std=0)", crossbar=crossbar, embeddings=True)
    tolerance = 1e-6 if crossbar == "ideal" else 0.6
    bags = torch.nested.as_nested_tensor([torch.tensor([0, 1, 2]), torch.tensor([6])], layout=torch.jagged)
    torch.testing.assert_close(analog(bags), layer(bags), rtol=0, atol=tolerance)
    weights = torch.nested.nested_tensor_from_jagged(torch.randn(4), bags.offsets())
    wanted = layer(bags, per_sample_weights=weights)
    torch.testing.assert_close(analog(bags, per_sample_weights=weights), wanted, rtol=0, atol=tolerance)
    narrow, offsets = torch.tensor([0, 1, 6], dtype=torch.int16), torch.tensor([0, 2])
    torch.testing.assert_close(analog(narrow, offsets), layer(narrow, offsets), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("device", "crossbar"),
    [
        ("gaussian(std=0.05)", Crossbar()),
        ("gaussian(std=0.0)", Crossbar(output_noise=0.02, output_bound=2.0)),
        ("read-noise(std=0.05)", Crossbar()),
        ("read-noise(std=0.05)", Crossbar(output_bound=2.0)),
    ],
    ids=["written", "output noise", "read", "read, converted"],
)
def test_errors_of_lookups_have_the_variance_of_the_scale_squared(device: str, crossbar: Crossbar) -> None:
    """At half the scale a quarter of the variance, within five standard errors over 24,000 values."""
    torch.manual_seed(0)
    model = nn.Embedding(30, 40)
    analog = analogsim.convert(model, device, crossbar=crossbar, embeddings=True)
    x = torch.arange(30)
    variances = []
    for scale in (1.0, 0.5):
        analogsim.set_noise_scale(analog, scale)
        errors = torch.stack([analog(x).detach() - model(x).detach() for _ in range(20)]).double()
        variances.append(float(errors.square().mean()))
    assert variances[0] > 0
    assert variances[1] / variances[0] == pytest.approx(0.25, rel=5 * 2 / 24_000**0.5)
