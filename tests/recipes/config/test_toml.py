from __future__ import annotations

import random
from dataclasses import FrozenInstanceError, dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from analogsim.recipes.config.toml import (
    apply_overrides,
    describe,
    dump_toml,
    flatten,
    from_mapping,
    load_toml,
    option,
    section,
    to_mapping,
)


@dataclass(frozen=True)
class Noise:
    scale: float = option(1.0, "strength of the noise", ge=0, le=10)
    shape: Literal["constant", "linear", 3] = option("constant", "how it moves")


@dataclass(frozen=True)
class Train:
    epochs: int = option(10, "passes over the training data", ge=1)
    lr: float = option(1e-3, "learning rate", gt=0, lt=1)
    amp: bool = option(False, "mixed precision")
    optimizer: str = option("adam", "which optimizer", choices=("adam", "sgd"))
    patience: int | None = option(None, "epochs without progress", ge=0)
    clip: float | None = option(1.0, "largest gradient norm", gt=0)
    workers: int | Literal["auto"] = option("auto", "loader processes", ge=0)
    noise: Noise = section(Noise, "injected noise")


@dataclass(frozen=True)
class Config:
    device: str = option("pcm", "device model")
    note: str | None = option(None, "free text")
    train: Train = section(Train, "learning")
    times: tuple[str, ...] = option(("1s", "1d"), "when to evaluate", unit="time")
    betas: tuple[float, float] = option((0.9, 0.999), "Adam's averages", ge=0, lt=1)
    levels: tuple[int | None, ...] = option((), "levels per slice")
    either: float | int = option(0.5, "a number")


@dataclass(frozen=True)
class Demanding:
    low: int
    high: int = option(5, "upper end")

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low must be <= high, got {self.low} > {self.high}")


@dataclass(frozen=True)
class Outer:
    inner: Demanding = section(lambda: Demanding(1))


@dataclass(frozen=True)
class Unsupported:
    table: dict[str, int] | None = option(None, "not an option type")


def test_defaults_are_those_of_the_dataclass() -> None:
    config = from_mapping(Config, {})
    assert config == Config()
    assert load_toml(Config, None) == Config()
    with pytest.raises(FrozenInstanceError):
        config.train.epochs = 3  # type: ignore[misc]


