"""What CONTRIBUTING says of adding something is done: each example, in a copy of this tree, with its test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("analogsim", "devices", "recipes", "benchmarks", "tests", "pyproject.toml")


@dataclass(frozen=True)
class Example:
    """One section: files by their paths in the tree, and changes to files that are there."""

    files: dict[str, str]
    diffs: tuple[str, ...]

    @property
    def tests(self) -> list[str]:
        return [path for path in self.files if Path(path).name.startswith("test_")]

    @property
    def touched(self) -> set[str]:
        """All files but tests that have to be written or changed."""
        changed = {path for diff in self.diffs for path in re.findall(r"^\+\+\+ b/(.*)$", diff, re.MULTILINE)}
        return changed | (self.files.keys() - set(self.tests))


def examples() -> dict[str, Example]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = {}
    for section in re.split(r"^### ", text.split("\n## Adding something\n")[1].split("\n## ")[0], flags=re.MULTILINE)[
        1:
    ]:
        title = section.partition("\n")[0]
        blocks = re.findall(r"```(python|diff)\n(.*?)```", section, flags=re.DOTALL)
        files = {}
        for language, block in blocks:
            if language == "python":
                first, _, rest = block.partition("\n")
                assert first.startswith("# "), f"{title}: a block must begin with the path of its file"
                files[first.removeprefix("# ")] = rest
        found[title] = Example(files, tuple(block for language, block in blocks if language == "diff"))
    return found


EXAMPLES = examples()


def test_all_that_can_be_added_is_there() -> None:
    assert list(EXAMPLES) == [
        *("A device model", "A layer", "A kind of converter", "A metric", "A shape of the noise schedule"),
        *("A compensation", "A remedy", "A training method", "A recipe"),
    ]


@pytest.mark.parametrize("title", EXAMPLES)
def test_it_is_two_files_and_a_test_at_most(title: str) -> None:
    assert len(EXAMPLES[title].touched) <= 2
    assert len(EXAMPLES[title].tests) == 1


# These change the tree, or run long.
SLOW = ("A device model", "A layer", "A kind of converter", "A remedy", "A training method", "A recipe")


@pytest.mark.parametrize(
    "title", [pytest.param(title, marks=pytest.mark.slow if title in SLOW else ()) for title in EXAMPLES]
)
def test_it_works_as_it_stands(title: str, tmp_path: Path) -> None:
    if not (ROOT / "devices").is_dir():
        pytest.skip("not in a checkout")
    if title in ("A training method", "A recipe"):
        pytest.importorskip("torchvision", reason="needs analogsim-torch[recipes]")
    example = EXAMPLES[title]
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name, **({"symlinks": True} if copy is shutil.copytree else {}))
    for path, content in example.files.items():
        assert not (tmp_path / path).exists(), f"{path} is there already"
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content, encoding="utf-8")
    for diff in example.diffs:
        done = subprocess.run(
            ["git", "apply", "-"], cwd=tmp_path, input=diff, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
    house = ["tests/whole/test_house.py"] if example.touched else []
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *example.tests, *house],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert re.search(r"\b[1-9]\d* passed", done.stdout)
