"""The contract of device models finds what it is there to find."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from analogsim import DeviceModel, Effect, Gaussian, Mapping, param
from analogsim.noise import FlickerBand, flicker_like
from analogsim.testing import DeviceContract


def contract(device: object) -> DeviceContract:
    return type("Sample", (DeviceContract,), {"device": device})()


def test_a_subclass_without_a_device_fails():
    class Empty(DeviceContract):
        pass

    assert Empty.__test__
    with pytest.raises(pytest.fail.Exception, match="Empty must set `device`"):
        Empty().test_a_key_is_a_chip()
    with pytest.raises(pytest.fail.Exception, match="Empty must set `device`"):
        Empty().test_training_reaches_the_clean_weights()


def test_the_base_class_is_not_collected_and_a_subclass_may_opt_out():
    class Shared(DeviceContract):
        __test__ = False

    class Used(Shared):
        device = "pcm"

    assert (DeviceContract.__test__, Shared.__test__, Used.__test__) == (False, False, True)


@dataclass(frozen=True)
class OneNumberForAll(Effect):
    """Draws from the global state, writes in place, forgets chips, knows no units."""

    size: float = 0.1

    def program(self, g, cells, noise):
        return g.add_(torch.rand(()) * self.size)

    def age(self, g, t, cells, drawn):
        return g * 0.9

    def read_std(self, g, cells):
        return -g


@dataclass(frozen=True)
class Oblivious(Effect):
    """Chips that share their mean, a time that is ignored as a tensor, a stage that wanders below zero."""

    scale: float = param(1.0, "1", ge=0)

    def __post_init__(self):
        pass

    def age(self, g, t, cells, drawn):
        return g if isinstance(t, torch.Tensor) or t == 0 else g - 0.1 * g.mean() - 0.1

    def hold(self, g, cells, drawn):
        return g.clamp(max=cells.g_max / 2)


@pytest.mark.parametrize(
    ("device", "test", "message"),
    [
        (OneNumberForAll(), "test_arguments_are_not_written_into", "program writes into its arguments"),
        (OneNumberForAll(), "test_global_random_state_is_left_alone", "global random state"),
        (OneNumberForAll(), "test_a_key_is_a_chip", "two different chips"),
        (OneNumberForAll(), "test_nothing_has_aged_at_time_zero", "not close"),
        (OneNumberForAll(), "test_read_std_is_a_standard_deviation", "negative"),
        (OneNumberForAll(), "test_every_parameter_has_a_unit", "OneNumberForAll.size has no unit"),
        (Oblivious(), "test_chips_in_one_tensor_are_the_chips_one_by_one", "mixes the chips"),
        (Oblivious(), "test_conductances_are_finite_and_not_negative", "fall to"),
        (Oblivious(), "test_age_takes_a_time_as_a_tensor", "not close"),
        (Oblivious(), "test_held_cells_are_the_ones_that_hold_keeps", "does not name"),
        (Oblivious(), "test_illegal_parameters_are_refused", "Oblivious.scale = nan is accepted"),
        (Gaussian(std=0.0), "test_a_key_is_a_chip", "are all errors of the device under test zero"),
    ],
)
def test_a_broken_effect_is_found(device, test, message):
    with pytest.raises(AssertionError, match=message):
        getattr(contract(device), test)()


def test_a_shape_that_is_not_kept_is_found():
    @dataclass(frozen=True)
    class Flat(Effect):
        def age(self, g, t, cells, drawn):
            return g.double()

    with pytest.raises(AssertionError, match="age of a weight"):
        contract(Flat()).test_shape_dtype_and_place_are_kept((3, 2), torch.float32, "cpu")


def test_zeros_without_errors_are_found():
    @dataclass(frozen=True)
    class RelativeToTheWeights(Effect):
        def program(self, g, cells, noise):
            return (g + noise.normal_like(g) * cells.target.mean()).clamp_(min=0)

    with pytest.raises(AssertionError, match="not among zeros"):
        contract(RelativeToTheWeights()).test_a_weight_of_zeros_has_errors_too()


@dataclass(frozen=True)
class Restless(Effect):
    """Remembers how often it was asked, works on the target itself, and lets go of the cells that it holds."""

    asked: ClassVar[list[int]] = []

    def draw(self, cells, noise):
        cells.target.mul_(0.5)
        return {"held": noise.uniform_like(cells.target) < 0.5}

    def held(self, drawn):
        return drawn["held"]

    def age(self, g, t, cells, drawn):
        self.asked.append(1)
        return g + 1e-3 * len(self.asked)


@dataclass(frozen=True)
class Neighbourly(Effect):
    """Says that it knows one cell at a time, and takes the mean of all."""

    cellwise: ClassVar[bool] = True

    def program(self, g, cells, noise):
        return g + 0.1 * g.mean()


@dataclass(frozen=True)
class TwoErrors(Effect):
    """Trains with another error than it programs."""

    signed: ClassVar[bool] = True

    def program(self, g, cells, noise):
        return g + 1.5 * self.error(g, lambda _: cells.g_max, noise)

    def error(self, g, g_max, noise):
        return 0.1 * noise.normal_like(g)


@dataclass(frozen=True)
class IntoTheWeight(Effect):
    """A noise on weights that stays in them."""

    signed: ClassVar[bool] = True

    def program(self, g, cells, noise):
        g.data.add_(0.1 * noise.normal_like(g))
        return g * 1.0


@dataclass(frozen=True)
class LogarithmOfNothing(Effect):
    """Is minus infinity where there is no conductance."""

    def read(self, g, t, cells, noise):
        return g.log()


@dataclass(frozen=True)
class Timeless(Effect):
    """1/f noise that is the same at all times."""

    def read(self, g, t, cells, noise):
        return g * (1 + 0.1 * flicker_like(noise, g, 1.0, FlickerBand(20.0, 1e-6)))


@dataclass(frozen=True)
class Fleeting(Effect):
    """Slow noise that is not slow: another number whenever it is read."""

    asked: ClassVar[list[int]] = []

    def read(self, g, t, cells, noise):
        self.asked.append(1)
        return g * (1 + 0.1 * noise.fold(str(len(self.asked))).normal_like(g))


@dataclass(frozen=True)
class MeanOver(Effect):
    """Says that it knows one cell at a time, and takes the mean over one axis of ``(cells, *weight.shape)``."""

    cellwise: ClassVar[bool] = True
    axis: int = param(0, "1")

    def program(self, g, cells, noise):
        return g + 0.1 * g.mean(self.axis, keepdim=True)


@dataclass(frozen=True)
class WrongAt(Effect):
    """Ages as it should, but for one time."""

    time: float = param(0.0, "s", ge=0)

    def age(self, g, t, cells, drawn):
        return g + 0.0 * (torch.as_tensor(t) - self.time).abs().log()


@dataclass(frozen=True)
class TimelessWithin(Timeless):
    """The same with formulas for an hour: two times to compare."""

    times: ClassVar[tuple[float, float]] = (0.0, 3600.0)


@dataclass(frozen=True)
class TimelessWithinASecond(Timeless):
    """One time only."""

    times: ClassVar[tuple[float, float]] = (0.0, 1.0)


class Undecorated(Gaussian):
    """Is no dataclass of its own."""


@dataclass(frozen=True)
class Growing(Effect):
    """Keeps another parameter than it is given, so that no copy is like it."""

    size: float = param(0.1, "1")

    def __post_init__(self):
        object.__setattr__(self, "size", self.size + 1.0)


@pytest.mark.parametrize(
    ("device", "test", "message"),
    [
        (Restless(), "test_age_follows_any_order_of_times", "differs when other times came between"),
        (Restless(), "test_a_chip_is_programmed_aged_and_used", "the chip is another one when"),
        (Restless(), "test_arguments_are_not_written_into", "Restless.draw writes into the target"),
        (Restless(), "test_held_cells_are_the_ones_that_hold_keeps", "Restless.hold lets cells move"),
        (Neighbourly(), "test_an_effect_that_says_cellwise_knows_one_cell_at_a_time", "leave cellwise = False"),
        (MeanOver(0), "test_an_effect_that_says_cellwise_knows_one_cell_at_a_time", "leave cellwise = False"),
        (MeanOver(1), "test_an_effect_that_says_cellwise_knows_one_cell_at_a_time", "leave cellwise = False"),
        (MeanOver(2), "test_an_effect_that_says_cellwise_knows_one_cell_at_a_time", "leave cellwise = False"),
        (WrongAt(0.0), "test_conductances_are_finite_and_not_negative", r"age\(0\): conductances are NaN"),
        (WrongAt(1.0), "test_conductances_are_finite_and_not_negative", r"age\(1\): conductances are NaN"),
        (WrongAt(365 * 86400.0), "test_conductances_are_finite_and_not_negative", "conductances are NaN"),
        (TwoErrors(), "test_an_additive_error_is_what_programming_adds", "not close"),
        (IntoTheWeight(), "test_training_reaches_the_clean_weights", "writes into the clean weights"),
        (LogarithmOfNothing(), "test_conductances_are_finite_and_not_negative", "NaN or infinite"),
        (LogarithmOfNothing(), "test_a_chip_is_programmed_aged_and_used", "NaN or infinite"),
        (Undecorated(), "test_effects_are_dataclasses_with_legal_defaults", "Undecorated is not decorated"),
        (Growing(), "test_effects_are_dataclasses_with_legal_defaults", "asdict does not give .* back"),
        (Growing(), "test_a_model_is_a_value", "repr does not evaluate back"),
    ],
)
def test_another_broken_effect_is_found(device, test, message):
    with pytest.raises(AssertionError, match=message):
        getattr(contract(device), test)()


# Reading anew, levels, moments


@dataclass(frozen=True)
class ReadOnce(Effect):
    """Asks for noise of reading, and does not use it."""

    def read(self, g, t, cells, noise):
        noise.normal_like(g)
        return g.clone()


@dataclass(frozen=True)
class BetweenLevels(Effect):
    """Says that there are four levels, and writes what is asked for."""

    def cell_levels(self):
        return 4

    def program(self, g, cells, noise):
        return g.clone()


@dataclass(frozen=True)
class WritesIntoTheTime(Effect):
    """Takes the logarithm of the time that it was given."""

    def age(self, g, t, cells, drawn):
        return g * (1 - 0.01 * (t.log1p_() if isinstance(t, torch.Tensor) else 0.0))


@pytest.mark.parametrize(
    ("device", "test", "message"),
    [
        (ReadOnce(), "test_reading_noise_is_new_in_every_use", "read asks for noise, and does not use it"),
        (BetweenLevels(), "test_cells_of_levels_stand_on_them", "BetweenLevels writes between its levels"),
        (WritesIntoTheTime(), "test_arguments_are_not_written_into", "WritesIntoTheTime.age writes into its arguments"),
        (LogarithmOfNothing(), "test_conductances_are_finite_and_not_negative", "LogarithmOfNothing.read makes NaN or"),
    ],
)
def test_what_reading_and_levels_promise_is_found_broken(device, test, message):
    with pytest.raises(AssertionError, match=message):
        getattr(contract(device), test)()


class Published(DeviceContract):
    """Moments that the effect holds or not, by what a test says."""

    __test__ = False
    device = DeviceModel((Gaussian(0.02),), g_min=5.0, g_max=25.0, mapping=Mapping("pair"))

    def moments(self, target, t):
        return target, 0.02 * 25.0


def test_moments_of_the_source_are_compared():
    Published().test_cells_have_the_moments_of_the_source()


@pytest.mark.parametrize(("mean", "std", "message"), [(0.05, 1.0, "mean"), (0.0, 1.1, "standard deviation")])
def test_a_dropped_moment_is_found(mean, std, message):
    class Wrong(Published):
        __test__ = False

        def moments(self, target, t):
            return target + mean, std * 0.02 * 25.0

    with pytest.raises(AssertionError, match=rf"cells asked for .*: {message} .*, not "):
        Wrong().test_cells_have_the_moments_of_the_source()


@pytest.mark.parametrize(
    ("device", "test", "message"),
    [
        (Timeless(), "test_slow_noise_at_times_far_apart_is_independent", "is one; take its time"),
        (
            TimelessWithin(),
            "test_slow_noise_at_times_far_apart_is_independent",
            "1 s and 3600 s after programming is one",
        ),
        (Fleeting(), "test_a_time_of_a_chip_is_read_once", "s is another"),
    ],
)
def test_slow_noise_that_is_none_is_found(device, test, message):
    with pytest.raises(AssertionError, match=message):
        getattr(contract(device), test)()


def test_of_a_single_time_nothing_is_asked():
    contract(TimelessWithinASecond()).test_slow_noise_at_times_far_apart_is_independent()
    contract(Oblivious()).test_slow_noise_at_times_far_apart_is_independent()  # reads no noise
