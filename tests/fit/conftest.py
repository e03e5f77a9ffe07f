"""What the tests of fits share: two known models, what was sampled from one of them, and how fits are compared."""

import math
import re
import warnings

import numpy as np
import pytest

from analogsim import DeviceModel, Drift, FitWarning, Gaussian, Mapping, ReadNoise, fit_device
from analogsim.devices import FittedDrift, FittedProgramming, FittedReadNoise, FittedSlowNoise
from analogsim.fit import sample_measurements

K = 4.5  # standard errors: 1 in 150,000, and each test asks for a few dozen numbers
TIMES = (0, "1min", "1h", "1d", "10d")
G_MAX = 25.0

GENERIC = DeviceModel((Gaussian(0.03), Drift(), ReadNoise(0.01)), mapping=Mapping("pair"))
FITTED = DeviceModel(
    (
        FittedProgramming((0.01, 0.08, -0.05), (0.0, 0.02)),
        FittedDrift((0.05, -0.01), (0.01, -0.003)),
        FittedSlowNoise((0.02,)),
        FittedReadNoise((0.003, 0.01)),
    )
)


def polynomial(coefficients, x):
    return float(np.polynomial.polynomial.polyval(x, coefficients))


def standard_error(parameter):
    return (parameter.high - parameter.low) / (2 * 1.96)


def place(parameter):
    """The conductance that stands in its name, over g_max."""
    return float(re.search(r"at ([\d.]+) µS", parameter.name).group(1)) / G_MAX if " at " in parameter.name else 0.5


def truth(model, parameter):
    """What the parameter is in the model that was sampled."""
    x, name = place(parameter), parameter.name
    if model is GENERIC:
        known = {"programming sd": 0.75, "programming mean": 0, "read noise": 0.25, "slow": 0}
        known |= {"drift exponent, mean": 0.05, "drift exponent, sd": 0.01}
        return next(value for word, value in known.items() if name.startswith(word))
    programming, drift, slow, white = model.effects
    values = {
        "programming sd": G_MAX * polynomial(programming.sigma, x),
        "programming mean": G_MAX * polynomial(programming.offset, x),
        "drift exponent, mean": polynomial(drift.nu, math.log(x or 1)),
        "drift exponent, sd": polynomial(drift.nu_std, math.log(x or 1)),
        "slow": 100 * slow.std[0],
        "read noise": G_MAX * polynomial(white.std, x),
    }
    return next(value for word, value in values.items() if name.startswith(word))


def quiet(data, **options):
    """The fit without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return fit_device(data, **({"bootstrap": 0} | options))


@pytest.fixture(scope="session")
def columns():
    return sample_measurements(FITTED, cells=30, times=TIMES, seed=2)


@pytest.fixture(scope="session")
def clean(columns):
    return quiet(columns)


def changed(columns, **changes):
    return {name: np.array(changes.get(name, values)) for name, values in columns.items()}


def agree(fit, clean, rel):
    """Whether two fits say the same of every target and time."""
    for x in (0.2, 0.6, 1.0):
        for name in ("sigma",):
            one, other = (polynomial(getattr(f.effects[0], name), x) for f in (fit, clean))
            assert one == pytest.approx(other, rel=rel)
        one, other = (polynomial(f.effects[1].nu, math.log(x)) for f in (fit, clean))
        assert one == pytest.approx(other, rel=rel)
        one, other = (polynomial(f.effects[1].nu_std, math.log(x)) for f in (fit, clean))
        assert one == pytest.approx(other, rel=2 * rel)
        one, other = (polynomial(f.effects[-1].std, x) for f in (fit, clean))
        assert one == pytest.approx(other, rel=rel)


def only(columns, keep):
    return {name: values[keep] for name, values in columns.items()}


def warned(columns, **options):
    with pytest.warns(FitWarning) as caught:
        fit = fit_device(columns, **({"bootstrap": 0} | options))
    assert tuple(str(one.message).removeprefix("fit_device: ") for one in caught) == fit.report.warnings
    assert all(one.filename == __file__ for one in caught)
    return fit, "\n".join(fit.report.warnings)
