from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim.chip.outputs import Moments, OutputCalibration, calibrate_outputs, fitted, output_moments
from analogsim.layers.module import exactly, matrices_of


def made(model: nn.Module, device: Any = "pcm", t: str = "1y", **more: Any) -> Any:
    """A twin on a chip of some age, in eval mode."""
    analog = analogsim.convert(model, device, **more).eval()
    analogsim.program(analog, seed=3)
    analogsim.drift(analog, t)
    return analog


def both_moments(analog: nn.Module, x: tuple[Any, ...]) -> list[tuple[Moments, Moments]]:
    """Of each matrix on the chip, and in the digital network."""
    with torch.no_grad():
        chip = output_moments(analog, lambda: analog(*x))
        with exactly(analog):
            return list(zip(chip, output_moments(analog, lambda: analog(*x)), strict=True))


def assert_matched(analog: nn.Module, x: tuple[Any, ...], tolerance: float) -> None:
    for chip, digital in both_moments(analog, x):
        spread = digital.variance.mean().sqrt()
        assert ((chip.mean - digital.mean).abs() / spread).max() < tolerance
        assert ((chip.variance.sqrt() - digital.variance.sqrt()).abs() / spread).max() < tolerance


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x + self.attention(x, x, x)[0]).mean(1))


class Twice(nn.Module):
    """One weight in two products of a forward, beside a functional one."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(6, 6)
        self.weight = nn.Parameter(torch.randn(4, 6) / 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bi,oi->bo", self.shared(self.shared(x).relu()), self.weight)


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2),
        nn.Conv2d(4, 3, 1),
    )


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.product = nn.Bilinear(4, 5, 3)
        self.table = nn.Embedding(9, 5)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        return self.product(x, self.table(index))


register: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Any, ...]]]] = {
    "linear": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)),
        lambda: (torch.randn(80, 6),),
    ),
    "convolutions": (convolutional, lambda: (torch.randn(80, 2, 8, 8),)),
    "conv1d, conv3d": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.Unflatten(1, (1, 4)), nn.Unflatten(3, (3, 2)), nn.Conv3d(1, 5, 2)),
        lambda: (torch.randn(70, 2, 8),),
    ),
    "attention": (Attending, lambda: (torch.randn(70, 5, 8),)),
    "bilinear, table": (Pair, lambda: (torch.randn(90, 4), torch.randint(9, (90,)))),
}


@pytest.mark.parametrize("crossbar", ["ideal", "standard(input_range='calibrated', output_noise=0)"])
@pytest.mark.parametrize("kind", register)
def test_mean_and_spread_of_every_output_are_the_digital_ones(kind: str, crossbar: str) -> None:
    """To rounding, of one batch, whatever takes the product; the twin of float64."""
    torch.manual_seed(0)
    make, inputs = register[kind]
    model = make().double().eval()
    x = tuple(v.double() if v.is_floating_point() else v for v in inputs())
    quiet = analogsim.as_device_model("drift+stuck-at(p_off=0.05)")
    analog = made(model, quiet, crossbar=crossbar, embeddings=True)
    analogsim.calibrate(analog, [(x,)])
    apart = [chip.variance.sqrt() - digital.variance.sqrt() for chip, digital in both_moments(analog, x)]
    assert max(float(each.abs().max()) for each in apart) > 1e-3
    found = calibrate_outputs(analog, [(x,)])
    assert found.passes == 1
    assert len(found.matrices) == len(matrices_of(analog))
    assert_matched(analog, x, 1e-6)


class Steps(nn.Module):
    """A cell in a loop of the network's own."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[1], 6)
        for step in x:
            h = self.cell(step, h)
        return h