def test_values_are_read_with_their_types() -> None:
    config = from_mapping(
        Config,
        {
            "device": "reram",
            "times": ["1h"],
            "betas": [0, 0.5],
            "levels": [4, "none"],
            "either": 3,
            "train": {"lr": 0, "clip": "none", "patience": 3, "workers": 2, "noise": {"scale": 2, "shape": 3}}
            | {"lr": 0.5},
        },
    )
    assert config.times == ("1h",)
    assert config.betas == (0.0, 0.5)
    assert [type(beta) for beta in config.betas] == [float, float]
    assert config.levels == (4, None)
    assert config.either == 3
    assert isinstance(config.either, int)
    assert config.train == Train(lr=0.5, clip=None, patience=3, workers=2, noise=Noise(scale=2.0, shape=3))
    assert isinstance(config.train.noise.scale, float)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"train": {"epochs": True}}, r"run: train\.epochs: wanted int, got True \(bool\)"),
        ({"train": {"epochs": 1.0}}, r"train\.epochs: wanted int, got 1\.0 \(float\)"),
        ({"train": {"epochs": 0}}, r"train\.epochs: wanted a value >= 1, got 0"),
        ({"train": {"lr": 0}}, r"train\.lr: wanted a value > 0"),
        ({"train": {"lr": 1.0}}, r"train\.lr: wanted a value < 1"),
        ({"train": {"lr": True}}, r"train\.lr: wanted float, got True"),
        ({"train": {"lr": "fast"}}, r"train\.lr: wanted float, got 'fast' \(str\)"),
        ({"train": {"lr": float("nan")}}, r"train\.lr: wanted a finite number, got nan"),
        ({"train": {"lr": float("inf")}}, r"train\.lr: wanted a finite number, got inf"),
        ({"train": {"amp": 1}}, r"train\.amp: wanted bool, got 1"),
        ({"train": {"patience": 1.5}}, r"train\.patience: wanted int"),
        ({"train": {"patience": -1}}, r"train\.patience: wanted a value >= 0"),
        ({"train": {"workers": "some"}}, r"train\.workers: wanted int \| 'auto', got 'some'"),
        ({"train": {"workers": -1}}, r"train\.workers: wanted a value >= 0"),
        ({"train": {"optimizer": "lion"}}, r"train\.optimizer: wanted one of 'adam', 'sgd', got 'lion'"),
        ({"train": {"noise": {"scale": 11}}}, r"train\.noise\.scale: wanted a value <= 10"),
        ({"train": {"noise": {"shape": "cubic"}}}, r"wanted 'constant' \| 'linear' \| 3, got 'cubic'"),
        ({"train": {"noise": {"shape": 3.0}}}, r"got 3\.0"),
        ({"train": 3}, r"train: wanted a table of options, got 3"),
        ({"device": None}, r"device: wanted str, got None"),
        ({"device": "none", "times": "1s"}, r"times: wanted list\[str, \.\.\.\], got '1s'"),
        ({"times": ["1s", 2]}, r"times\[1\]: wanted str, got 2"),
        ({"betas": [0.1]}, r"betas: wanted list\[float, float\]"),
        ({"betas": [0.1, 1]}, r"betas: wanted a value < 1, got 1\.0"),
        ({"tran": {}}, r"run: no option 'tran'; did you mean 'train'\? known here: device, note, train"),
        ({"train": {"epoch": 1}}, r"no option 'train\.epoch'; did you mean 'train\.epochs'\?"),
        ({"epochs": 1}, r"no option 'epochs'; did you mean 'train\.epochs'\?"),
        ({"zzz": 1}, r"no option 'zzz'; known here: device"),
    ],
)
def test_a_wrong_value_is_refused_by_name(mapping: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_mapping(Config, mapping, "run")


def test_missing_and_cross_checked_options_are_named() -> None:
    with pytest.raises(ValueError, match="configuration: low is missing; wanted int"):
        from_mapping(Demanding, {})
    with pytest.raises(ValueError, match=r"run: inner: low must be <= high, got 9 > 5"):
        from_mapping(Outer, {"inner": {"low": 9}}, "run")


def test_a_type_that_toml_cannot_give_is_the_recipes_mistake() -> None:
    with pytest.raises(TypeError, match="table: an option cannot be of type dict"):
        from_mapping(Unsupported, {"table": {}})


def test_to_mapping_leaves_none_out_unless_it_would_come_back_as_the_default() -> None:
    plain = to_mapping(Config(train=Train(clip=None)))
    assert plain["train"]["clip"] == "none"
    assert "patience" not in plain["train"]
    assert "note" not in plain
    assert plain["times"] == ["1s", "1d"]
    assert from_mapping(Config, plain) == Config(train=Train(clip=None))


def test_flatten_gives_every_option() -> None:
    flat = flatten(Config())
    assert flat["train.noise.scale"] == 1.0
    assert flat["train.patience"] is None
    assert flat["times"] == ("1s", "1d")
    assert len(flat) == 6 + 7 + 2


def test_overrides_are_toml_values_or_bare_strings() -> None:
    given = {"train": {"epochs": 3}}
    changed = apply_overrides(
        given,
        [
            "train.epochs=4",
            "train.epochs = 5",
            "device=pcm",
            'times=["1s", "1y"]',
            "train.lr=1e-2",
            "train.clip=none",
            "train.amp=true",
            "train.noise.shape=linear",
            "note=2024-01-01 x=y",
        ],
        Config,
    )
    assert given == {"train": {"epochs": 3}}
    config = from_mapping(Config, changed)
    assert changed["train"]["clip"] is None
    assert config.times == ("1s", "1y")
    assert config.note == "2024-01-01 x=y"
    assert config.train == Train(epochs=5, lr=0.01, clip=None, amp=True, noise=Noise(shape="linear"))


def test_lists_may_be_given_with_commas() -> None:
    found = load_toml(Config, None, ["times=1s, 1y", "betas=0.5,0.9", "levels=none,4"])
    assert (found.times, found.betas, found.levels) == (("1s", "1y"), (0.5, 0.9), (None, 4))
    assert load_toml(Config, None, ["times=1s"]).times == ("1s",)
    # What is left of ["1s", "1y"] when a shell has taken the quotes.
    assert load_toml(Config, None, ["times=[1s, 1y]", "levels=[none,4]"]).times == ("1s", "1y")
    with pytest.raises(ValueError, match="wanted list"):
        load_toml(Config, None, ["times=1s, [1y]"])
    with pytest.raises(ValueError, match=r"wanted list\[float, float\], got 0.5"):
        load_toml(Config, None, ["betas=0.5"])


@pytest.mark.parametrize("text", ["2024", "true", "2024-01-01", '"2024"', "1\nx = 2"])
def test_an_override_of_a_string_may_look_like_something_else(text: str) -> None:
    assert apply_overrides({}, [f"device={text}"], Config) == {"device": text.strip('"')}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", r"override 'train\.epochs': wanted name=value"),
        ("=5", "wanted name=value"),
        ("train.epoch=5", r"no option 'train\.epoch'; did you mean 'train\.epochs'"),
        ("train..epochs=5", r"did you mean 'train\.epochs'"),
        ("train={epochs = 5}", r"train is a section; set one of train\.epochs"),
        ("train.epochs=many", r"train\.epochs: wanted int, got 'many'"),
        ("train.epochs=0", r"wanted a value >= 1"),
        ("train.lr=nan", "wanted a finite number"),
        ("train.epochs=none", "wanted int, got 'none'"),
        ("times=[[1s]]", r"times: wanted list\[str, \.\.\.\], got '\[\[1s\]\]'"),
    ],
)
def test_a_wrong_override_is_refused(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        apply_overrides({}, [override], Config)


def test_an_override_does_not_hide_a_wrong_file() -> None:
    with pytest.raises(ValueError, match="train: wanted a table of options, got 3"):
        apply_overrides({"train": 3}, ["train.epochs=5"], Config)


def test_load_toml_reads_a_file_and_then_the_overrides(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b'\xef\xbb\xbfdevice = "flash"\r\n[train]\r\nepochs = 3\r\nlr = 0.1\r\n')
    config = load_toml(Config, path, ["train.epochs=7"])
    assert config == Config(device="flash", train=Train(epochs=7, lr=0.1))


def test_load_toml_says_what_is_wrong_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    with pytest.raises(FileNotFoundError, match=r"no configuration file .*run\.toml"):
        load_toml(Config, path)
    path.write_text('device = "pcm"\nepochs = = 3\n')
    with pytest.raises(ValueError, match=r"run\.toml: not a TOML file.*line 2"):
        load_toml(Config, path)
    path.write_bytes(b'device = "\xff"\n')
    with pytest.raises(ValueError, match=r"run\.toml: not a TOML file in UTF-8"):
        load_toml(Config, path)
    path.write_text("[train]\nepochs = -1\n")
    with pytest.raises(ValueError, match=r"run\.toml: train\.epochs: wanted a value >= 1"):
        load_toml(Config, path)


AWKWARD = [
    "",
    'a "quoted" \\ back\\slash',
    "line\nbreak\r\n\ttab",
    "".join(map(chr, range(32))) + "\x7f\x85",
    "µ ± Ω 漢字 🙂 \u2028",
    "'''",
    "# no comment",
    "[train]",
]


@pytest.mark.parametrize("text", AWKWARD)
def test_strings_survive_the_round_trip(tmp_path: Path, text: str) -> None:
    config = Config(device=text, note=text, times=(text, "1s", text))
    dump_toml(config, tmp_path / "run.toml")
    assert load_toml(Config, tmp_path / "run.toml") == config


@pytest.mark.parametrize("seed", range(20))
def test_any_configuration_survives_the_round_trip(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    config = Config(
        note=draw.choice([None, *AWKWARD]),
        times=tuple(draw.choices(AWKWARD, k=draw.randrange(4))),
        levels=tuple(draw.choices([None, 1, -(2**62)], k=draw.randrange(4))),
        betas=(draw.random(), draw.random() * 10.0 ** -draw.randrange(300)),
        either=draw.choice([3, 2.5, 1e22, -1e-7, 10**25]),
        train=Train(
            epochs=draw.randrange(1, 10**9),
            lr=10.0 ** -draw.randrange(1, 12),
            amp=draw.random() < 0.5,
            patience=draw.choice([None, 0, 3]),
            clip=draw.choice([None, 1.0, 0.1]),
            workers=draw.choice([0, 4, "auto"]),
            noise=Noise(scale=draw.uniform(0, 10), shape=draw.choice(["linear", 3])),
        ),
    )
    dump_toml(config, tmp_path / "new" / "run.toml")
    again = load_toml(Config, tmp_path / "new" / "run.toml")
    assert again == config
    assert repr(again) == repr(config)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["run.toml"]


@pytest.mark.parametrize(
    "config",
    [
        Config(note="none"),  # would be read as None
        Config(either=float("inf")),
        Config(train=Train(epochs=0)),
        Config(times=["1s"]),  # type: ignore[arg-type]
    ],
)
def test_what_would_not_be_read_back_is_not_written(tmp_path: Path, config: Config) -> None:
    path = tmp_path / "run.toml"
    path.write_text("# the old one\n")
    with pytest.raises(ValueError, match=r"run\.toml"):
        dump_toml(config, path)
    assert path.read_text() == "# the old one\n"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.toml"
    dump_toml(Config(), path)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        dump_toml(replace(Config(), device="other"), path)
    assert load_toml(Config, path) == Config()
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.toml"]


def test_describe_has_a_line_for_each_option() -> None:
    lines = {line.split()[0]: line for line in describe(Config).splitlines()}
    assert list(lines) == list(flatten(Config()))
    assert "float" in lines["train.lr"]
    assert "learning rate (default 0.001; > 0; < 1)" in lines["train.lr"]
    assert "int | none" in lines["train.patience"]
    assert 'default "adam"; one of adam, sgd' in lines["train.optimizer"]
    assert 'when to evaluate (default ["1s", "1d"]; time)' in lines["times"]
    assert "(required)" in describe(Demanding)


def test_describe_puts_texts_below_the_names_where_lines_would_be_too_long() -> None:
    assert describe(Config, 1000) == describe(Config)
    lines = describe(Config, 60).splitlines()
    assert max(map(len, lines)) <= 60
    names = [line for line in lines if not line.startswith(" ")]
    assert [name.split()[0] for name in names] == list(flatten(Config()))
    told = " ".join(" ".join(lines).split())
    assert "train.lr (float) learning rate (default 0.001; > 0; < 1)" in told


def test_a_change_since_it_was_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    dump_toml(Config(train=Train(epochs=7)), path)
    text = path.read_text().replace("epochs = 7", "epochs = 3")
    path.write_text(text)
    with pytest.warns(UserWarning, match=r"run.toml is not as it was written: changed by hand .*, or damaged"):
        assert load_toml(Config, path).train.epochs == 3
    path.write_text("\n".join(text.splitlines()[:-1]))
    assert load_toml(Config, path).train.epochs == 3
