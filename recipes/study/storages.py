"""An Optuna study that many workers share: opening it, who samples and prunes, how many trials are left to do."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import inspect
import os
import re
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analogsim.recipes.study import shared_database
from analogsim.recipes.tracking import stores
from analogsim.utils.text import named_call

if TYPE_CHECKING:
    import optuna
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

_EXTRA = 'pip install "analogsim-torch[recipes]"'
_LOCKED = 120  # seconds to wait for an SQLite file that another process has locked
_SILENT = 4  # heartbeats without a sign of life after which a worker is dead
_ID = "analogsim:id"
DEFAULT = "default"  # the attribute of the trial that has the values of the configuration
_OPENING = 10  # attempts to make the tables, which several workers may do at once

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
_PRUNERS = {
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "hyperband": "HyperbandPruner",
    "successive-halving": "SuccessiveHalvingPruner",
    "none": "NopPruner",
}


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without the warnings by which Optuna marks parts of itself as experimental."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def storage_url(given: str | None) -> str:
    """Choose the storage: `given`, else ``OPTUNA_STORAGE``, else ``optuna.db`` in the working directory.

    The path of an SQLite file is made absolute, so that it stays the same when the directory changes.

    Raises:
        ValueError: it is not the URL of a database.
    """
    url = given or os.environ.get("OPTUNA_STORAGE") or "sqlite:///optuna.db"
    if not re.match(r"[a-z][\w+]*://", url):
        raise ValueError(
            f"study.storage: {url!r} is not the URL of a database; write sqlite:///optuna.db, or "
            "postgresql+psycopg://user@host/name for several machines"
        )
    file = database_file(url)
    if file is None:
        return url
    _, mark, options = url.partition("?")
    return f"sqlite:///{file.absolute().as_posix()}{mark}{options}"


def database_file(url: str) -> Path | None:
    """The file of an SQLite database; None for a server, or one in memory."""
    if not url.startswith("sqlite:///") or url.startswith("sqlite:///:memory:"):
        return None
    return Path(url.removeprefix("sqlite:///").partition("?")[0])


def open_storage(url: str, *, heartbeat: int, on_dead: Callable[[optuna.Study, FrozenTrial], None]) -> BaseStorage:
    """Open the storage, made if there is none.

    Args:
        url: from `storage_url`.
        heartbeat: seconds between the signs of life of a worker.
        on_dead: called once with each trial whose worker has died.

    Raises:
        ConnectionError: it does not answer, cannot be made or cannot be written.
        ImportError: Optuna or the database's driver is not installed.
    """
    try:
        from optuna.storages import RDBStorage
    except ImportError as error:
        raise ImportError(f"analogsim tune needs optuna: {_EXTRA}") from error
    began = time.monotonic()
    for attempt in range(_OPENING):
        try:
            with quietly():
                storage = RDBStorage(
                    url,
                    engine_kwargs=shared_database.connect_options(url, _LOCKED),
                    heartbeat_interval=heartbeat,
                    grace_period=_SILENT * heartbeat,
                    heartbeat_stale_trial_callback=on_dead,
                )
            shared_database.harden(storage)
            return storage
        except ImportError as error:
            raise ImportError(
                f"study.storage: no driver for {stores.shown(url)}: {stores.brief(error)}; for PostgreSQL: "
                'pip install "psycopg[binary]" and write postgresql+psycopg://...'
            ) from error
        except Exception as error:
            # Two workers that make the same tables: the second finds them made when it tries again.
            tried = attempt == _OPENING - 1 or time.monotonic() - began > _LOCKED
            if tried or not re.search(r"exists|UNIQUE|locked|duplicate", str(error)):
                raise ConnectionError(
                    f"study.storage: cannot open {stores.shown(url)}: {stores.brief(error)}; is the server up, does "
                    "the folder exist, may it be written?"
                ) from error
            time.sleep(0.2 * (attempt + 1))
    raise AssertionError("unreachable")


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
        raise ValueError(f"study.sampler: {text!r}: {error}") from error
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
        raise ValueError(f"study.pruner: {text!r}: {error}") from error
    return made


def _factory(
    what: str, name: str, known: Mapping[str, str], module: Any, arguments: Mapping[str, Any]
) -> Callable[..., Any]:
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.4)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{what}: unknown name {name!r}, known are {', '.join(known)}{guess}")
    make: Callable[..., Any] = getattr(module, known[name])
    has = [word for word in inspect.signature(make).parameters if word not in ("args", "kwargs")]
    for word in arguments:
        if word not in has:
            raise ValueError(f"{what}: {name!r} has no parameter {word!r}; it has {', '.join(has) or 'none'}")
    return make


def counted(trials: Sequence[FrozenTrial]) -> int:
    """How many trials are done, at work or waiting; one that failed is as if it had never been."""
    from optuna.trial import TrialState

    return sum(trial.state != TrialState.FAIL for trial in trials)


def work_left(study: optuna.Study, wanted: int) -> bool:
    """Whether there is a trial to be started: one that waits, or one fewer than wanted."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    return any(trial.state == TrialState.WAITING for trial in trials) or counted(trials) < wanted


