"""Files as instruments and spreadsheets write them."""

import numpy as np
import pytest

from analogsim.fit.measurements import COLUMNS, read
from analogsim.fit.tables import Table, numbers_of, read_table

HEAD = "target [µS],time [s],measured [µS],cell"
ROWS = "25,20,24.5,1\n10,20,-0.5e-1,2\n"
EXPECTED = [24.5, -0.05]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings(tmp_path, encoding):
    path = tmp_path / "m.csv"
    path.write_text(f"{HEAD}\n{ROWS}", encoding=encoding)
    found = read(path)
    np.testing.assert_array_equal(found.measured, EXPECTED)
    told = {
        "utf-16": ("the file is in UTF-16",),
        "cp1252": ("the file is no UTF-8: read in Windows' code page (cp1252)",),
    }
    assert found.notes == told.get(encoding, ())


@pytest.mark.parametrize("separator", [";", "\t"])
def test_decimal_commas(tmp_path, separator):
    path = tmp_path / "m.csv"
    text = f"{HEAD}\n{ROWS}".replace(",", separator).replace(".", ",")
    path.write_text(text, encoding="utf-8")
    found = read(path)
    np.testing.assert_array_equal(found.measured, EXPECTED)
    assert found.notes == ("measured: commas are read as decimal points",)


@pytest.mark.parametrize("header", ["measured (kΩ)", "measured [kOhm]", "Measured / kΩ", " measured/kohm "])
def test_headers_in_resistances(tmp_path, header):
    path = tmp_path / "m.csv"
    path.write_text(f"target / µS;time / ms;{header};cell\n25;20;40;1\n10;20;125;2\n", encoding="utf-8")
    found = read(path)
    np.testing.assert_allclose(found.measured, [25, 8])
    np.testing.assert_allclose(found.time, 0.02)
    assert found.notes == ()


def test_shares_of_the_largest_weight(columns):
    share = {"target [%]": columns["target"] * 4, "measured [%]": columns["measured"] * 4}
    found = read({**share, "time [s]": columns["time"], "cell": columns["cell"]}, g_max=25.0)
    np.testing.assert_allclose(found.measured, columns["measured"])
    with pytest.raises(ValueError, match="% is a share of g_max"):
        read({**share, "time [s]": columns["time"], "cell": columns["cell"]})


@pytest.mark.parametrize("values", [["1", "", "2"], ["1", "#N/A", "2"], ["1", "9.91E+37", "2"], [1.0, 9.9e37, 2.0]])
def test_what_stands_for_no_value(values):
    numbers, notes = numbers_of("measured", values, Table({}))
    np.testing.assert_array_equal(numbers, [1, np.nan, 2])
    assert notes == ()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("time", "2026-11-30 10:00:00", "in seconds or in the unit of the header, not a date"),
        ("time", "30.11.2026", "not a date"),
        ("time", "10:15", "not a date"),
        ("measured", "1.234,5", "without separators of thousands"),
        ("measured", "1,234,567", "without separators of thousands"),
        ("measured", "2.5 µS", "got '2.5 µS' in line 7"),
        ("measured", True, "got True"),
        ("measured", 10**400, "must be a number"),
    ],
)
def test_what_is_no_number(name, value, message):
    with pytest.raises(ValueError, match=message):
        numbers_of(name, [value], Table({}, [7]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEAD}\n25,20,24,5,1\n", "where commas are decimal, separate columns by semicolons"),
        ("target,time,measured,cell,cell\n1,2,3,4,5\n", "two columns are named 'cell'"),
        (f'{HEAD}\n25,20,24.5,"a\nb"\n', "goes over several lines"),
        (f"{HEAD}\n25,20,\0,1\n", "is no text"),
    ],
)
def test_files_that_are_no_table(tmp_path, text, message):
    path = tmp_path / "m.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_table(path, COLUMNS)
