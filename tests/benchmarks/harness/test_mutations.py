import ast
from pathlib import Path

import pytest

from benchmarks.harness.mutations import choose, find_mutations, sources

SOURCE = '''"""Doc: 1 + 1."""
from __future__ import annotations

LIMIT: int = 3


def area(width: float, height: float = 2.0) -> float | None:
    """Not 1 < 2."""
    if width < 0 or height < 0:
        raise ValueError(f"at least {0 + 0}, got {width - 1}")
    notes = []
    notes.append(width)
    return -width * height if notes else None


class Says(Protocol):
    def word(self) -> int:
        return 1
'''


@pytest.fixture
def found(tmp_path):
    (tmp_path / "shape.py").write_text(SOURCE)
    return find_mutations(tmp_path, "shape.py")


def test_each_is_one_change_of_a_program_that_stays_one(found):
    for mutation in found:
        text = mutation.applied(SOURCE)
        assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(SOURCE))
        assert text.startswith(SOURCE[: mutation.start])


def test_operators_borders_numbers_calls_and_conditions_are_among_them(found):
    changes = {(mutation.function, mutation.before, mutation.after) for mutation in found}
    assert {
        ("(module)", "3", "4"),
        ("area", "2.0", "4.0"),
        ("area", "width < 0", "((width) <= (0))"),
        ("area", "width < 0 or height < 0", "((width < 0) and (height < 0))"),
        ("area", "width < 0 or height < 0", "((width < 0))"),
        ("area", "notes.append(width)", "pass"),
        ("area", "-width * height", "((-width) / (height))"),
        ("area", "-width", "(width)"),
        ("area", "-width * height if notes else None", "((None) if (notes) else (-width * height))"),
    } <= changes


def test_what_only_speaks_is_left_alone(found):
    for word in ("raise", "Doc", "Not 1", "got", "word"):
        assert not any(word in mutation.before for mutation in found)
    assert not any(mutation.function.startswith("Says") for mutation in found)


def test_the_sample_follows_the_code_and_not_its_lines(tmp_path, found):
    (tmp_path / "shape.py").write_text("\n\n# a word more\n" + SOURCE)
    moved = find_mutations(tmp_path, "shape.py")
    assert [mutation.key for mutation in choose(found, 5, 1)] == [mutation.key for mutation in choose(moved, 5, 1)]


def test_of_a_line_one_change_is_chosen_and_each_package_has_its_share(tmp_path):
    for package, times in (("large", 10), ("small", 1)):
        (tmp_path / "top" / package).mkdir(parents=True)
        lines = "".join(f"def f{number}(x):\n    return x + {number} * 2\n" for number in range(times))
        (tmp_path / "top" / package / "code.py").write_text(lines)
    found = [each for path in sources(tmp_path, ["top"]) for each in find_mutations(tmp_path, path)]
    chosen = choose(found, 8, 1)
    assert len({(each.path, each.line) for each in chosen}) == len(chosen)
    assert {each.package for each in chosen} == {"top/large", "top/small"}


def test_a_changed_file_is_not_taken_for_the_one_that_was_read(found):
    with pytest.raises(ValueError, match="does not read"):
        found[0].applied("x = 1\n" * 40)


def test_links_are_not_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "code.py").write_text("x = 1\n")
    (tmp_path / "core").mkdir()
    Path(tmp_path / "core" / "linked").symlink_to("../real")
    assert list(sources(tmp_path, ["core", "real"])) == ["real/code.py"]
