import random
import re
import tomllib
from dataclasses import dataclass, fields

import pytest
from torch import nn

import analogsim
from analogsim import (
    DeviceModel,
    Drift,
    Effect,
    Gaussian,
    Mapping,
    Quantization,
    ReadNoise,
    StuckAt,
    load_device,
    param,
    save_device,
)
from analogsim.devices import FittedDrift, FittedProgramming


@dataclass(frozen=True)
class FileShift(Effect):
    """An effect of every kind of parameter."""

    shift: float = param(0.1, "µS", ge=0)
    steps: int = param(3, "1", ge=1)
    upwards: bool = param(True, "1")
    law: str = param("a", "1", choices=("a", 'b "quoted" \\ ß\x7f\n'))


CHAINS = [
    DeviceModel((Gaussian(0.1 + 0.2),)),
    DeviceModel((Gaussian(),), mapping=Mapping("pair", "tensor"), g_min=1.5, g_max=1 / 3 + 40, name='a "name" µS'),
    DeviceModel((Drift(nu=1e-17, t0=3e22), Drift(nu_std=0.0), StuckAt())),
    DeviceModel((Quantization(levels=7, stochastic=True), ReadNoise(0.02)), g_max=1e-7),
    DeviceModel((FittedProgramming((0.01, -0.2, 1e-9)), FittedDrift((0.1,), (0.0, 0.3)))),
    DeviceModel((FileShift(law='b "quoted" \\ ß\x7f\n', upwards=False, steps=9),), name="tab\tnew\nline\x7f"),
]


@pytest.mark.parametrize("model", [*CHAINS, *analogsim.available_devices()], ids=lambda m: getattr(m, "name", m))
def test_round_trip(model, tmp_path):
    model = analogsim.as_device_model(model)
    save_device(model, tmp_path / "mine.toml")
    loaded = load_device(tmp_path / "mine.toml")
    assert loaded == model
    assert repr(loaded) == repr(model)
    assert hash(loaded) == hash(model)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_the_file_is_small_and_readable(tmp_path):
    save_device(DeviceModel((Drift(nu=0.06),), name="mine"), tmp_path / "mine.toml")
    content, mark, _ = (tmp_path / "mine.toml").read_text().rpartition("# sha256 of what stands above: ")
    assert mark
    assert content == (
        '# a device model; use it with analogsim.convert(model, device="mine.toml")\n'
        'format = "analogsim-device-1"\n'
        'name = "mine"\n'
        "g_min = 0.0  # µS\n"
        "g_max = 25.0  # µS\n"
        "\n"
        "[mapping]\n"
        'cells = "pair"\n'
        "\n"
        "[[effects]]\n"
        'effect = "Drift"\n'
        "nu = 0.06\n"
        "nu_std = 0.01\n"
        "t0 = 20.0  # s\n"
    )


def test_every_field_of_model_and_mapping_is_in_the_file_or_at_its_default(tmp_path):
    """Also fields that are added to them later."""
    model = DeviceModel((Drift(),), mapping=Mapping("pair", "tensor"))
    save_device(model, tmp_path / "mine.toml")
    content = tomllib.loads((tmp_path / "mine.toml").read_text())
    for values, where in ((model, content), (model.mapping, content["mapping"])):
        for spec in fields(values):
            if spec.name in ("effects", "mapping"):
                continue
            assert where.get(spec.name, spec.default) == getattr(values, spec.name), spec.name


def test_convert_takes_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_device(DeviceModel((Drift(),), name="mine"), "mine.toml")
    for device in ("mine.toml", ["mine.toml", Drift(nu=0.1)]):
        model = analogsim.as_device_model(device)
        assert model.effects[0] == Drift()
    assert analogsim.as_device_model("mine.toml").name == "mine"
    assert analogsim.convert(nn.Linear(2, 2), device="mine.toml").analog.device.name == "mine"
    with pytest.raises(FileNotFoundError, match=r"load_device: no file 'other\.toml'"):
        analogsim.as_device_model("other.toml")


