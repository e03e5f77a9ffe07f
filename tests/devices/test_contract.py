import ast
import re
from pathlib import Path

import analogsim
from analogsim import DeviceModel, Drift, Effect, Gaussian, Mapping, Quantization, ReadNoise, StuckAt
from analogsim.device import registry
from analogsim.testing import DeviceContract
from benchmarks.harness import published

FOLDER = Path(analogsim.devices.__file__).parent
FOLDER_MODULE = "analogsim.devices."
PAIR = Mapping("pair")


# Every built-in name: a new file in devices/ and its line in devices/__init__.py are all that it takes.

SPELLED = {"cmo": "CMO", "pcm": "PCM", "reram": "ReRAM"}  # words of a name that are not just capitalized


def built_in() -> list[str]:
    """The names that files in devices/ have registered."""
    return sorted(name for name, make in registry.factories.items() if made_by(make).startswith(FOLDER_MODULE))


def made_by(make: object) -> str:
    return getattr(make, "__module__", "")


# A published first moment is never dropped: the formulas of every technology, worked out apart from the devices.
PUBLISHED = {
    "pcm": published.pcm.moments,
    "pcm-hermes": published.hermes_two.moments,
    "reram-cmo": published.cmo(0.2),
    "reram-milo": published.milo,
    "reram-wan2022": published.wan,
    "sonos": published.sonos,
}


def contract_of(name: str) -> type[DeviceContract]:
    """The contract for a name: ``TestPCMHermesName`` for ``"pcm-hermes"``."""

    def moments(self: DeviceContract, target: float, t: float | None) -> tuple[float, float]:
        found = PUBLISHED[name](target / self.model.g_max, t)
        return found.mean, found.std

    words = "".join(SPELLED.get(word, word.capitalize()) for word in name.split("-"))
    content = {"device": name, "__module__": __name__}
    return type(f"Test{words}Name", (DeviceContract,), content | ({"moments": moments} if name in PUBLISHED else {}))


globals().update({kind.__name__: kind for kind in map(contract_of, built_in())})


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


class TestShortsAndOpens(DeviceContract):
    device = ("pcm", StuckAt(p_off=0.1, p_on=0.1, off=0.0, on=200.0, on_spread=0.4))


class TestReRAMCMOIdealReference(DeviceContract):
    device = "reram-cmo(reference='ideal')"


class TestSlicedLevels(DeviceContract):
    device = DeviceModel((Quantization(levels=4, stochastic=True),), mapping=Mapping("offset", slices=3, slice_bits=2))


class TestFaultySonos(DeviceContract):
    device = ("sonos", StuckAt())


def covered():
    """The names that pytest finds a contract of in this file."""
    kinds = [kind for name, kind in globals().items() if name.startswith("Test") and kind.__module__ == __name__]
    return {kind.device for kind in kinds if kind.__test__ and isinstance(kind.device, str)}


def written_in(folder: Path) -> set[str]:
    """The names under which the files of a folder register something, as they stand in their text."""
    texts = [file.read_text(encoding="utf-8") for file in folder.glob("*.py")]
    return {name for text in texts for name in re.findall(r"^@register\(\"([^\"]+)\"\)", text, re.MULTILINE)}


def test_every_built_in_name_is_covered():
    assert len(built_in()) >= 11
    assert set(built_in()) - covered() == set(), "registered after this file was read"
    assert written_in(FOLDER) == set(built_in()), "a file registers a name that devices/__init__.py does not import"


def test_a_new_name_is_covered_at_once(monkeypatch):
    def factory():
        return Gaussian(0.1)

    monkeypatch.setattr(factory, "__module__", FOLDER_MODULE + "new")
    monkeypatch.setitem(registry.factories, "reram-new2", factory)
    assert "reram-new2" in built_in()
    kind = contract_of("reram-new2")
    assert (kind.__name__, kind.device, kind.__test__) == ("TestReRAMNew2Name", "reram-new2", True)
    assert issubclass(kind, DeviceContract)


def test_a_name_of_a_plug_in_is_not_built_in(monkeypatch):
    monkeypatch.setitem(registry.factories, "of-somebody", lambda: Gaussian(0.1))
    assert "of-somebody" not in built_in()


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


def test_every_technology_has_its_published_moments():
    technologies = {name for name in built_in() if name.split("-")[0] in ("pcm", "reram", "sonos")}
    assert set(PUBLISHED) == technologies


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
