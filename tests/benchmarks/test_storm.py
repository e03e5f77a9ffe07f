"""A short storm breaks no rule; what it cannot be made of is refused at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")
pytest.importorskip("mlflow", reason="needs analogsim-torch[recipes]")
from benchmarks import storm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a storm blows on Linux")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--workers", "0"], "--workers: wanted more than 0, got 0"),
        (["--minutes", "-1"], "--minutes: wanted more than 0, got -1.0"),
        (["--every", "nan"], "--every: wanted more than 0, got nan"),
        (["--storage", "redis"], "invalid choice: 'redis'"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        storm.main(words)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["sqlite", "postgresql"])
def test_a_short_storm_breaks_no_rule(storage: str, tmp_path: Path) -> None:
    from benchmarks.harness.postgres import programs

    if storage == "postgresql":
        pytest.importorskip("psycopg", reason="needs analogsim-torch[postgres]")
        if programs() is None:
            pytest.skip("needs PostgreSQL's initdb and pg_ctl: apt-get install postgresql")
    file = tmp_path / "storm.json"
    words = ["--storage", storage, "--minutes", "0.7", "--workers", "3", "--seed", "7", "--every", "1.5"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.storm", *words, "--json", str(file), "--keep", str(tmp_path / "kept")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(file.read_text(encoding="utf-8"))
    assert result["violations"] == []
    assert sum(result["happened"].values()) > 5
    assert result["trials"]["COMPLETE"] + result["trials"].get("PRUNED", 0) > storm.EPOCHS
