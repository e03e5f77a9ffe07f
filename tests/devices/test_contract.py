import ast
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import analogsim
from analogsim import DeviceModel, Drift, Effect, Gaussian, Mapping, Quantization, ReadNoise, StuckAt, param
from analogsim.device import registry
from analogsim.testing import DeviceContract

FOLDER = Path(analogsim.devices.__file__).parent
FOLDER_MODULE = "analogsim.devices."
PAIR = Mapping("pair")


# Every built-in name; test_every_built_in_name_is_covered says if one is missing.


class TestDriftName(DeviceContract):
    device = "drift"


class TestGaussianName(DeviceContract):
    device = "gaussian"


class TestPCMName(DeviceContract):
    device = "pcm"


class TestPCMHermesName(DeviceContract):
    device = "pcm-hermes"


class TestQuantizationName(DeviceContract):
    device = "quantization"


class TestReadNoiseName(DeviceContract):
    device = "read-noise"


class TestReRAMCMOName(DeviceContract):
    device = "reram-cmo"


class TestReRAMMiloName(DeviceContract):
    device = "reram-milo"


class TestReRAMWan2022Name(DeviceContract):
    device = "reram-wan2022"


class TestSonosName(DeviceContract):
    device = "sonos"


class TestStuckAtName(DeviceContract):
    device = "stuck-at"


# Parameters that take another path, and chains


class TestGaussianUniform(DeviceContract):
    device = Gaussian(std=0.1, distribution="uniform")


class TestGaussianProportional(DeviceContract):
    device = Gaussian(std=0.1, law="proportional")


class TestGaussianProportionalUniform(DeviceContract):
    device = Gaussian(std=0.1, law="proportional", distribution="uniform")


class TestGaussianAbsolute(DeviceContract):
    device = Gaussian(std=0.1, law="absolute")


class TestGaussianAbsoluteUniform(DeviceContract):
    device = Gaussian(std=0.1, law="absolute", distribution="uniform")


class TestGaussianByColumn(DeviceContract):
    device = DeviceModel((Gaussian(std=0.1),), mapping=Mapping("signed", "column"))


class TestGaussianOnPairs(DeviceContract):
    device = DeviceModel((Gaussian(std=0.1),), mapping=PAIR)


class TestGaussianProportionalOnPairs(DeviceContract):
    device = DeviceModel((Gaussian(std=0.1, law="proportional", distribution="uniform"),), mapping=PAIR)


class TestGaussianInverse(DeviceContract):
    device = DeviceModel((Gaussian(std=0.01, law="inverse"),), g_min=2.0, mapping=PAIR)


class TestGaussianInverseUniform(DeviceContract):
    device = DeviceModel((Gaussian(std=0.01, law="inverse", distribution="uniform"),), g_min=2.0, mapping=PAIR)


class TestReadNoiseProportional(DeviceContract):
    device = ReadNoise(std=0.02, law="proportional")


class TestReadNoiseInverse(DeviceContract):
    device = DeviceModel((Gaussian(0.2), ReadNoise(std=0.01, law="inverse")), g_min=2.0, mapping=PAIR)


class TestStochasticQuantization(DeviceContract):
    device = Quantization(levels=2, stochastic=True)


class TestFaultyDriftingLevels(DeviceContract):
    device = (Quantization(levels=16), StuckAt(p_off=0.0904, p_on=0.0175), Drift(nu=0.05, nu_std=0.02))


class TestFaultyDriftingLevelsAsText(DeviceContract):
    device = "quantization(levels=16)+stuck-at(p_off=0.09)+drift(nu_std=0.02)"


class TestEverythingStuck(DeviceContract):
    device = (Gaussian(std=0.1), StuckAt(p_off=0.5, p_on=0.5))


class TestRowsStuck(DeviceContract):
    device = StuckAt(p_off=0.2, p_on=0.1, cluster="row")


class TestColumnsStuck(DeviceContract):
    device = StuckAt(p_off=0.2, p_on=0.1, cluster="column")


class TestNoiseOfBothKinds(DeviceContract):
    device = (Gaussian(std=0.05), ReadNoise(std=0.01))


class TestFaultyPCM(DeviceContract):
    device = ("pcm", StuckAt(), ReadNoise(std=0.01))


class TestPCMOnAnotherRange(DeviceContract):
    device = analogsim.devices.pcm(g_max=50.0).replace(g_min=0.5, mapping=Mapping("pair", "tensor"))


class TestPCMSecondFit(DeviceContract):
    device = "pcm(fit='crosssim')"


class TestPCMHermesOneCell(DeviceContract):
    device = "pcm-hermes(cells_per_conductance=1, g_max=20)"


class TestReRAMWan2022SecondFit(DeviceContract):
    device = "reram-wan2022(fit='crosssim', g_max=30)"


class TestReRAMCMOTwoPercent(DeviceContract):
    device = "reram-cmo(acceptance='2%', g_min=20, g_max=80)"


class TestFaultySonos(DeviceContract):
    device = ("sonos", StuckAt())


def made_by(name):
    return getattr(registry.factory(name), "__module__", "")


def test_every_built_in_name_is_covered():
    built_in = {name for name in registry.factories if made_by(name).startswith(FOLDER_MODULE)}
    kinds = [kind for kind in DeviceContract.__subclasses__() if kind.__module__ == __name__]
    covered = {kind.device for kind in kinds if isinstance(getattr(kind, "device", None), str)}
    assert len(built_in) >= 11
    assert built_in - covered == set(), "add a class above"


def unexported(folder: Path) -> set[str]:
    """Files of the folder that its __init__ imports nothing from, and names it imports and does not export."""
    tree = ast.parse((folder / "__init__.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    files = {file.stem for file in folder.glob("*.py") if not file.stem.startswith("_")}
    modules = {node.module.removeprefix(FOLDER_MODULE) for node in imports}
    names = {alias.name for node in imports for alias in node.names}
    (exported,) = [
        set(ast.literal_eval(node.value))
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    ]
    return (files - modules) | (names - exported)


def test_every_file_is_exported():
    assert len(list(FOLDER.glob("*.py"))) >= 7
    assert unexported(FOLDER) == set()


def test_a_file_that_is_not_exported_is_found(tmp_path):
    (tmp_path / "__init__.py").write_text((FOLDER / "__init__.py").read_text())
    (tmp_path / "forgotten.py").write_text("")
    assert "forgotten" in unexported(tmp_path)


def test_every_effect_of_a_file_is_exported():
    defined = {
        kind.__name__
        for kind in all_effects(Effect)
        if kind.__module__.startswith(FOLDER_MODULE) and not kind.__name__.startswith("_")
    }
    assert defined - set(analogsim.devices.__all__) == set()


def all_effects(kind):
    return {kind}.union(*(all_effects(child) for child in kind.__subclasses__()))


# The contract finds what it is there to find.


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
