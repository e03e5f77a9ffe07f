from dataclasses import dataclass

import numpy as np
import pytest
import torch

from analogsim import Drift, Effect, Quantization, param


@dataclass(frozen=True)
class Everything(Effect):
    real: float = param(0.5, "µS", gt=0, le=1)
    whole: int = param(3, "1", ge=1)
    flag: bool = param(False, "1")
    word: str = param("a", "1", choices=("a", "b"))


def test_parameters_become_pythons_own():
    effect = Everything(real=1, whole=np.int32(4), flag=np.bool_(True), word=np.str_("b"))
    assert repr(effect) == "Everything(real=1.0, whole=4, flag=True, word='b')"
    assert effect == Everything(1.0, 4, True, "b")
    assert repr(Everything(real=np.float64(0.25))) == repr(Everything(real=0.25))


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"real": 0}, ValueError, "Everything: real must be > 0, got 0"),
        ({"real": 1.5}, ValueError, "Everything: real must be <= 1, got 1.5"),
        ({"real": float("nan")}, ValueError, "Everything: real must be finite, got nan"),
        ({"real": None}, TypeError, "Everything: real must be a number, got None"),
        ({"real": torch.tensor(0.5)}, TypeError, "Everything: real must be a number, got tensor"),
        ({"whole": 0}, ValueError, "Everything: whole must be >= 1, got 0"),
        ({"whole": 2.0}, TypeError, "Everything: whole must be an integer, got 2.0"),
        ({"flag": 1}, TypeError, "Everything: flag must be True or False, got 1"),
        ({"word": "c"}, ValueError, "Everything: word must be one of a, b, got 'c'"),
        ({"nonsense": 1}, TypeError, "nonsense"),
    ],
)
def test_illegal_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        Everything(**parameters)
    with pytest.raises(error, match=message):
        Everything().replace(**parameters)


def test_a_default_must_be_legal():
    @dataclass(frozen=True)
    class Wrong(Effect):
        size: float = param(-1.0, "µS", ge=0)

    with pytest.raises(ValueError, match="Wrong: size must be >= 0, got -1"):
        Wrong()


def test_numbers_of_numpy_are_numbers():
    effect = Quantization(levels=np.int64(8), stochastic=np.bool_(True))
    assert repr(effect) == "Quantization(levels=8, stochastic=True)"
    assert repr(Drift(nu=np.float32(0.5), t0=np.int64(2))) == "Drift(nu=0.5, nu_std=0.01, t0=2.0)"


def test_a_word_may_stand_for_a_number():
    @dataclass(frozen=True)
    class At(Effect):
        at: float | str = param("top", "µS", ge=0, words=("top", "bottom"))

    assert (At().at, At("bottom").at, At(3).at) == ("top", "bottom", 3.0)
    with pytest.raises(TypeError, match="At: at must be a number or 'top' or 'bottom', got 'middle'"):
        At("middle")
    with pytest.raises(ValueError, match="At: at must be >= 0, got -1"):
        At(-1)
