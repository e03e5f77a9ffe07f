import json

from benchmarks.harness.traced_tests import LinesOfTests


def test_a_lines_tests_come_quick_ones_first(tmp_path):
    file = tmp_path / "traced.json"
    durations = [["slow", 3.0], ["quick", 0.1], ["other", 1.0]]
    file.write_text(json.dumps({"durations": durations, "lines": {"a.py": {"1": [], "2": [0, 1], "5": [2]}}}))
    tests = LinesOfTests(file)
    assert tests.of("a.py", 2) == ["quick", "slow"]
    assert tests.of("a.py", 1) == ["quick", "other", "slow"]  # runs when the module is imported
    assert tests.of("b.py", 1) == []
    assert tests.seconds["other"] == 1.0