@pytest.mark.parametrize("crossbar", ["ideal", "standard(input_range='calibrated', output_noise=0)"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "cell", "twice"])
def test_what_is_used_many_times_is_matched_on_the_inputs_of_the_digital_network(kind: str, crossbar: str) -> None:
    torch.manual_seed(0)
    model = Twice() if kind == "twice" else Steps() if kind == "cell" else getattr(nn, kind)(4, 6, num_layers=2)
    x = torch.randn(70, 6).double() if kind == "twice" else torch.randn(5, 70, 4).double()
    example = {"example": x} if kind == "twice" else {}
    device = "drift(nu=0.05, nu_std=0.02)+stuck-at(p_off=0.05)"
    analog = made(model.double(), device, crossbar=crossbar, **example)
    analogsim.calibrate(analog, x)
    found = calibrate_outputs(analog, x)
    assert found.passes == 2
    assert len(found.matrices) == len(matrices_of(analog))

    records: dict[Any, tuple[list[Tensor], list[Tensor]]] = {}

    def beside(matrix: Any) -> Callable[[Any, Tensor], None]:
        """Every product of the digital network, and the chip's to the same input, with the correction by hand."""
        chip, bias, affine = matrix.analog.chip, matrix.still()[1], matrix.analog.chip.correction.stage
        clean, seen = records.setdefault(matrix, ([], []))

        def look(drawn: Any, input: Tensor) -> None:
            digital = 0.0 if drawn._clean[1] is None else bias
            clean.append((drawn.clean(input) - digital).flatten(0, -2))
            with behind(matrix, crossbar):
                answer = drawn.on(chip, input)
            seen.append(((answer - digital) * affine.scale + affine.offset).flatten(0, -2))

        crossbar = matrix.analog.crossbar
        return look

    @contextmanager
    def behind(matrix: Any, crossbar: Any) -> Iterator[None]:
        held, matrix.analog.crossbar = matrix.analog.crossbar, crossbar
        yield
        matrix.analog.crossbar = held

    with torch.no_grad(), exactly(analog, looks={matrix: beside(matrix) for matrix in matrices_of(analog)}):
        analog(x)
    several = [record for record in records.values() if len(record[0]) > 1]
    assert several
    for clean, seen in several:
        wanted, got = torch.cat(clean), torch.cat(seen)
        torch.testing.assert_close(got.mean(0), wanted.mean(0), rtol=0, atol=1e-9)
        torch.testing.assert_close(got.std(0), wanted.std(0), rtol=1e-9, atol=0)


@pytest.mark.parametrize("match", ["moments", "bias"])
@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_a_network_that_remembers_does_not_run_away(kind: str, match: Any) -> None:
    """Matched on its own answers, the recurrent matrix's offsets grew from pass to pass."""
    torch.manual_seed(0)
    model = getattr(nn, kind)(4, 12, batch_first=True)
    with torch.no_grad():
        model.weight_hh_l0.mul_(3.0)
    x, fresh = torch.randn(128, 20, 4), torch.randn(200, 20, 4)
    ratios = []
    for seed in range(4):
        analog = analogsim.convert(model, "pcm+stuck-at(p_off=0.02)").eval()
        analogsim.program(analog, seed=seed)
        analogsim.drift(analog, "1y")
        with torch.no_grad():
            wanted = model(fresh)[0][:, -1]
            before = (analog(fresh)[0][:, -1] - wanted).square().mean()
            calibrate_outputs(analog, x, match=match)
            ratios.append(float((analog(fresh)[0][:, -1] - wanted).square().mean() / before))
    assert max(ratios) < 1.3  # they were 1.4 to 8.6
    assert sum(ratios) / len(ratios) < 1.0


def test_batches_settle_to_what_one_batch_gives() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 4)).double()
    x = torch.randn(96, 6).double()
    analog = made(model, "drift+stuck-at(p_off=0.1)")
    calibrate_outputs(analog, x)
    whole = [matrix.analog.chip.correction.stage for matrix in matrices_of(analog)]
    found = calibrate_outputs(analog, x.split(20))
    assert found.samples == 96
    assert 2 <= found.passes <= 6
    for one, matrix in zip(whole, matrices_of(analog), strict=True):
        torch.testing.assert_close(matrix.analog.chip.correction.stage.scale, one.scale, rtol=5e-3, atol=0)
        torch.testing.assert_close(matrix.analog.chip.correction.stage.offset, one.offset, rtol=0, atol=5e-3)


def test_an_ideal_device_is_left_alone() -> None:
    torch.manual_seed(0)
    model = convolutional().double().eval()
    analog = made(model, "gaussian(std=0)", t="0s")
    x = torch.randn(10, 2, 8, 8).double()
    before = analog(x)
    calibrate_outputs(analog, x)
    for matrix in matrices_of(analog):
        stage = matrix.analog.chip.correction.stage
        torch.testing.assert_close(stage.scale, torch.ones_like(stage.scale))
        torch.testing.assert_close(stage.offset, torch.zeros_like(stage.offset))
    torch.testing.assert_close(analog(x), before)


