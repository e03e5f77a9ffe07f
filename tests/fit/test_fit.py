"""Fits of measurements that were sampled from known models, clean and deliberately dirty."""

import csv
import math
import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import analogsim
from analogsim import DeviceModel, Drift, FitWarning, Gaussian, Mapping, ReadNoise, fit_device
from analogsim.devices import FittedDrift, FittedProgramming, FittedReadNoise, FittedSlowNoise
from analogsim.fit import sample_measurements
from analogsim.fit.estimate import Basis, NormalLaw, median_by
from analogsim.fit.measurements import read

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


@pytest.fixture(scope="module")
def columns():
    return sample_measurements(FITTED, cells=30, times=TIMES, seed=1)


@pytest.fixture(scope="module")
def clean(columns):
    return quiet(columns)


# Known models are recovered


@pytest.mark.parametrize("model", [GENERIC, FITTED], ids=["generic", "fitted"])
def test_parameters_of_a_known_model_are_recovered(model):
    fit = fit_device(sample_measurements(model, cells=50, times=TIMES, seed=5), bootstrap=25)
    assert not fit.report.warnings
    assert len(fit.report.parameters) >= 4
    for parameter in fit.report.parameters:
        assert abs(parameter.value - truth(model, parameter)) < K * standard_error(parameter), parameter
    assert {type(effect) for effect in fit.effects} >= {FittedProgramming, FittedDrift, FittedReadNoise}
    assert all(check.p > 1e-3 for check in fit.report.checks)


def test_pcm_is_recovered_where_it_was_measured():
    with pytest.warns(FitWarning, match="repeated readings are all equal"):
        fit = fit_device(sample_measurements("pcm", cells=150, times=TIMES, seed=0), bootstrap=25)
    for parameter in fit.report.parameters:
        x = place(parameter)
        error = K * standard_error(parameter)
        if parameter.name.startswith("programming sd"):
            # A polynomial chosen from data need not be the source's: 3 % of room.
            expected = 0.26348 + 1.9650 * x - 1.1731 * x**2
            assert abs(parameter.value - expected) < error + 0.03 * expected, parameter
        elif parameter.name.startswith("drift exponent, mean") and " at " in parameter.name:
            expected = np.clip(-0.0155 * math.log(x) + 0.0244, 0.049, 0.100)
            assert abs(parameter.value - expected) < error + 0.03 * expected, parameter
        elif parameter.name.startswith("slow noise"):
            t = np.array([0, 60, 3600, 86400, 864000])
            q = 100 * 0.0088 / x**0.65 * np.sqrt(np.log((t + 20) / 5e-7)).mean()
            assert abs(parameter.value - q) < error + 0.15 * q, parameter


def test_errors_of_the_slopes_are_no_spread_of_the_exponents():
    # Slow noise of 2 % within a factor of 16 in time: slopes scatter 1.4 times as much as exponents.
    drift, slow = FittedDrift((0.05,), (0.01,)), FittedSlowNoise((0.02,))
    model = DeviceModel((FittedProgramming((0.02,)), drift, slow, FittedReadNoise((0.002,))))
    times = (0, 20, 60, 120, 300)
    fit = quiet(sample_measurements(model, cells=200, levels=[10.0, 15.0, 20.0, 25.0], times=times, repeats=2))
    for x in (0.5, 0.9):
        assert polynomial(fit.effects[1].nu_std, math.log(x)) == pytest.approx(0.01, abs=0.0015)
        assert polynomial(fit.effects[2].std, math.log(x)) == pytest.approx(0.02, abs=0.0015)
        assert polynomial(fit.effects[0].sigma, x) == pytest.approx(0.02, abs=0.0015)


def test_censored_cells_at_zero_are_no_bias():
    # Half of the cells at target 0 are at zero: the sd of what is read there is 0.58 of that which was drawn.
    model = DeviceModel((FittedProgramming((0.05,)), FittedReadNoise((0.001,))))
    columns = sample_measurements(model, cells=400, levels=[0.0, 0.5, 25.0], times=(0,), repeats=3)
    fit = quiet(columns)
    assert fit.effects[0].offset == (0.0,)
    for x in (0.0, 1.0):
        sigma = polynomial(fit.effects[0].sigma, x)
        assert sigma == pytest.approx(0.05, abs=K * 0.05 / math.sqrt(400))


