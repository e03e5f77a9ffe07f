"""Products with what a forward makes of a weight, on the crossbar that holds it: against the digital ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import analogsim
from analogsim import ConversionWarning, Crossbar, DeviceModel, Gaussian, Mapping, ReadNoise
from analogsim.inspection.carrying import audit
from analogsim.layers import Slot, register_routed
from analogsim.layers.module import matrices_of
from analogsim.testing import LayerContract
from tests.hardware import LARGE, Exact

# Seen with 2.14; the compiler of 2.11 breaks the graph where a forward takes a view of a weight.
COMPILES_VIEWS = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 14)


FINE = Crossbar(dac_bits=20, adc_bits=24, output_bound=50.0, rows=4)
PERIPHERIES = {"ideal": Crossbar(), "converted": LARGE, "cut": LARGE.replace(rows=3)}


class Own(nn.Linear):
    """A fully connected layer ``(4, 6)`` that takes its product in a way of its own."""

    def __init__(self, way: str, bias: bool = True) -> None:
        super().__init__(6, 4, bias=bias)
        self.way = way

    def forward(self, input: Tensor) -> Tensor:
        return LINEAR[self.way](input, self.weight, self.bias)


Way = Callable[[Tensor, Tensor, Tensor], Tensor]

LINEAR: dict[str, Way] = {
    "x @ w.T": lambda x, w, b: x @ w.T,
    "x @ w.t() + b": lambda x, w, b: x.flatten(0, -2) @ w.t() + b,
    "x @ w.mT": lambda x, w, b: x @ w.mT,
    "transpose": lambda x, w, b: x @ w.transpose(0, 1),
    "transpose by name": lambda x, w, b: torch.matmul(input=x, other=torch.transpose(w, -2, -1)),
    "permute": lambda x, w, b: torch.matmul(x, w.permute(1, 0)),
    "swapaxes": lambda x, w, b: x.matmul(w.swapaxes(0, 1)) + b,
    "rmatmul": lambda x, w, b: x.__matmul__(w.T),
    "mm": lambda x, w, b: torch.mm(x.flatten(0, -2), w.t()),
    "mm by name": lambda x, w, b: x.flatten(0, -2).mm(mat2=w.t()),
    "mm from the left": lambda x, w, b: torch.mm(w, x.flatten(0, -2).t()),
    "from the left": lambda x, w, b: w @ x.mT,
    "from the left with a bias": lambda x, w, b: w @ x.transpose(1, 2) + b[:, None],
    "mv": lambda x, w, b: torch.mv(w, x[0, 0]),
    "matmul with a vector": lambda x, w, b: w @ x[0, 1],
    "vector with matmul": lambda x, w, b: x[0, 1] @ w.T,
    "addmm": lambda x, w, b: torch.addmm(b, x.flatten(0, -2), w.t()),
    "addmm with factors": lambda x, w, b: torch.addmm(b, x.flatten(0, -2), w.t(), beta=0.5, alpha=2),
    "addmm as a method": lambda x, w, b: b.expand(6, -1).addmm(x.flatten(0, -2), w.t()),
    "addmm without a bias": lambda x, w, b: torch.addmm(b, x.flatten(0, -2), w.t(), beta=0),
    "addmv": lambda x, w, b: torch.addmv(b, w, x[0, 0]),
    "bmm": lambda x, w, b: torch.bmm(x, w.t().expand(2, -1, -1)),
    "bmm from the left": lambda x, w, b: torch.bmm(w.expand(2, -1, -1), x.mT),
    "baddbmm": lambda x, w, b: torch.baddbmm(b, x, w.t().unsqueeze(0).expand(2, 6, 4)),
    "addbmm": lambda x, w, b: torch.addbmm(b, x, w.t().expand(2, 6, 4)),
    "einsum": lambda x, w, b: torch.einsum("bti,oi->bto", x, w),
    "einsum with spaces": lambda x, w, b: torch.einsum("... i, o i -> ... o", x, w) + b,
    "einsum from the left": lambda x, w, b: torch.einsum("oi,bti->obt", w, x),
    "einsum implicit": lambda x, w, b: torch.einsum("bti,oi", x, w),
    "einsum of a list": lambda x, w, b: torch.einsum("bti,oi->tob", [x, w]),
    "einsum that sums": lambda x, w, b: torch.einsum("bti,oi->bo", x, w),
    "einsum that sums outputs": lambda x, w, b: torch.einsum("bti,oi->bt", x, w),
    "einsum of three": lambda x, w, b: torch.einsum("bti,bt,oi->bo", x, x.sum(-1), w),
    "tensordot": lambda x, w, b: torch.tensordot(x, w, dims=([2], [1])),
    "tensordot from the left": lambda x, w, b: torch.tensordot(w, x.permute(2, 0, 1), 1),
    "inner": lambda x, w, b: torch.inner(x, w),
    "linear of a slice": lambda x, w, b: functional.linear(x, w[:3], b[:3]),
    "linear of the end": lambda x, w, b: functional.linear(x, w[2:]),
    "linear of rows apart": lambda x, w, b: functional.linear(x, w[::2], b[1::2]),
    "linear of some columns": lambda x, w, b: functional.linear(x[..., :4], w[:, 1:5], b),
    "linear of columns apart": lambda x, w, b: functional.linear(x[..., :3], w[:, ::2], b),
    "linear of a row": lambda x, w, b: functional.linear(x, w[2]),
    "chunks": lambda x, w, b: torch.cat([functional.linear(x, part) for part in w.chunk(2)], -1) + b,
    "split by columns": lambda x, w, b: sum(
        part @ own.T for part, own in zip(x.split(2, -1), w.split(2, 1), strict=True)
    ),
    "unbound": lambda x, w, b: torch.stack([x @ row for row in w.unbind()], -1),
    "all by view": lambda x, w, b: functional.linear(x, w.view(-1).view(4, 6), b),
    "contiguous": lambda x, w, b: x @ w.t().contiguous().view(6, 4),
    "casts": lambda x, w, b: (x.float() @ w.to(torch.float32).T).double(),
    "input's dtype": lambda x, w, b: functional.linear(x.float(), w.type_as(x.float()), b.float()).double(),
    "detached": lambda x, w, b: x @ w.detach().T + b,
    "heads": lambda x, w, b: torch.einsum("bti,hdi->bthd", x, w.view(2, 2, 6)),
    "heads the other way": lambda x, w, b: torch.einsum("bti,hdi->btdh", x, w.unflatten(0, (2, 2))),
    "a head each": lambda x, w, b: torch.einsum("bti,bdi->btd", x, w.view(2, 2, 6)),
    "a head each by bmm": lambda x, w, b: torch.bmm(x, w.view(2, 2, 6).mT),
    "a head each, viewed": lambda x, w, b: torch.bmm(x, w.view(2, 2, 6).mT).view(-1, 2),
    "from the left, viewed": lambda x, w, b: torch.matmul(w, x.mT).view(2, -1),
    "a head each by matmul": lambda x, w, b: x @ w.view(2, 2, 6).transpose(1, 2),
    "a head each, broadcast": lambda x, w, b: x.unsqueeze(1) @ w.view(2, 2, 6).transpose(1, 2),
    "columns in two axes": lambda x, w, b: torch.einsum("btij,oij->bto", x.view(2, 3, 2, 3), w.view(4, 2, 3)),
    "columns in other order": lambda x, w, b: x @ w.view(4, 2, 3).transpose(1, 2).flatten(1).T,
    "rows in other order": lambda x, w, b: functional.linear(x, w.view(2, 2, 6).transpose(0, 1).reshape(4, 6), b),
    "as a convolution": lambda x, w, b: functional.conv1d(x.mT, w.unsqueeze(-1), b),
    "as a convolution in groups": lambda x, w, b: functional.conv1d(x.repeat(1, 1, 2).mT, w.unsqueeze(-1), b, groups=2),
    "as a wider kernel": lambda x, w, b: functional.conv1d(x[..., :2].mT, w.view(4, 2, 3), b, padding=1),
    "as a transposed convolution": lambda x, w, b: functional.conv_transpose1d(
        x[..., :2].mT, w.view(4, 2, 3).transpose(0, 1)
    ),
    "beside a norm": lambda x, w, b: functional.linear(x, w, b) / w.norm(),
    "twice": lambda x, w, b: functional.linear(x, w, b) + x @ w.T,
}


class OwnConvolution(nn.Conv2d):
    """A convolution ``(6, 2, 3, 3)`` in two groups, or ``(6, 4, 3, 3)``, taken in a way of its own."""

    def __init__(self, way: str) -> None:
        super().__init__(4, 6, 3, groups=2 if "groups" in way else 1)
        self.way = way

    def forward(self, input: Tensor) -> Tensor:
        return CONVOLUTIONS[self.way](input, self.weight, self.bias)


def unfolded(x: Tensor) -> Tensor:
    return functional.unfold(x, 3)


CONVOLUTIONS: dict[str, Way] = {
    "cast": lambda x, w, b: functional.conv2d(x.float(), w.float(), b.float(), padding=1).double(),
    "cast, in groups": lambda x, w, b: functional.conv2d(
        x.float(), w.to(torch.float32), b.float(), 2, groups=2
    ).double(),
    "slimmed": lambda x, w, b: functional.conv2d(x[:, :2], weight=w[:3, :2], bias=b[:3]),
    "slimmed kernel": lambda x, w, b: functional.conv2d(x, w[..., 1:2, :], b),
    "half of the groups": lambda x, w, b: functional.conv2d(x[:, :2], w[:3], b[:3]),
    "unfolded": lambda x, w, b: w.flatten(1) @ unfolded(x) + b[:, None],
    "unfolded, channels last": lambda x, w, b: (
        x.permute(0, 2, 3, 1).unfold(1, 3, 1).unfold(2, 3, 1).permute(0, 1, 2, 4, 5, 3).flatten(3)
        @ w.permute(2, 3, 1, 0).reshape(-1, 6)
    ),
    "the middle as a product": lambda x, w, b: torch.einsum("bchw,oc->bohw", x, w[:, :, 1, 1]),
    "a kernel of one dimension": lambda x, w, b: functional.conv1d(x[:, :, 0], w[:, :, 1], b),
    "in groups, by einsum": lambda x, w, b: torch.einsum(
        "bgcl,gocl->bgo", x.view(2, 2, 2, -1)[..., :9], w.view(2, 3, 2, 9)
    ),
}


class OwnTransposed(nn.ConvTranspose2d):
    """A transposed convolution whose kernel is cast, and sliced."""

    def __init__(self, way: str) -> None:
        super().__init__(4, 6, 3, groups=2 if "groups" in way else 1)
        self.way = way

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        return TRANSPOSED[self.way](input, self.weight, self.bias)


TRANSPOSED: dict[str, Way] = {
    "cast": lambda x, w, b: functional.conv_transpose2d(x.float(), w.float(), b.float(), 2, padding=1).double(),
    "cast, in groups": lambda x, w, b: functional.conv_transpose2d(
        x.float(), w.float(), b.float(), 2, groups=2
    ).double(),
    "sliced": lambda x, w, b: functional.conv_transpose2d(x[:, :2], w[:2, 1:4], b[1:4], stride=2, output_padding=1),
    "turned": lambda x, w, b: functional.conv2d(x, w.transpose(0, 1), b),
}

MADE: dict[str, Callable[[], nn.Module]] = {
    **{f"linear: {way}": lambda way=way: Own(way) for way in LINEAR},  # type: ignore[misc]
    **{f"conv: {way}": lambda way=way: OwnConvolution(way) for way in CONVOLUTIONS},  # type: ignore[misc]
    **{f"transposed: {way}": lambda way=way: OwnTransposed(way) for way in TRANSPOSED},  # type: ignore[misc]
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    shape = (2, 3, 6) if name.startswith("linear") else (2, 4, 5, 5)
    return MADE[name]().double(), torch.randn(shape, dtype=torch.float64, requires_grad=True)


def gradients(output: Tensor, model: nn.Module, x: Tensor) -> list[Tensor | None]:
    return list(torch.autograd.grad(output.square().sum(), [x, *model.parameters()], allow_unused=True))


def compare(got: list[Tensor | None], wanted: list[Tensor | None], tolerance: float) -> None:
    for ours, theirs in zip(got, wanted, strict=True):
        # A bias that the forward leaves out is on the crossbar, and subtracted again: 0 and nothing are one.
        ours = ours if ours is not None else torch.zeros_like(theirs) if theirs is not None else None
        if ours is not None:
            other = torch.zeros_like(ours) if theirs is None else theirs
            torch.testing.assert_close(ours, other, rtol=tolerance, atol=tolerance)


def tolerance_of(name: str) -> float:
    return 1e-5 if "cast" in name or "dtype" in name else 1e-10


def slow_unless(kept: bool, *values: Any) -> Any:
    return pytest.param(*values, marks=() if kept else pytest.mark.slow)


@pytest.mark.parametrize(
    ("bias_rows", "periphery"),
    [slow_unless((rows, kind) == (1, "cut"), rows, kind) for rows in (0, 1) for kind in PERIPHERIES],
)
@pytest.mark.parametrize("name", MADE)
@pytest.mark.filterwarnings("ignore:The use of `x.T`")
def test_without_noise_it_is_the_digital_product(name: str, bias_rows: int, periphery: str) -> None:
    model, x = made(name)
    wanted = model(x)
    slopes = gradients(wanted, model, x)
    device = DeviceModel((Exact(),), mapping=Mapping("pair", bias_rows=bias_rows))
    analog = analogsim.convert(model, device, crossbar=PERIPHERIES[periphery])
    got = analog(x)
    tolerance = tolerance_of(name)
    assert got.dtype == wanted.dtype
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)
    if "detached" not in name or not bias_rows:
        compare(gradients(got, model, x), slopes, 10 * tolerance)
    analogsim.program(analog)
    torch.testing.assert_close(analog.eval()(x), wanted, rtol=tolerance, atol=tolerance)


SOME = ("x @ w.T", "from the left", "linear of rows apart", "a head each by bmm", "unfolded", "conv: slimmed")


@pytest.mark.parametrize("name", [slow_unless(name.endswith(SOME), name) for name in MADE])
@pytest.mark.filterwarnings("ignore:The use of `x.T`")
def test_noise_and_converters_are_there(name: str) -> None:
    """Errors of the weight, read noise, and converters whose steps are fine, in training and on a chip."""
    model, x = made(name)
    wanted = model(x).detach()
    for device in (Gaussian(std=0.5), ReadNoise(std=0.1)):
        for crossbar in (Crossbar(), LARGE):
            analog = analogsim.convert(model, device, crossbar=crossbar)
            assert ((analog(x) - wanted).abs() > 1e-6).double().mean() > 0.8
            analogsim.program(analog)
            assert ((analog.eval()(x) - wanted).abs() > 1e-6).double().mean() > 0.8
    # Of a range for each block, a block with one driven line would have no steps.
    coarse = analogsim.convert(model, Gaussian(std=0.0), crossbar=FINE.replace(dac_bits=3, ranges_per="layer"))
    assert not torch.allclose(coarse(x), wanted, rtol=1e-4, atol=1e-4)
    fine = analogsim.convert(model, Gaussian(std=0.0), crossbar=FINE)
    torch.testing.assert_close(fine(x), wanted, rtol=1e-4, atol=1e-4)


class TestFromTheLeft(LayerContract):
    """``weight @ input`` of a subclass."""

    def layer(self) -> nn.Module:
        return Own("from the left with a bias")

    def inputs(self) -> tuple[Any, ...]:
        return (torch.randn(2, 3, 6),)


@pytest.mark.slow
class TestUnfoldedConvolution(LayerContract):
    """A convolution as one matrix product."""

    def layer(self) -> nn.Module:
        return OwnConvolution("unfolded")

    def inputs(self) -> tuple[Any, ...]:
        return (torch.randn(2, 4, 5, 5),)


class Joint(nn.Module):
    """Queries and keys of one Parameter by its slices, values of another by heads."""

    def __init__(self) -> None:
        super().__init__()
        self.qk = nn.Parameter(torch.randn(8, 6))
        self.v = nn.Parameter(torch.randn(6, 4))

    def forward(self, input: Tensor) -> Tensor:
        q, k = (input @ part.T for part in self.qk.chunk(2))
        return functional.softmax(q @ k.mT, -1) @ torch.einsum("bti,io->bto", input, self.v)


register_routed(Joint, {"qk": None, "v": Slot("v", None, transposed=True)})


class TestJoint(LayerContract):
    """A registered type whose Parameters are met in slices."""

    compiles = COMPILES_VIEWS

    def layer(self) -> nn.Module:
        return Joint()

    def inputs(self) -> tuple[Any, ...]:
        return (torch.randn(2, 3, 6),)


@pytest.mark.skipif(not COMPILES_VIEWS, reason="torch's compiler does not follow views of weights")
@pytest.mark.parametrize(
    "way", ["x @ w.T", *(slow_unless(False, way) for way in ("a head each by bmm", "linear of rows apart"))]
)
def test_compiled(way: str) -> None:
    model, x = made(f"linear: {way}")
    analog = analogsim.convert(model, DeviceModel((Exact(),)), crossbar=LARGE.replace(rows=3))
    torch._dynamo.reset()
    compiled = torch.compile(analog, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))
    analogsim.program(analog)
    torch.testing.assert_close(compiled.eval()(x), model(x))


def test_under_autocast() -> None:
    for way in ("x @ w.T", "from the left", "a head each by bmm", "einsum", "addmm"):
        model, x = made(f"linear: {way}")
        model, x = model.float(), x.detach().float()
        for crossbar in PERIPHERIES.values():
            analog = analogsim.convert(model, DeviceModel((Exact(),)), crossbar=crossbar)
            with torch.autocast("cpu", torch.bfloat16):
                got, wanted = analog(x), model(x)
            assert got.dtype == wanted.dtype
            torch.testing.assert_close(got, wanted, rtol=0.05, atol=0.05)


def test_one_array_answers_to_all_products_of_a_forward() -> None:
    """In training the same errors, whatever form a product has."""
    model, x = made("linear: x @ w.T")
    analog = analogsim.convert(model, Gaussian(std=0.5))
    LINEAR["difference"] = lambda x, w, b: functional.linear(x, w) - x @ w.T
    analog.way = "difference"
    torch.testing.assert_close(analog(x), torch.zeros(2, 3, 4, dtype=torch.float64), rtol=0, atol=1e-12)
    del LINEAR["difference"]


@pytest.mark.parametrize("per", ["layer", "block"])
def test_calibrated_ranges(per: str) -> None:
    """Of one input range and one bound for all, or of each block: near the digital product on each kind of call."""
    for way in ("linear of rows apart", "a head each by bmm", "from the left", "as a convolution"):
        model, x = made(f"linear: {way}")
        fine = Crossbar(rows=3, dac_bits=16, adc_bits=16, input_range="calibrated", output_bound="calibrated")
        analog = analogsim.convert(model, DeviceModel((Exact(),)), crossbar=fine.replace(ranges_per=per))
        analogsim.calibrate(analog, [x.detach()])
        analogsim.program(analog)
        torch.testing.assert_close(analog.eval()(x), model(x), rtol=2e-3, atol=2e-3)


def test_the_rows_that_are_read_are_those_of_the_whole_chip() -> None:
    model, x = made("linear: linear of a slice")
    analog = analogsim.convert(model, Gaussian(std=0.5))
    analogsim.program(analog, seed=3)
    held, _ = matrices_of(analog)[0].analog.chip.weight_for(model.weight)
    torch.testing.assert_close(analog.eval()(x), functional.linear(x, held[:3], model.bias[:3]))
    assert audit(analog, x).passed


def test_gradients_are_those_of_hand_written_noise() -> None:
    model, x = made("linear: a head each by bmm")
    analog = analogsim.convert(model, Gaussian(std=0.5))
    analogsim.program(analog, seed=3)
    held, _ = matrices_of(analog)[0].analog.chip.weight_for(model.weight)
    wanted = torch.bmm(x, (model.weight + (held - model.weight).detach()).view(2, 2, 6).mT)
    (ours,), (theirs,) = (torch.autograd.grad(y.square().sum(), x) for y in (analog.eval()(x), wanted))
    torch.testing.assert_close(ours, theirs)
    torch.manual_seed(0)
    output = analog.train()(x)
    (drawn,) = torch.autograd.grad(output.sum(), x, retain_graph=True)
    assert not torch.allclose(drawn, model.weight.view(2, 2, 6).sum(1, keepdim=True).expand_as(x))
    compare(gradients(output, model, x)[1:2], [_hand_written(output, x)], 1e-10)


def _hand_written(output: Tensor, x: Tensor) -> Tensor:
    """The gradient of the sum of squares by a clean weight: noise does not depend on it."""
    return torch.einsum("btd,bti->bdi", 2 * output, x).flatten(0, 1)


def test_a_draw_made_again_in_backward_is_the_same() -> None:
    """The answer is linear in the input, so that its gradient at any place gives it back."""
    for way in ("rows in other order", "a head each by bmm", "linear of some columns"):
        model, x = made(f"linear: {way}")
        analog = analogsim.convert(model, Gaussian(std=0.5))
        nn.init.zeros_(model.bias)
        analogsim.set_recompute(analog, True)
        output = analog(x)
        (slope,) = torch.autograd.grad(output.sum(), x)
        torch.testing.assert_close((slope * x).sum(), output.sum())


@pytest.mark.parametrize("crossbar", PERIPHERIES.values(), ids=PERIPHERIES)
def test_a_layer_in_a_routed_module_is_read_once(crossbar: Crossbar) -> None:
    """Without noise the drawn weight may be the very one that the module around follows."""

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 4)

        def forward(self, input: Tensor) -> Tensor:
            output: Tensor = self.inner(input)
            return output

    register_routed(Around)
    torch.manual_seed(0)
    model, x = Around(), torch.randn(5, 6)
    coarse = crossbar.replace(dac_bits=3, adc_bits=4, output_bound=2.0)
    analog = analogsim.convert(model, Gaussian(std=0.1), crossbar=coarse)
    alone = analogsim.convert(model.inner, Gaussian(std=0.1), crossbar=coarse)
    for twin in (analog, alone):
        analogsim.set_noise_scale(twin, 0.0)
    torch.testing.assert_close(analog(x), alone(x))
    assert analog.inner.routings == ()


def test_what_is_no_product_is_told() -> None:
    class ByHand(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return (input.unsqueeze(-2) * self.weight).sum(-1) * self.weight.sum()

    with pytest.raises(analogsim.errors.NotRoutedError, match=r"forward of ByHand.*it went into mul, sum\."):
        analogsim.convert(ByHand(6, 4), "pcm")


def test_a_second_kind_of_product_is_told() -> None:
    class Tied(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return functional.linear(input, self.weight).relu() @ self.weight

    analog = analogsim.convert(Tied(6, 4), Gaussian(std=0.1))
    with pytest.warns(ConversionWarning, match=r"forward of Tied takes its weight in another product.*matmul"):
        analog(torch.randn(3, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        analogsim.convert(made("linear: beside a norm")[0], Gaussian(std=0.1))(torch.randn(3, 6).double())


class Bank(nn.Module):
    """Many matrices in one Parameter, all at once and one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.bank = nn.Parameter(torch.randn(3, 4, 6))
        self.offsets = nn.Parameter(torch.randn(3, 4))

    def forward(self, input: Tensor) -> Tensor:
        together = torch.baddbmm(self.offsets.unsqueeze(1), input, self.bank.mT)
        own = torch.stack([functional.linear(row, self.bank[place]) for place, row in enumerate(input)])
        first = input @ self.bank.unbind()[0].T + torch.einsum("eti,eoi->eto", input[:1], self.bank[:1])
        return together + own + first


