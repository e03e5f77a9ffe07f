"""docs/cluster.md as it stands: every block run with the local stand-in of its library."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import analogsim

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "cluster.md"
PACKAGE = str(Path(analogsim.__file__).parents[1])
BLOCK = re.compile(r"```(?:python|bash)\n# (\S+)\n(.*?)```", re.DOTALL)

SCRIPTS = {
    "processes.py": "concurrent.futures",
    "reusable.py": "loky",
    "dask_chips.py": "distributed",
    "ray_chips.py": "ray",
    "mpi_chips.py": "mpi4py",
    "submitit_chips.py": "submitit",
}


def blocks() -> dict[str, str]:
    if not PAGE.is_file():
        pytest.skip("not in a checkout")
    return dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return {**kept, "PYTHONPATH": PACKAGE, "PATH": path, "OMP_NUM_THREADS": "1", **more}


def done(place: Path, command: list[str], **more: str) -> str:
    ended = subprocess.run(
        command, cwd=place, env=environment(**more), capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


def alone(place: Path) -> str:
    code = "import analogsim; from mine import *; print(analogsim.evaluate(analog, data, **options))"
    return done(place, [sys.executable, "-c", code])


def test_the_page_has_a_block_for_every_test() -> None:
    assert set(blocks()) == {*SCRIPTS, "mine.py", "array.sh"}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_prints_what_one_process_prints(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(SCRIPTS[name]) is None:
        pytest.skip(f"needs {SCRIPTS[name]}: analogsim-torch[cluster]")
    for each in ("mine.py", name):
        (tmp_path / each).write_text(blocks()[each], encoding="utf-8")
    command = [sys.executable, name]
    if name == "mpi_chips.py":
        launcher = shutil.which("mpiexec", path=environment()["PATH"])
        if launcher is None:
            pytest.skip("needs mpiexec, of mpich or Open MPI")
        command = [launcher, "-n", "3", sys.executable, "-m", "mpi4py.futures", name]
    assert alone(tmp_path).strip() in done(tmp_path, command)
    assert not list(tmp_path.glob("*.parcels"))
    journal = tmp_path / "chips.jsonl"
    if "journal=" in blocks()[name]:
        assert journal.read_text().count('"chip"') == 20


@pytest.mark.slow
def test_a_slurm_array_is_merged(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="needs analogsim-torch[recipes]")
    analogsim_command = f'#!/bin/sh\nexec "{sys.executable}" -m analogsim "$@"\n'
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "analogsim").write_text(analogsim_command)
    (tmp_path / "bin" / "analogsim").chmod(0o755)
    more = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{environment()['PATH']}"}
    quick = "--model mlp --epochs 1 --chips 1 --no-tracking --quiet data.limit=100 baseline=false"
    done(tmp_path, ["analogsim", "train", *quick.split()], **more)
    (run,) = (tmp_path / "runs").iterdir()
    (tmp_path / "array.sh").write_text(blocks()["array.sh"])
    for task in (0, 1):
        done(tmp_path, ["bash", "array.sh"], RUN=str(run), SLURM_ARRAY_TASK_ID=str(task), **more)
    merged = done(tmp_path, ["analogsim", "evaluate", "--merge", "part-0.json", "part-1.json"], **more)
    assert merged == done(tmp_path, ["analogsim", "evaluate", str(run), "--quiet", "--chips", "10"], **more)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["process pool", "dask"])
def test_kills_lose_nothing_and_double_nothing(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    if kind == "dask":
        pytest.importorskip("distributed", reason="needs analogsim-torch[cluster]")
    command = [sys.executable, "-m", "benchmarks.cluster", "--chips", "100", "--kills", "2", "--kinds", kind]
    told = done(ROOT, command)
    assert "100 chips" in told
    assert "0 lost, 0 twice, report identical" in told
