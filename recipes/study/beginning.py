"""A study is begun once, by one worker: with settings, a metric and a run that all others go on with."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from analogsim.errors import InvalidValueError
from analogsim.recipes.config.options import STUDY_SHORT, StudyConfig
from analogsim.recipes.config.space import Space
from analogsim.recipes.config.stored import completed, from_stored
from analogsim.recipes.config.toml import flatten, to_mapping
from analogsim.recipes.config.trial_config import training_config
from analogsim.recipes.study.criterion import Criterion
from analogsim.recipes.study.folder import study_name
from analogsim.recipes.study.lease import Lease
from analogsim.recipes.study.runs import StudyRuns
from analogsim.recipes.study.samplers import pruner, sampler
from analogsim.recipes.study.shared_database import storage_explained
from analogsim.recipes.study.storages import database_file, open_storage, quietly, storage_url
from analogsim.recipes.study.trials import DEFAULT
from analogsim.recipes.tasks.data_sets import names_code
from analogsim.recipes.tasks.references import is_reference, refuse_unnamed
from analogsim.recipes.tracking.stores import shown

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

_CONFIG, _METRIC = "analogsim:config", "analogsim:metric"
# What another worker of a study, or a later one, may have different: nothing of it changes what is searched.
_FREE = (
    *("run_on", "out", "data.folder", "data.download", "tracking.", "evaluation.chips"),
    *("study.name", "study.storage", "study.trials", "study.timeout", "study.heartbeat", "study.retries"),
    *("study.sampler", "study.pruner", "study.final_seeds"),
)
_ACCURACY = {"metric": "accuracy", "unit": "%", "better": "higher"}  # what studies went by that do not say


def stored_settings(config: StudyConfig) -> dict[str, Any] | None:
    """What the study of this name was begun with; None where there is no such study."""
    url = storage_url(config.study.storage)
    file = database_file(url)
    if file is not None and not file.exists():  # opening it would make it
        return None
    with storage_explained(url):
        storage = open_storage(url, heartbeat=config.study.heartbeat, on_dead=lambda *_: None)
        for summary in storage.get_all_studies():
            if summary.study_name == study_name(config) and _CONFIG in summary.user_attrs:
                return completed(json.loads(summary.user_attrs[_CONFIG]))
    return None


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested tables in one; a search space is one thing and not merged."""
    both = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(both.get(key), Mapping) and key != "search"
        both[key] = merged(both[key], value) if nested else value
    return both


def refuse_code(begun: Mapping[str, Any], given: Mapping[str, Any], name: str) -> None:
    """Refuse a study whose settings name code that the command does not name: that is only run when it is asked for.

    Args:
        begun: what the study was begun with.
        given: what the command says.
        name: of the study.

    Raises:
        ValueError: with the options that name it.
    """
    code = {option: text for option, (setting, text) in code_in(begun).items() if _at(given, setting) != text}
    command, where = f"analogsim tune --study {shlex.quote(name)}", f"study {name!r}"
    refuse_unnamed(code, command, where)
    searched = [] if "search" in given else [text for text in _choices(begun.get("search", {})) if is_reference(text)]
    if searched:
        raise InvalidValueError(
            f"{where} searches among code, {', '.join(searched)}, which is only run when you name it yourself: give "
            "the configuration file with its [search] again, or --trust, for all that the study names"
        )


def code_in(settings: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The code that nested settings name: by the option for it, the setting and the text."""
    texts = {option: (setting, _at(settings, setting)) for option, (setting, _) in STUDY_SHORT.items()}
    return {
        option: (setting, text)
        for option, (setting, text) in texts.items()
        if (names_code if option == "data" else is_reference)(text)
    }


def _at(settings: Mapping[str, Any], name: str) -> Any:
    """The value of a setting in nested tables; None where it is not said."""
    value: Any = settings
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _choices(space: Mapping[str, Any]) -> Iterator[Any]:
    """All values that a search space, as it is stored, gives to choose from."""
    for key, inner in space.items():
        if isinstance(inner, Mapping):
            yield from _choices(inner)
        elif key == "choices":
            yield from inner


def open_study(
    config: StudyConfig, rule: Criterion, runs: StudyRuns, on_dead: Callable[[optuna.Study, FrozenTrial], None]
) -> optuna.Study:
    """Open the study, or begin it: then one worker says what it is about and makes its run, and the others wait."""
    import optuna

    url = storage_url(config.study.storage)
    study = optuna.create_study(
        storage=open_storage(url, heartbeat=config.study.heartbeat, on_dead=on_dead),
        study_name=study_name(config),
        load_if_exists=True,
        directions=rule.directions,
        sampler=sampler(config.study.sampler, config.study.seed),
        pruner=pruner(config.study.pruner, config.optimization.epochs),
    )
    lease = Lease(study, "analogsim:beginning", config.study.heartbeat)
    with lease.held(lambda: _CONFIG in study.user_attrs and runs.opened(study)) as ours:
        if ours:
            new = _CONFIG not in study.user_attrs
            if new and any(DEFAULT not in trial.user_attrs for trial in study.get_trials(deepcopy=False)):
                raise InvalidValueError(
                    f"study.name: {study.study_name!r} is a study that analogsim tune did not begin; choose another"
                )
            if not new:  # whose run was not made yet
                _check_same(study, config, rule)
            runs.open(study)
            if new:
                with quietly():
                    study.set_metric_names(rule.names)
                study.set_user_attr(_METRIC, rule.described())
                _enqueue_default(study, config)
                study.set_user_attr(_CONFIG, json.dumps(to_mapping(without_secrets(config))))
        else:
            _check_same(study, config, rule)
            runs.open(study)
    return study


def _enqueue_default(study: optuna.Study, config: StudyConfig) -> None:
    """Make the values of the configuration the first trial, where the search space holds them."""
    given = flatten(training_config(config))
    wanted = config.study.default_first and all(part.holds(given[name]) for name, part in config.search.parts)
    if wanted and not study.get_trials(deepcopy=False):
        study.enqueue_trial({name: given[name] for name, _ in config.search.parts}, user_attrs={DEFAULT: True})


def without_secrets(config: StudyConfig) -> StudyConfig:
    """What may be kept where others read it: an address may hold a password."""
    uri = None if config.tracking.uri is None else shown(config.tracking.uri)
    return replace(config, study=replace(config.study, storage=None), tracking=replace(config.tracking, uri=uri))


def _check_same(study: optuna.Study, config: StudyConfig, rule: Criterion) -> None:
    name = study.study_name
    begun = flatten(from_stored(StudyConfig, json.loads(study.user_attrs[_CONFIG]), f"study {name!r}"))
    for key, value in flatten(config).items():
        if begun[key] != value and not key.startswith(_FREE):
            raise InvalidValueError(
                f"study {name!r} was begun with {key}={_said(begun[key])}, now it is {_said(value)}; go on with "
                f"`analogsim tune --study {name}`, or give this one another name with --study"
            )
    known = study.user_attrs.get(_METRIC) or _ACCURACY
    if known != rule.described():  # of the task, or of a metric of the user's own, which the settings only name
        before, now = (
            ", ".join(f"{word}: {said}" for word, said in each.items()) for each in (known, rule.described())
        )
        raise InvalidValueError(
            f"study {name!r} was begun by another metric ({before}; now {now}); give this one another name with --study"
        )


def _said(value: Any) -> str:
    if isinstance(value, Space):
        return "; ".join(f"{name}: {part}" for name, part in value.parts)
    return repr(value)