def surplus(study: optuna.Study, number: int, wanted: int) -> bool:
    """Whether trial `number`, already begun, is one too many: two workers may have seen the same last place free."""
    return counted([trial for trial in study.get_trials(deepcopy=False) if trial.number < number]) >= wanted


def at_work(study: optuna.Study) -> int:
    """How many trials are being worked on; the dead among them are given up first."""
    import optuna
    from optuna.trial import TrialState

    with quietly():
        optuna.storages.fail_stale_trials(study)
    shared_database.first_beats(study)
    return sum(trial.state == TrialState.RUNNING for trial in study.get_trials(deepcopy=False))


def try_again(study: optuna.Study, trial: FrozenTrial, retries: int | None = None) -> None:
    """Put a trial that was given up back into the queue, once, unless it was tried that often already."""
    import optuna

    if shared_database.retried(study, trial.number):
        return
    # How it was measured and where it lies is its own; the next one tells its own.
    trial.user_attrs = {key: value for key, value in trial.user_attrs.items() if key == DEFAULT}
    with quietly():
        optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=retries)(study, trial)


def give_up(study: optuna.Study, number: int, retries: int | None = None) -> None:
    """End a trial of this worker that it cannot finish, so that it is tried again at once."""
    from optuna.trial import TrialState

    if study.get_trials(deepcopy=False)[number].state == TrialState.RUNNING:
        study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
    trial = study.get_trials()[number]
    if trial.state == TrialState.FAIL:
        try_again(study, trial, retries)


def identity(study: optuna.Study) -> str:
    """What tells a study from another one of the same name."""
    if _ID not in study.user_attrs:
        shared_database.exchange(study, _ID, None, uuid.uuid4().hex)
    return str(study.user_attrs[_ID])


class LostLease(RuntimeError):  # noqa: N818 - what another worker goes on with is no error
    """The others took this worker for dead, and one of them does what it was doing."""


class Lease:
    """Something that one worker of a study at a time may do; if it dies, another may.

    The holder renews an attribute of the study every `beat` seconds. Whoever wants it watches that attribute by its own
    clock, so that the clocks of several machines do not have to agree.

    Args:
        study: the study.
        name: of the attribute.
        beat: seconds.
    """

    def __init__(self, study: optuna.Study, name: str, beat: float) -> None:
        self._study = study
        self._name = name
        self._beat = beat
        self._me = uuid.uuid4().hex
        self._mine: list[Any] | None = None
        self._lost = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def held(self, unless: Callable[[], bool]) -> Iterator[bool]:
        """Wait for the lease and hold it for the block; False, without it, once ``unless()`` is true."""
        self._mine, self._lost = None, False
        seen, since = None, time.monotonic()
        while True:
            if unless():
                yield False
                return
            asked = time.monotonic()
            now = self._study.user_attrs.get(self._name)
            # Where the answer took long the storage was away, and the holder could not give a sign of life either.
            if now != seen or time.monotonic() - asked > self._beat:
                seen, since = now, time.monotonic()
            if (now is None or time.monotonic() - since > _SILENT * self._beat) and self._write(now, 0):
                break
            time.sleep(min(1.0, self._beat / 2))
        stop = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(stop,), daemon=True)
        renewing.start()
        try:
            yield not unless()  # what another did while we took the lease need not be done again
        finally:
            stop.set()
            renewing.join()
            self._write(self._mine, None)

    def free(self) -> bool:
        """Whether nobody else has it; one who died has it until somebody waits for it."""
        with self._lock:
            now = self._study.user_attrs.get(self._name)
            return now is None or now == self._mine

    def check(self) -> None:
        """Make sure that it is still held.

        Raises:
            LostLease: this worker was silent for so long that another has taken it.
        """
        with self._lock:
            held = not self._lost and self._study.user_attrs.get(self._name) == self._mine
        if not held:
            raise LostLease(f"{self._name}: another worker has taken it over")

    def _write(self, old: Any, count: int | None) -> bool:
        new = None if count is None else [self._me, count]
        with self._lock:
            if not shared_database.exchange(self._study, self._name, old, new):
                return False
            self._mine = new
            return True

    def _renew(self, stop: threading.Event) -> None:
        count = 0
        while not stop.wait(self._beat) and not self._lost:
            count += 1
            with contextlib.suppress(*shared_database.storage_errors()):  # the next beat comes
                self._lost = not self._write(self._mine, count)
