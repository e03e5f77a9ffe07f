"""What messages advise is what pip can do here."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from analogsim.errors import MissingPackageError
from analogsim.evaluation.display import frame
from analogsim.utils import packages
from analogsim.utils.packages import how_to_install

ROOT = Path(__file__).resolve().parents[2]


def test_an_installed_one_is_known_to_pip_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "version", lambda name: "0.1.0")
    assert how_to_install("plot") == 'pip install "analogsim-torch[plot]"'


def test_a_bare_checkout_is_named_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise packages.PackageNotFoundError(name)

    monkeypatch.setattr(packages, "version", missing)
    found = re.fullmatch(r'pip install "(.*)\[recipes\]"', how_to_install("recipes"))
    assert found is not None
    assert (Path(found[1]) / "analogsim" / "utils" / "packages.py").samefile(packages.__file__)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        MissingPackageError, match=r"^to_frame needs pandas; install it with: pip install \"/?.*\[plot\]\"$"
    ):
        frame({})


def test_no_message_has_a_command_of_its_own() -> None:
    if not (ROOT / "recipes").is_dir():
        pytest.skip("not in a checkout")
    files = [path for folder in ("analogsim", "devices", "recipes") for path in (ROOT / folder).rglob("*.py")]
    told = [path.name for path in files if "analogsim-torch[" in path.read_text(encoding="utf-8")]
    assert told == []


def test_pages_advise_what_works_in_a_checkout() -> None:
    """The name stands on no index yet: only an environment that has analogsim already can be told it."""
    if not (ROOT / "docs").is_dir():
        pytest.skip("not in a checkout")
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.*")]
    told = [path.name for path in pages if re.search(r"install.*analogsim-torch", path.read_text(encoding="utf-8"))]
    assert told == ["install.md"]  # which says when that works


@pytest.mark.slow
def test_pip_adds_an_extra_to_an_installed_one_that_no_index_knows(tmp_path: Path) -> None:
    """What `how_to_install` relies on, of pip: with a project of two files, and nothing fetched."""
    wheel = tmp_path / "analogsim_test_of_pip-0.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        info = "analogsim_test_of_pip-0.1.dist-info"
        archive.writestr("analogsim_test_of_pip.py", "")
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: analogsim-test-of-pip\nVersion: 0.1\nProvides-Extra: more\n"
            'Requires-Dist: pip; extra == "more"\n',
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    for asked in (wheel, "analogsim-test-of-pip[more]"):
        done = subprocess.run(
            [python, "-m", "pip", "install", "--no-index", "--disable-pip-version-check", asked],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
