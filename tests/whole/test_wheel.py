"""The wheel holds the same files from a checkout with its links, from one without them, and from the sdists of both."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from analogsim.utils.moved import LINKED

ROOT = Path(__file__).resolve().parents[2]


def build(call: str, place: Path) -> None:
    """Let hatchling make something of the sources in `place`."""
    subprocess.run([sys.executable, "-c", f"from hatchling.build import *; {call}"], cwd=place, check=True)


@pytest.mark.slow
def test_every_way_to_the_wheel_makes_the_same(tmp_path: Path) -> None:
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
        # As `python -m build` does it: the wheel is made of what the source distribution holds.
        made = tmp_path / f"made-{how}"
        build(f"build_sdist({str(made)!r})", place)
        (sources,) = made.glob("*.tar.gz")
        with tarfile.open(sources) as packed:
            packed.extractall(made, filter="data")
        build(f"build_wheel({str(made)!r})", made / sources.name.removesuffix(".tar.gz"))
        build(f"build_wheel({str(made / 'directly')!r})", place)
        for (wheel,) in (list(made.glob("*.whl")), list((made / "directly").glob("*.whl"))):
            with zipfile.ZipFile(wheel) as archive:
                found.append({entry.filename: entry.CRC for entry in archive.infolist()})
    assert found[0] == found[1] == found[2] == found[3]
    assert {"analogsim/devices/pcm.py", "analogsim/recipes/configs/fashion-mnist-lenet5.toml"} <= found[0].keys()
    assert {name.partition("/")[0] for name in found[0]} == {"analogsim", "analogsim_torch-0.1.0.dist-info"}