@pytest.mark.parametrize("crossbar", ["ideal", "standard(output_noise=0)"])
@pytest.mark.parametrize("kind", ["linear", "twice"])
def test_a_bias_on_the_array_is_corrected_with_the_rest(kind: str, crossbar: str) -> None:
    """It comes out with the product; the digital product beside which it stands has it, too."""
    torch.manual_seed(0)
    model = Twice() if kind == "twice" else nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    x = torch.randn(90, 6).double()
    model = model.double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.bias.add_(1.0)
    example = {"example": x} if kind == "twice" else {}
    analog = made(model, "drift(bias_rows=1)+stuck-at(p_off=0.1)", crossbar=crossbar, **example)
    with torch.no_grad():
        before = (analog(x) - model(x)).square().mean()
        calibrate_outputs(analog, x)
        assert (analog(x) - model(x)).square().mean() < before
    if kind == "linear":
        assert_matched(analog, (x,), 1e-6)
    if kind == "linear" and crossbar == "ideal":
        torch.testing.assert_close(analogsim.to_digital(analog, "programmed")(x), analog(x))


def test_offset_and_scale_alone() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(6, 8).double(), torch.randn(80, 6).double() + 1
    analog = made(model)
    before, digital = analog(x), model(x)
    assert calibrate_outputs(analog, x, match="bias").numbers == 8
    torch.testing.assert_close(analog(x).mean(0), digital.mean(0))
    torch.testing.assert_close(analog(x).std(0), before.std(0))
    calibrate_outputs(analog, x, match="scale")
    torch.testing.assert_close(analog(x).std(0), digital.std(0))
    assert ((analog(x).mean(0) - digital.mean(0)).abs() > 1e-4).all()


def test_it_stays_with_the_chip_and_goes_with_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)), torch.randn(80, 6)
    analog = made(model, t="1h")
    fresh = analog(x)
    calibrate_outputs(analog, x)
    hour = analog(x)
    assert not torch.equal(hour, fresh)
    assert "outputs matched at 1h" in repr(analog)
    analogsim.drift(analog, "1y")
    year = analog(x)
    again = copy.deepcopy(analog)
    torch.testing.assert_close(again(x), year)
    analogsim.save_chip(analog, tmp_path / "chip")
    analogsim.drift(analog, "1h")
    torch.testing.assert_close(analog(x), hour)  # nothing was measured again
    analogsim.program(analog, seed=3)
    analogsim.drift(analog, "1h")
    torch.testing.assert_close(analog(x), fresh)
    analogsim.load_chip(analog, tmp_path / "chip")
    torch.testing.assert_close(analog(x), year)
    found = calibrate_outputs(analog, x)
    assert found.time == analogsim.seconds("1y")
    assert not torch.equal(analog(x), year)
    analogsim.erase(analog)
    with pytest.raises(analogsim.NotProgrammedError):
        calibrate_outputs(analog, x)


def test_a_plain_network_holds_it() -> None:
    """Scale and offset are folded into its Parameters; where no bias can hold the offset, that is said."""
    torch.manual_seed(0)
    x = torch.randn(80, 2, 8, 8).double()
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(3, 2, 2)).double()
    analog = made(model)
    calibrate_outputs(analog, x)
    torch.testing.assert_close(analogsim.to_digital(analog, "programmed")(x), analog(x))
    bare = made(nn.Linear(4, 3, bias=False))
    calibrate_outputs(bare, torch.randn(80, 4))
    with pytest.raises(ValueError, match="has no bias that could hold"):
        analogsim.to_digital(bare, "programmed")
    calibrate_outputs(bare, torch.randn(80, 4), match="scale")
    assert analogsim.to_digital(bare, "programmed").bias is None


