from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from analogsim.recipes.study import storages
from analogsim.recipes.study.storages import open_storage, storage_url

pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")


def test_the_storage_is_chosen(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    assert storage_url(None) == f"sqlite:///{alone}/optuna.db"
    assert storage_url("sqlite:///a/b.db?timeout=3") == f"sqlite:///{alone}/a/b.db?timeout=3"
    monkeypatch.setenv("OPTUNA_STORAGE", "postgresql+psycopg://me@host/name")
    assert storage_url(None) == "postgresql+psycopg://me@host/name"
    assert storage_url("sqlite:////x.db") == "sqlite:////x.db"
    with pytest.raises(ValueError, match=r"study.storage: 'optuna.db' is not the URL of a database; write sqlite:///"):
        storage_url("optuna.db")


def test_a_storage_that_cannot_be_opened_is_told(tmp_path: Path, closed_port: int) -> None:
    def opened(url: str) -> None:
        open_storage(url, heartbeat=1, on_dead=lambda *_: None)

    with pytest.raises(ConnectionError, match=r"study.storage: cannot open sqlite:////.*No such file or directory"):
        opened(f"sqlite:///{tmp_path}/missing/optuna.db")
    with pytest.raises(ImportError, match=r"no driver for oracle://.*psycopg"):
        opened("oracle://host/name")
    (tmp_path / "text.db").write_text("no database at all, but long enough to be taken for one " * 20)
    with pytest.raises(ConnectionError, match="file is not a database"):
        opened(f"sqlite:///{tmp_path}/text.db")


def test_the_database_of_mlflow_is_refused_and_left_as_it_was(tmp_path: Path, migrated: Path) -> None:
    place = tmp_path / "mlflow.db"
    shutil.copy(migrated, place)
    before = place.read_bytes()
    with pytest.raises(
        OSError, match=r"study.storage: sqlite:.*mlflow.db is MLflow's database; Optuna needs one of its"
    ):
        open_storage(f"sqlite:///{place}", heartbeat=1, on_dead=lambda *_: None)
    assert place.read_bytes() == before


def begun(place: Path) -> None:
    """Open the database of a folder, and begin a study in it."""
    import optuna

    storage = open_storage(f"sqlite:///{place}/optuna.db", heartbeat=60, on_dead=lambda *_: None)
    optuna.create_study(storage=storage, study_name="mine", load_if_exists=True).set_user_attr("a", 1)


OPENING = (
    "import sys\nfrom analogsim.recipes.study import storages\nimport optuna.storages\nprint(end='.', flush=True)\n"
    "storages.open_storage('sqlite:///optuna.db', heartbeat=60, on_dead=lambda *_: None)\n"
)


@pytest.mark.skipif(os.name != "posix", reason="killed as on POSIX")
def test_a_kill_while_a_database_is_made_leaves_none(alone: Path) -> None:
    """The next one makes it, and takes away what was begun."""
    half = "def half(file):\n    import os\n    file.write_bytes(b'half'); os.kill(os.getpid(), 9)\n"
    code = OPENING.replace("print", f"{half}storages.make_database = half\nprint")
    done = subprocess.run([sys.executable, "-c", code], timeout=120, check=False, stdout=subprocess.DEVNULL)
    assert done.returncode == -9
    (left,) = alone.iterdir()
    assert left.name.endswith(".part")
    begun(alone)
    assert {each.name for each in alone.iterdir()} == {"optuna.db"}


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="killed as on POSIX")
def test_kills_at_any_moment_of_it(alone: Path) -> None:
    """At moments of the half a second or so that it takes."""
    draw, unmade = random.Random(0), 0
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", OPENING], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.read(1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(0, 0.8))
        process.kill()
        process.wait()
        process.stdout.close()
        unmade += not (alone / "optuna.db").exists()
        begun(alone)
        assert {each.name for each in alone.iterdir()} == {"optuna.db"}
        (alone / "optuna.db").unlink()
    assert unmade > 1


def test_several_that_make_it_at_once_make_one(alone: Path) -> None:
    """None puts its own in the place of one that holds a study already."""
    made = []
    original = storages.make_database

    def make(file: Path) -> None:
        original(file)
        made.append(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storages, "make_database", make)
        workers = [threading.Thread(target=begun, args=(alone,)) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert len(made) == 1
    storage = open_storage(f"sqlite:///{alone}/optuna.db", heartbeat=60, on_dead=lambda *_: None)
    assert [study.study_name for study in storage.get_all_studies()] == ["mine"]
