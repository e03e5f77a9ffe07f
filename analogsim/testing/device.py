"""What every device model must hold, as tests: subclass `DeviceContract` next to your model and run pytest."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from math import inf, nan
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import analogsim
from analogsim.device.model import Cells, DeviceModel, Effect, State, Written
from analogsim.device.parse import DeviceLike, as_device_model
from analogsim.errors import MissingPackageError
from analogsim.mapping.mapping import Mapping
from analogsim.noise.sources import KeyedNoise, Noise
from analogsim.utils.times import label

try:
    import pytest
except ImportError as error:
    raise MissingPackageError("analogsim.testing needs pytest; pip install pytest") from error

SHAPES = ((7,), (6, 5), (4, 3, 5), (3, 2, 2, 3), (2, 3, 2, 2, 2))
DTYPES = (torch.float32, torch.float64)
PLACES = ("cpu", *(("cuda",) if torch.cuda.is_available() else ()))
TIMES = (0.0, 1.0, 3600.0, 365 * 86400.0)
STAGES = ("program", "hold", "age", "read", "read_std")


def _weight(*shape: int) -> Tensor:
    """A weight of both signs, some of it zero, float32."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weight.view(-1)[::5] = 0
    return weight


class _Counted:
    """A keyed noise that counts how often it was asked."""

    def __init__(self, noise: KeyedNoise, asked: list[tuple[int, ...]]) -> None:
        self._noise = noise
        self.asked = asked

    def normal_like(self, like: Tensor, std: float = 1.0) -> Tensor:
        self.asked.append(tuple(like.shape))
        return self._noise.normal_like(like, std)

    def uniform_like(self, like: Tensor) -> Tensor:
        self.asked.append(tuple(like.shape))
        return self._noise.uniform_like(like)

    def fold(self, *key: str) -> Noise:
        return _Counted(self._noise.fold(*key), self.asked)


class _Even:
    """Noise that is the same number for all cells."""

    def normal_like(self, like: Tensor, std: float = 1.0) -> Tensor:
        return torch.full_like(like, 0.7 * std)

    def uniform_like(self, like: Tensor) -> Tensor:
        return torch.full_like(like, 0.3, dtype=torch.promote_types(like.dtype, torch.float32))

    def fold(self, *key: str) -> _Even:
        return self


def _times(model: DeviceModel) -> tuple[float, ...]:
    """Programming, and times as far apart as the model has formulas for."""
    first, last = model.times
    return tuple(t for t in TIMES if t == 0 or first <= t <= last)


def _life(model: DeviceModel, weight: Tensor, *key: str) -> list[Tensor]:
    """All that a chip shows: what was written, what its cells keep, what is read at each time."""
    written = model.program(weight, KeyedNoise(*key))
    kept = [value for drawn in written.drawn for value in drawn.values()]
    read = [model.read(written, t, KeyedNoise(*key, str(t))) for t in _times(model)]
    return [written.programmed, *kept, *read]


def _same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def _random(model: DeviceModel) -> bool:
    """Whether the chain draws anything in programming or reading."""
    noise = _Counted(KeyedNoise("contract"), [])
    model.read(model.program(_weight(4, 3), noise), 3600.0, noise)
    return bool(noise.asked)


def _run(stage: str, effect: Effect, g: Tensor, t: float | Tensor, cells: Cells, drawn: State) -> Tensor | None:
    noise = KeyedNoise("contract", stage)
    if stage == "program":
        return effect.program(g, replace(cells, programmed=None), noise)
    if stage == "hold":
        return effect.hold(g, cells, drawn)
    if stage == "age":
        return effect.age(g, t, cells, drawn)
    if stage == "read":
        return effect.read(g, t, cells, noise)
    return effect.read_std(g, cells)


def _parts(model: DeviceModel, written: Written) -> Iterator[tuple[str, str, Effect, State]]:
    """Every stage that an effect of the chain takes part in, with the name to call it by."""
    for effect, drawn in zip(model.effects, written.drawn, strict=True):
        for stage in STAGES:
            if effect.implements(stage):
                yield f"{type(effect).__name__}.{stage}", stage, effect, drawn


