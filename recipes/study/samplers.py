"""Who suggests the settings of a trial and who ends those that fall behind: Optuna's samplers and pruners by text."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from analogsim.errors import AnalogsimError, InvalidValueError, MissingPackageError
from analogsim.recipes.study.storages import quietly
from analogsim.utils.text import named_call

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

# Samplers whose choice depends on their seed and the trials before, and on nothing that they would have to keep.
_PER_TRIAL = {"tpe": "TPESampler", "gp": "GPSampler", "random": "RandomSampler"}
_SAMPLERS = {
    **_PER_TRIAL,
    "cmaes": "CmaEsSampler",
    "nsgaii": "NSGAIISampler",
    "nsgaiii": "NSGAIIISampler",
    "qmc": "QMCSampler",
    "brute-force": "BruteForceSampler",
}
_FEW = 12  # trials after which every sampler has left those that it draws by chance
_PRUNERS = {
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "hyperband": "HyperbandPruner",
    "successive-halving": "SuccessiveHalvingPruner",
    "none": "NopPruner",
}


def sampler(text: str, seed: int) -> BaseSampler:
    """The sampler that a text such as ``"tpe"`` or ``"tpe(n_startup_trials=20)"`` names.

    Raises:
        ValueError: an unknown name or parameter.
        ImportError: it needs a package that is not installed.
    """
    import optuna

    name, arguments = named_call(text, "study.sampler", "n_startup_trials=20")
    make = _factory("study.sampler", name, _SAMPLERS, optuna.samplers, arguments)

    def seeded(number: int) -> BaseSampler:
        with quietly():
            made: BaseSampler = make(**{"seed": number, **arguments})
            return made

    try:
        first = seeded(seed)
    except (TypeError, ValueError) as error:
        raise InvalidValueError(f"study.sampler: {text!r}: {error}") from error
    return _seeded_by_trial(seeded, seed) if name in _PER_TRIAL and "seed" not in arguments else first


def _seeded_by_trial(make: Callable[[int], BaseSampler], seed: int) -> BaseSampler:
    """A sampler that draws for trial k from a stream of its own.

    With one seed for all, two workers would suggest the same; with a stream that goes on from trial to trial, a study
    that was stopped would suggest something else than one that was not.
    """
    import optuna

    class SeededByTrial(optuna.samplers.BaseSampler):
        def __init__(self) -> None:
            self._inner = make(seed)

        def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Any:
            digest = hashlib.sha256(f"{seed}/{trial.number}".encode()).digest()
            self._inner = make(int.from_bytes(digest[:4], "big"))
            return self._inner.infer_relative_search_space(study, trial)

        def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
            return self._inner.sample_relative(study, trial, search_space)

        def sample_independent(
            self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
        ) -> Any:
            return self._inner.sample_independent(study, trial, param_name, param_distribution)

        def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
            self._inner.before_trial(study, trial)

        def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: Any, values: Any) -> None:
            self._inner.after_trial(study, trial, state, values)

    return SeededByTrial()


def pruner(text: str, epochs: int) -> BasePruner:
    """The pruner that a text such as ``"median"`` or ``"hyperband(reduction_factor=4)"`` names.

    Median and percentile leave the first quarter of the epochs alone unless told otherwise, since the noise grows
    during them; hyperband is told how many epochs there are.

    Raises:
        ValueError: an unknown name or parameter.
    """
    import optuna

    name, arguments = named_call(text, "study.pruner", "n_startup_trials=5")
    make = _factory("study.pruner", name, _PRUNERS, optuna.pruners, arguments)
    ours: dict[str, dict[str, Any]] = {
        "median": {"n_warmup_steps": epochs // 4},
        "percentile": {"percentile": 25.0, "n_warmup_steps": epochs // 4},
        "hyperband": {"max_resource": max(2, epochs)},
    }
    try:
        made: BasePruner = make(**{**ours.get(name, {}), **arguments})
    except (TypeError, ValueError) as error:
        raise InvalidValueError(f"study.pruner: {text!r}: {error}") from error
    return made


def _factory(
    what: str, name: str, known: Mapping[str, str], module: Any, arguments: Mapping[str, Any]
) -> Callable[..., Any]:
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.4)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        raise InvalidValueError(f"{what}: unknown name {name!r}, known are {', '.join(known)}{guess}")
    make: Callable[..., Any] = getattr(module, known[name])
    has = {word: part for word, part in inspect.signature(make).parameters.items() if word not in ("args", "kwargs")}
    for word, value in arguments.items():
        if word not in has:
            raise InvalidValueError(f"{what}: {name!r} has no parameter {word!r}; it has {', '.join(has) or 'none'}")
        _check_kind(f"{what}: {word} of {name!r}", has[word].annotation, value)
    return make


def _check_kind(what: str, annotation: Any, value: object) -> None:
    """Refuse a value that is not of the kind that Optuna writes beside the parameter, and takes without a look."""
    written = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    kinds = [part.strip() for part in written.split("|")]
    plain = [kind for kind in kinds if kind in ("int", "float", "str", "bool")]
    if value is None and "None" in kinds:
        return
    if not plain:
        if isinstance(value, dict) and written.startswith("dict"):
            return
        raise InvalidValueError(f"{what}: is a {kinds[0].partition('[')[0]}, which cannot be said here; leave it out")
    fits = type(value).__name__ in plain or (type(value) is int and "float" in plain)
    if not fits or (isinstance(value, float) and not math.isfinite(value)):
        raise InvalidValueError(f"{what}: must be of type {' or '.join(plain)}, got {value!r}")


def try_out(sampler_text: str, pruner_text: str, distributions: Mapping[str, BaseDistribution], many: bool) -> None:
    """Let a sampler and a pruner choose a few times, on a study in memory.

    Args:
        sampler_text: see `sampler`.
        pruner_text: see `pruner`.
        distributions: of what is searched.
        many: whether there are two objectives.

    Raises:
        ValueError: they cannot, with what they are told.
        ImportError: the sampler needs a package that is not installed.
    """
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come again with the study
            _choose_a_few(sampler_text, pruner_text, dict(distributions), 1 + many)
    finally:
        optuna.logging.set_verbosity(verbosity)


def _choose_a_few(
    sampler_text: str, pruner_text: str, distributions: dict[str, BaseDistribution], objectives: int
) -> None:
    import optuna

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), directions=["maximize"] * objectives)
    for value in range(_FEW):
        trial = study.ask(distributions)
        if objectives == 1:
            trial.report(value, 0)
        study.tell(trial, [float(value)] * objectives)
    name, arguments = named_call(sampler_text, "study.sampler", "n_startup_trials=20")
    if "n_startup_trials" in arguments:  # what comes after them is what can go wrong
        rest = ", ".join(f"{word}={value!r}" for word, value in arguments.items() if word != "n_startup_trials")
        sampler_text = f"{name}({', '.join(filter(None, (rest, 'n_startup_trials=1')))})"
    what = "sampler"
    try:
        study.sampler = sampler(sampler_text, 0)
        trial = study.ask(distributions)
        what = "pruner"
        study.pruner = pruner(pruner_text, 4)
        if objectives == 1:
            trial.report(0.0, 0)
            trial.should_prune()
    except AnalogsimError:
        raise
    except ImportError as error:
        package = error.name or "the package"
        raise MissingPackageError(
            f"study.{what}: {name!r} needs {package}, which is not installed: pip install {package}"
        ) from error
    except Exception as error:
        told = sampler_text if what == "sampler" else pruner_text
        raise InvalidValueError(f"study.{what}: {told!r} cannot choose: {error}") from error
