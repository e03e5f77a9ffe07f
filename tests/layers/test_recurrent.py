"""Recurrent layers on crossbars; the reference is the digital module, or the equations written out."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

import analogsim
from analogsim import Crossbar, DeviceModel, Drift, Gaussian, Mapping, ReadNoise
from analogsim.inspection.carrying import audit
from analogsim.layers import AnalogModule, recurrent
from analogsim.layers.matrix import AnalogMatrix, Drawn

# torch says so of every float32 LSTM with a projection on a CPU.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

IN, HIDDEN, BATCH, STEPS = 3, 4, 5, 6
LENGTHS = [4, 6, 1, 6, 3]

LAYERS: dict[str, Callable[..., nn.RNNBase]] = {
    "tanh": lambda **options: nn.RNN(IN, HIDDEN, **options),
    "relu": lambda **options: nn.RNN(IN, HIDDEN, nonlinearity="relu", **options),
    "lstm": lambda **options: nn.LSTM(IN, HIDDEN, **options),
    "projected": lambda **options: nn.LSTM(IN, HIDDEN, proj_size=2, **options),
    "gru": lambda **options: nn.GRU(IN, HIDDEN, **options),
}
CELLS: dict[str, Callable[..., nn.RNNCellBase]] = {
    "tanh": lambda **options: nn.RNNCell(IN, HIDDEN, **options),
    "relu": lambda **options: nn.RNNCell(IN, HIDDEN, nonlinearity="relu", **options),
    "lstm": lambda **options: nn.LSTMCell(IN, HIDDEN, **options),
    "gru": lambda **options: nn.GRUCell(IN, HIDDEN, **options),
}
BOTH = [*LAYERS.values(), *CELLS.values()]
NAMES = [*LAYERS, *(f"{name} cell" for name in CELLS)]

LOOPED = ReadNoise(std=0.0)  # behind read noise torch's kernels cannot be used, however small it is
BIAS_ROWS = DeviceModel((Gaussian(std=0.1),), mapping=Mapping("pair", bias_rows=2))


def tensors(value: Any) -> list[Tensor]:
    """All tensors of an input or answer, flat."""
    if isinstance(value, Tensor):
        return [value]
    if value is None:
        return []
    return [tensor for part in value for tensor in tensors(part)]


def data(module: nn.Module, form: str = "batched", given: bool = True) -> tuple[Any, Any]:
    """An input in one of the forms, and initial states or None; leaves that want gradients."""
    kind = torch.float64
    cell = isinstance(module, nn.RNNCellBase)
    axes: tuple[int, ...] = () if form == "unbatched" else (BATCH,)
    if cell:
        input: Any = torch.randn(*axes, IN, dtype=kind, requires_grad=True)
        shapes = [(*axes, HIDDEN)] * (1 + isinstance(module, nn.LSTMCell))
    else:
        first = bool(module.batch_first)
        shape = (*axes, STEPS, IN) if first else (STEPS, *axes, IN)
        input = torch.randn(shape, dtype=kind, requires_grad=True)
        if form.startswith("packed"):
            lengths = sorted(LENGTHS, reverse=True) if form == "packed sorted" else LENGTHS
            input = pack_padded_sequence(input, lengths, first, enforce_sorted=form == "packed sorted")
            input = input._replace(data=input.data.detach().requires_grad_())
        states = module.num_layers * (1 + module.bidirectional)
        shapes = [(states, *axes, module.proj_size or HIDDEN)]
        shapes += [(states, *axes, HIDDEN)] * isinstance(module, nn.LSTM)
    if not given:
        return input, None
    parts = [torch.randn(shape, dtype=kind, requires_grad=True) for shape in shapes]
    return input, tuple(parts) if len(parts) == 2 else parts[0]


def leaves(module: nn.Module, input: Any, hx: Any) -> list[Tensor]:
    first = input.data if isinstance(input, PackedSequence) else input
    return [*module.parameters(), first, *tensors(hx)]


def results(module: nn.Module, input: Any, hx: Any) -> list[Tensor]:
    """Answer and gradients of a sum over it that counts each number differently."""
    answer = tensors(module(input, hx))
    total = sum(
        (part * torch.arange(1, part.numel() + 1).view(part.shape)).sum() for part in answer if part.requires_grad
    )
    return [*answer, *torch.autograd.grad(total, leaves(module, input, hx))]


@contextmanager
def counted() -> Iterator[list[str]]:
    """The names of matrices in the order in which they are drawn."""
    drawn: list[str] = []
    before = AnalogMatrix.draw

    def draw(self: AnalogMatrix) -> Drawn:
        drawn.append(self.analog.name)
        return before(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnalogMatrix, "draw", draw)
        yield drawn


def programmed(model: nn.Module, device: Any = "pcm", t: float | str = 0, **options: Any) -> Any:
    """A twin with a chip, in eval."""
    analog = analogsim.convert(model, device, **options)
    analogsim.program(analog, seed=1)
    analogsim.drift(analog, t)
    return analog.eval()


# --- both paths against the digital module --------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["batched", "unbatched", "packed sorted", "packed"])
@pytest.mark.parametrize("kind", LAYERS)
def test_torchs_kernel_and_the_loop_answer_as_the_digital_layer(kind: str, form: str) -> None:
    """Outputs, final states and gradients: to the bit by torch's kernel, to rounding by the loop over time steps."""
    for layers, given, (bidirectional, batch_first, bias) in product(
        (1, 2), (False, True), product((False, True), repeat=3)
    ):
        options = {"bidirectional": bidirectional, "batch_first": batch_first, "bias": bias}
        model = LAYERS[kind](num_layers=layers, **options).double()
        fused, looped = analogsim.convert(model, "gaussian"), analogsim.convert(model, LOOPED)
        analogsim.set_noise_scale(fused, 0)
        input, hx = data(model, form, given)
        wanted = results(model, input, hx)
        for got, want in zip(results(fused, input, hx), wanted, strict=True):
            assert torch.equal(got, want)
        for got, want in zip(results(looped, input, hx), wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", ["batched", "unbatched"])
@pytest.mark.parametrize("kind", CELLS)
def test_cells_answer_as_the_digital_ones(kind: str, form: str) -> None:
    for given, bias in product((False, True), repeat=2):
        model = CELLS[kind](bias=bias).double()
        fused, looped = analogsim.convert(model, "gaussian"), analogsim.convert(model, LOOPED)
        analogsim.set_noise_scale(fused, 0)
        input, hx = data(model, form, given)
        wanted = results(model, input, hx)
        for twin in (fused, looped):
            for got, want in zip(results(twin, input, hx), wanted, strict=True):
                torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", LAYERS)
def test_which_path_is_taken(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's kernel wherever plain products are the whole answer, in training and on a chip; else the loop."""
    model = LAYERS[kind](num_layers=2, bidirectional=True)
    input = torch.randn(STEPS, BATCH, IN)
    calls: list[int] = []
    sweep = recurrent._sweep
    monkeypatch.setattr(recurrent, "_sweep", lambda *args, **rest: calls.append(1) or sweep(*args, **rest))
    for device, crossbar, loops in (
        ("gaussian", "ideal", False),
        ("pcm", "ideal", False),
        ({"weight_hh*": None, "*": "pcm"}, "ideal", False),
        (BIAS_ROWS, "ideal", kind == "projected"),  # torch knows no bias there
        ("read-noise", "ideal", True),
        ({"weight_hh*": "read-noise", "*": None}, "ideal", True),
        ("gaussian", "standard", True),
    ):
        for analog in (
            analogsim.convert(model, device, crossbar=crossbar),
            programmed(model, device, crossbar=crossbar),
        ):
            calls.clear()
            analog(input)
            assert len(calls) == (4 if loops else 0)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("form", ["batched", "packed"])
def test_dropout_between_layers_is_torchs(kind: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed, the same units: on both paths; and none in eval."""
    model = LAYERS[kind](num_layers=3, dropout=0.5, bidirectional=True, batch_first=True).double()
    analog = analogsim.convert(model, Gaussian(std=0.0))
    analogsim.set_noise_scale(analog, 0)
    analogsim.program(analog)
    input, hx = data(model, form)
    for loop in (False, True):
        if loop:
            monkeypatch.setattr(Drawn, "plain", None)
        for mode in (True, False):
            model.train(mode)
            analog.train(mode)
            compared = results if mode else lambda module, *args: tensors(module(*args))  # a chip's weights are fixed
            torch.manual_seed(3)
            wanted = compared(model, input, hx)
            torch.manual_seed(3)
            for got, want in zip(compared(analog, input, hx), wanted, strict=True):
                torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
        assert not torch.equal(tensors(analog(input, hx))[0], tensors(analog.train()(input, hx))[0])


def test_no_sequence_and_no_time_step() -> None:
    for analog in (analogsim.convert(nn.LSTM(IN, HIDDEN), device) for device in ("gaussian", "read-noise")):
        output, (h, c) = analog(torch.randn(STEPS, 0, IN))
        assert [part.shape for part in (output, h, c)] == [(STEPS, 0, HIDDEN), (1, 0, HIDDEN), (1, 0, HIDDEN)]
        with pytest.raises(RuntimeError, match="larger than 0"):
            analog(torch.randn(0, BATCH, IN))


# --- one draw for all time steps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["gaussian", "pcm", "read-noise"])
@pytest.mark.parametrize("kind", LAYERS)
def test_each_matrix_is_drawn_once_in_a_forward(kind: str, device: str) -> None:
    model = LAYERS[kind](num_layers=2, bidirectional=True)
    analog = analogsim.convert(model, device)
    with counted() as drawn:
        analog(torch.randn(STEPS, BATCH, IN))
    assert drawn == [name for name, _ in model.named_parameters() if name.startswith("weight")]
    analogsim.program(analog)
    with counted() as drawn:
        analog.eval()(torch.randn(STEPS, BATCH, IN))
    assert len(drawn) == len(analog.matrices)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_drawn_weights_act_at_all_steps(kind: str) -> None:
    """The same seed draws the same weights, which in the digital layer give the very same answer and gradient."""
    model = LAYERS[kind](bidirectional=True).double()
    analog = analogsim.convert(model, Gaussian(std=0.2))
    input, hx = data(model)
    torch.manual_seed(4)
    got = results(analog, input, hx)
    torch.manual_seed(4)
    drawn = {label: analog.draw_of(label).plain[0].detach() for label in analog.matrices}
    noisy = copy.deepcopy(model)
    noisy.load_state_dict({**model.state_dict(), **drawn})
    for one, other in zip(got, results(noisy, input, hx), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(got[0], results(analog, input, hx)[0]), "the next forward draws anew"


def steady(device: Any, hidden: float = 0.0) -> tuple[nn.RNN, Any, Tensor]:
    """A relu network of which only the input matrix is analog, with the same input at all steps."""
    model = nn.RNN(IN, HIDDEN, nonlinearity="relu").double()
    nn.init.constant_(model.weight_hh_l0, hidden)
    nn.init.constant_(model.bias_ih_l0, 10.0)  # far from where relu bends
    input = torch.randn(1, 1, IN, dtype=torch.float64)
    return model, analogsim.convert(model, {"weight_hh*": None, "*": device}), input


def test_by_hand_a_constant_input_gives_a_constant_answer_of_one_device() -> None:
    """Without feedback, steps differ by what is drawn for each: weights are not, read noise is."""
    _, analog, input = steady(Gaussian(std=0.1))
    first, second = analog(input.expand(STEPS, 1, IN))[0], analog(input.expand(STEPS, 1, IN))[0]
    assert torch.equal(first, first[:1].expand_as(first))
    assert not torch.isclose(first, second).any()
    _, analog, input = steady(ReadNoise(std=0.1))
    output = analog(input.expand(STEPS, 1, IN))[0]
    assert len(output.flatten().unique()) == output.numel()


def test_read_noise_of_the_inputs_is_new_at_each_step() -> None:
    """Its standard deviation is ``std * max|w| * |x|`` at all steps, with no correlation between two of them.

    Over 4,000 x 4 samples, within 5 standard errors.
    """
    model, analog, input = steady(ReadNoise(std=0.1))
    output = analog(input.expand(3, 4000, IN))[0]
    size = 0.1 * model.weight_ih_l0.abs().max() * input.norm()
    error = ((output - model(input)[0]) / size).flatten(1).detach()
    count = error.shape[1]
    torch.testing.assert_close(error.square().mean(1), torch.ones(3).double(), rtol=0, atol=5 * (2 / count) ** 0.5)
    products = torch.stack([error[a] * error[b] for a, b in ((0, 1), (0, 2), (1, 2))]).mean(1)
    assert products.abs().max() < 5 / count**0.5


def test_read_noise_of_the_states_is_new_at_each_step() -> None:
    """As above, of the matrix that the state is fed back through."""
    model = nn.RNN(IN, HIDDEN, nonlinearity="relu").double()
    nn.init.constant_(model.bias_hh_l0, 10.0)
    nn.init.uniform_(model.weight_hh_l0, 0, 0.5)  # far from where relu bends
    analog = analogsim.convert(model, {"weight_hh*": ReadNoise(std=0.1), "*": None})
    input = torch.randn(4, 1, IN, dtype=torch.float64).expand(4, 4000, IN)
    output = analog(input)[0].detach()
    largest = model.weight_hh_l0.abs().max()
    errors = []
    for step in range(1, 4):
        clean = model(input[step : step + 1], output[step - 1 : step])[0][0]
        errors.append((output[step] - clean) / (0.1 * largest * output[step - 1].norm(dim=1, keepdim=True)))
    error = torch.stack(errors).flatten(1).detach()
    count = error.shape[1]
    torch.testing.assert_close(error.square().mean(1), torch.ones(3).double(), rtol=0, atol=5 * (2 / count) ** 0.5)
    products = torch.stack([error[a] * error[b] for a, b in ((0, 1), (0, 2), (1, 2))]).mean(1)
    assert products.abs().max() < 5 / count**0.5


# --- converters, bias rows ------------------------------------------------------------------------------------------


def gates(kind: str, driven: Tensor, fed: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The next state by the equations in torch's documentation, letter by letter."""
    if kind in ("tanh", "relu"):
        return (getattr(torch, kind)(driven + fed),)
    if kind == "gru":
        r, z = (
            torch.sigmoid(driven[:, HIDDEN * k : HIDDEN * (k + 1)] + fed[:, HIDDEN * k : HIDDEN * (k + 1)])
            for k in (0, 1)
        )
        n = torch.tanh(driven[:, 2 * HIDDEN :] + r * fed[:, 2 * HIDDEN :])
        return ((1 - z) * n + z * state[0],)
    i, f, g, o = (driven + fed).unflatten(1, (4, HIDDEN)).unbind(1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def by_hand(kind: str, parts: dict[str, Callable[[Tensor], Tensor]], input: Tensor) -> list[Tensor]:
    """Outputs of a layer, one product at each step, with what takes the products."""
    state = tuple(torch.zeros(input.shape[1], HIDDEN, dtype=input.dtype) for _ in range(2))
    if kind == "projected":
        state = (state[0][:, :2], state[1])
    outputs = []
    for x in input:
        h, *rest = gates(kind, parts["ih"](x), parts["hh"](state[0]), state)
        state = (parts["hr"](h) if "hr" in parts else h, *rest)
        outputs.append(state[0])
    return outputs


def parts_of(model: nn.RNNBase) -> dict[str, nn.Linear]:
    """A linear layer for each matrix, over the same values."""
    found = {}
    for part in ("ih", "hh", "hr"):
        weight = getattr(model, f"weight_{part}_l0", None)
        if weight is None:
            continue
        bias = getattr(model, f"bias_{part}_l0", None)
        found[part] = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None).double()
        found[part].weight, found[part].bias = weight, bias
    return found


@pytest.mark.parametrize("bias_rows", [0, 1])
@pytest.mark.parametrize("kind", LAYERS)
def test_converters_act_at_each_step_on_each_vector(kind: str, bias_rows: int) -> None:
    """As linear layers behind the same converters do, called once for each step."""
    crossbar = Crossbar(dac_bits=4, adc_bits=5, rows=3)
    device = DeviceModel((ReadNoise(std=0.0),), mapping=Mapping("pair", bias_rows=bias_rows))
    model = LAYERS[kind]().double()
    input, _ = data(model)
    analog = analogsim.convert(model, device, crossbar=crossbar)
    parts = nn.ModuleDict(parts_of(model))
    twins = analogsim.convert(parts, device, crossbar=crossbar)
    analogsim.program(analog)
    analogsim.program(twins)
    for mode in (True, False):
        output = analog.train(mode)(input)[0]
        wanted = torch.stack(by_hand(kind, dict(twins.train(mode).items()), input))
        torch.testing.assert_close(output, wanted, rtol=1e-12, atol=1e-12)
        if mode:
            for weight in parts.values():
                gradients = [torch.autograd.grad(out.square().sum(), weight.weight)[0] for out in (output, wanted)]
                torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)
                output = analog(input)[0]
                wanted = torch.stack(by_hand(kind, dict(twins.items()), input))
    assert not torch.allclose(output, model(input)[0], rtol=1e-3), "coarse converters are heard"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_bias_on_the_crossbar_stays_with_its_matrix(kind: str, bias: bool) -> None:
    """Each matrix adds its own, a GRU the hidden one inside its reset gate; without bias the rows hold errors alone."""
    model = LAYERS[kind](bias=bias).double()
    analog = programmed(model, BIAS_ROWS)
    input, _ = data(model)
    parts = {}
    for part, linear in parts_of(model).items():
        held = analog.draw_of(f"weight_{part}_l0").plain
        assert not torch.allclose(held[1], torch.zeros(()).double() if linear.bias is None else linear.bias)
        parts[part] = lambda x, held=held: nn.functional.linear(x, *held)
    torch.testing.assert_close(analog(input)[0], torch.stack(by_hand(kind, parts, input)), rtol=1e-12, atol=1e-12)
    if bias and kind != "projected":
        plain = analogsim.to_digital(analog, "programmed")
        torch.testing.assert_close(plain(input)[0], analog(input)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_with_its_bias_on_the_crossbar(kind: str) -> None:
    for bias in (True, False):
        model = CELLS[kind](bias=bias).double()
        analog = programmed(model, BIAS_ROWS)
        input, hx = data(model)
        driven, fed = (
            nn.functional.linear(value, *analog.draw_of(f"weight_{part}").plain)
            for part, value in (("ih", input), ("hh", tensors(hx)[0]))
        )
        for got, want in zip(tensors(analog(input, hx)), gates(kind, driven, fed, tuple(tensors(hx))), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_calibrated_ranges_of_inputs_and_states() -> None:
    """What the converters of the hidden matrix see are the states of all steps but the last."""
    model = nn.LSTM(IN, HIDDEN)
    crossbar = Crossbar(dac_bits=12, adc_bits=12, input_range="calibrated", output_bound="calibrated")
    analog = analogsim.convert(model, Gaussian(std=0.0), crossbar=crossbar)
    input = 3 * torch.randn(STEPS, BATCH, IN)
    with pytest.raises(analogsim.NotCalibratedError, match="weight_ih_l0"):
        analog(input)
    analogsim.calibrate(analog, [input], percentile=100)
    states = model(input)[0][:-1]
    ranges = [matrix.analog.input_range for matrix in analog.matrices.values()]
    torch.testing.assert_close(
        torch.stack(ranges), torch.stack([input.abs().max(), states.abs().max()]), rtol=0.01, atol=0
    )
    torch.testing.assert_close(analog(input)[0], model(input)[0], rtol=0, atol=0.02)


# --- chips ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", BOTH, ids=NAMES)
def test_a_chip_from_program_to_file(make: Callable[..., nn.Module], tmp_path: Path) -> None:
    model = make().double()
    input, hx = data(model)
    analog = analogsim.convert(model, "pcm").eval()
    with pytest.raises(analogsim.NotProgrammedError):
        analog(input, hx)
    analogsim.program(analog, seed=1)
    fresh = tensors(analog(input, hx))[0]
    analogsim.drift(analog, "1d")
    aged = tensors(analog(input, hx))[0]
    assert not torch.allclose(fresh, aged, rtol=1e-4)
    assert torch.equal(aged, tensors(analog(input, hx))[0])

    plain = analogsim.to_digital(analog, "programmed")
    assert type(plain) is type(model)
    torch.testing.assert_close(tensors(plain(input, hx))[0], aged)
    clean = analogsim.to_digital(analog)
    assert type(clean) is type(model)
    assert all(a is b for a, b in zip(clean.parameters(), model.parameters(), strict=True))
    assert torch.equal(tensors(clean(input, hx))[0], tensors(model(input, hx))[0])

    analogsim.save_chip(analog, tmp_path / "chip")
    other = analogsim.convert(copy.deepcopy(model), "pcm").eval()
    analogsim.load_chip(other, tmp_path / "chip")
    torch.testing.assert_close(tensors(other(input, hx))[0], aged)

    with torch.no_grad():
        next(iter(model.parameters())).mul_(1.01)
    with pytest.raises(analogsim.StaleChipError, match="weight_ih"):
        analog(input, hx)
    analogsim.erase(analog)
    with pytest.raises(analogsim.NotProgrammedError):
        analog(input, hx)


@pytest.mark.parametrize("make", BOTH, ids=NAMES)
def test_a_perfect_chip_is_the_model(make: Callable[..., nn.Module]) -> None:
    model = make().double()
    input, hx = data(model)
    for device in (Gaussian(std=0.0), DeviceModel((Drift(nu=0.0, nu_std=0.0),)), LOOPED):
        analog = programmed(model, device, "1y")
        for got, want in zip(tensors(analog(input, hx)), tensors(model.eval()(input, hx)), strict=True):
            torch.testing.assert_close(got, want)


def test_a_chip_with_read_noise_starts_its_stream_again() -> None:
    model = nn.GRU(IN, HIDDEN)
    analog = programmed(model, [Gaussian(std=0.05), ReadNoise(std=0.05)])
    input = torch.randn(STEPS, BATCH, IN)
    first, second = analog(input)[0], analog(input)[0]
    assert not torch.equal(first, second)
    analogsim.drift(analog, 0)
    assert torch.equal(analog(input)[0], first)


def test_evaluate_audit_and_clip_take_it_as_any_layer() -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(IN, HIDDEN, bidirectional=True, batch_first=True)
            self.head = nn.Linear(2 * HIDDEN, 3)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.head(self.lstm(x)[0].mean(1))
            return output

    for device in ("pcm", "reram-wan2022"):
        model = Tagger()
        analog = analogsim.convert(model, device)
        x = torch.randn(8, STEPS, IN)
        audit(analog, x).check()
        report = analogsim.evaluate(analog, [(x, model(x).argmax(1))], chips=2, times=(0,))
        assert report.clean == 1
        analogsim.clip_weights(analog, 1.0)
        assert analogsim.calibrate(analog, [x]) is None


# --- names, tables --------------------------------------------------------------------------------------------------


def test_patterns_and_the_summary() -> None:
    model = nn.ModuleDict({"lstm": nn.LSTM(IN, HIDDEN, proj_size=2), "cell": nn.GRUCell(IN, HIDDEN)})
    analog = analogsim.convert(model, {"lstm.weight_hh*": None, "cell": "gaussian", "*": "pcm"})
    table = {
        row.name: (row.kind, row.device, row.shape, row.parameters, row.analog)
        for row in analogsim.summary(analog).rows
    }
    assert table == {
        "lstm.weight_ih_l0": ("LSTM", "pcm", (16, 3), 64, True),
        "lstm.weight_hr_l0": ("LSTM", "pcm", (2, 4), 8, True),
        "lstm": ("LSTM", "no weight of a product, or asked to stay digital", (), 48, False),
        "cell.weight_ih": ("GRUCell", "gaussian", (12, 3), 48, True),
        "cell.weight_hh": ("GRUCell", "gaussian", (12, 4), 60, True),
    }
    assert analogsim.summary(analog).rows[0].share == 64 / sum(parameter.numel() for parameter in model.parameters())
    whole = analogsim.convert(model, {"lstm": "pcm", "cell": None})
    assert list(whole["lstm"].matrices) == ["weight_ih_l0", "weight_hh_l0", "weight_hr_l0"]
    assert [matrix.analog.name for matrix in whole["lstm"].matrices.values()] == [
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
        "lstm.weight_hr_l0",
    ]
    assert type(whole["cell"]) is nn.GRUCell
    alone = analogsim.convert(nn.GRU(IN, HIDDEN), {"weight_hh_l0": "pcm", "*": None})
    assert str(alone) == "AnalogGRU(3, 4, device=pcm, no chip)"


def test_the_digital_part_of_a_layer_is_exact() -> None:
    """Only the matrix that is analog moves the answer."""
    model = nn.LSTM(IN, HIDDEN).double()
    analog = analogsim.convert(model, {"weight_hh*": Gaussian(std=0.5), "*": None})
    input, _ = data(model)
    got, wanted = analog(input[:1])[0], model(input[:1])[0]
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)  # the first state is zero
    assert not torch.allclose(analog(input)[0], model(input)[0], rtol=1e-2)


class Sentences(nn.LSTM):
    """A subclass without a forward of its own."""


class Doubled(nn.LSTM):
    """A subclass whose forward ends in that of its base."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        return super().forward(2 * input, hx)


class Ignoring(nn.LSTM):
    """A subclass with a forward that does not."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        return input, hx


def test_subclasses() -> None:
    model = Sentences(IN, HIDDEN).double()
    analog = analogsim.convert(model, LOOPED)
    assert isinstance(analog, recurrent.AnalogLSTM)
    assert isinstance(analog, Sentences)
    input, hx = data(model)
    torch.testing.assert_close(analog(input, hx)[0], model(input, hx)[0])
    doubled = Doubled(IN, HIDDEN).double()
    extended = analogsim.convert(doubled, LOOPED)
    assert isinstance(extended, recurrent.AnalogLSTM)
    torch.testing.assert_close(extended(input, hx)[0], doubled(input, hx)[0])
    with pytest.warns(analogsim.ConversionWarning, match="Ignoring"):
        both = analogsim.convert(nn.ModuleList([Ignoring(IN, HIDDEN), nn.Linear(2, 2)]), "pcm")
    assert not isinstance(both[0], AnalogModule)


# --- state ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", BOTH, ids=NAMES)
def test_state_dicts_copies_and_pickles(make: Callable[..., nn.Module]) -> None:
    model = make().double()
    input, hx = data(model)
    analog = programmed(model, "pcm", "1h")
    wanted = tensors(analog(input, hx))[0]
    assert list(analog.state_dict()) == list(model.state_dict())
    file = io.BytesIO()
    torch.save(analog, file)
    file.seek(0)
    copies = [copy.deepcopy(analog), pickle.loads(pickle.dumps(analog)), torch.load(file, weights_only=False)]
    for copied in copies:
        assert type(copied) is type(analog)
        torch.testing.assert_close(tensors(copied(input, hx))[0], wanted, rtol=0, atol=0)
        with torch.no_grad():
            next(copied.parameters()).add_(1)
        with pytest.raises(analogsim.StaleChipError):
            copied(input, hx)
        copied.train()(input, hx)
    torch.testing.assert_close(tensors(analog(input, hx))[0], wanted, rtol=0, atol=0)
    other = analogsim.convert(make().double(), Gaussian(std=0.0))
    other.load_state_dict(model.state_dict(), strict=True)
    torch.testing.assert_close(tensors(other(input, hx))[0], tensors(model(input, hx))[0])
    make().double().load_state_dict(analog.state_dict(), strict=True)


@pytest.mark.parametrize("device", [Gaussian(std=0.0), LOOPED], ids=["kernel", "loop"])
@pytest.mark.parametrize("make", BOTH, ids=NAMES)
def test_assigned_and_moved_weights_are_seen(make: Callable[..., nn.Module], device: Any) -> None:
    """By the twin, and by the digital networks made of it, which keep no old ones."""
    model = make()
    analog = analogsim.convert(model, device)
    model.load_state_dict({name: 2 * value for name, value in model.state_dict().items()}, assign=True)
    model.double()
    input, hx = data(model)
    analogsim.program(analog)
    wanted = tensors(model(input, hx))
    for twin in (analog, analog.eval(), analogsim.to_digital(analog), analogsim.to_digital(analog, "programmed")):
        for got, want in zip(tensors(twin(input, hx)), wanted, strict=True):
            torch.testing.assert_close(got, want)
    digital = analogsim.to_digital(analog, "programmed")
    own = {id(parameter) for parameter in digital.parameters()}
    assert not own & {id(parameter) for parameter in model.parameters()}
    assert all(id(weight) in own for weight in getattr(digital, "_flat_weights", []))
    with torch.no_grad():
        for parameter in digital.parameters():
            parameter.zero_()
    torch.testing.assert_close(tensors(analog(input, hx))[0], wanted[0])
    assert not torch.allclose(tensors(digital(input, hx))[0], wanted[0])
    fresh = nn.Parameter(torch.zeros_like(next(model.parameters())))
    setattr(analog, next(name for name, _ in analog.named_parameters()), fresh)
    for got, want in zip(tensors(analog.train()(input, hx)), tensors(model(input, hx)), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("device", ["gaussian", "read-noise"])
@pytest.mark.parametrize("make", BOTH, ids=NAMES)
def test_a_forward_leaves_the_module_as_it_was(make: Callable[..., nn.Module], device: str) -> None:
    """Several threads may use it at once: what was drawn is not kept in it."""
    model = make().double()
    analog = analogsim.convert(model, device)
    results(analog, *data(model))  # the first one is looked at, by hooks that go
    before = {name: copy.copy(value) for name, value in vars(analog).items()}
    values = [(parameter._version, parameter.detach().clone()) for parameter in model.parameters()]
    input, hx = data(model)
    results(analog, input, hx)
    assert vars(analog).keys() == before.keys()
    for name, value in before.items():
        now = vars(analog)[name]
        assert len(now) == len(value) if isinstance(value, list | dict) else now == value
    assert all(a is b for a, b in zip(getattr(analog, "_flat_weights", []), model.parameters(), strict=False))
    for parameter, (version, value) in zip(model.parameters(), values, strict=True):
        assert parameter._version == version
        assert torch.equal(parameter, value)


@pytest.mark.parametrize("device", ["gaussian", "read-noise"])
@pytest.mark.parametrize("make", BOTH, ids=NAMES)
def test_functional_call_takes_other_weights(make: Callable[..., nn.Module], device: str) -> None:
    model, other = make().double(), make().double()
    analog, twin = analogsim.convert(model, device), analogsim.convert(other, device)
    input, hx = data(model)
    torch.manual_seed(2)
    called = functional_call(analog, dict(other.named_parameters()), (input, hx))
    torch.manual_seed(2)
    assert torch.equal(tensors(called)[0], tensors(twin(input, hx))[0])
    torch.manual_seed(2)
    assert not torch.equal(tensors(analog(input, hx))[0], tensors(called)[0])


def test_training_lowers_the_loss_under_noise() -> None:
    """To tell whether the first of the numbers was positive, at the end of the sequence."""
    model = nn.GRU(1, 8, batch_first=True)
    head = nn.Linear(8, 1)
    analog = analogsim.convert(nn.ModuleList([model, head]), "gaussian")
    optimizer = torch.optim.Adam(analog.parameters(), 0.02)
    losses = []
    for _ in range(60):
        x = torch.randn(64, 5, 1)
        output = analog[1](analog[0](x)[1][0])
        loss = nn.functional.binary_cross_entropy_with_logits(output[:, 0], (x[:, 0, 0] > 0).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) / 5 < 0.35
    assert losses[0] > 0.6


# --- dtypes, compilation, devices -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", BOTH, ids=NAMES)
def test_under_autocast(make: Callable[..., nn.Module]) -> None:
    """By torch's kernel to the bit; by the loop to the rounding of bfloat16, which has 8 digits in binary."""
    model = make()
    input, hx = data(model)
    hx = tuple(part.detach().float() for part in tensors(hx))
    input, hx = input.detach().float(), hx if len(hx) == 2 else hx[0]
    fused, looped = analogsim.convert(model, Gaussian(std=0.0)), analogsim.convert(model, LOOPED)
    with torch.autocast("cpu", torch.bfloat16):
        wanted, got, other = (tensors(module(input, hx)) for module in (model, fused, looped))
        sum(part.float().sum() for part in other).backward()
    for want, one, two in zip(wanted, got, other, strict=True):
        assert one.dtype == want.dtype
        assert torch.equal(one, want)
        assert two.dtype in (torch.bfloat16, torch.float32)  # torch's depends on what the processor can do
        torch.testing.assert_close(two.float(), want.float(), rtol=0, atol=8 * 2**-8)
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("make", BOTH, ids=NAMES)
def test_dtypes(make: Callable[..., nn.Module], dtype: torch.dtype) -> None:
    model = make().to(dtype)
    input, _ = data(model, given=False)
    for device in ("gaussian", "pcm", "read-noise"):
        analog = analogsim.convert(model, device)
        answer = tensors(analog(input.to(dtype)))
        assert all(part.dtype == dtype and part.isfinite().all() for part in answer)
        answer[0].float().sum().backward()
        assert all(parameter.grad.dtype == dtype for parameter in model.parameters())
        with pytest.raises((ValueError, RuntimeError), match="dtype"):
            analog(input.to(torch.float32 if dtype is torch.float64 else torch.float64))


def graphs_of(module: nn.Module, inputs: list[Tensor], **options: Any) -> tuple[Tensor, int]:
    """The last answer of the compiled module, and the number of graphs."""
    graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, example: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(module, backend=backend, **options)
    try:
        for input in inputs:
            torch.manual_seed(1)
            answer = compiled(input)
        return answer, len(graphs)
    finally:
        torch._dynamo.reset()


class Between(nn.Module):
    """A recurrent layer between two others."""

    def __init__(self, rnn: nn.RNNBase) -> None:
        super().__init__()
        self.before, self.rnn, self.after = nn.Linear(IN, IN), rnn, nn.Linear(rnn.proj_size or HIDDEN, 2)

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self.after(self.rnn(self.before(input))[0])
        return output


# The compiler hides this warning of its own, but not where warnings are errors.
compiles = pytest.mark.filterwarnings("ignore:The .grad attribute")


@compiles
@pytest.mark.parametrize(("kind", "device"), [("lstm", "gaussian"), ("gru", "read-noise")])
def test_compiled_there_is_one_graph_break_as_with_torch(
    kind: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch leaves recurrent layers out of graphs, and so are those of the twin: nothing of them is compiled.

    How much of a network with such a layer torch compiles at all depends on its version. The layers around it are
    analog in what is compared, so that the recurrent one alone makes the difference.
    """
    monkeypatch.setattr("analogsim.noise.sources.is_fused", lambda: True)  # everywhere the draws of compiled code
    model = Between(LAYERS[kind]())
    analog = analogsim.convert(model, device)
    torchs = analogsim.convert(model, {"rnn.*": None, "*": device})
    assert type(torchs.rnn) is type(model.rnn)
    inputs = [torch.randn(steps, BATCH, IN) for steps in (2, 2, 3)]
    torch.manual_seed(1)
    wanted = analog(inputs[-1])
    for module in (model, torchs, analog):
        with pytest.raises(torch._dynamo.exc.Unsupported, match="does not support RNN"):
            graphs_of(module, inputs, fullgraph=True)
    answer, graphs = graphs_of(analog, inputs)
    assert graphs == graphs_of(torchs, inputs)[1]
    torch.testing.assert_close(answer, wanted)


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("device", ["gaussian", "read-noise"])
@pytest.mark.parametrize("kind", LAYERS)
def test_where_torch_traces_recurrent_layers_it_does_so_with_the_twin(
    kind: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its setting ``allow_rnn``: one graph for each number of time steps."""
    monkeypatch.setattr("analogsim.noise.sources.is_fused", lambda: True)
    model = Between(LAYERS[kind]())
    analog = analogsim.convert(model, device)
    inputs = [torch.randn(steps, BATCH, IN) for steps in (2, 2, 3)]
    torch.manual_seed(1)
    wanted = analog(inputs[-1])
    with torch._dynamo.config.patch(allow_rnn=True):
        answer, graphs = graphs_of(analog, inputs, fullgraph=True)
        assert graphs == graphs_of(model, inputs, fullgraph=True)[1]
    torch.testing.assert_close(answer, wanted)


@pytest.mark.parametrize("kind", CELLS)
def test_cells_compile_into_one_graph(kind: str) -> None:
    for device in ("gaussian", "read-noise"):
        analog = analogsim.convert(CELLS[kind](), device)
        assert graphs_of(analog, [torch.randn(BATCH, IN)] * 2, fullgraph=True)[1] == 1


class OnGPU(Tensor):
    """A tensor that says that it is on a GPU."""

    is_cuda = True  # type: ignore[assignment]


def test_on_a_gpu_drawn_weights_lie_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN wants them so. Views are moved: the tensors that were drawn, or the Parameters, stay where they are."""

    def flatten(self: Any) -> None:
        """As cuDNN's kernel does it."""
        with torch.no_grad():
            whole = torch.cat([weight.flatten() for weight in self._flat_weights]).as_subclass(Tensor)
            for weight, piece in zip(
                self._flat_weights, whole.split([weight.numel() for weight in self._flat_weights]), strict=True
            ):
                weight.data = piece.view(weight.shape).as_subclass(OnGPU)

    monkeypatch.setattr(nn.RNNBase, "flatten_parameters", flatten)
    model = nn.GRU(IN, HIDDEN)
    drawn = [(2 * parameter).as_subclass(OnGPU) for parameter in model.parameters()]
    places = [weight.data_ptr() for weight in drawn]
    moved = recurrent._compacted(model, drawn)
    assert [weight.data_ptr() for weight in drawn] == places
    assert len({weight.untyped_storage().data_ptr() for weight in moved}) == 1
    assert all(torch.equal(a, b) for a, b in zip(moved, drawn, strict=True))
    sum(weight.square().sum() for weight in moved).backward()
    for parameter in model.parameters():
        torch.testing.assert_close(parameter.grad, 8 * parameter.detach())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", LAYERS)
def test_on_a_gpu_without_a_warning(kind: str) -> None:  # pragma: no cover - no GPU where coverage is measured
    model = LAYERS[kind](num_layers=2, bidirectional=True).cuda()
    analog = analogsim.convert(model, "gaussian")
    input = torch.randn(STEPS, BATCH, IN, device="cuda")
    places = [parameter.data_ptr() for parameter in model.parameters()]
    analog(input)[0].sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    analogsim.program(analog)
    for _ in range(2):
        analog.eval()(input)
    analogsim.set_noise_scale(analog, 0)
    torch.testing.assert_close(analog.train()(input)[0], model(input)[0])
    assert [parameter.data_ptr() for parameter in model.parameters()] == places


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["gaussian", "read-noise"])
@pytest.mark.parametrize("kind", LAYERS)
def test_wrong_inputs_and_states_are_refused_as_by_torch(kind: str, device: str) -> None:
    model = LAYERS[kind]()
    analog = analogsim.convert(model, device)
    good, states = torch.randn(STEPS, BATCH, IN), model(torch.randn(STEPS, BATCH, IN))[1]
    smaller = tuple(part[:, :1] for part in states) if isinstance(states, tuple) else states[:, :1]
    packed = pack_sequence([torch.randn(2, IN), torch.randn(1, IN)])
    for input, hx in (
        (torch.randn(STEPS), None),
        (torch.randn(2, STEPS, BATCH, IN), None),
        (torch.randn(STEPS, BATCH, IN + 1), None),
        (good, smaller),
        (good[:, 0], states),
        (packed, states),
    ):
        for module in (model, analog):
            with pytest.raises((RuntimeError, ValueError)):
                module(input, hx)


@pytest.mark.parametrize("device", ["gaussian", "read-noise"])
@pytest.mark.parametrize("kind", CELLS)
def test_wrong_inputs_and_states_of_cells(kind: str, device: str) -> None:
    model = CELLS[kind]()
    analog = analogsim.convert(model, device)
    states = tensors(model(torch.randn(BATCH, IN)))
    smaller = tuple(part[:1] for part in states) if kind == "lstm" else states[0][:1]
    for input, hx in (
        (torch.randn(2, BATCH, IN), None),
        (torch.randn(BATCH, IN + 1), None),
        (torch.randn(BATCH, IN), smaller),
    ):
        for module in (model, analog):
            with pytest.raises((RuntimeError, ValueError)):
                module(input, hx)