def _illegal(spec: Any) -> list[Any]:
    """Values that the field made with `analogsim.param` must refuse."""
    rules = spec.metadata
    if rules.get("choices") is not None:
        return ["no such choice"]
    if isinstance(spec.default, bool):
        return ["yes"]
    beyond = [rules["ge"] - 1] if rules.get("ge") is not None else []
    beyond += [rules["gt"], rules["gt"] - 1] if rules.get("gt") is not None else []
    beyond += [rules["le"] + 1] if rules.get("le") is not None else []
    return [nan, inf, -inf, "text", *beyond]


def _refusal(effect: Effect, name: str, value: Any) -> str:
    """What the effect says to a value; nothing if it takes it."""
    try:
        effect.replace(**{name: value})
    except (TypeError, ValueError) as error:
        return str(error)
    return ""


@contextmanager
def _telling_what_is_not_finite() -> Iterator[None]:
    """The error of a chip that has NaN, as a failed assertion."""
    try:
        yield
    except ValueError as error:
        if "NaN or infinite" not in str(error):
            raise
        raise AssertionError(str(error)) from error


class DeviceContract:
    """The contract of effects and device models. A subclass names one, and pytest runs every test on it.

    Attributes:
        device: what is tested: an `Effect`, a tuple of effects, a `DeviceModel` or a registered name. Its errors should
            not be zero, since two chips of it are expected to differ.

    A subclass is collected whatever its name, and fails if it names no device. An effect with ``signed = True`` that
    also works on pairs of cells deserves two subclasses, the second with a `DeviceModel` that has
    ``mapping=Mapping("pair")``. The contract knows no formulas: say in `moments` what a source gives, or test those
    besides.

    Example:
        >>> from analogsim import Gaussian
        >>> from analogsim.testing import DeviceContract
        >>> class TestTwoPercent(DeviceContract):
        ...     device = Gaussian(std=0.02)
    """

    device: ClassVar[DeviceLike]
    __test__ = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__test__" not in vars(cls):
            cls.__test__ = True

    @property
    def model(self) -> DeviceModel:
        """The device model that ``device`` stands for."""
        if not hasattr(self, "device"):
            pytest.fail(f"{type(self).__name__} must set `device` to the effect, device model or name it tests")
        return as_device_model(self.device)

    def moments(self, target: float, t: float | None) -> tuple[float, float] | None:
        """Mean and standard deviation that the device's source gives cells, for a subclass to say.

        Args:
            target: what was asked for, in the unit of the conductances.
            t: seconds after programming, with the slow noise of reading; None for what was just written.

        Returns:
            Both in the unit of the conductances; None where the source says nothing, and nothing is compared.
        """
        return None

    # What goes in and what comes out

    @pytest.mark.parametrize("place", PLACES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_shape_dtype_and_place_are_kept(self, shape: tuple[int, ...], dtype: torch.dtype, place: str) -> None:
        """Every stage returns the shape, dtype and torch device it was given, with chip dimensions in front or not."""
        model = self.model
        weight = _weight(*shape).to(place, dtype)
        written = model.program(weight, KeyedNoise("contract"))
        references = int(model.laid.has_references)
        kind = ((model.cells_per_weight, shape[0] + references, *shape[1:]), dtype, weight.device)
        for what, g in {
            "program": written.programmed,
            "age": model.age(written, 3600.0),
            "read": model.read(written, 3600.0, KeyedNoise("contract", "read")),
        }.items():
            got = (tuple(g.shape), g.dtype, g.device)
            assert got == kind, f"{what} of a weight {shape}: expected {kind}, got {got}"
            assert model.to_weight(g, written).shape == shape, f"{what}: cannot be unmapped to a weight {shape}"
        for name, stage, effect, drawn in _parts(model, written):
            for chips in ((), (3,), (2, 3)):
                if chips and stage == "program":
                    continue
                g = written.programmed.expand(*chips, *written.programmed.shape)
                out = _run(stage, effect, g, 3600.0, written.cells, drawn)
                if out is not None:
                    got, wanted = (out.shape, out.dtype, out.device), (g.shape, g.dtype, g.device)
                    assert got == wanted, f"{name} of conductances {tuple(g.shape)}: expected {wanted}, got {got}"

    def test_chips_in_one_tensor_are_the_chips_one_by_one(self) -> None:
        """What is deterministic gives each chip of ``(chips, cells, *weight.shape)`` what it gives it alone."""
        model = self.model
        written = model.program(_weight(6, 5), KeyedNoise("contract"))
        stack = torch.stack([written.programmed * factor for factor in (1.0, 0.9, 0.5)])
        for name, stage, effect, drawn in _parts(model, written):
            if stage in ("hold", "age", "read_std"):
                together = _run(stage, effect, stack, 3600.0, written.cells, drawn)
                alone = [_run(stage, effect, g, 3600.0, written.cells, drawn) for g in stack]
                if together is not None:
                    each = torch.stack([g for g in alone if g is not None])
                    assert torch.allclose(together, each), f"{name} mixes the chips of one tensor"

    def test_conductances_are_finite_and_not_negative(self) -> None:
        """No NaN, nothing infinite, and no cell of a pair below zero, at any time."""
        model = self.model
        for weight in (_weight(64, 32), torch.zeros(8, 4), _weight(8, 4) * 1e-41):
            written = model.program(weight, KeyedNoise("contract"))
            shown = {"program": written.programmed}
            for t in _times(model):
                shown[f"age({t:g})"] = model.age(written, t)
                shown[f"read({t:g})"] = model.read(written, t, KeyedNoise("contract", str(t)))
            for name, stage, effect, drawn in _parts(model, written):
                out = _run(stage, effect, written.programmed, 3600.0, written.cells, drawn)
                assert out is None or out.isfinite().all(), f"{name} makes NaN or infinite values"
            for what, g in shown.items():
                assert g.isfinite().all(), f"{what}: conductances are NaN or infinite"
                assert written.cells.signed or (g >= 0).all(), f"{what}: conductances fall to {g.min():g} µS"

    def test_arguments_are_not_written_into(self) -> None:
        """A stage leaves the weight, the conductances, the cells and what was drawn as they were."""
        model = self.model
        weight = _weight(6, 5)
        before = weight.clone()
        written = model.program(weight, KeyedNoise("contract"))
        assert torch.equal(weight, before), "program writes into the weight"
        for name, stage, effect, drawn in _parts(model, written):
            g = written.programmed.clone()
            t = torch.tensor(3600.0)
            given = [g, t, written.cells.target, written.programmed, *drawn.values()]
            copies = [tensor.clone() for tensor in given]
            _run(stage, effect, g, t, written.cells, drawn)
            assert _same(given, copies), f"{name} writes into its arguments"
        for effect in model.effects:
            target = written.cells.target.clone()
            effect.draw(written.cells, KeyedNoise("contract"))
            assert torch.equal(written.cells.target, target), f"{type(effect).__name__}.draw writes into the target"

    # Randomness

    def test_a_key_is_a_chip(self) -> None:
        """The same key gives the same chip; another key another one, if the effect draws at all."""
        model, weight = self.model, _weight(64, 32)
        chip = _life(model, weight, "contract", "a")
        assert _same(chip, _life(model, weight, "contract", "a")), "the same key gives two different chips"
        if _random(model):
            other = _life(model, weight, "contract", "b")
            assert not _same(chip, other), "two keys give the same chip: are all errors of the device under test zero?"

    def test_reading_noise_is_new_in_every_use(self) -> None:
        """White read noise differs from product to product; slow noise from one reading time's key to another's."""
        model, weight = self.model, _weight(16, 8)
        written = model.program(weight, KeyedNoise("contract"))
        variance = model.read_variance(model.age(written, 3600.0), written)
        if variance is not None and variance.any():
            analog = analogsim.convert(nn.Sequential(nn.Linear(8, 16, bias=False)), device=model).eval()
            analogsim.program(analog, seed=0)
            x = torch.ones(2, 8)
            one, other = analog(x), analog(x)
            assert not torch.equal(one, other), "two products have the same read noise"
            assert not torch.equal(one[0], one[1]), "two samples of a batch have the same read noise"
        noise = _Counted(KeyedNoise("contract"), [])
        read = model.read(written, 3600.0, noise)
        if noise.asked:
            again = model.read(written, 3600.0, KeyedNoise("contract", "another"))
            assert not torch.equal(read, again), "read asks for noise, and does not use it"

    def test_cells_have_the_moments_of_the_source(self) -> None:
        """Mean and standard deviation of cells are what `moments` says, within 5 standard errors."""
        model = self.model
        if model.signed or self.moments(model.g_max, None) is None:
            return
        model, cells = model.replace(mapping=Mapping("pair", "tensor")), 20_000
        targets = [model.g_min + share * (model.g_max - model.g_min) for share in (1.0, 0.0, 0.1, 0.4, 1.0)]
        weight = torch.tensor(targets, dtype=torch.float64).sub(model.g_min).div(model.g_max - model.g_min)
        written = model.program(weight.unsqueeze(1).expand(-1, cells).contiguous(), KeyedNoise("contract", "moments"))
        first, last = model.times
        for t in (None, *(t for t in (*TIMES, 86400.0, last) if t and first <= t <= last and math.isfinite(t))):
            g = written.programmed if t is None else model.read(written, t, KeyedNoise("contract", str(t)))
            for target, row in zip(targets[1:], g[0, 1:], strict=True):
                wanted = self.moments(target, t)
                if wanted is None:
                    continue
                mean, std = wanted
                error = row - row.mean()
                fourth = float(error.pow(4).mean()) / max(float(error.square().mean()) ** 2, 1e-300)
                what = f"cells asked for {target:g}, {'written' if t is None else label(t)}"
                slack = 1e-6 * model.g_max
                found = float(row.mean())
                assert abs(found - mean) <= 5 * std / cells**0.5 + slack, f"{what}: mean {found:g}, not {mean:g}"
                found, spread = float(row.std()), 5 * std * (max(fourth - 1, 0.0) / (4 * cells)) ** 0.5
                assert abs(found - std) <= spread + slack, f"{what}: standard deviation {found:g}, not {std:g}"

    def test_cells_of_levels_stand_on_them(self) -> None:
        """An effect that says how many levels cells hold writes no others; bit slices rely on it."""
        model = self.model
        written = model.program(_weight(16, 8).double(), KeyedNoise("contract"))
        for effect in model.effects:
            levels = effect.cell_levels()
            if levels is not None:
                g = effect.program(
                    written.cells.target, replace(written.cells, programmed=None), KeyedNoise("contract")
                )
                level = (g - model.g_min) / (model.g_max - model.g_min) * (levels - 1)
                assert (level - level.round()).abs().max() < 1e-6, f"{type(effect).__name__} writes between its levels"

    def test_global_random_state_is_left_alone(self) -> None:
        """Numbers come from the noise that was handed in, not from torch's global generator."""
        state = torch.get_rng_state()
        _life(self.model, _weight(6, 5), "contract")
        assert torch.equal(torch.get_rng_state(), state), "torch's global random state was used"

    @pytest.mark.parametrize("place", PLACES)
    def test_a_chip_is_the_same_in_every_dtype_and_place(self, place: str) -> None:
        """A dtype rounds a chip; it does not make another one (a level in a thousand may fall the other way)."""
        model, weight = self.model, _weight(64, 32)
        reference = _life(model, weight.double(), "contract")
        for dtype in DTYPES:
            for a, b in zip(_life(model, weight.to(place, dtype), "contract"), reference, strict=True):
                scale = b.double().abs().max().clamp(min=1e-30)
                share = ((a.cpu().double() - b.double()).abs() > 1e-4 * scale).double().mean()
                assert share <= 1e-3, f"{dtype} on {place} differs from float64 on the CPU in {share:.1%} of the cells"

    def test_an_effect_that_says_cellwise_knows_one_cell_at_a_time(self) -> None:
        """With the same numbers for all, a cell is what it is among any others; compiled training relies on it."""
        model = self.model
        if not model.cellwise or model.signed:
            return
        written = model.program(_weight(6, 5), _Even())
        for part in (written.cells.target[:1], written.cells.target[:, :2], written.cells.target[..., 3:]):
            alone = model.written(replace(written, cells=replace(written.cells, target=part)), _Even())
            for t in _times(model):
                whole, g = model.read(written, t, _Even()), model.read(alone, t, _Even())
                same = torch.isin(g, whole).all()
                assert same, "cells come out otherwise when other cells are there; leave cellwise = False"

    # Time

    def test_age_follows_any_order_of_times(self) -> None:
        """A chip can be followed forwards and backwards: the same time gives the same answer."""
        model = self.model
        written = model.program(_weight(16, 8), KeyedNoise("contract"))
        times = _times(model)
        first = {t: model.age(written, t).clone() for t in times}
        for t in reversed(times):
            assert torch.equal(model.age(written, t), first[t]), f"age({t:g}) differs when other times came between"

    def test_age_takes_a_time_as_a_tensor(self) -> None:
        """Training draws its times as tensors, which must mean what numbers mean."""
        model = self.model
        written = model.program(_weight(16, 8).double(), KeyedNoise("contract"))
        for t in _times(model):
            torch.testing.assert_close(model.age(written, torch.tensor(t).double()), model.age(written, t))
            number, tensor = (model.read(written, at, KeyedNoise("r")) for at in (t, torch.tensor(t).double()))
            torch.testing.assert_close(tensor, number)

    def test_nothing_has_aged_at_time_zero(self) -> None:
        """At t = 0 the conductances are the programmed ones."""
        model = self.model
        written = model.program(_weight(16, 8), KeyedNoise("contract"))
        torch.testing.assert_close(model.age(written, 0.0), written.programmed)

    def test_a_time_of_a_chip_is_read_once(self) -> None:
        """What is read at one time is the same again, whatever other times came between."""
        model, chip = self.model, KeyedNoise("contract")
        written = model.program(_weight(16, 8), chip)
        times = _times(model)
        first = {t: model.read(written, t, chip.at(t)).clone() for t in times}
        for t in reversed(times):
            assert torch.equal(model.read(written, t, chip.at(t)), first[t]), f"what is read at {t:g} s is another"

    def test_slow_noise_at_times_far_apart_is_independent(self) -> None:
        """A second and a year after programming, or as far apart as there are formulas for."""
        model, (one, other) = self.model, (KeyedNoise("contract", name) for name in "ab")
        times = [t for t in _times(model) if t > 0]
        if len(times) < 2 or not any(effect.implements("read") for effect in model.effects):
            return
        early, late = times[0], times[-1]
        written = model.program(_weight(128, 64).double(), KeyedNoise("contract"))
        # Two chips over the same cells: their difference is symmetric about zero, also where cells stop at a bound.
        apart = [model.read(written, t, one.at(t)) - model.read(written, t, other.at(t)) for t in (early, late)]
        product = (apart[0] * apart[1]).flatten()
        scatter = product.square().sum().sqrt()
        told = f"slow noise {early:g} s and {late:g} s after programming is one; take its time from the argument"
        assert product.sum().abs() <= 5 * scatter, told

    # Stages that must agree with one another

    def test_read_std_is_a_standard_deviation(self) -> None:
        """White read noise is finite and not negative."""
        model = self.model
        written = model.program(_weight(64, 32), KeyedNoise("contract"))
        for name, stage, effect, drawn in _parts(model, written):
            if stage == "read_std":
                std = _run(stage, effect, model.age(written, 3600.0), 3600.0, written.cells, drawn)
                assert std is None or (std.isfinite() & (std >= 0)).all(), f"{name} is negative, NaN or infinite"

    def test_held_cells_are_the_ones_that_hold_keeps(self) -> None:
        """``hold`` sets the cells in ``held`` whatever their conductance, and leaves the others alone."""
        model = self.model
        written = model.program(_weight(64, 32), KeyedNoise("contract"))
        for effect, drawn in zip(model.effects, written.drawn, strict=True):
            g = written.cells.target
            low, high = (effect.hold(value, written.cells, drawn) for value in (g, g + 1))
            held = effect.held(drawn)
            mask = torch.zeros_like(g, dtype=torch.bool) if held is None else held
            name = type(effect).__name__
            assert torch.equal(low[mask], high[mask]), f"{name}.hold lets cells move that {name}.held names"
            assert torch.equal(low[~mask], g[~mask]), f"{name}.hold changes cells that {name}.held does not name"

    def test_an_additive_error_is_what_programming_adds(self) -> None:
        """An effect with ``error`` programs ``g + error(g)``; training relies on it."""
        model = self.model
        effect = model.additive
        if effect is not None:
            weight = _weight(64, 32)
            cells = Cells(weight.unsqueeze(0), model.g_min, model.largest(weight), signed=True)
            programmed = effect.program(cells.target, cells, KeyedNoise("contract"))
            added = effect.error(cells.target, lambda _: cells.g_max, KeyedNoise("contract"))
            torch.testing.assert_close(programmed, cells.target + added)

    def test_a_weight_of_zeros_has_errors_too(self) -> None:
        """Cells that stand for zero err in a tensor of zeros if they do next to other weights."""
        model = self.model

        def spread(weight: Tensor) -> Tensor:
            written = model.program(weight, KeyedNoise("contract"))
            g = model.read(written, 3600.0, KeyedNoise("contract", "read"))
            variance = model.read_variance(g, written)
            error = (model.to_weight(g, written) - weight).square()
            return error if variance is None else error + variance

        mixed = _weight(64, 32)
        zeros = spread(torch.zeros_like(mixed))
        assert zeros.isfinite().all(), "a weight of zeros becomes NaN or infinite"
        assert zeros.any() or not spread(mixed)[mixed == 0].any(), "zeros err among other weights, not among zeros"

    # Parameters

    def test_a_model_is_a_value(self) -> None:
        """Effects and models are hashable, picklable, and written out by their repr."""
        model = self.model
        for value in (*model.effects, model):
            known = vars(analogsim) | vars(analogsim.devices) | {type(e).__name__: type(e) for e in model.effects}
            assert eval(repr(value), dict(known)) == value, f"repr does not evaluate back: {value!r}"
            copy = pickle.loads(pickle.dumps(value))
            assert copy == value, f"pickle changes {value!r} to {copy!r}"
            assert hash(copy) == hash(value), f"equal values have different hashes: {value!r}"

    def test_effects_are_dataclasses_with_legal_defaults(self) -> None:
        """An effect is a frozen dataclass, works with no parameters, and gives itself back from ``asdict``."""
        for effect in self.model.effects:
            kind = type(effect)
            assert "__dataclass_fields__" in vars(kind), f"{kind.__name__} is not decorated: @dataclass(frozen=True)"
            assert isinstance(kind(), kind)
            assert kind(**asdict(effect)) == effect, f"asdict does not give {effect!r} back"
            assert effect.replace() == effect, f"replace without changes changes {effect!r}"

    def test_every_parameter_has_a_unit(self) -> None:
        """Fields are made with `analogsim.param`, which records the unit ("1" if there is none)."""
        for effect in self.model.effects:
            for spec in fields(effect):
                assert spec.metadata.get("unit"), (
                    f"{type(effect).__name__}.{spec.name} has no unit; use analogsim.param"
                )

    def test_illegal_parameters_are_refused(self) -> None:
        """NaN, infinity, the wrong type and values out of the limits: an error with class, field and value."""
        for effect in self.model.effects:
            for spec in fields(effect):
                for value in _illegal(spec):
                    told = _refusal(effect, spec.name, value)
                    where = f"{type(effect).__name__}.{spec.name} = {value!r}"
                    assert told, f"{where} is accepted"
                    named = (type(effect).__name__, spec.name, repr(value))
                    assert all(word in told for word in named), f"{where}: the error should name all three: {told!r}"

    # The whole life

    def test_training_reaches_the_clean_weights(self) -> None:
        """Forward and backward of a twin: finite gradients on the digital model's own Parameters, which stay put."""
        model, analog, x = self._twin()
        before = [parameter.detach().clone() for parameter in model.parameters()]
        for _ in range(3):
            analog.train()(x).square().mean().backward()
        for parameter, old in zip(model.parameters(), before, strict=True):
            assert parameter.grad is not None, "no gradient reaches the clean weights"
            assert parameter.grad.isfinite().all(), "the gradient is NaN or infinite"
            assert torch.equal(parameter, old), "a forward writes into the clean weights"

    def test_a_chip_is_programmed_aged_and_used(self) -> None:
        """Program, drift, eval: finite answers, and the same chip when a time comes again."""
        _, analog, x = self._twin()
        analog.eval()
        seen: dict[float, list[Tensor]] = {}
        times = _times(self.model)
        with _telling_what_is_not_finite():
            analogsim.program(analog, seed=0)
        for t in (*times, *reversed(times)):
            with _telling_what_is_not_finite():
                analogsim.drift(analog, t)
            answer = analog(x)
            assert answer.isfinite().all(), f"the answer after {t:g} s is NaN or infinite"
            weights = [value.clone() for value in analogsim.to_digital(analog, "programmed").state_dict().values()]
            assert _same(weights, seen.setdefault(t, weights)), f"the chip is another one when {t:g} s comes again"

    def _twin(self) -> tuple[nn.Module, nn.Module, Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv1d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
        return model, analogsim.convert(model, device=self.model), torch.randn(5, 1, 6)


__all__ = ["DeviceContract"]
