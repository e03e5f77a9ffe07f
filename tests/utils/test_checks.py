from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import analogsim
from analogsim.utils.checks import MOST, as_number, check_flag, check_seed, check_whole, is_finite
from analogsim.utils.text import in_short

TRUTH = ("no", "False", "", 0, 1, None, [], [True], object(), math.nan)


@pytest.mark.parametrize("value", TRUTH, ids=range(len(TRUTH)))
def test_a_flag_is_true_or_false(value: object) -> None:
    with pytest.raises(TypeError, match=r"^convert: embeddings must be True or False, got "):
        check_flag(value, "convert: embeddings")


def test_flags_of_numpy_are_flags() -> None:
    assert check_flag(np.True_, "x") is True
    assert check_flag(False, "x") is False


@pytest.mark.parametrize("value", ["no", 1, None])
def test_flags_of_public_names_are_no_truth(value: object) -> None:
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 2))
    analog = analogsim.convert(nn.Linear(3, 2), "pcm")
    flag: dict[str, object] = {}
    for call, flag in (
        (lambda flag: analogsim.convert(model, "pcm", **flag), {"embeddings": value}),
        (lambda flag: analogsim.calibrate(analog, [torch.ones(2, 3)], **flag), {"keep_learned": value}),
        (lambda flag: analogsim.search_ranges(analog, [torch.ones(2, 3)], **flag), {"keep_learned": value}),
        (lambda flag: analogsim.remap(analog, {}, **flag), {"signs": value}),
        (lambda flag: analogsim.remap(analog, {}, **flag), {"rows": value}),
        (lambda flag: analogsim.Crossbar(dac_bits=8, **flag), {"bit_serial": value}),
        (lambda flag: analogsim.Quantization(**flag), {"stochastic": value}),
    ):
        with pytest.raises(TypeError, match=f"{next(iter(flag))} must be True or False, got"):
            call(flag)


@pytest.mark.parametrize("value", [0, 1.0, "3", True, None, [], torch.ones(2), 2**31, 10**400, math.nan], ids=str)
def test_a_whole_number_is_one_within_its_limits(value: object) -> None:
    with pytest.raises(ValueError, match=r"^evaluate: chips must be an integer "):
        check_whole(value, "evaluate: chips", 1)


def test_whole_numbers_of_others_are_whole_numbers() -> None:
    for value in (3, np.int64(3), torch.tensor(3)):
        assert check_whole(value, "x", 1) == 3
    assert check_whole(MOST, "x") == MOST


def test_seeds_are_those_that_torch_takes() -> None:
    for value in (0, -(2**63), 2**63 - 1, np.int64(5)):
        torch.manual_seed(check_seed(value, "seed:"))
    for value in (2**63, 10**30, 10**400):
        with pytest.raises(ValueError, match="seed: must be an integer of at most 63 bits"):
            check_seed(value, "seed:")
    with pytest.raises(TypeError, match="seed: must be an integer, got 'a'"):
        check_seed("a", "seed:")


@pytest.mark.parametrize("value", [10**400, -(10**400), math.inf, math.nan, "3", None, torch.ones(2)], ids=str)
def test_what_no_float_holds_is_not_finite(value: object) -> None:
    assert not is_finite(value)
    assert is_finite(3)
    if isinstance(value, int):
        assert math.isnan(as_number(value))


def test_sizes_have_limits() -> None:
    for name in ("slices", "slice_bits", "copies", "bias_rows"):
        with pytest.raises(ValueError, match=f"mapping: {name} must be at most"):
            analogsim.Mapping(**{name: 2**63})
    with pytest.raises(ValueError, match="slices \\* slice_bits, the bits of a code, must be at most 64, got 20 \\* 4"):
        analogsim.Mapping(slices=20)
    for name in ("rows", "cols"):
        with pytest.raises(ValueError, match=f"crossbar: {name} must be an integer >= 1 or None"):
            analogsim.Crossbar(**{name: 2**63})


def test_a_value_in_an_error_is_short() -> None:
    assert in_short("a") == "'a'"
    assert len(in_short("a" * 10_000)) < 220
    assert in_short(10**6000) == "a number of about 6001 digits"

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    assert in_short(Broken()) == "something of type Broken, whose repr fails"


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), torch.tensor(2.0), torch.tensor([2])])
def test_numbers_are_floats(value: object) -> None:
    assert as_number(value) == 2.0
    assert type(as_number(value)) is float


@pytest.mark.parametrize("value", ["2", b"2", True, None, [2.0], (), torch.ones(2), np.ones(2), object(), 1j])
def test_what_is_no_number_is_nan(value: object) -> None:
    assert math.isnan(as_number(value))