HEAD = 'format = "analogsim-device-1"\n'
DRIFT = HEAD + '[[effects]]\neffect = "Drift"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "this is no device file, which begins with format = 'analogsim-device-1'; got None"),
        ('format = "analogsim-device-9"', "got 'analogsim-device-9'"),
        ("nu = ", "'mine.toml': Invalid"),
        (HEAD, "the chain of effects is empty"),
        (HEAD + "effects = 3", r"effects must be tables, each under a line \[\[effects\]\]"),
        (HEAD + "[[effects]]\nnu = 1.0", "effect 1 has no name"),
        (HEAD + '[[effects]]\neffect = "Drifft"', "unknown effect 'Drifft'; did you mean 'Drift'.* Known: .*Gaussian"),
        (HEAD + '[[effects]]\neffect = "_Fitted"', "unknown effect '_Fitted'"),
        (DRIFT + "nuu = 0.1", "Drift has no parameter 'nuu'; did you mean 'nu'.* It has nu, nu_std, t0"),
        (DRIFT + "nu = -0.1", "Drift: nu must be >= 0, got -0.1"),
        (DRIFT + 'nu = "much"', "Drift: nu must be a number, got 'much'"),
        (
            HEAD + "g_maxx = 3.0\n" + DRIFT.removeprefix(HEAD),
            "DeviceModel has no parameter 'g_maxx'; did you mean 'g_max'",
        ),
        (HEAD + "mapping = 3\n" + DRIFT.removeprefix(HEAD), r"mapping must be a table under a line \[mapping\], got 3"),
        (DRIFT + '[mapping]\ncells = "pears"', "mapping: cells must be"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        load_device("mine.toml")
    assert str(caught.value).startswith("load_device: 'mine.toml': ")


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"load_device: .*mine\.toml"):
        load_device(tmp_path / "mine.toml")


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(TypeError, match=re.escape("save_device: give a device model, such as")):
        save_device("pcm", tmp_path / "mine.toml")

    @dataclass(frozen=True)
    class FileTable(Effect):
        table: dict = None  # type: ignore[assignment]

    with pytest.raises(TypeError, match=r"save_device: FileTable\.table cannot be written.*got \{1: 2\}"):
        save_device(DeviceModel((FileTable({1: 2}),)), tmp_path / "mine.toml")
    hidden = type("Drift", (Effect,), {"__module__": "elsewhere", "age": Drift.age})
    with pytest.raises(ValueError, match="several classes of effects are named 'Drift'"):
        save_device(DeviceModel((hidden(),)), tmp_path / "mine.toml")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        save_device(DeviceModel((Drift(),)), tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_change_since_it_was_written_is_told(tmp_path):
    """Files are made to be changed: it is used, and no more is said once the digest is taken out."""
    path = tmp_path / "mine.toml"
    save_device(DeviceModel((Drift(nu=0.06),), name="mine"), path)
    text = path.read_text().replace("nu = 0.06", "nu = 0.04")
    path.write_text(text)
    with pytest.warns(UserWarning, match=r"mine.toml' is not as save_device wrote it: changed by hand .*, or damaged"):
        assert load_device(path).effects == (Drift(nu=0.04),)
    path.write_text("\n".join(text.splitlines()[:-1]))
    assert load_device(path).effects == (Drift(nu=0.04),)


def test_one_flipped_bit_is_noticed(tmp_path):
    path, draw = tmp_path / "mine.toml", random.Random(0)
    model = DeviceModel((Gaussian(0.05), Drift(nu=0.06)), name="mine")
    save_device(model, path)
    whole = path.read_bytes()
    for place in (draw.randrange(8 * len(whole)) for _ in range(200)):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            assert load_device(path) == model, place
        except (ValueError, UserWarning):  # warnings are errors here
            continue