register_routed(Bank, {f"bank.{place}": Slot("bank", "offsets", index=place) for place in range(3)})


class TestBank(LayerContract):
    """Slots with an index."""

    compiles = COMPILES_VIEWS

    def layer(self) -> nn.Module:
        return Bank()

    def inputs(self) -> tuple[Any, ...]:
        return (torch.randn(3, 5, 6),)


def test_only_some_of_many_matrices_in_a_weight() -> None:
    """A product over all of them, of which one is asked to stay digital, is no product of crossbars."""
    torch.manual_seed(0)
    model, x = Bank(), torch.randn(3, 5, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        analog = analogsim.convert(model, {"bank.1": None, "*": Gaussian(std=0.5)})
    with pytest.warns(ConversionWarning, match=r"'bank.\d': .* another product"):
        assert not torch.allclose(analog(x), model(x))


@pytest.mark.parametrize("way", LINEAR)
def test_the_answer_lies_in_memory_as_that_of_torch(way: str) -> None:
    """Forwards go on with views of it: fused experts, attention from the left."""
    torch.manual_seed(0)
    own, x = Own(way), torch.randn(2, 3, 6)
    analog = analogsim.convert(own, DeviceModel((Exact(),)))
    clean, found = own(x), analog(x)
    assert found.shape == clean.shape
    assert found.is_contiguous() or not clean.is_contiguous()
