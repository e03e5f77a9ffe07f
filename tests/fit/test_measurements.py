"""Tables as people keep them: units, order, dirt, and columns that were swapped."""

import csv

import numpy as np
import pytest

from analogsim import fit_device
from analogsim.fit import sample_measurements
from analogsim.fit.measurements import read
from tests.fit.conftest import FITTED, G_MAX, TIMES, agree, changed, quiet


def test_missing_values_are_dropped_and_counted(columns, clean):
    generator = np.random.default_rng(0)
    measured = columns["measured"].copy()
    measured[generator.random(len(measured)) < 0.05] = np.nan
    fit = quiet(changed(columns, measured=measured))
    assert f"{np.isnan(measured).sum()} of {len(measured)} rows dropped: a value is missing" in fit.report.notes
    agree(fit, clean, 0.1)


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


def test_what_is_odd_is_told():
    """A time of 0 and a target of 0 are no oddity; a single negative target is."""
    columns = sample_measurements(FITTED, cells=20, times=(0,), repeats=1)
    swapped = columns | {"target": columns["measured"].clip(0), "measured": columns["target"]}
    swapped["time"] = np.zeros(len(swapped["time"]))
    with pytest.raises(ValueError, match=r"different readings of .* targets in .* cells, and they do not go together"):
        fit_device(swapped)
    swapped["target"][0] = -1.0
    with pytest.raises(ValueError, match="seem swapped: as they are, a target or a time is negative"):
        fit_device(swapped)


def test_a_single_negative_reading_tells_which_column_it_stands_in():
    """Of what is otherwise as likely one way as the other: noise makes readings negative, never targets or times."""
    targets = np.arange(10) * 10.0
    readings = targets + np.where(targets == 0, -0.1, 0.5)
    single = {"target": readings, "time": np.full(10, 20.0), "measured": targets, "cell": np.arange(10)}
    with pytest.raises(ValueError, match=r"'target' and 'measured' seem swapped: .* a target or a time is negative"):
        fit_device(single)
    times = np.tile([1.0, 2.0, 3.0, 4.0, 5.0], 2)
    cell = np.repeat([0, 1], 5)
    readings = np.where(cell == 0, 0.0, 10.0) + np.array([-0.1, 0.1, 0.2, 0.3, 0.4] * 2)
    traces = {"target": cell * 10.0, "time": readings, "measured": times, "cell": cell}
    with pytest.raises(ValueError, match=r"'time' and 'measured' seem swapped: .* a target or a time is negative"):
        fit_device(traces)


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


def test_what_is_no_table():
    with pytest.raises(TypeError, match="give a CSV file, a mapping of columns or a pandas frame"):
        fit_device(3)
    with pytest.raises(FileNotFoundError, match=r"no file 'missing\.csv'"):
        fit_device("missing.csv")


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
