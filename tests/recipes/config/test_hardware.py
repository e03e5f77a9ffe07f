from __future__ import annotations

import pytest

from analogsim.crossbar import as_crossbar
from analogsim.recipes.config.hardware import array_of
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import load_toml


@pytest.mark.parametrize(
    ("crossbar", "learned"),
    [
        ("standard", True),
        ("ideal(dac_bits=6)", True),
        ("standard(input_range='dynamic')", False),
        ("standard(input_range='calibrated')", False),
        ("standard(input_range=3.0)", False),
        ("ideal", False),
        ("standard(dac_bits=None)", False),
    ],
)
def test_ranges_are_learned_where_there_is_a_dac_and_nothing_is_said_of_them(crossbar: str, learned: bool) -> None:
    config = load_toml(Config, None, [f"crossbar={crossbar}"])
    array = as_crossbar(crossbar)
    assert array_of(config, aware=False) == array
    assert array_of(config, aware=True) == (array.replace(input_range="learned") if learned else array)
    as_said = load_toml(Config, None, [f"crossbar={crossbar}", "calibration.learn_ranges=false"])
    assert array_of(as_said, aware=True) == array
