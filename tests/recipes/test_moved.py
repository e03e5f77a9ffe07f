"""A project's folder that is moved goes on where it is: runs, studies, trials that MLflow has not taken yet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from analogsim.errors import UnreachableError
from analogsim.recipes.cli import main
from analogsim.recipes.study.runs import StudyRuns
from tests.recipes.conftest import Store

pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:MLflow is away:RuntimeWarning")
def test_a_project_that_is_moved_with_all_that_is_in_it(
    here: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = here / "old", here / "new"
    old.mkdir()
    (here / "mlflow.db").rename(old / "mlflow.db")
    study = ["tune", *settings, "study.name=mine", "study.chips=1", "study.final_seeds=1"]
    monkeypatch.chdir(old)
    main(["train", *settings, "--quiet"])
    (run,) = (path.name for path in Path("runs").iterdir())

    def away(*_: Any) -> None:
        raise UnreachableError("MLflow is away")

    with monkeypatch.context() as patch:  # of two trials it takes none
        patch.setattr(StudyRuns, "_start", away)
        main([*study, "study.trials=2"])
    assert "MLflow has not taken everything yet" in capsys.readouterr().out

    old.rename(new)
    words = [
        [*study, "study.trials=3"],
        ["compare", f"runs/{run}", "runs/mine/trial-0000"],
        ["evaluate", f"runs/{run}", "--chips", "1", "--times", "1s"],
        ["train", "--resume", f"runs/{run}", "--quiet"],
    ]
    # In a process of its own: MLflow keeps in memory where the artifacts of runs lie.
    code = f"from analogsim.recipes.cli import main\nfor words in {words!r}:\n    main(words)\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=new, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "MLflow has not taken everything yet" not in done.stdout
    assert "trial-0000" in done.stdout
    assert {path.name for path in (new / "runs").iterdir()} == {run, "mine"}  # no second folder of the study
    store = Store(new)
    found = store.client.search_runs(["1"], "tags.role = 'trial'")
    assert sorted(int(each.data.tags["optuna.trial.number"]) for each in found) == [0, 1, 2]
    assert {each.info.status for each in found} <= {"FINISHED", "KILLED"}
    assert len(store.client.search_runs(["1"], f"tags.folder = '{run}'")) == 2  # the same two
    assert not old.exists()