def test_what_is_not_there_is_not_found():
    still = DeviceModel((FittedProgramming((0.02,)), FittedReadNoise((0.005,))))
    columns = sample_measurements(still, cells=30, times=TIMES)
    with pytest.warns(FitWarning, match="no drift was found"):
        fit = fit_device(columns, bootstrap=0)
    assert [type(effect) for effect in fit.effects] == [FittedProgramming, FittedReadNoise]


@pytest.mark.slow
@pytest.mark.parametrize("model", [GENERIC, FITTED], ids=["generic", "fitted"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(model):
    inside = []
    for seed in range(12):
        columns = sample_measurements(model, cells=30, times=TIMES[:4], seed=100 + seed)
        fit = quiet(columns, bootstrap=60, seed=seed)
        inside += [one.low <= truth(model, one) <= one.high for one in fit.report.parameters]
    assert len(inside) > 50
    # 3 standard errors of 0.95 in 70, for numbers that are correlated by half.
    assert np.mean(inside) > 0.84, np.mean(inside)


def test_another_seed_gives_other_intervals_and_the_same_values(columns):
    few = {name: values[columns["cell"] % 3 == 0] for name, values in columns.items()}
    one, again, other = (quiet(few, bootstrap=5, seed=seed) for seed in (0, 0, 1))
    assert one.report.parameters == again.report.parameters
    assert one == again == other
    assert [a.low for a in one.report.parameters] != [b.low for b in other.report.parameters]


# From measurements to chips


@pytest.mark.parametrize("model", [GENERIC, FITTED], ids=["generic", "fitted"])
def test_full_circle(model, tmp_path):
    fit = quiet(sample_measurements(model, cells=100, times=TIMES, seed=2))
    fit.save(tmp_path / "mine.toml")
    layer = nn.Linear(300, 300, bias=False)
    nn.init.uniform_(layer.weight, -1, 1)
    moments = []
    for device in (model, str(tmp_path / "mine.toml")):
        analog = analogsim.convert(layer, device=device).eval()
        analogsim.program(analog, seed=0)
        for t in ("1s", "1d"):
            analogsim.drift(analog, t)
            error = (analogsim.to_digital(analog, "programmed").weight - layer.weight).detach()
            moments.append((float(error.mean()), float(error.std())))
    for source, fitted in zip(moments[:2], moments[2:], strict=True):
        assert fitted[0] == pytest.approx(source[0], abs=2e-3)
        assert fitted[1] == pytest.approx(source[1], rel=0.09)  # 3 standard errors of a fit to 800 cells


def test_the_result_is_a_device_model(clean, tmp_path):
    assert isinstance(clean, DeviceModel)
    assert (clean.g_min, clean.g_max, clean.name) == (0.0, G_MAX, "fitted")
    assert clean == clean.device
    assert clean.device == clean
    assert hash(clean) == hash(clean.device)
    assert repr(clean) == repr(clean.device)
    assert clean != clean.replace(name="other")
    assert clean != "pcm"
    assert type(clean.replace(g_max=30.0)) is DeviceModel
    clean.save(tmp_path / "mine.toml")
    assert analogsim.load_device(tmp_path / "mine.toml") == clean
    analog = analogsim.convert(nn.Linear(4, 3), device=clean)
    analogsim.program(analog, seed=0)
    analogsim.save_chip(analog, tmp_path / "chip.safetensors")
    again = analogsim.convert(analogsim.to_digital(analog), device=str(tmp_path / "mine.toml"))
    analogsim.load_chip(again, tmp_path / "chip.safetensors")


def test_the_table_tells_everything(columns):
    fit = quiet({name: values[columns["cell"] >= 220] for name, values in columns.items()}, bootstrap=10)
    text = str(fit)
    assert re.search(r"^programming sd.* µS +[\d.e-]+ to [\d.e-]+$", text, re.MULTILINE)
    assert "20 cells, 1 targets, 5 times, 300 readings" in text
    for line in (*fit.report.notes, *fit.report.warnings):
        assert line in text
    assert fit.report["programming sd"].unit == "µS"
    with pytest.raises(KeyError, match="there are programming sd"):
        fit.report["programming error"]


def test_plot(clean, columns, tmp_path):
    pytest.importorskip("matplotlib")
    figure = clean.plot()
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert titles[:2] == ["programming error [µS]", "drift exponent"]
    assert titles[-1] == "standardised residuals"
    figure.savefig(tmp_path / "fit.png")
    first = {name: values[columns["time"] == 20] for name, values in columns.items()}
    assert len([axes for axes in quiet(first).plot().axes if axes.get_visible()]) == 3
    with pytest.raises(ValueError, match="no report"):
        type(clean)(clean.effects).plot()


# Dirty data


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


def test_the_order_of_rows_does_not_matter(columns, clean):
    order = np.random.default_rng(0).permutation(len(columns["cell"]))
    fit = quiet({name: values[order] for name, values in columns.items()})
    agree(fit, clean, 1e-3)


def test_missing_values_are_dropped_and_counted(columns, clean):
    generator = np.random.default_rng(0)
    measured = columns["measured"].copy()
    measured[generator.random(len(measured)) < 0.05] = np.nan
    fit = quiet(changed(columns, measured=measured))
    assert f"{np.isnan(measured).sum()} of {len(measured)} rows dropped: a value is missing" in fit.report.notes
    agree(fit, clean, 0.1)


def test_outliers_are_left_out_and_counted(columns, clean):
    generator = np.random.default_rng(0)
    odd = generator.random(len(columns["cell"])) < 0.02
    fit = quiet(changed(columns, measured=np.where(odd, 10 * columns["measured"], columns["measured"])))
    (told,) = [note for note in fit.report.notes if "left out" in note]
    # Ten times a reading next to zero is no outlier.
    high = int((odd & (columns["target"] > 0)).sum())
    assert high - 5 <= int(told.split()[0]) <= odd.sum() + 5
    agree(fit, clean, 0.1)


def test_cells_that_were_never_programmed_are_left_out_and_counted(columns, clean):
    dead = np.isin(columns["cell"], [100, 150, 201, 230])
    fit = quiet(changed(columns, measured=np.where(dead, 0.0, columns["measured"])))
    assert fit.report.checks[0].left_out == 4
    agree(fit, clean, 0.15)


def test_copies_of_rows_are_dropped_and_counted(columns, clean):
    twice = np.concatenate((np.arange(len(columns["cell"])), np.arange(0, len(columns["cell"]), 10)))
    fit = quiet({name: values[twice] for name, values in columns.items()})
    copies = len(twice) - len(columns["cell"])
    assert f"{copies} of {len(twice)} rows dropped: copies of another row" in fit.report.notes
    assert fit == clean


def test_readings_of_a_coarse_instrument_are_kept(columns):
    fit = quiet(changed(columns, measured=columns["measured"].round(1)))
    assert any("the instrument is coarse" in note for note in fit.report.notes)
    assert not any("dropped" in note for note in fit.report.notes)


def test_missing_times_of_some_cells(columns, clean):
    late = (columns["time"] > 1e4) & (columns["cell"] % 2 == 0)
    agree(quiet({name: values[~late] for name, values in columns.items()}), clean, 0.25)


@pytest.mark.parametrize("factor", [1e-3, 1e3, 1e-6])
def test_wrong_units_are_an_error_that_names_the_right_one(columns, factor):
    unit = {1e-3: "mS", 1e3: "nS", 1e-6: "S"}[factor]
    wrong = changed(columns, measured=columns["measured"] * factor)
    with pytest.raises(ValueError, match=f"wrong units.*units={{'measured': '{unit}'}}"):
        fit_device(wrong)
    assert quiet(wrong, units={"measured": unit}).g_max == G_MAX


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize(
    "pair",
    [
        ("target", "measured"),
        ("target", "time"),
        ("target", "cell"),
        ("time", "measured"),
        ("time", "cell"),
        ("measured", "cell"),
    ],
)
def test_swapped_columns_are_an_error_that_names_them(pair, repeats):
    columns = sample_measurements(FITTED, cells=20, times=TIMES, repeats=repeats)
    one, other = pair
    with pytest.raises(ValueError, match=f"columns '{one}' and '{other}' seem swapped"):
        fit_device(columns | {one: columns[other], other: columns[one]})


def test_swapped_columns_of_single_readings():
    columns = sample_measurements(FITTED, cells=20, times=(0,), repeats=1)
    with pytest.raises(ValueError, match="columns 'target' and 'measured' seem swapped"):
        fit_device(columns | {"target": columns["measured"].clip(0), "measured": columns["target"]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {k: v for k, v in c.items() if k not in ("time", "cell")}, "no column 'time', 'cell'"),
        (lambda c: c | {"Target": c["target"]}, "two columns are named 'target'"),
        (lambda c: {k: v[:0] for k, v in c.items()}, "there are no rows"),
        (lambda c: c | {"time": c["time"][1:]}, "different lengths"),
        (lambda c: c | {"time": c["time"] - 100}, r"time must be >= 0, got -80 \(cell 0\)"),
        (lambda c: c | {"target": c["target"] - 1}, "target must be >= 0, got -1"),
        (lambda c: c | {"target": c["target"] * 0}, "every target is 0"),
        (lambda c: c | {"measured": c["measured"] * np.nan}, "no row has all four values"),
        (lambda c: c | {"measured": c["measured"][:, None]}, "must have one axis"),
        (lambda c: c | {"cell": c["cell"] // 40}, "cell 0 has several targets"),
        (lambda c: c | {"measured": ["x"] * len(c["cell"])}, "measured must be a number, got 'x' in row 0"),
    ],
)
def test_data_that_cannot_be_used(columns, change, message):
    with pytest.raises(ValueError, match=message):
        fit_device(change(columns))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": {"target": "kS"}}, "unknown unit 'kS' of target; give one of nS, µS"),
        ({"units": {"cell": "1"}}, "units has 'cell'; it takes target, measured, time"),
        ({"t0": 0.0}, "t0 must be > 0 seconds, got 0.0"),
        ({"t0": "20s"}, "t0 must be a number"),
        ({"g_max": 10.0}, "targets reach 25 µS, above g_max=10"),
        ({"g_min": 30.0}, "need 0 <= g_min < g_max"),
        ({"g_max": float("nan")}, "g_max must be a number"),
        ({"bootstrap": 1}, "bootstrap must be 0 or an integer above 1, got 1"),
        ({"bootstrap": -1}, "bootstrap must be 0 or an integer above 1, got -1"),
    ],
)
def test_illegal_options(columns, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fit_device(columns, **options)


def test_what_is_no_table():
    with pytest.raises(TypeError, match="give a CSV file, a mapping of columns or a pandas frame"):
        fit_device(3)
    with pytest.raises(FileNotFoundError, match=r"no file 'missing\.csv'"):
        fit_device("missing.csv")


# What the data cannot tell


def only(columns, keep):
    return {name: values[keep] for name, values in columns.items()}


def warned(columns, **options):
    with pytest.warns(FitWarning) as caught:
        fit = fit_device(columns, **({"bootstrap": 0} | options))
    assert tuple(str(one.message).removeprefix("fit_device: ") for one in caught) == fit.report.warnings
    assert all(one.filename == __file__ for one in caught)
    return fit, "\n".join(fit.report.warnings)


def test_one_time_tells_no_drift(columns):
    fit, told = warned(only(columns, columns["time"] == 20))
    assert "one reading time only: no drift" in told
    assert [type(effect) for effect in fit.effects] == [FittedProgramming, FittedReadNoise]


def test_two_times_do_not_tell_slow_noise_from_spread(columns):
    _, told = warned(only(columns, columns["time"] < 100))
    assert "two reading times" in told
    assert "the readings span a factor of 4.0 in time" in told


def test_no_repeats(columns):
    first = np.unique(columns["cell"] + 1j * columns["time"], return_index=True)[1]
    fit, told = warned(only(columns, first))
    assert "no reading is repeated: read noise cannot be told apart from slow noise" in told
    assert FittedReadNoise not in map(type, fit.effects)
    _, told = warned(only(columns, first[columns["time"][first] == 20]))
    assert "cannot be told apart from programming error" in told


def test_few_cells_and_a_narrow_range(columns):
    _, told = warned(only(columns, np.isin(columns["cell"] % 30, [0, 1, 2])))
    assert "24 cells are few: standard deviations are known to 14 % at best" in told
    fit, told = warned(only(columns, columns["target"] > 20))
    assert "the targets span 21.4286 to 25 µS in 2 steps" in told
    assert (fit.g_min, fit.effects[0].x_min) == (pytest.approx(21.4286, rel=1e-4), pytest.approx(0.857143))
    _, told = warned(only(columns, columns["target"] > 4), g_min=0.0)
    assert "no target below 7.14286 µS was measured: cells at g_min = 0 µS" in told


def test_errors_that_are_not_normal():
    generator = np.random.default_rng(0)
    target = np.repeat(np.linspace(5, 25, 5), 100)
    error = generator.exponential(1.0, len(target)) - 1
    cell = np.arange(len(target))
    data = {"target": target, "time": np.full(len(target), 20), "measured": target + error, "cell": cell}
    _, told = warned(data)
    assert "programming: what is left is not normal" in told


# Time


def test_time_from_programming_and_from_the_first_reading(columns, clean):
    assert clean.effects[1].t0 == 20.0
    assert any("t0 = 20 s, the first reading" in note for note in clean.report.notes)
    assert quiet(changed(columns, time=columns["time"] - 20), t0=20) == clean
    _, told = warned(columns, t0=20)
    assert "leave t0 out if it counts from programming" in told


def test_an_unknown_t0_is_fitted_and_told(columns):
    fit, told = warned(changed(columns, time=columns["time"] - 20))
    assert "t0, the time between programming and the first reading, is not known" in told
    assert fit.effects[1].t0 == pytest.approx(20, rel=0.3)
    with pytest.raises(ValueError, match=r"the first time is 0.*give t0 in seconds"):
        fit_device(changed(only(columns, columns["time"] < 100), time=columns["time"][columns["time"] < 100] - 20))


def test_a_wrong_t0_is_seen(columns):
    _, told = warned(changed(columns, time=columns["time"] - 20), t0=0.01)
    assert "off the power law: is t0 = 0.01 s the time between programming and the first reading?" in told


def test_every_cell_may_have_its_own_times():
    columns = sample_measurements(FITTED, cells=30, times=TIMES, seed=3)
    generator = np.random.default_rng(0)
    jitter = np.where(columns["time"] > 20, 1 + 0.01 * generator.random(len(columns["time"])), 1.0)
    fit = quiet(changed(columns, time=columns["time"] * jitter))
    assert polynomial(fit.effects[1].nu, 0.0) == pytest.approx(0.05, abs=0.005)


# Tables


def write(path, columns, header="target [uS],time [s],measured [uS],cell", separator=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(header.split(","))
        writer.writerows(zip(*columns.values(), strict=True))
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv(columns, clean, tmp_path, separator):
    path = write(tmp_path / "My cells.csv", columns, separator=separator)
    path.write_text("# a comment\n\n" + path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    fit = quiet(path)
    assert fit.name == "my-cells"
    assert fit.replace(name="fitted") == clean
    assert not any("assumed" in note for note in fit.report.notes)


@pytest.mark.parametrize(
    ("header", "scale"),
    [
        ("target [nS],time [min],measured [nS],cell", (1e3, 1 / 60, 1e3)),
        ("Target (mS), TIME (h) ,measured (S),cell", (1e-3, 1 / 3600, 1e-6)),
        ("target [µS],time [d],measured [μS],cell", (1, 1 / 86400, 1)),
    ],
)
def test_units_of_the_header(columns, tmp_path, header, scale):
    values = [columns[name] * factor for name, factor in zip(("target", "time", "measured"), scale, strict=True)]
    scaled = dict(zip(columns, (*values, columns["cell"]), strict=True))
    got = read(write(tmp_path / "m.csv", scaled, header))
    for name in ("target", "time", "measured"):
        np.testing.assert_allclose(getattr(got, name), columns[name], rtol=1e-9)
    assert not got.notes


def test_units_by_argument_and_by_assumption(columns):
    nano = changed(columns, target=columns["target"] * 1e3, measured=columns["measured"] * 1e3)
    got = read(nano, {"target": "nS", "measured": "nS"})
    np.testing.assert_allclose(got.measured, columns["measured"])
    assert got.notes == ("no unit given, assumed: time in s",)
    with pytest.raises(ValueError, match=r"target is in nS by its header and in µS by units"):
        read({"target [nS]": nano["target"], **{k: nano[k] for k in ("time", "measured", "cell")}}, {"target": "µS"})


def test_cells_may_have_names_and_other_columns_are_told(columns, clean):
    names = np.array([f"die 3, cell {cell:.0f}" for cell in columns["cell"]])
    fit = quiet(changed(columns, cell=names) | {"operator": names})
    assert "columns not used: operator" in fit.report.notes
    agree(fit, clean, 1e-3)


def test_a_frame(columns, clean):
    pandas = pytest.importorskip("pandas")
    assert quiet(pandas.DataFrame(columns)) == clean


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; give a header target,time,measured,cell"),
        ("target,time,measured\n1,2,3\n", "no column 'cell'"),
        ("target,time,measured,cell\n1,2,3\n", "line 2 has 3 values, the header has 4"),
        ("target,time,measured,cell\n1,2,3,4\n\n1,2,three,4\n", "measured must be a number, got 'three' in line 4"),
        ("target,time,measured,cell\n1,2,,4\n1,,3,4\n", "no row has all four values"),
        ("target,time,measured,cell\n", "there are no rows"),
    ],
)
def test_csv_that_cannot_be_read(tmp_path, text, message):
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        fit_device(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is no text in UTF-8"):
        fit_device(path)


# The pieces


def test_medians_of_groups():
    generator = np.random.default_rng(0)
    group = generator.integers(0, 20, 100)
    group[group == 7] = 8
    values = generator.normal(size=100)
    got = median_by(values, group, 20)
    for one in range(20):
        expected = np.median(values[group == one]) if (group == one).any() else np.nan
        assert got[one] == pytest.approx(expected, nan_ok=True)


def test_the_likelihood_of_a_cell_that_may_be_at_zero_is_a_density():
    """Against the integral over the conductance, and with integral one."""
    mean, std, noise, zero = 0.3, 1.0, 0.4, -0.5
    y = np.linspace(-6, 8, 2801)
    law = NormalLaw(y, Basis.of(np.linspace(0, 1, len(y)), 1), np.full_like(y, noise**2), np.full_like(y, zero))
    density = np.exp(-law.surprise((np.array([mean]), np.array([std])))) / math.sqrt(2 * math.pi)
    g = np.linspace(0, 9, 20001)[1:] + zero

    def normal(value, sd):
        return np.exp(-0.5 * (value / sd) ** 2) / sd / math.sqrt(2 * math.pi)

    off = 0.5 * math.erfc((mean - zero) / std / math.sqrt(2))
    for place in range(0, len(y), 200):
        above = (normal(g - mean, std) * normal(y[place] - g, noise)).sum() * (g[1] - g[0])
        expected = above + off * normal(y[place] - zero, noise)
        assert density[place] == pytest.approx(expected, rel=2e-3, abs=1e-9)
    assert density.sum() * (y[1] - y[0]) == pytest.approx(1.0, rel=1e-3)


def test_sampled_measurements_are_those_of_the_model():
    columns = sample_measurements(FITTED, cells=2000, levels=[10.0], times=(0, "1h"), repeats=2)
    target, time, measured, cell = columns.values()
    assert set(target) == {10.0}
    assert set(time) == {20.0, 3620.0}
    first = measured[time == 20].reshape(2, -1)
    sigma, offset = (G_MAX * polynomial(c, 0.4) for c in (FITTED.effects[0].sigma, FITTED.effects[0].offset))
    assert first.mean() == pytest.approx(10 + offset, abs=K * sigma / math.sqrt(2000))
    white = (first[0] - first[1]).std() / math.sqrt(2)
    assert white == pytest.approx(G_MAX * polynomial((0.003, 0.01), 0.4), rel=0.1)
    assert len(np.unique(cell)) == 2000
    again = sample_measurements(FITTED, cells=2000, levels=[10.0], times=(0, "1h"), repeats=2)
    np.testing.assert_array_equal(again["measured"], measured)
    for wrong in ({"cells": 0}, {"times": ()}, {"repeats": 0}, {"levels": [30.0]}):
        with pytest.raises(ValueError, match="sample_measurements: "):
            sample_measurements("pcm", **wrong)


def test_fitting_leaves_the_global_random_states_alone(columns):
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    quiet(only(columns, columns["cell"] % 3 == 0), bootstrap=3)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numbers)
