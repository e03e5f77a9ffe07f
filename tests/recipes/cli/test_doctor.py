from __future__ import annotations

import importlib.util
import json
import re
import sqlite3
import tomllib
from pathlib import Path

import pytest

import analogsim
from analogsim.recipes.cli import doctor, main
from analogsim.recipes.cli.doctor import OPTIONAL, RECIPES, Finding, examine

ROOT = Path(__file__).resolve().parents[3]


def look(about: str) -> Finding:
    (found,) = (each for each in examine() if each.about == about)
    return found


@pytest.fixture
def whole(alone: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, no databases named from outside, and everything that the recipes need."""
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: name in RECIPES.values() or found(name, *a))
    return alone


def test_nothing_is_missing_and_nothing_is_made(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    out = capsys.readouterr().out
    assert re.search(rf"^ok +analogsim +{re.escape(analogsim.__version__)} in ", out, re.MULTILINE)
    assert out.endswith("\nnothing is missing that a command needs\n")
    assert list(whole.iterdir()) == []


def test_what_is_missing_is_told_with_its_cure(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], closed_port: int
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{closed_port}")
    monkeypatch.setenv("OPTUNA_STORAGE", f"postgresql+psycopg://user:secret@127.0.0.1:{closed_port}/x")
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--json", "-"])
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["ok"] is False
    missing = {each["about"]: each for each in found["findings"] if each["state"] == "missing"}
    assert list(missing) == ["MLflow store", "Optuna storage"]
    assert "unset MLFLOW_TRACKING_URI" in missing["MLflow store"]["cure"]
    assert "unset OPTUNA_STORAGE" in missing["Optuna storage"]["cure"]
    assert "missing: MLflow store, Optuna storage" in err
    assert "secret" not in out + err


def test_a_package_that_is_missing(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "optuna" else found(name, *a))
    assert look("optuna") == Finding("optuna", "missing", "not installed", 'pip install "analogsim-torch[recipes]"')


def test_databases(whole: Path) -> None:
    assert look("MLflow store").state == "-"
    Path("mlflow.db").write_text("no database")
    assert look("MLflow store").cure == "move the file away; a new one is made"
    for file, table in (("mlflow.db", "experiments"), ("optuna.db", "studies")):
        Path(file).unlink(missing_ok=True)
        with sqlite3.connect(file) as database:
            database.execute(f"CREATE TABLE {table} (x)")
            database.execute(f"INSERT INTO {table} VALUES (1)")
        database.close()
    assert look("MLflow store").found.endswith("mlflow.db, 1 experiments")
    assert look("Optuna storage").found.endswith("optuna.db, 1 studies")


def test_a_look_that_fails_is_a_finding(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> bool:
        raise RuntimeError("the driver is too old\nand more")

    monkeypatch.setattr(doctor.torch.cuda, "is_available", broken)
    monkeypatch.setenv("OPTUNA_STORAGE", "nonsense")
    assert look("hardware").found == "the driver is too old"
    assert look("optuna").state == "ok"
    assert [each.state for each in examine() if "is not the URL of a database" in each.found] == ["missing"]


def test_data_are_found_where_commands_look(whole: Path) -> None:
    assert look("data mnist").state == "-"
    folder = Path("data/mnist")
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        for what in ("images-idx3", "labels-idx1"):
            (folder / f"{part}-{what}-ubyte").write_bytes(b"")
    assert look("data mnist") == Finding("data mnist", "ok", "data/mnist")
    Path("data/cifar10/cifar-10-batches-py").mkdir(parents=True)
    assert look("data cifar10").state == "ok"


def test_the_packages_are_those_of_the_project() -> None:
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("not in a checkout")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]

    def named(extra: str) -> set[str]:
        return {re.match(r"[\w-]+", requirement)[0] for requirement in extras[extra]}  # type: ignore[index]

    assert set(RECIPES) == named("recipes")
    assert all(name in named(extra) for name, (_, extra, _) in OPTIONAL.items() if extra)
