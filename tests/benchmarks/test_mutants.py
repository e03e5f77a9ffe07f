import json

import pytest

from benchmarks import mutants


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A made-up one: a function whose tests know its sign, but not its border."""
    root = tmp_path / "root"
    (root / "devices").mkdir(parents=True)
    (root / "tests").mkdir()
    (root / "devices" / "__init__.py").write_text("")
    lines = [
        "def above(x, y):",
        "    return x > y",
        "",
        "def total(x, y):",
        "    return x + y",
        "",
        "def unused(x, y):",
    ]
    (root / "devices" / "made_up.py").write_text("\n".join([*lines, "    return x - y", ""]))
    (root / "tests" / "test_made_up.py").write_text(
        "from devices.made_up import above, total\n\n\n"
        "def test_above():\n    assert above(1, 0)\n    assert not above(0, 1)\n\n\n"
        "def test_total():\n    assert total(3, 1) == 4\n"
    )
    (root / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.setattr(mutants, "ROOT", root)
    return root


@pytest.mark.slow
def test_what_the_tests_do_not_see_is_listed(checkout, tmp_path, capfd):
    pytest.importorskip("coverage")
    file, reasons = tmp_path / "found.json", tmp_path / "why.toml"
    options = ["--count", "50", "--least", "0", "--only", "devices", "--json", str(file), "--explained", str(reasons)]
    assert mutants.main(options) == 1
    rows = {row["before"]: row for row in json.loads(file.read_text())["results"]}
    assert rows["x + y"]["verdict"] == "noticed"
    assert rows["x + y"]["by"].endswith("test_total")
    assert rows["x > y"]["verdict"] == "unnoticed"
    assert rows["x - y"]["verdict"] in ("unnoticed", "no test runs it")
    assert (checkout / "devices" / "made_up.py").read_text().startswith("def above(x, y):\n    return x > y")
    entries = [
        f"[[mutant]]\npath = {json.dumps(row['path'])}\nfunction = {json.dumps(row['function'])}\n"
        f'before = {json.dumps(row["before"])}\nafter = {json.dumps(row["after"])}\nreason = "made up"\n'
        for row in rows.values()
        if row["verdict"] != "noticed"
    ]
    reasons.write_text("\n".join(entries))
    assert mutants.main(options) == 0
    assert "| all | 3 | 1 | 2 | 0 |" in capfd.readouterr().out
    mirror = checkout / "tests" / "devices" / "test_made_up.py"
    mirror.parent.mkdir()
    mirror.write_text("from devices.made_up import above\n\n\ndef test_border():\n    assert not above(1, 1)\n")
    reasons.write_text("\n".join(entry for entry in entries if "x - y" in entry))
    assert mutants.main(["--again", str(file), *options[4:]]) == 0
    assert "| all | 3 | 2 | 1 | 0 |" in capfd.readouterr().out


def test_the_table_counts_by_package():
    rows = [
        {"path": "analogsim/layers/linear.py", "verdict": "noticed"},
        {"path": "analogsim/layers/linear.py", "verdict": "too slow"},
        {"path": "analogsim/layers/conv.py", "verdict": "explained"},
        {"path": "devices/pcm.py", "verdict": "unnoticed"},
    ]
    assert mutants.table(rows).splitlines()[2:] == [
        "| analogsim/layers | 3 | 2 | 1 | 0 |",
        "| devices | 1 | 0 | 0 | 1 |",
        "| all | 4 | 2 | 1 | 1 |",
    ]


@pytest.mark.slow
def test_who_noticed_a_change_is_named_in_full_and_believed(checkout, tmp_path):
    """Also where the name holds spaces and dashes, as parameters do: by it the test is run again without the change."""
    log, border = tmp_path / "log.txt", "tests/devices/test_made_up.py::test_border[1 - 1 of: a::b]"
    mirror = checkout / "tests" / "devices" / "test_made_up.py"
    mirror.parent.mkdir()
    mirror.write_text(
        "import pytest\n\nfrom devices.made_up import above\n\n\n"
        "@pytest.mark.parametrize('x', [pytest.param(1, id='1 - 1 of: a::b')])\n"
        "def test_border(x):\n    assert not above(x, x)\n"
    )
    (change,) = (each for each in mutants.find_mutations(checkout, "devices/made_up.py") if each.before == "x > y")
    row = mutants._try(change, checkout, None)
    assert (row["verdict"], row["by"]) == ("noticed", border)
    assert mutants._doubtful(checkout, [row]) == []
    mirror.write_text(mirror.read_text() + "\n\ndef test_of_nothing():\n    assert not above(1, 0)\n")
    always = {**row, "by": "tests/devices/test_made_up.py::test_of_nothing"}
    assert mutants._doubtful(checkout, [row, always]) == [always["by"]]
    assert mutants._verdict(checkout, [border], 1.0, log) == "unnoticed"
    assert not mutants._name_of_failed(log).exists()
