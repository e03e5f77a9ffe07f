from __future__ import annotations

import sys
from typing import Any

import pytest

from analogsim.recipes.study.samplers import pruner, sampler, try_out

optuna = pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")


@pytest.fixture(autouse=True)
def silent() -> Any:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(verbosity)


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


@pytest.mark.parametrize("text", ["tpe", "tpe(n_startup_trials=3)", "random", "gp"])
def test_a_stopped_study_suggests_what_it_would_have_suggested(text: str) -> None:
    whole = suggestions(text, seed=1)
    assert suggestions(text, seed=1, restart_after=4) == whole
    assert suggestions(text, seed=2) != whole
    assert len(set(whole)) == 10


@pytest.mark.parametrize("text", ["tpe(seed=3)", "random(seed=3)"])
def test_a_sampler_with_a_seed_of_its_own_keeps_to_it(text: str) -> None:
    whole = suggestions(text, seed=1)
    assert suggestions(text, seed=2) == whole
    assert len(set(whole)) == 10  # one stream, not the same start for each trial
    assert suggestions("tpe(seed=4)", seed=1) != whole


def test_a_sampler_hears_of_each_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it and after it, with its end: samplers that keep constraints or caches live by that."""
    heard: list[tuple[object, ...]] = []

    class Listening(optuna.samplers.RandomSampler):  # type: ignore[misc]
        def before_trial(self, study: Any, trial: Any) -> None:
            heard.append(("before", trial.number))

        def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
            heard.append(("after", trial.number, state.name, values))

    monkeypatch.setattr(optuna.samplers, "RandomSampler", Listening)
    study = optuna.create_study(sampler=sampler("random", 0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1) * 0 + trial.number, n_trials=2)
    expected = [(("before", number), ("after", number, "COMPLETE", [float(number)])) for number in range(2)]
    assert heard == [event for pair in expected for event in pair]


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
    assert pruner("percentile", 20)._n_warmup_steps == 5
    assert pruner("percentile(percentile=50.0, n_warmup_steps=0)", 20)._percentile == 50.0
    assert pruner("median", 3)._n_warmup_steps == 0  # the first quarter, in whole epochs
    assert pruner("hyperband", 20)._max_resource == 20
    assert pruner("hyperband", 1)._max_resource == 2  # the least that Optuna takes
    assert pruner("hyperband(max_resource=7)", 20)._max_resource == 7
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
        (lambda: sampler("tpe(gamma=3)", 0), "study.sampler: gamma of 'tpe': is a Callable, which cannot be said here"),
        (lambda: sampler("tpe(n_startup_trials=2.5)", 0), r"n_startup_trials of 'tpe': must be of type int, got 2.5"),
        (lambda: sampler("tpe(group='no')", 0), "group of 'tpe': must be of type bool, got 'no'"),
        (lambda: sampler("gp(deterministic_objective=1)", 0), "deterministic_objective of 'gp': must be of type bool"),
        (lambda: sampler("cmaes(sigma0=1e999)", 0), "sigma0 of 'cmaes': must be of type float, got inf"),
        (lambda: pruner("median(n_startup_trials='a')", 5), "n_startup_trials of 'median': must be of type int"),
        (lambda: pruner("hyperband(max_resource=None)", 5), "max_resource of 'hyperband': must be of type str or int"),
    ],
)
def test_what_is_wrong_is_told(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def distributions() -> dict[str, Any]:
    return {
        "x": optuna.distributions.FloatDistribution(0.1, 2.0, log=True),
        "n": optuna.distributions.IntDistribution(1, 4),
        "kind": optuna.distributions.CategoricalDistribution(("a", "b")),
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tpe(n_ei_candidates=0)", "study.sampler: .* cannot choose: "),
        ("tpe(n_startup_trials=500, n_ei_candidates=0)", "study.sampler: .* cannot choose: "),
        ("nsgaii(crossover_prob=7)", "study.sampler: 'nsgaii.crossover_prob=7.': "),
        ("qmc(qmc_type='sobel')", "study.sampler: .qmc.* is invalid"),
    ],
)
def test_what_shows_when_it_chooses_is_told_at_once(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        try_out(text, "median", distributions(), many=False)


def test_a_package_that_is_not_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna looks for it when the second trial begins."""
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(ImportError, match="'cmaes' needs cmaes, which is not installed: pip install cmaes"):
        try_out("cmaes", "median", distributions(), many=False)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("text", ["tpe(multivariate=True)", "gp", "random(seed=3)", "nsgaii(seed=None)"])
def test_what_chooses_is_let_through(text: str, many: bool) -> None:
    before = optuna.logging.get_verbosity()
    try_out(text, "percentile(percentile=50)", distributions(), many=many)
    assert optuna.logging.get_verbosity() == before