def test_dead_and_constant_outputs_and_one_input() -> None:
    """An output that never varies keeps the gain of its matrix; one value tells nothing of a spread."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.no_grad():
        model[0].bias[:4] = -1e3  # dead
        model[2].weight[1] = 0  # pruned
    analog = made(model, "drift(nu=0.05, nu_std=0.02)+read-noise(std=0.01)")
    x = torch.randn(80, 6)
    for inputs in (x, x[:1], x[:2]):
        calibrate_outputs(analog, inputs)
        for matrix in matrices_of(analog):
            scale = matrix.analog.chip.correction.stage.scale
            assert scale.isfinite().all()
            assert scale.min() > 1 / 10
            assert scale.max() < 10
        assert analog(x).isfinite().all()
    constant = made(nn.Linear(6, 4), "drift")
    calibrate_outputs(constant, torch.ones(70, 6))
    torch.testing.assert_close(constant.analog.chip.correction.stage.scale, torch.ones(4))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision(kind: torch.dtype) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(6, 8).to(kind), torch.randn(80, 6).to(kind)
    analog = made(model)
    before = (analog(x).float() - model(x).float()).square().mean()
    calibrate_outputs(analog, x)
    assert analog(x).dtype is kind
    assert (analog(x).float() - model(x).float()).square().mean() < before


def test_what_is_printed_counts_the_digital_work() -> None:
    torch.manual_seed(0)
    analog = made(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5)))
    found = calibrate_outputs(analog, [torch.randn(40, 1, 8, 8), torch.randn(30, 1, 8, 8)])
    assert isinstance(found, OutputCalibration)
    assert found.numbers == 2 * 9
    assert found.multiply_adds == 4 * 36 + 5
    assert "70 samples at 1y: 18 numbers stored, 149 digital multiply-adds for each sample" in str(found)


def test_the_correction_is_seen_by_a_compiled_twin() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), torch.randn(80, 6)
    analog = made(model)
    torch.compiler.reset()
    compiled = torch.compile(analog, backend="aot_eager", fullgraph=True)
    before = compiled(x)
    calibrate_outputs(analog, x)
    torch.testing.assert_close(compiled(x), analog(x))
    assert not torch.allclose(compiled(x), before)
    analogsim.program(analog, seed=3)
    analogsim.drift(analog, "1y")
    torch.testing.assert_close(compiled(x), before)


def test_bad_input_leaves_the_chip_as_it_was() -> None:
    torch.manual_seed(0)
    x = torch.randn(80, 4)
    analog = made(nn.Linear(4, 3))
    calibrate_outputs(analog, x)
    before = analog(x)
    for inputs, match, error, told in (
        (x, "median", ValueError, "match must be one of moments, bias, scale, got 'median'"),
        ([], "moments", ValueError, "empty"),
        (iter([x]), "moments", None, ""),
        (3, "moments", TypeError, "got int"),
        ([x, x * torch.nan], "moments", ValueError, "batch 1 of the inputs holds NaN"),
        (torch.randn(3, 5), "moments", RuntimeError, "shapes cannot be multiplied"),
        (torch.full((3, 4), 3e38), "moments", ValueError, "outputs are NaN or infinite"),
    ):
        if error is None:
            calibrate_outputs(analog, inputs, match=match)  # read once and kept
        else:
            with pytest.raises(error, match=told):
                calibrate_outputs(analog, inputs, match=match)
        torch.testing.assert_close(analog(x), before)
        assert analog.analog.stages == ()
    with pytest.raises(ValueError, match="no analog layer"):
        calibrate_outputs(nn.Linear(4, 3), x)


def test_modes_and_digital_network_are_as_before() -> None:
    torch.manual_seed(0)
    model = convolutional()
    analog = made(model).train()
    held = copy.deepcopy(model.state_dict())
    calibrate_outputs(analog, torch.randn(8, 2, 8, 8))
    assert all(module.training for module in analog.modules())
    assert all(torch.equal(value, held[name]) for name, value in model.state_dict().items())


def test_a_layer_without_a_part_has_no_correction() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x)

    analog = made(Branching())
    with pytest.warns(analogsim.ConversionWarning, match="'other'"):
        found = calibrate_outputs(analog, torch.randn(70, 4))
    assert [each.name for each in found.matrices] == ["one"]
    assert analog.other.analog.chip.correction is None


def test_moments_are_those_of_all_values() -> None:
    class Everything:
        def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            raise NotImplementedError

        def per_output(self, values: Tensor) -> Tensor:
            return values.view(-1, 1)

    torch.manual_seed(0)
    parts = [torch.randn(n, 3, 7) + 5 for n in (4, 1, 30)]
    found = Moments(3)
    for part in parts:
        found.add(part, Everything())
    values = torch.cat(parts).transpose(0, 1).flatten(1).double()
    torch.testing.assert_close(found.mean.double(), values.mean(1), rtol=1e-5, atol=0)
    torch.testing.assert_close(found.variance.double(), values.var(1, correction=0), rtol=1e-4, atol=0)


def test_few_samples_are_drawn_towards_the_gain_of_the_matrix() -> None:
    """Scales of four inputs scatter less than their ratio of spreads; those of 64 are it."""
    torch.manual_seed(0)
    for samples, equal in ((4, False), (64, True)):
        digital, chip = Moments(2000), Moments(2000)

        class Last:
            def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
                raise NotImplementedError

            def per_output(self, values: Tensor) -> Tensor:
                return values

        clean = torch.randn(samples, 2000)
        digital.add(clean, Last())
        chip.add(clean + 0.5 * torch.randn(samples, 2000), Last())
        ratio = (digital.variance / chip.variance).sqrt()
        scale = fitted("moments", digital, chip).scale
        assert scale is not None
        assert torch.allclose(scale, ratio) == equal
        assert scale.std() < 0.5 * ratio.std() or equal
        offset = fitted("bias", digital, chip).offset
        assert offset is not None
        assert torch.allclose(offset, digital.mean - chip.mean) == equal
        assert offset.std() < 0.5 * (digital.mean - chip.mean).std() or equal


@pytest.mark.parametrize(("samples", "worst"), [(1, 1.3), (2, 1.1), (4, 1.1), (8, 0.9)])
@pytest.mark.parametrize("outputs", [1, 4])
def test_few_inputs_do_little_harm(samples: int, worst: float, outputs: int) -> None:
    """Squared error of answers relative to that of the chip as it is: geometric mean over networks and chips.

    Believed as they are, moments of two inputs made it up to several hundred times as large.
    """
    ratios = []
    for seed in range(6):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(10, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, outputs))
        x, fresh = torch.randn(samples, 10), torch.randn(200, 10)
        analog = analogsim.convert(model, "pcm").eval()
        analogsim.program(analog, seed=seed)
        analogsim.drift(analog, "1y")
        with torch.no_grad():
            before = (analog(fresh) - model(fresh)).square().mean()
            calibrate_outputs(analog, x)
            ratios.append((analog(fresh) - model(fresh)).square().mean() / before)
    assert torch.stack(ratios).log().mean().exp() < worst


@pytest.mark.parametrize("inputs", [torch.zeros(0, 6), [torch.zeros(0, 6)]])
def test_inputs_without_samples_are_refused(inputs: Any) -> None:
    analog = made(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2)))
    with pytest.raises(ValueError, match="batch 0 of the inputs holds no samples"):
        calibrate_outputs(analog, inputs)
    assert all(matrix.analog.chip.correction is None for matrix in matrices_of(analog))


def test_digits_on_faulty_and_on_old_chips() -> None:
    """What it brings a plain network without a label, over 12 chips; margins are three standard errors."""
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    torch.manual_seed(0)
    order = torch.randperm(len(digits.target))
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32)[order], torch.tensor(digits.target)[order]
    model = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(400):
        part = slice(64 * (step % 20), 64 * (step % 20) + 64)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[part]), y[part]).backward()
        optimizer.step()

    def judged(device: str, t: str) -> Tensor:
        analog = analogsim.convert(model, device)
        scores: tuple[list[float], list[float]] = ([], [])
        for seed in range(12):
            with analogsim.programmed(analog, seed, t), torch.no_grad():
                for kept, calibrated in zip(scores, (False, True), strict=True):
                    if calibrated:
                        calibrate_outputs(analog, x[:256])
                    kept.append(float((analog(x[1280:]).argmax(1) == y[1280:]).float().mean()))
        before, after = (torch.tensor(kept) for kept in scores)
        return after - before

    for device, t, least in (("stuck-at(p_off=0.0904, p_on=0.0175)", "0s", 0.1), ("pcm", "1y", 0.0)):
        gained = judged(device, t)
        assert gained.mean() - 3 * gained.std() / len(gained) ** 0.5 > least


class FirstOutput(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0]


@pytest.mark.parametrize("recurrent", [False, True])
def test_what_learned_ranges_cut_off_is_not_brought_back(recurrent: bool) -> None:
    torch.manual_seed(0)
    first = FirstOutput(nn.GRU(16, 12, batch_first=True)) if recurrent else nn.Linear(16, 12)
    model, x = nn.Sequential(first, nn.ReLU(), nn.Linear(12, 4)).eval(), torch.randn(200, 3, 16)
    analog = analogsim.convert(model, "gaussian(std=0.0)", crossbar="standard(input_range='learned', output_noise=0.0)")
    analogsim.calibrate(analog, [x / 3])
    analogsim.program(analog, seed=0)
    analog.eval()
    before = analog(x)
    found = calibrate_outputs(analog, x)
    assert not torch.allclose(before, model(x), atol=0.03), "much is cut off"
    assert all(each.scales == pytest.approx((1, 1), abs=1e-4) for each in found.matrices)
    assert torch.allclose(analog(x), before, atol=1e-4)
