from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analogsim.recipes.config.options import Config, StudyConfig
from analogsim.recipes.config.space import DEFAULT_SPACE, Choice, Range, Space, suggest
from analogsim.recipes.config.toml import dump_toml, flatten, from_mapping, load_toml, to_mapping

optuna = pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")


def space(*overrides: str, file: str | None = None, place: Path | None = None) -> Space:
    path = None
    if file is not None:
        assert place is not None
        path = place / "study.toml"
        path.write_text(file)
    return load_toml(StudyConfig, path, overrides).search


def test_every_default_range_holds_the_default_setting() -> None:
    given = flatten(Config())
    assert [name for name, part in DEFAULT_SPACE.parts if not part.holds(given[name])] == []
    assert len(DEFAULT_SPACE.distributions(Config)) == len(DEFAULT_SPACE.parts) == 8


def test_a_file_replaces_the_space_and_the_command_line_changes_it(tmp_path: Path) -> None:
    text = "[search]\nnoise.end = { low = 0.5, high = 4, log = true }\nnoise.shape = ['linear', 'cosine']\n"
    found = space(file=text, place=tmp_path)
    assert found == Space((("noise.end", Range(0.5, 4, log=True)), ("noise.shape", Choice(("linear", "cosine")))))
    changed = space("search.noise.shape=none", "search.data.batch_size={low=16, high=64, step=16}")
    wanted = {name: part for name, part in DEFAULT_SPACE.parts if name != "noise.shape"}
    assert dict(changed.parts) == wanted | {"data.batch_size": Range(16, 64, step=16)}
    whole = space("search={noise={end={low=1.0, high=2.0}}}")
    assert whole == Space((("noise.end", Range(1.0, 2.0)),))


def test_it_is_written_and_read_back(tmp_path: Path) -> None:
    config = load_toml(
        StudyConfig, None, ["search.noise.clip_sigmas=['none', 2.0]", "search.optimization.epochs={low=2, high=4}"]
    )
    dump_toml(config, tmp_path / "study.toml")
    again = load_toml(StudyConfig, tmp_path / "study.toml")
    assert again == config
    assert dict(again.search.parts)["noise.clip_sigmas"] == Choice((None, 2.0))
    assert from_mapping(StudyConfig, to_mapping(config)) == config


def test_distributions_have_the_type_of_the_setting() -> None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found = space(
        'search={noise={end={low=1, high=2}, clip_sigmas=["none", 2]}, optimization={epochs={low=2, high=8, log=true}}}'
    ).distributions(Config)
    assert found == {
        "noise.end": FloatDistribution(1.0, 2.0),
        "noise.clip_sigmas": CategoricalDistribution((None, 2.0)),
        "optimization.epochs": IntDistribution(2, 8, log=True),
    }


def test_suggestions_stay_within() -> None:
    part = space(
        "search.optimization.epochs={low=2, high=8, step=3}", "search.noise.warmup={low=0, high=0.3, step=0.1}"
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen: list[dict[str, Any]] = [suggest(part.distributions(Config), study.ask()) for _ in range(50)]
    assert all(each.holds(values[name]) for values in seen for name, each in part.parts)
    assert {values["optimization.epochs"] for values in seen} == {2, 5, 8}
    assert {round(values["noise.warmup"], 9) for values in seen} == {0.0, 0.1, 0.2, 0.3}
    assert {values["noise.shape"] for values in seen} == {"constant", "linear", "cosine", "step"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("search.noise.end=3", r"search.noise.end: wanted {low = ..., high = ...} or {choices = \[...\]}, got 3"),
        ("search.noise.end={low=1}", "noise.end: a range has low and high, and may have log or step, got"),
        ("search.noise.end={low=1, high=2, steps=3}", "a range has low and high"),
        ("search.noise.end={low=2, high=2}", "noise.end: low must be below high, got 2 and 2"),
        ("search.noise.end={low='a', high=2}", "low, high and step are finite numbers, got 'a'"),
        ("search.noise.end={low=1, high=inf}", "finite numbers, got inf"),
        ("search.noise.end={low=true, high=2}", "finite numbers, got True"),
        ("search.noise.end={low=0, high=2, log=true}", "a logarithmic range needs low > 0 and no step"),
        ("search.noise.end={low=1, high=2, log=3}", "log is true or false, got 3"),
        ("search.noise.end={low=1, high=2, step=5}", "step must be above 0 and fit into the range, got 5"),
        ("search.noise.shape={choices=[]}", "choices are a list of values and stand alone"),
        ("search.noise.shape={choices=['linear'], low=1}", "choices are a list of values and stand alone"),
        ("search=3", "search: wanted a table"),
    ],
)
def test_what_is_no_range_and_no_choice_is_told(override: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        space(override)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("search.noise.ende={low=1, high=2}", "no option 'noise.ende'; did you mean 'noise.end'?"),
        ("search.noise.ramp={low=0, high=1}", "noise.ramp: wanted a value > 0, got 0.0"),
        ("search.noise.shape=['linear', 'round']", "noise.shape: wanted one of 'constant', .* got 'round'"),
        ("search.noise.shape=['linear', 'linear']", "noise.shape: give each choice once"),
        ("search.noise.shape={low=1, high=2}", "noise.shape: has no numbers to range over"),
        ("search.optimization.epochs={low=1.5, high=4}", "optimization.epochs: wanted int, got 1.5"),
        ("search.optimization.epochs={low=1, high=4, step=0.5}", "its step must be one, got 0.5"),
        ("search.seed=[0, 1]", "seed cannot be searched"),
        ("search.evaluation.chips=[1, 2]", "evaluation.chips cannot be searched"),
        ("search.data.limit={low=1, high=2}", "data.limit cannot be searched"),
        ("search={}", "nothing is searched"),
    ],
)
def test_what_no_setting_takes_is_told(override: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        space(override).distributions(Config)
