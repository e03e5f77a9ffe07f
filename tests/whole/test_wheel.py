"""The wheel holds the same files from a checkout with its links and from one that has lost them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from analogsim.utils.moved import LINKED

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_checkout_without_links_makes_the_same_wheel(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="needs analogsim-torch[dev]")
    if not (ROOT / "analogsim" / LINKED[0]).is_symlink():
        pytest.skip("not in a checkout with links")
    found = []
    for how in ("links", "text"):
        place = tmp_path / how
        place.mkdir()
        for name in ("analogsim", *LINKED):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, place / name, symlinks=True, ignore=ignored)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, place)
        for name in LINKED if how == "text" else ():
            (place / "analogsim" / name).unlink()
            (place / "analogsim" / name).write_text(f"../{name}")
        code = f"from hatchling.build import build_wheel; build_wheel({str(tmp_path / how)!r})"
        subprocess.run([sys.executable, "-c", code], cwd=place, check=True)
        (wheel,) = (tmp_path / how).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            found.append({entry.filename: entry.CRC for entry in archive.infolist()})
    assert found[0] == found[1]
    assert {"analogsim/devices/pcm.py", "analogsim/recipes/configs/fashion-mnist-lenet5.toml"} <= found[0].keys()
    assert {name.partition("/")[0] for name in found[0]} == {"analogsim", "analogsim_torch-0.1.0.dist-info"}
