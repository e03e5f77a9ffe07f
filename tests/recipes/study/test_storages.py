from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from analogsim.recipes.study.folder import owned_folder
from analogsim.recipes.study.storages import (
    Lease,
    at_work,
    counted,
    open_storage,
    pruner,
    sampler,
    storage_url,
    surplus,
    work_left,
)

optuna = pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")
State = optuna.trial.TrialState


def study_of(*states: Any) -> Any:
    """A study with a trial in each of these states, in their order."""
    study = optuna.create_study()
    for state in states:
        values = [1.0] if state == State.COMPLETE else None
        study.add_trial(optuna.trial.create_trial(state=state, values=values))
    return study


def suggestions(text: str, seed: int, restart_after: int | None = None) -> list[float]:
    """What a study of ten trials tries, in one go or with a restart after some."""
    storage = optuna.storages.InMemoryStorage()
    tried: list[float] = []
    for count in (10,) if restart_after is None else (restart_after, 10 - restart_after):
        study = optuna.create_study(
            storage=storage, study_name="s", load_if_exists=True, sampler=sampler(text, seed), direction="maximize"
        )
        study.optimize(lambda trial: -((trial.suggest_float("x", -5, 5) - 1) ** 2), n_trials=count)
        tried = [trial.params["x"] for trial in study.trials]
    return tried


@pytest.fixture(autouse=True)
def silent() -> Any:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(verbosity)


@pytest.mark.parametrize("text", ["tpe", "tpe(n_startup_trials=3)", "random", "gp"])
def test_a_stopped_study_suggests_what_it_would_have_suggested(text: str) -> None:
    whole = suggestions(text, seed=1)
    assert suggestions(text, seed=1, restart_after=4) == whole
    assert suggestions(text, seed=2) != whole
    assert len(set(whole)) == 10


def test_two_workers_do_not_suggest_the_same() -> None:
    storage = optuna.storages.InMemoryStorage()
    studies = [
        optuna.create_study(storage=storage, study_name="s", load_if_exists=True, sampler=sampler("tpe", 0))
        for _ in range(2)
    ]
    assert len({study.ask().suggest_float("x", 0, 1) for study in studies}) == 2


@pytest.mark.parametrize("text", ["nsgaii", "nsgaiii", "qmc", "brute-force"])
def test_every_sampler_samples(text: str) -> None:
    study = optuna.create_study(sampler=sampler(text, 0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1, step=0.05), n_trials=5)
    assert len(study.trials) == 5


def test_pruners_know_how_long_a_trial_is() -> None:
    assert pruner("median", 20)._n_warmup_steps == 5
    assert pruner("median(n_warmup_steps=1)", 20)._n_warmup_steps == 1
    assert pruner("percentile", 20)._percentile == 25.0
    assert pruner("hyperband", 20)._max_resource == 20
    assert isinstance(pruner("none", 20), optuna.pruners.NopPruner)
    assert isinstance(pruner("successive-halving(reduction_factor=2)", 20), optuna.pruners.SuccessiveHalvingPruner)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: sampler("tep", 0), "study.sampler: unknown name 'tep', known are tpe, .*; did you mean 'tpe'"),
        (
            lambda: sampler("tpe(startup=3)", 0),
            "study.sampler: 'tpe' has no parameter 'startup'; it has .*n_startup_trials",
        ),
        (lambda: sampler("tpe(3)", 0), "study.sampler: parameters in .* need their names, such as n_startup_trials=20"),
        (lambda: sampler("tpe(", 0), "study.sampler: cannot read"),
        (lambda: pruner("mean", 5), "study.pruner: unknown name 'mean', known are median"),
        (
            lambda: pruner("percentile(percentile=200)", 5),
            "study.pruner: 'percentile.percentile=200.': Percentile must be",
        ),
        (lambda: storage_url("optuna.db"), "study.storage: 'optuna.db' is not the URL of a database; write sqlite:///"),
    ],
)
def test_what_is_wrong_is_told(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_the_storage_is_chosen(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    assert storage_url(None) == f"sqlite:///{alone}/optuna.db"
    assert storage_url("sqlite:///a/b.db?timeout=3") == f"sqlite:///{alone}/a/b.db?timeout=3"
    monkeypatch.setenv("OPTUNA_STORAGE", "postgresql+psycopg://me@host/name")
    assert storage_url(None) == "postgresql+psycopg://me@host/name"
    assert storage_url("sqlite:////x.db") == "sqlite:////x.db"


def test_a_storage_that_cannot_be_opened_is_told(tmp_path: Path, closed_port: int) -> None:
    def opened(url: str) -> None:
        open_storage(url, heartbeat=1, on_dead=lambda *_: None)

    with pytest.raises(ConnectionError, match=r"study.storage: cannot open sqlite:////.*unable to open database file"):
        opened(f"sqlite:///{tmp_path}/missing/optuna.db")
    with pytest.raises(ImportError, match=r"no driver for oracle://.*psycopg"):
        opened("oracle://host/name")
    (tmp_path / "text.db").write_text("no database at all, but long enough to be taken for one " * 20)
    with pytest.raises(ConnectionError, match="file is not a database"):
        opened(f"sqlite:///{tmp_path}/text.db")


def test_trials_that_failed_are_done_again() -> None:
    study = study_of(State.COMPLETE, State.PRUNED, State.FAIL, State.RUNNING, State.WAITING)
    assert counted(study.trials) == 4
    assert not work_left(study_of(State.COMPLETE, State.RUNNING), 2)
    assert work_left(study_of(State.COMPLETE, State.FAIL), 2)
    assert work_left(study_of(State.COMPLETE, State.COMPLETE, State.WAITING), 2)


def test_one_trial_too_many_is_seen_by_who_began_it() -> None:
    study = study_of(State.COMPLETE, State.FAIL, State.RUNNING, State.RUNNING)
    assert not surplus(study, 2, wanted=2)
    assert surplus(study, 3, wanted=2)
    assert not surplus(study, 3, wanted=3)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed to be used with Study.optimize")
def test_a_dead_worker_is_found_by_its_silence(tmp_path: Path) -> None:
    dead: list[int] = []
    storage = open_storage(
        f"sqlite:///{tmp_path}/o.db", heartbeat=1, on_dead=lambda _, trial: dead.append(trial.number)
    )
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
    assert at_work(study) == 1
    deadline = time.monotonic() + 60
    while at_work(study):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert dead == [0]
    assert study.trials[0].state == State.FAIL


def test_one_worker_at_a_time_holds_a_lease() -> None:
    study = optuna.create_study()
    inside, most, done = 0, 0, []
    guard = threading.Lock()

    def work(name: int) -> None:
        nonlocal inside, most
        with Lease(study, "it", beat=1).held(lambda: len(done) == 2) as ours:
            if ours:
                with guard:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.3)
                with guard:
                    inside -= 1
                    done.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == 1
    assert len(done) == 2  # what is done need not be done again
    assert study.user_attrs["it"] is None


def test_the_lease_of_a_dead_worker_is_taken_over() -> None:
    study = optuna.create_study()
    study.set_user_attr("it", ["somebody who died", 3])
    began = time.monotonic()
    with Lease(study, "it", beat=0.1).held(lambda: False) as ours:
        assert ours
        assert time.monotonic() - began > 0.4
        first = study.user_attrs["it"]
        deadline = time.monotonic() + 30
        while study.user_attrs["it"] == first:  # renewed, for the others to see
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_lease_is_given_back_when_work_fails() -> None:
    study = optuna.create_study()
    with pytest.raises(KeyError), Lease(study, "it", beat=1).held(lambda: False):
        raise KeyError
    assert study.user_attrs["it"] is None


def test_a_folder_belongs_to_one_study(tmp_path: Path) -> None:
    first = owned_folder(tmp_path / "runs", "a", "one")
    assert (first, owned_folder(tmp_path / "runs", "a", "one")) == (tmp_path / "runs" / "a", first)
    (tmp_path / "runs" / "a-2").mkdir()  # somebody else's, without a mark
    assert owned_folder(tmp_path / "runs", "a", "two") == tmp_path / "runs" / "a-3"
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["a", "a-2", "a-3"]


def test_threads_that_ask_at_once_get_the_same_folder(tmp_path: Path) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(owned_folder(tmp_path, "a", "me"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(found) == {tmp_path / "a"}
    assert len(found) == 8
